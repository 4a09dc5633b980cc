"""What is explained is what the model does, for models of every kind."""

import pytest
import torch

from detr_d2.apps.explain import explain
from detr_d2.apps.explain.hook_recording import output_of, recording
from detr_d2.apps.explain.query_rounds import margins

VARIANTS = {
    "as the quickstart's": [],
    "post-norm": ["MODEL.DETR.PRE_NORM", False],
    "joint softmax": ["MODEL.DETR.MASK_HEAD.ATTENTION_SOFTMAX", "joint"],
    "stride 32": ["MODEL.RESNETS.RES5_DILATION", 1],
    "learned positions": ["MODEL.DETR.POSITION_EMBEDDING", "learned"],
    "no encoder": ["MODEL.DETR.ENC_LAYERS", 0],
    "chunks of two, reference's merging": [
        *("MODEL.DETR.MASK_HEAD.CHUNK_SIZE", 2, "MODEL.DETR.TEST.STUFF_MERGING", "reference"),
    ],
}


@pytest.fixture
def check_against_the_model(panoptic_alone):
    """Compares an explanation with what the model and its parts give when they are run again."""

    def check(explanation, model, image):
        (raw,) = model.raw_predictions([image])
        with torch.no_grad():
            detected = model.detector(model.preprocess([image]))
        assert torch.equal(explanation.raw.logits, raw.logits)
        assert torch.equal(explanation.raw.boxes_cxcywh, raw.boxes_cxcywh)
        for feature, expected in zip(explanation.features.values(), detected.features, strict=True):
            assert torch.equal(feature, expected[0])
        assert torch.equal(explanation.projected, detected.projected[0])
        assert torch.equal(explanation.memory, detected.memory[0])
        assert torch.equal(explanation.hidden, detected.hidden[:, 0])

        masks = explanation.masks
        ids, segments_info = panoptic_alone(model, image)
        assert torch.equal(masks.ids, ids)
        assert masks.segments_info == segments_info
        assert torch.equal(masks.logits, raw.masks(masks.kept))
        with torch.no_grad():
            attention = model.mask_head.attention_map(
                detected.hidden[-1], detected.memory, detected.padding_mask
            )
        assert torch.equal(masks.attention_maps, attention[0])

    return check


@pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)
def test_tensors_are_those_of_the_model(make_model, image, overrides, check_against_the_model):
    model = make_model(*overrides)
    explanation = explain(model, image)
    check_against_the_model(explanation, model, image)
    assert len(explanation.masks.kept) == 5
    per_head = model.mask_head.attention_map.softmax_over == 3
    maps = explanation.masks.attention_maps
    sums = maps.flatten(2).sum(2) if per_head else maps.flatten(1).sum(1)
    torch.testing.assert_close(sums, torch.ones_like(sums))
    for attention in [*explanation.encoder_attention, *explanation.decoder_attention]:
        weights = attention.weights()
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))


@pytest.mark.parametrize("chunk_size", [16, 2])
def test_picture_beside_instances_differs_by_rounding_alone(make_model, image, chunk_size):
    """The masks of things are made with those that compete, and chunks hold other queries."""
    model = make_model("MODEL.DETR.MASK_HEAD.CHUNK_SIZE", chunk_size)
    assert model.options.instances_on
    masks = explain(model, image).masks
    (raw,) = model.raw_predictions([image])
    ids, _ = raw.result()["panoptic_seg"]
    torch.testing.assert_close(masks.logits, raw.masks(masks.kept))
    survivors = {candidate.query for candidate in masks.rounds[-1].candidates}
    of_survivors = masks.logits[[query in survivors for query in masks.kept.tolist()]]
    clear = margins(of_survivors, raw.sizes) > 1e-4
    assert clear.float().mean() > 0.98
    assert torch.equal(masks.ids[clear], ids[clear])


