"""Files as other projects write them, made with those projects' own modules or names.

Beside each kind is written out where its tensors belong, without the package's tables of names.
Axes: D the transformer's width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import pytest
import torch
import torchvision
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model, build_resnet_backbone
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import Bottleneck

from detr_d2 import config_file, load_config
from detr_d2.modeling import DETR

WIDTH, HEADS, FEED_FORWARD, QUERIES, CLASSES = 32, 8, 48, 9, 6
ENCODER_LAYERS, DECODER_LAYERS = 2, 3
TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    # A ResNet-50 of torchvision's at an eighth of its width, its stem excepted.
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 32,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
    "MODEL.DETR.NUM_CLASSES": CLASSES,
    "MODEL.DETR.NUM_QUERIES": QUERIES,
    "MODEL.DETR.HIDDEN_DIM": WIDTH,
    "MODEL.DETR.NUM_HEADS": HEADS,
    "MODEL.DETR.ENC_LAYERS": ENCODER_LAYERS,
    "MODEL.DETR.DEC_LAYERS": DECODER_LAYERS,
    "MODEL.DETR.DIM_FEEDFORWARD": FEED_FORWARD,
    "DATASETS.TRAIN": (),
    "DATASETS.TEST": (),
}

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def make_cfg() -> Callable[..., CfgNode]:
    """Configs of a tiny model with the reference's settings: ``make_cfg(overrides)``."""

    def make(overrides: Mapping[str, object] | None = None) -> CfgNode:
        merged = {**TINY, **(overrides or {})}
        flat = [item for pair in merged.items() for item in pair]
        return load_config(config_file("detr_panoptic.yaml"), flat)

    return make


@pytest.fixture(scope="session")
def make_model(make_cfg) -> Callable[..., DETR]:
    """Tiny models, all with the same initial values: ``make_model(overrides)``."""

    def make(overrides: Mapping[str, object] | None = None) -> DETR:
        torch.manual_seed(0)
        return build_model(make_cfg(overrides)).eval()

    return make


@pytest.fixture(scope="session")
def assert_holds() -> Callable[[nn.Module, Mapping[str, torch.Tensor]], None]:
    """Checks all tensors of a model: ``assert_holds(model, expected)``, none more and none less."""

    def check(model: nn.Module, expected: Mapping[str, torch.Tensor]) -> None:
        state = model.state_dict()
        assert state.keys() == expected.keys()
        assert [name for name in state if not torch.equal(state[name], expected[name])] == []

    return check


# --- The reference: its tree of modules, of PyTorch's own ---


