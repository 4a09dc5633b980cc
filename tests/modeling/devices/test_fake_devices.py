"""The parts whose shapes follow from shapes alone, on "cuda" under PyTorch's FakeTensorMode.

A mix of devices raises there as it does on a GPU. What depends on values, preprocessing too since
Detectron2 computes sizes with tensors, is in the other files.
"""

from __future__ import annotations

import pytest
import torch
from detectron2.structures import ImageList

from detr_d2.modeling import DETR, attention_mask_head, detector, matcher, position_encoding
from detr_d2.modeling.targets import Target

SHALLOW = {
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.DETR.ENC_LAYERS": 1,
    "MODEL.DETR.DEC_LAYERS": 1,
}
SIZES = [(64, 96), (75, 70)]  # both padded, with grids of odd sides
GPU = torch.device("cuda", 0)


@pytest.fixture
def make_model(tiny_model, fake_gpu):
    """Makes models with values, since initial values come of them, and moves them to the GPU."""

    def make(overrides: dict | None = None) -> DETR:
        model = tiny_model({**SHALLOW, **(overrides or {})})
        with fake_gpu:
            return model.to("cuda")

    return make


@pytest.fixture
def target(make_targets):
    return make_targets(3)[0]


def detect(model: DETR, sizes: list[tuple[int, int]] = SIZES) -> detector.DetectorOutput:
    padded = [max(sides) for sides in zip(*sizes, strict=True)]
    pixels = torch.rand(len(sizes), 3, *padded, device="cuda")
    return model.detector(ImageList(pixels, sizes))


def make_masks(model: DETR, detected: detector.DetectorOutput) -> torch.Tensor:
    """Those of three queries."""
    index = torch.tensor([0, 0, len(detected.memory) - 1], device="cuda")
    return model.masks_of(detected, index, index)


def make_cost(model: DETR, target: Target) -> torch.Tensor:
    on_gpu = Target(target.classes.to("cuda"), target.boxes_cxcywh.to("cuda"))
    logits, boxes = torch.rand(14, 7, device="cuda"), torch.rand(14, 4, device="cuda")
    return model.criterion.matcher.cost(logits, boxes, on_gpu)


@pytest.mark.parametrize("positions", ["sine", "learned"])
@pytest.mark.parametrize("num_images", [1, 2])
def test_detector(make_model, fake_gpu, num_images, positions):
    model = make_model({"MODEL.DETR.POSITION_EMBEDDING": positions})
    with fake_gpu:
        detected = detect(model, SIZES[:num_images])
    tensors = [*detected.features, detected.memory, detected.hidden, detected.logits]
    assert {x.device for x in (*tensors, detected.boxes_cxcywh)} == {GPU}
    assert detected.logits.shape == (1, num_images, 7, 7)
    assert (detected.padding_mask is None) == (num_images == 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_detector_and_mask_head_under_autocast(make_model, fake_gpu, dtype):
    model = make_model()
    with fake_gpu, torch.autocast("cuda", dtype):
        detected = detect(model)
        masks = make_masks(model, detected)
    assert (masks.device, masks.dtype) == (GPU, dtype)
    assert detected.projected.dtype == dtype
    assert {detected.logits.dtype, detected.boxes_cxcywh.dtype} == {torch.float32}


@pytest.mark.parametrize("softmax", ["joint", "per_head"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("chunk_size", [0, 2])
def test_mask_head(make_model, fake_gpu, softmax, checkpointing, chunk_size):
    keys = {"MASK_HEAD.ATTENTION_SOFTMAX": softmax, "MASK_HEAD.CHECKPOINTING": checkpointing}
    keys["MASK_HEAD.CHUNK_SIZE"] = chunk_size
    model = make_model({f"MODEL.DETR.{key}": value for key, value in keys.items()})
    with fake_gpu:
        detected = detect(model)
        masks = make_masks(model, detected)
        alone = make_masks(model, detected.of_image(1))
    assert masks.requires_grad and masks.shape == alone.shape == (3, 19, 24)
    assert {masks.device, alone.device} == {GPU}


def test_matching_cost(make_model, target, fake_gpu):
    model = make_model()
    with fake_gpu:
        cost = make_cost(model, target)
    assert (cost.device, cost.shape) == (GPU, (14, 3))


def _elsewhere(function):
    """The same function, whose result meets a constant on the CPU."""
    return lambda *args, **kwargs: function(*args, **kwargs) * torch.ones(1)


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (position_encoding.SinePositionEncoding, "_encode"),
        (detector.BoxHead, "forward"),
        (attention_mask_head.AttentionMap, "forward"),
        (attention_mask_head, "conv3x3_upsampled"),
        (matcher, "box_convert"),
    ],
)
def test_a_constant_on_the_cpu_is_found(make_model, target, fake_gpu, monkeypatch, where, name):
    model = make_model()
    monkeypatch.setattr(where, name, _elsewhere(getattr(where, name)))
    with fake_gpu, pytest.raises(RuntimeError, match="on the same device, but found"):
        make_masks(model, detect(model))
        make_cost(model, target)
