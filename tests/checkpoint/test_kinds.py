"""The reference's checkpoints and Hugging Face's, each tensor to where it belongs."""

from __future__ import annotations

import argparse
import functools
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from detr_d2.engine.checkpointer import StrictCheckpointer

BOXES = {"MODEL.DETR.MASK_ON": False}
LEARNED = {"MODEL.DETR.POSITION_EMBEDDING": "learned"}
PRE_NORM = {"MODEL.DETR.PRE_NORM": True}


def below(prefix: str, tensors: dict[str, torch.Tensor]) -> OrderedDict:
    return OrderedDict((prefix + name, tensor) for name, tensor in tensors.items())


@pytest.fixture
def load(tmp_path, make_model):
    """Saves a file and loads it: ``load(content, overrides)`` gives the model and what is left."""

    def run(content: dict, overrides: dict):
        path, model = tmp_path / "weights.pth", make_model(overrides)
        torch.save(content, path)
        return model, StrictCheckpointer(model).load(str(path))

    return run


# --- The reference ---


@pytest.mark.parametrize(
    ("parts", "overrides"),
    [
        ({}, BOXES),
        ({"learned": True}, {**BOXES, **LEARNED}),
        ({"pre_norm": True}, {**BOXES, **PRE_NORM}),
        ({"masks": True}, {}),
        ({"masks": True, "learned": True, "pre_norm": True}, {**LEARNED, **PRE_NORM}),
    ],
    ids=["boxes", "boxes, learned", "boxes, pre-norm", "masks", "masks, learned, pre-norm"],
)
def test_the_reference(load, make_reference, expected_of_reference, assert_holds, parts, overrides):
    reference = make_reference(**parts)
    model, rest = load({"model": reference.state_dict()}, overrides)
    assert_holds(model, expected_of_reference(reference))
    assert rest == {}


def test_names_of_the_reference(make_reference):
    """Those of the released files, as far as they tell the kinds apart."""
    detector, panoptic = make_reference(learned=True), make_reference(masks=True)
    assert detector.state_dict().keys() >= {
        "transformer.encoder.layers.1.self_attn.in_proj_weight",
        "transformer.encoder.layers.0.self_attn.out_proj.bias",
        "transformer.decoder.layers.2.multihead_attn.in_proj_bias",
        "transformer.decoder.layers.0.linear2.weight",
        "transformer.decoder.norm.weight",
        "class_embed.weight",
        "bbox_embed.layers.2.bias",
        "query_embed.weight",
        "input_proj.weight",
        "backbone.0.body.bn1.running_var",
        "backbone.0.body.layer1.0.downsample.1.weight",
        "backbone.0.body.layer3.5.conv3.weight",
        "backbone.1.row_embed.weight",
    }
    assert not [name for name in detector.state_dict() if "num_batches_tracked" in name]
    assert panoptic.state_dict().keys() >= {
        "detr.transformer.decoder.layers.0.norm3.bias",
        "detr.backbone.0.body.conv1.weight",
        "mask_head.lay5.weight",
        "mask_head.gn1.bias",
        "mask_head.adapter3.weight",
        "mask_head.out_lay.bias",
        "bbox_attention.q_linear.weight",
    }


@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
def test_training_checkpoints_of_the_reference(
    load, make_reference, expected_of_reference, assert_holds, masks
):
    reference = make_reference(masks=masks, pre_norm=True)
    optimizer = torch.optim.AdamW(reference.parameters())
    arguments = {"lr": 1e-4, "nheads": 8, "pre_norm": True, "dilation": False, "masks": masks}
    content = {
        "model": reference.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 200).state_dict(),
        "epoch": 299,
        "args": argparse.Namespace(**arguments, position_embedding="sine", frozen_weights=None),
    }
    model, rest = load(content, {**PRE_NORM, "MODEL.DETR.MASK_ON": masks})
    assert_holds(model, expected_of_reference(reference))
    assert rest.keys() == {"optimizer", "lr_scheduler", "epoch", "args"}
    assert rest["args"] == content["args"]


@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
def test_the_references_detectron2_wrapper(
    load, make_reference, expected_of_reference, assert_holds, masks
):
    reference = make_reference(masks=masks, detectron2=True)
    weights = below("detr.", reference.state_dict())
    inner = "detr.detr." if masks else "detr."
    assert weights.keys() >= {
        f"{inner}backbone.0.backbone.stem.conv1.norm.running_mean",
        f"{inner}backbone.0.backbone.res2.0.shortcut.weight",
    }
    assert not masks or "detr.bbox_attention.k_linear.weight" in weights
    weights["criterion.empty_weight"] = torch.tensor([1.0] * 6 + [0.1])
    content = {"model": weights, "optimizer": {}, "scheduler": {}, "iteration": 299999}
    model, rest = load(content, {"MODEL.DETR.MASK_ON": masks})
    assert_holds(model, expected_of_reference(reference))
    assert rest == {"optimizer": {}, "scheduler": {}, "iteration": 299999}


