"""Building the model: values that are refused, devices, classes of datasets, names of weights."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model

from detr_d2.data.shapes.shape_categories import CATEGORIES

SHAPES = {"DATASETS.TRAIN": ("shapes_panoptic_train",), "MODEL.DETR.NUM_CLASSES": len(CATEGORIES)}
BARE = {"MODEL.DETR.MASK_ON": False}
REFUSED = [
    ("MODEL.DETR.HIDDEN_DIM", {"MODEL.DETR.HIDDEN_DIM": 48, "MODEL.DETR.NUM_HEADS": 5}),
    ("MODEL.DETR.HIDDEN_DIM", {"MODEL.DETR.HIDDEN_DIM": 40}),
    ("MODEL.DETR.HIDDEN_DIM", {"MODEL.DETR.HIDDEN_DIM": 18, "MODEL.DETR.NUM_HEADS": 3, **BARE}),
    ("MODEL.DETR.MASK_HEAD.ATTENTION_SOFTMAX", {"MODEL.DETR.MASK_HEAD.ATTENTION_SOFTMAX": "none"}),
    ("MODEL.DETR.TEST.STUFF_MERGING", {"MODEL.DETR.TEST.STUFF_MERGING": "none"}),
    ("MODEL.DETR.POSITION_EMBEDDING", {"MODEL.DETR.POSITION_EMBEDDING": "none"}),
    ("MODEL.DETR.POSITION_TEMPERATURE", {"MODEL.DETR.POSITION_TEMPERATURE": 0.0}),
    ("MODEL.DETR.IN_FEATURES", {"MODEL.DETR.IN_FEATURES": ["res3", "res4", "res5"]}),
    ("MODEL.DETR.IN_FEATURES", {"MODEL.RESNETS.OUT_FEATURES": ["res3", "res4", "res5"]}),
    ("MODEL.DETR.NUM_CLASSES", {"DATASETS.TRAIN": ("shapes_panoptic_train",)}),
    ("MODEL.DETR.NUM_CLASSES", {"DATASETS.TEST": ("shapes_panoptic_val",)}),
    ("MODEL.DETR.NUM_CLASSES", {"MODEL.DETR.NUM_CLASSES": 0}),
    ("MODEL.DETR.NUM_QUERIES", {"MODEL.DETR.NUM_QUERIES": 0}),
    ("MODEL.DETR.DEC_LAYERS", {"MODEL.DETR.DEC_LAYERS": 0}),
    ("MODEL.DETR.ENC_LAYERS", {"MODEL.DETR.ENC_LAYERS": -1}),
    ("MODEL.DETR.DROPOUT", {"MODEL.DETR.DROPOUT": 1.0}),
    ("MODEL.DETR.TEST.SCORE_THRESH", {"MODEL.DETR.TEST.SCORE_THRESH": 1.5}),
    ("MODEL.DETR.TEST.MIN_AREA", {"MODEL.DETR.TEST.MIN_AREA": -1}),
    ("MODEL.DETR.TEST.PRECISION", {"MODEL.DETR.TEST.PRECISION": "float16"}),
    ("MODEL.DETR.MASK_HEAD.CHUNK_SIZE", {"MODEL.DETR.MASK_HEAD.CHUNK_SIZE": -1}),
    ("INPUT.FORMAT", {"INPUT.FORMAT": "L"}),
]


@pytest.mark.parametrize(("key", "overrides"), REFUSED)
def test_values_that_cannot_work_are_refused_by_name(tiny_config, key, overrides):
    with pytest.raises(ValueError, match=rf"^{key} ") as refusal:
        build_model(tiny_config(overrides))
    if key in overrides:
        assert str(overrides[key]) in str(refusal.value)


@pytest.mark.parametrize(("positions", "width"), [("sine", 12), ("learned", 6)])
def test_a_bare_detector_may_have_widths_that_the_mask_head_cannot(
    tiny_model, make_batch, positions, width
):
    keys = {"HIDDEN_DIM": width, "NUM_HEADS": 3, "POSITION_EMBEDDING": positions}
    model = tiny_model({**BARE, **{f"MODEL.DETR.{key}": value for key, value in keys.items()}})
    losses = model(make_batch((40, 50), (64, 48)))
    assert all(loss.isfinite() for loss in losses.values())
    assert len(model.eval()(make_batch((40, 50)))[0]["instances"]) == 7


def test_unknown_mask_heads_are_refused(tiny_config):
    with pytest.raises(KeyError, match="NoSuchHead"):
        build_model(tiny_config({"MODEL.DETR.MASK_HEAD.NAME": "NoSuchHead"}))


@pytest.mark.parametrize("frozen", [False, True])
def test_without_gpu_the_model_is_built_on_the_cpu(monkeypatch, log_lines, tiny_config, frozen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg = tiny_config({"MODEL.DEVICE": "cuda", **SHAPES})
    if frozen:
        cfg.freeze()
    model = build_model(cfg)
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert cfg.is_frozen() == frozen
    assert len(log_lines) == 1
    assert "CPU" in log_lines[0]


def test_asking_for_the_cpu_logs_nothing(log_lines, tiny_config):
    build_model(tiny_config(SHAPES))
    assert log_lines == []


@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_things_are_the_datasets(log_lines, tiny_config, split):
    name = "shapes_panoptic_val"
    model = build_model(tiny_config({**SHAPES, "DATASETS.TRAIN": (), f"DATASETS.{split}": (name,)}))
    assert model.is_thing.tolist() == [category.isthing for category in CATEGORIES]
    assert log_lines == []


def test_stuff_of_the_dataset_is_no_instance(tiny_model, make_batch):
    model = tiny_model(SHAPES).eval().requires_grad_(False)
    head = model.detector.class_head
    head.weight.zero_()
    for k, category in enumerate(CATEGORIES):
        head.bias.copy_(torch.arange(len(head.bias)) == k).mul_(9)
        (result,) = model(make_batch((40, 50)))
        assert len(result["instances"]) == (7 if category.isthing else 0)
        assert {s["category_id"] for s in result["panoptic_seg"][1]} == {k}
        assert {s["isthing"] for s in result["panoptic_seg"][1]} == {category.isthing}


def test_without_a_dataset_all_are_things_with_a_warning(log_lines, tiny_config):
    assert build_model(tiny_config()).is_thing.tolist() == [True] * 6
    assert len(log_lines) == 1
    assert "DATASETS" in log_lines[0]


@pytest.mark.parametrize("position_embedding", ["sine", "learned"])
def test_weights_are_the_detectors_and_the_mask_heads(tiny_model, position_embedding):
    overrides = {"MODEL.DETR.POSITION_EMBEDDING": position_embedding}
    with_masks = set(tiny_model(overrides).state_dict())
    boxes_only = set(tiny_model({**overrides, "MODEL.DETR.MASK_ON": False}).state_dict())
    assert {name.split(".")[0] for name in with_masks} == {"detector", "mask_head"}
    assert boxes_only == {name for name in with_masks if name.startswith("detector.")}


def test_same_seed_gives_the_same_model(tiny_model):
    first, second = tiny_model().state_dict(), tiny_model().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = tiny_model(seed=1).state_dict()
    assert not torch.equal(first["detector.input_proj.weight"], other["detector.input_proj.weight"])