class Parts(nn.Module):
    """Modules under names."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


class NarrowResNet(torchvision.models.ResNet):
    """Torchvision's, at an eighth of its width, its stem excepted."""

    def _make_layer(self, block, planes, *args, **kwargs) -> nn.Sequential:
        return super()._make_layer(block, planes // 8, *args, **kwargs)


def _narrow_resnet(blocks: list[int], norm: type[nn.Module]) -> NarrowResNet:
    resnet = NarrowResNet(Bottleneck, blocks, norm_layer=norm)
    resnet.fc = nn.Linear(8, 10)  # its width doesn't matter
    return _randomise(resnet)


@torch.no_grad()
def _randomise(module: nn.Module) -> nn.Module:
    """Gives each tensor values of its own."""
    for tensor in module.state_dict().values():
        tensor.normal_(std=0.3) if tensor.is_floating_point() else tensor.fill_(7)
    return module


def _make_transformer(pre_norm: bool) -> Parts:
    sizes = (WIDTH, HEADS, FEED_FORWARD, 0.0)
    options = {"batch_first": True, "norm_first": pre_norm}
    return Parts(
        encoder=nn.TransformerEncoder(
            nn.TransformerEncoderLayer(*sizes, **options),
            ENCODER_LAYERS,
            norm=nn.LayerNorm(WIDTH) if pre_norm else None,
            enable_nested_tensor=False,
        ),
        decoder=nn.TransformerDecoder(
            nn.TransformerDecoderLayer(*sizes, **options), DECODER_LAYERS, nn.LayerNorm(WIDTH)
        ),
    )


def _make_mask_head() -> Parts:
    widths = [WIDTH + HEADS, WIDTH // 2, WIDTH // 4, WIDTH // 8, WIDTH // 16]
    widths_in = [widths[0], *widths[:-1]]
    parts: dict[str, nn.Module] = {}
    for n, (channels, width) in enumerate(zip(widths_in, widths, strict=True), start=1):
        parts[f"lay{n}"] = nn.Conv2d(channels, width, 3, padding=1)
        parts[f"gn{n}"] = nn.GroupNorm(min(8, width), width)
    parts["out_lay"] = nn.Conv2d(widths[-1], 1, 3, padding=1)
    for n, channels in enumerate((128, 64, 32), start=1):  # of res4, res3 and res2
        parts[f"adapter{n}"] = nn.Conv2d(channels, widths[n], 1)
    return Parts(**parts)


@pytest.fixture(scope="session")
def make_reference(make_cfg) -> Callable[..., nn.Module]:
    """The reference's modules, with random values.

    ``make_reference(masks=False, learned=False, pre_norm=False, detectron2=False)``: with masks,
    the detector is under ``detr``; with ``detectron2``, the backbone is that of the wrapper.
    """

    @functools.cache
    def make(
        masks: bool = False, learned: bool = False, pre_norm: bool = False, detectron2: bool = False
    ) -> nn.Module:
        torch.manual_seed(1)
        if detectron2:
            backbone = Parts(backbone=build_resnet_backbone(make_cfg(), ShapeSpec(channels=3)))
        else:
            resnet = _narrow_resnet([3, 4, 6, 3], torchvision.ops.FrozenBatchNorm2d)
            kept = {f"layer{n}": str(n - 1) for n in range(1, 5)}
            backbone = Parts(body=IntermediateLayerGetter(resnet, kept))
        positions = nn.Identity()
        if learned:
            half = WIDTH // 2
            positions = Parts(row_embed=nn.Embedding(50, half), col_embed=nn.Embedding(50, half))
        widths = [(WIDTH, WIDTH), (WIDTH, WIDTH), (WIDTH, 4)]
        detector = Parts(
            transformer=_make_transformer(pre_norm),
            class_embed=nn.Linear(WIDTH, CLASSES + 1),
            bbox_embed=Parts(layers=nn.ModuleList(nn.Linear(*pair) for pair in widths)),
            query_embed=nn.Embedding(QUERIES, WIDTH),
            input_proj=nn.Conv2d(256, WIDTH, 1),
            backbone=nn.Sequential(backbone, positions),
        )
        if not masks:
            return _randomise(detector).eval()
        attention = Parts(q_linear=nn.Linear(WIDTH, WIDTH), k_linear=nn.Linear(WIDTH, WIDTH))
        whole = Parts(detr=detector, mask_head=_make_mask_head(), bbox_attention=attention)
        return _randomise(whole).eval()

    return make


@pytest.fixture(scope="session")
def make_torchvision() -> Callable[[list[int]], nn.Module]:
    """A ResNet as torchvision builds it, batch statistics and classes of ImageNet included."""
    return lambda blocks: _narrow_resnet(blocks, nn.BatchNorm2d)


# --- Where their tensors belong ---


class Expected(dict):
    """Own name → tensor."""

    def put(self, own: str, module: nn.Module) -> None:
        """A module whose tensors have the same names here."""
        for name, tensor in module.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                self[f"{own}.{name}"] = tensor

    def put_attention(self, own: str, attention: nn.MultiheadAttention) -> None:
        """PyTorch's has one matrix for queries, keys and values, in this order."""
        for n, part in enumerate("qkv"):
            rows = slice(n * WIDTH, (n + 1) * WIDTH)
            self[f"{own}.{part}_proj.weight"] = attention.in_proj_weight[rows].detach()
            self[f"{own}.{part}_proj.bias"] = attention.in_proj_bias[rows].detach()
        self.put(f"{own}.out_proj", attention.out_proj)

    def put_resnet(self, resnet: Mapping[str, nn.Module]) -> None:
        """Torchvision's modules by their names."""
        own = "detector.backbone"
        self.put(f"{own}.stem.conv1", resnet["conv1"])
        self.put(f"{own}.stem.conv1.norm", resnet["bn1"])
        for stage in (1, 2, 3, 4):
            for i, block in enumerate(resnet[f"layer{stage}"]):
                for n in (1, 2, 3):
                    conv = f"{own}.res{stage + 1}.{i}.conv{n}"
                    self.put(conv, getattr(block, f"conv{n}"))
                    self.put(f"{conv}.norm", getattr(block, f"bn{n}"))
                if block.downsample is not None:
                    self.put(f"{own}.res{stage + 1}.{i}.shortcut", block.downsample[0])
                    self.put(f"{own}.res{stage + 1}.{i}.shortcut.norm", block.downsample[1])


def _put_reference_transformer(expected: Expected, transformer: nn.Module) -> None:
    for i, layer in enumerate(transformer.encoder.layers):
        own = f"detector.transformer.encoder_layers.{i}"
        expected.put_attention(f"{own}.self_attention", layer.self_attn)
        expected.put(f"{own}.self_attention_residual.norm", layer.norm1)
        expected.put(f"{own}.feed_forward.0", layer.linear1)
        expected.put(f"{own}.feed_forward.3", layer.linear2)
        expected.put(f"{own}.feed_forward_residual.norm", layer.norm2)
    if transformer.encoder.norm is not None:
        expected.put("detector.transformer.encoder_norm", transformer.encoder.norm)
    for i, layer in enumerate(transformer.decoder.layers):
        own = f"detector.transformer.decoder_layers.{i}"
        expected.put_attention(f"{own}.self_attention", layer.self_attn)
        expected.put(f"{own}.self_attention_residual.norm", layer.norm1)
        expected.put_attention(f"{own}.cross_attention", layer.multihead_attn)
        expected.put(f"{own}.cross_attention_residual.norm", layer.norm2)
        expected.put(f"{own}.feed_forward.0", layer.linear1)
        expected.put(f"{own}.feed_forward.3", layer.linear2)
        expected.put(f"{own}.feed_forward_residual.norm", layer.norm3)
    expected.put("detector.transformer.decoder_norm", transformer.decoder.norm)


@pytest.fixture(scope="session")
def expected_of_reference() -> Callable[[nn.Module], Tensors]:
    """Where the tensors of ``make_reference`` belong."""

    def expect(reference: nn.Module) -> Tensors:
        expected, masks = Expected(), hasattr(reference, "mask_head")
        detector = reference.detr if masks else reference
        backbone, positions = detector.backbone
        if hasattr(backbone, "body"):
            expected.put_resnet(backbone.body)
        else:
            expected.put("detector.backbone", backbone.backbone)
        expected.put("detector.position_encoding", positions)
        expected.put("detector.input_proj", detector.input_proj)
        _put_reference_transformer(expected, detector.transformer)
        expected.put("detector.query_embed", detector.query_embed)
        expected.put("detector.class_head", detector.class_embed)
        for n in range(3):
            expected.put(f"detector.box_head.layers.{n}", detector.bbox_embed.layers[n])
        if masks:
            expected.put("mask_head.attention_map.q_proj", reference.bbox_attention.q_linear)
            expected.put("mask_head.attention_map.k_proj", reference.bbox_attention.k_linear)
            head = reference.mask_head
            expected.put("mask_head.input_conv", head.lay1)
            expected.put("mask_head.input_norm", head.gn1)
            for n, conv in enumerate((head.lay2, head.lay3, head.lay4, head.lay5)):
                expected.put(f"mask_head.convs.{n}", conv)
            for n, norm in enumerate((head.gn2, head.gn3, head.gn4, head.gn5)):
                expected.put(f"mask_head.norms.{n}", norm)
            for n, adapter in enumerate((head.adapter1, head.adapter2, head.adapter3)):
                expected.put(f"mask_head.laterals.{n}", adapter)
            expected.put("mask_head.output_conv", head.out_lay)
        return expected

    return expect


@pytest.fixture
def expected() -> Expected:
    """Nothing yet; a test puts in what it expects."""
    return Expected()