@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
@torch.no_grad()
def test_loaded_layers_compute_what_pytorchs_do(load, make_reference, pre_norm):
    """Where no positions are added; PyTorch's layers are those that the reference is made of."""
    reference = make_reference(pre_norm=pre_norm)
    model, _ = load({"model": reference.state_dict()}, {**BOXES, "MODEL.DETR.PRE_NORM": pre_norm})
    ours, theirs = model.detector.transformer, reference.transformer
    memory, queries = torch.randn(2, 11, 32), torch.randn(2, 5, 32)
    padding = torch.arange(11) > torch.tensor([[10], [7]])
    attend, zero = ~padding[:, None, None], torch.zeros(())
    for own, layer in zip(ours.encoder_layers, theirs.encoder.layers, strict=True):
        expected = layer(memory, src_key_padding_mask=padding)
        valid = ~padding  # PyTorch leaves out what is padding
        torch.testing.assert_close(own(memory, zero, attend)[valid], expected[valid])
    for own, layer in zip(ours.decoder_layers, theirs.decoder.layers, strict=True):
        expected = layer(queries, memory, memory_key_padding_mask=padding)
        torch.testing.assert_close(own(queries, zero, memory, memory, attend), expected)
    first, second, third = reference.bbox_embed.layers
    expected = third(second(first(queries).relu()).relu())
    torch.testing.assert_close(model.detector.box_head(queries), expected)


@torch.no_grad()
def test_loaded_attention_maps_are_the_references(load, make_reference):
    """Written as the reference has it: keys by a 1×1 convolution, one softmax for all heads."""
    reference = make_reference(masks=True)
    model, _ = load({"model": reference.state_dict()}, {})
    queries, memory = torch.randn(2, 5, 32), torch.randn(2, 32, 3, 4)
    linear = reference.bbox_attention.k_linear
    keys = F.conv2d(memory, linear.weight[..., None, None], linear.bias).view(2, 8, 4, 3, 4)
    asked = reference.bbox_attention.q_linear(queries).view(2, 5, 8, 4)
    maps = torch.einsum("bqnc,bnchw->bqnhw", asked / 2, keys)  # √4: the width of a head
    expected = maps.flatten(2).softmax(-1).view_as(maps)
    torch.testing.assert_close(model.mask_head.attention_map(queries, memory, None), expected)


# --- Hugging Face ---


def put_hugging_face(expected, theirs: nn.Module) -> None:
    """Where the tensors of a model of transformers' belong, by its modules."""
    masks = hasattr(theirs, "mask_head")
    detector = theirs.detr if masks else theirs
    inner = detector.model
    backbone = inner.backbone.model
    if hasattr(backbone, "embedder"):
        own = "detector.backbone"
        expected.put(f"{own}.stem.conv1", backbone.embedder.embedder.convolution)
        expected.put(f"{own}.stem.conv1.norm", backbone.embedder.embedder.normalization)
        for stage, blocks in enumerate(backbone.encoder.stages):
            for i, block in enumerate(blocks.layers):
                convs = {f"conv{n + 1}": block.layer[n] for n in range(3)}
                if i == 0:
                    convs["shortcut"] = block.shortcut
                for name, conv in convs.items():
                    expected.put(f"{own}.res{stage + 2}.{i}.{name}", conv.convolution)
                    expected.put(f"{own}.res{stage + 2}.{i}.{name}.norm", conv.normalization)
    else:
        expected.put_resnet(dict(backbone.named_children()))
    own = "detector.position_encoding"
    if hasattr(inner.position_embedding, "row_embeddings"):
        expected.put(f"{own}.row_embed", inner.position_embedding.row_embeddings)
        expected.put(f"{own}.col_embed", inner.position_embedding.column_embeddings)
    expected.put("detector.input_proj", inner.input_projection)
    for kind, layers in (("encoder", inner.encoder.layers), ("decoder", inner.decoder.layers)):
        for i, layer in enumerate(layers):
            own = f"detector.transformer.{kind}_layers.{i}"
            attentions = {"self_attention": (layer.self_attn, layer.self_attn_layer_norm)}
            if kind == "decoder":
                cross = (layer.encoder_attn, layer.encoder_attn_layer_norm)
                attentions["cross_attention"] = cross
            for name, (attention, norm) in attentions.items():
                for part in "qkv":
                    expected.put(f"{own}.{name}.{part}_proj", getattr(attention, f"{part}_proj"))
                expected.put(f"{own}.{name}.out_proj", attention.o_proj)
                expected.put(f"{own}.{name}_residual.norm", norm)
            expected.put(f"{own}.feed_forward.0", layer.mlp.fc1)
            expected.put(f"{own}.feed_forward.3", layer.mlp.fc2)
            expected.put(f"{own}.feed_forward_residual.norm", layer.final_layer_norm)
    expected.put("detector.transformer.decoder_norm", inner.decoder.layernorm)
    expected.put("detector.query_embed", inner.query_position_embeddings)
    expected.put("detector.class_head", detector.class_labels_classifier)
    for n, layer in enumerate(detector.bbox_predictor.layers):
        expected.put(f"detector.box_head.layers.{n}", layer)
    if masks:
        head = theirs.mask_head
        expected.put("mask_head.attention_map.q_proj", theirs.bbox_attention.q_proj)
        expected.put("mask_head.attention_map.k_proj", theirs.bbox_attention.k_proj)
        expected.put("mask_head.input_conv", head.conv1.conv)
        expected.put("mask_head.input_norm", head.conv1.norm)
        for n, block in enumerate([head.conv2, *(stage.refine for stage in head.fpn_stages)]):
            expected.put(f"mask_head.convs.{n}", block.conv)
            expected.put(f"mask_head.norms.{n}", block.norm)
        for n, stage in enumerate(head.fpn_stages):
            expected.put(f"mask_head.laterals.{n}", stage.fpn_adapter)
        expected.put("mask_head.output_conv", head.output_conv)