def test_attention_is_that_by_which_the_layers_mixed_their_values(model, image):
    explanation = explain(model, image)
    attentions = [*explanation.encoder_attention, *explanation.decoder_attention]
    names = [part for a in attentions for part in (a.name, f"{a.name}.v_proj")]
    with recording(model, dict.fromkeys(names, output_of)) as calls:
        list(model.raw_predictions([image]))
    for attention in attentions:
        values = calls[f"{attention.name}.v_proj"][0][0].unflatten(1, (attention.num_heads, -1))
        mixed = torch.einsum("mts,smc->tmc", attention.weights(), values).flatten(1)
        with torch.no_grad():
            output = model.get_submodule(attention.name).out_proj(mixed)
        torch.testing.assert_close(output, calls[attention.name][0][0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk_size", [16, 2])
def test_stages_are_those_of_the_mask_head(make_model, image, chunk_size):
    model = make_model("MODEL.DETR.MASK_HEAD.CHUNK_SIZE", chunk_size)
    explanation = explain(model, image)
    stages = explanation.masks.stages
    names = [stage.name for stage in stages]
    assert names == ["mask_head.input_norm", *(f"mask_head.norms.{i}" for i in range(4))]
    keeps = {name: lambda _args, output: output.clone() for name in names}
    with recording(model, keeps) as calls:
        (raw,) = model.raw_predictions([image])
        raw.masks(explanation.masks.kept)
    for stage in stages:
        expected = torch.cat(calls[stage.name]).relu()
        assert stage.shape == tuple(expected.shape)
        torch.testing.assert_close(stage.mean, expected.mean(1))
        for row, channels in enumerate(stage.strongest.tolist()):
            torch.testing.assert_close(stage.maps[row], expected[row, channels])
            spread = expected[row].flatten(1).std(1)
            torch.testing.assert_close(spread[channels[0]], spread.max())


def test_padding_is_never_attended_to(make_model, image, monkeypatch, check_against_the_model):
    model = make_model()
    backbone = type(model.detector.backbone)
    monkeypatch.setattr(backbone, "size_divisibility", property(lambda self: 64))
    small = {**image, "image": image["image"][:, :40, :70]}
    explanation = explain(model, small)
    check_against_the_model(explanation, model, small)
    assert explanation.raw.sizes.padded == (64, 128)
    padding = explanation.padding_mask
    assert padding.any()
    assert not padding[0, 0]
    for attention in [*explanation.encoder_attention, *explanation.decoder_attention]:
        weights = attention.weights()
        assert not weights[:, :, padding.flatten()].any()
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
    assert not explanation.masks.attention_maps[:, :, padding].any()
    assert not explanation.picture[40:].any()
    assert not explanation.picture[:, 70:].any()


def test_no_query_kept(make_model, image, check_against_the_model):
    model = make_model(kept=0)
    explanation = explain(model, image)
    check_against_the_model(explanation, model, image)
    assert explanation.masks.rounds == explanation.masks.segments_info == []
    assert not explanation.masks.ids.any()
    assert [len(stage.mean) for stage in explanation.masks.stages] == [0] * 5


def test_bare_detector_is_explained_up_to_its_queries(make_model, image):
    model = make_model("MODEL.DETR.MASK_ON", False)
    explanation = explain(model, image)
    assert explanation.masks is None
    (raw,) = model.raw_predictions([image])
    assert torch.equal(explanation.raw.logits, raw.logits)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_picture_is_what_the_network_saw_in_rgb(model, image, order):
    picture = explain(model, image, order).picture
    red = 0 if order == "RGB" else 2
    assert picture.shape == (64, 80, 3)
    assert (picture[:, :, 0] == image["image"][red].numpy()).all()


def test_model_is_left_as_it_was(make_model, image):
    model = make_model()
    model.train()
    model.mask_head.eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    broken = {"image": image["image"][:1]}
    explain(model, image)
    with pytest.raises(ValueError, match=r"3×H×W.*1×64×80"):
        explain(model, broken)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_names_come_from_the_model_where_no_metadata_is_given(explanation, model):
    assert list(explanation.class_names) == list(model.loading_rules.classes.names)
    assert "ball" in explanation.class_names


def test_parts_that_run_past_their_hooks_are_named(make_model, image, monkeypatch):
    model = make_model()
    detector = model.detector
    monkeypatch.setattr(type(detector), "__call__", lambda self, *a, **k: self.forward(*a, **k))
    with pytest.raises(ValueError, match="Nothing was recorded of detector. .*compiled"):
        explain(model, image)