@pytest.fixture(scope="module")
def make_hugging_face():
    """Random models of transformers': ``make_hugging_face(masks, timm, learned)``."""
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    sizes = {"d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_labels": 6}
    sizes |= {"encoder_layers": 2, "decoder_layers": 3, "num_queries": 9}
    resnet = {"model_type": "resnet", "embedding_size": 64, "hidden_sizes": [32, 64, 128, 256]}
    resnet["out_features"] = ["stage1", "stage2", "stage3", "stage4"]

    @functools.cache
    def make(masks: bool, timm: bool, learned: bool) -> nn.Module:
        options = {"position_embedding_type": "learned" if learned else "sine"}
        options |= {"backbone": "resnet50"} if timm else {"backbone_config": resnet}
        config = transformers.DetrConfig(**sizes, **options, use_timm_backbone=timm)
        kind = transformers.DetrForSegmentation if masks else transformers.DetrForObjectDetection
        torch.manual_seed(2)
        with pytest.MonkeyPatch.context() as patch:
            if timm:
                timm_models = pytest.importorskip("timm")
                narrow = functools.partial(timm_models.create_model, channels=(8, 16, 32, 64))
                patch.setattr(timm_models, "create_model", narrow)
            model = kind(config)
        for tensor in model.state_dict().values():
            tensor.normal_()
        return model

    return make


@pytest.mark.parametrize("names", ["saved", "in memory", "older"])
@pytest.mark.parametrize("timm", [True, False], ids=["timm", "no timm"])
@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
def test_hugging_face(
    make_hugging_face, make_model, expected, assert_holds, tmp_path, masks, timm, names
):
    """Folders as ``save_pretrained`` leaves them, and as older versions and other tools do."""
    learned = names == "older" or not masks
    theirs = make_hugging_face(masks, timm, learned)
    theirs.save_pretrained(tmp_path)
    file, prefix = tmp_path / "model.safetensors", "detr.model" if masks else "model"
    saved, in_memory = load_file(file), theirs.state_dict()
    # What is in the file differs from what is in memory, else a kind would go untested.
    assert f"{prefix}.encoder.layers.0.self_attn.out_proj.weight" in saved.keys() - in_memory.keys()
    assert f"{prefix}.encoder.layers.0.mlp.fc1.weight" in in_memory.keys() - saved.keys()
    assert (f"{prefix}.backbone.conv_encoder.model.layer4.2.bn3.running_var" in saved) == timm
    assert not masks or saved.keys() >= {"mask_head.lay5.bias", "bbox_attention.q_linear.bias"}
    if names != "saved":
        file.unlink()
        file = tmp_path / "pytorch_model.bin"
        now, before = f"{prefix}.position_embedding.", f"{prefix}.backbone.position_embedding."
        older = {name.replace(now, before): tensor for name, tensor in saved.items()}
        torch.save(older if names == "older" else in_memory, file)
    overrides = {**(LEARNED if learned else {}), "MODEL.DETR.MASK_ON": masks}
    put_hugging_face(expected, theirs)
    model = make_model(overrides)
    for path in (tmp_path, file):
        for tensor in model.state_dict().values():
            tensor.zero_()
        rest = StrictCheckpointer(model).load(str(path))
        assert_holds(model, expected)
        assert rest.keys() == {"config"}
