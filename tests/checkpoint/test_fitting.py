"""Files of tiny models fit a model completely, or the error says all that is wrong at once.

Axes: K classes, Q queries, D the transformer's width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_d2.checkpoint import DESCRIPTION, CheckpointError, describe, fit, from_content
from detr_d2.engine.checkpointer import StrictCheckpointer
from detr_d2.modeling import DETR

CLASS_WEIGHT, CLASS_BIAS = "detector.class_head.weight", "detector.class_head.bias"
QUERIES = "detector.query_embed.weight"
BOXES = ("MODEL.DETR.MASK_ON", False)
FROZEN = ("MODEL.DETR.FREEZE_DETECTOR", True)
RESIZE = ("MODEL.DETR.RESIZE_ON_LOAD", True)
NO_DATASET = ("DATASETS.TRAIN", (), "DATASETS.TEST", ())
SOFTMAX = "MODEL.DETR.MASK_HEAD.ATTENTION_SOFTMAX"
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def make_model(make_tiny_cfg, tmp_path_factory) -> Callable[..., DETR]:
    """Builds tiny models of 12 classes, 8 queries and width 32: ``(*overrides)``."""
    cfg = make_tiny_cfg(tmp_path_factory.mktemp("fitting"))

    def make(*overrides: object) -> DETR:
        changed = cfg.clone()
        changed.merge_from_list(list(overrides))
        return build_model(changed)

    return make


@pytest.fixture(scope="module")
def model(make_model) -> DETR:
    """One that is never loaded into."""
    return make_model()


@pytest.fixture(scope="module")
def resizing_model(make_model) -> DETR:
    """Likewise."""
    return make_model(*RESIZE)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., tuple[str, Weights]]:
    """Writes a model's weights plus one, after a change; described as its checkpoints are."""

    def save(model: DETR, change=lambda weights: None, described=False):
        weights = {name: tensor + 1 for name, tensor in model.state_dict().items()}
        change(weights)
        rules, path = model.loading_rules, tmp_path / "weights.pth"
        content = {DESCRIPTION: describe(rules.classes, rules.settings)} if described else {}
        torch.save({"model": weights, **content}, path)
        return str(path), weights

    return save


def load(model: DETR, path: str, to_train: bool = False) -> None:
    StrictCheckpointer(model, to_train=to_train).load(path)


def problems(model: DETR, path: str, to_train: bool = False) -> list[str]:
    """Why a file is refused. Nothing of it is loaded."""
    before = state(model)
    with pytest.raises(CheckpointError) as caught:
        load(model, path, to_train)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(model).items())
    first, *others = str(caught.value).split("\n  ")
    assert first.startswith(f"{path} doesn't fit the model that the config describes. Recognised")
    return others


def state(model: DETR) -> Weights:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_holds(model: DETR, expected: Weights, prefix: str = "") -> None:
    found = {k: v for k, v in model.state_dict().items() if k.startswith(prefix)}
    assert found
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def test_a_whole_file_fits(make_model, save):
    for overrides in ((), BOXES, FROZEN, RESIZE, NO_DATASET):
        path, weights = save(make_model(*overrides), described=True)
        model = make_model(*overrides)
        load(model, path)
        assert_holds(model, weights)


def test_numbers_of_batches_are_not_missed(make_model, save):
    """Frozen batch norms have none, as those of most files."""
    frozen_norm, trained_norm = ("MODEL.RESNETS.NORM", "FrozenBN"), ("MODEL.RESNETS.NORM", "BN")
    for kinds in ((frozen_norm, trained_norm), (trained_norm, frozen_norm)):
        theirs, model = (make_model(*kind) for kind in kinds)
        path, weights = save(theirs)
        expected = {**state(model), **weights}
        load(model, path)
        assert_holds(model, expected)


# --- what is wrong is said ---


@pytest.mark.parametrize("to_train", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(QUERIES), f"missing in the file: {QUERIES}"),
        (
            lambda w: w.update({"detector.extra": torch.zeros(1)}),
            "in the file, but not in the model: detector.extra",
        ),
        (
            lambda w: w.update({"detector.box_head.layers.2.bias": torch.zeros(7)}),
            "detector.box_head.layers.2.bias: (7,) in the file, (4,) in the model",
        ),
        (
            lambda w: w[QUERIES][3].fill_(float("nan")),
            f"{QUERIES}: NaN or infinite in the file",
        ),
        (
            lambda w: w.pop("mask_head.output_conv.weight"),
            "missing in the file: mask_head.output_conv.weight",
        ),
        (
            lambda w: w.update({CLASS_WEIGHT: torch.zeros(300, 32)}),
            f"{CLASS_WEIGHT}: (300, 32) in the file, (13, 32) in the model",
        ),
        (
            lambda w: w.update({CLASS_BIAS: torch.zeros(251)}),
            f"{CLASS_BIAS}: (251,) in the file, (13,) in the model",
        ),
        (
            lambda w: w.update({QUERIES: torch.zeros(8, 48)}),
            f"{QUERIES}: (8, 48) in the file, (8, 32) in the model",
        ),
    ],
    ids=["missing", "extra", "shape", "nan", "half", "class_weight", "class_bias", "width"],
)
def test_each_problem_is_told(model, resizing_model, save, change, message, to_train):
    path, _ = save(model, change)
    assert problems(model, path, to_train) == [message]
    assert problems(resizing_model, path, to_train) == [message]


def test_all_problems_are_told_at_once(make_model, model, save):
    def change(weights: Weights) -> None:
        weights[CLASS_WEIGHT], weights[CLASS_BIAS] = torch.zeros(8, 32), torch.zeros(8)
        weights[QUERIES] = torch.full((5, 48), torch.inf)
        weights["detector.extra"] = weights.pop("detector.input_proj.bias")
        weights["mask_head.output_conv.bias"] = torch.zeros(2)

    path, _ = save(make_model("MODEL.DETR.NUM_HEADS", 8, SOFTMAX, "joint"), change, described=True)
    told = problems(model, path)
    for part in (
        "it was made with other settings: MODEL.DETR.NUM_HEADS is 4, the file was made with 8; "
        f"{SOFTMAX} is 'per_head', the file was made with 'joint'. Set the keys accordingly",
        "its classes don't fit the dataset: the file has 7 classes, MODEL.DETR.NUM_CLASSES is 12.",
        "it has 5 queries, MODEL.DETR.NUM_QUERIES is 8. Set 5, or",
        "missing in the file: detector.input_proj.bias",
        "in the file, but not in the model: detector.extra",
        f"{QUERIES}: (5, 48) in the file, (8, 32) in the model",
        f"{QUERIES}: NaN or infinite in the file",
        "mask_head.output_conv.bias: (2,) in the file, (1,) in the model",
    ):
        assert sum(line.startswith(part) for line in told) == 1, part
    # The maps of 8 heads are more channels as well.
    assert len([line for line in told if "mask_head.input" not in line]) == 9


DAMAGES: dict[str, Callable[[torch.Tensor], torch.Tensor | None]] = {
    "dropped": lambda tensor: None,
    "longer": lambda tensor: torch.cat([tensor, tensor[:1]]),
    "more axes": lambda tensor: tensor[..., None],
    "NaN": lambda tensor: torch.full_like(tensor, torch.nan),
}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), resize=st.booleans())
def test_no_damage_goes_unnoticed(model, data, resize):
    """As many damages as messages name."""
    sound = model.state_dict()
    names = st.sampled_from([CLASS_WEIGHT, CLASS_BIAS, QUERIES]) | st.sampled_from(
        [name for name, tensor in sound.items() if tensor.is_floating_point()]
    )
    damaged = data.draw(st.dictionaries(names, st.sampled_from(list(DAMAGES)), max_size=5))
    weights = {**sound, **{name: DAMAGES[kind](sound[name]) for name, kind in damaged.items()}}
    weights = {name: tensor for name, tensor in weights.items() if tensor is not None}
    checkpoint = from_content({"model": weights}, "file")
    expected = set(damaged)
    if damaged.get(CLASS_WEIGHT) == damaged.get(CLASS_BIAS) == "longer":
        expected -= {CLASS_WEIGHT, CLASS_BIAS}
        expected |= set() if resize else {"the file has 13 classes"}
    if resize and damaged.get(CLASS_WEIGHT) == damaged.get(CLASS_BIAS) == "dropped":
        expected -= {CLASS_WEIGHT, CLASS_BIAS}
    if damaged.get(QUERIES) == "longer":
        expected -= {QUERIES}
        expected |= set() if resize else {"it has 9 queries"}
    rules = replace(model.loading_rules, resize=resize)
    try:
        fitted = fit(checkpoint, sound, rules, to_train=True)
    except CheckpointError as error:
        assert [part for part in expected if part not in str(error)] == []
    else:
        assert not expected
        assert all(tensor.shape == sound[name].shape for name, tensor in fitted.weights.items())
        assert {*fitted.weights, *fitted.initial} == set(sound)


# --- parts of a model ---


def test_a_bare_detector_ignores_a_mask_head(make_model, save):
    other_softmax = make_model(SOFTMAX, "joint")
    path, weights = save(other_softmax, described=True)
    model = make_model(*BOXES)
    load(model, path)
    assert_holds(model, weights)


@pytest.mark.parametrize("overrides", [(), FROZEN])
def test_a_mask_head_may_start_untrained(make_model, save, overrides):
    path, weights = save(make_model(*BOXES, SOFTMAX, "joint"), described=True)
    model = make_model(*overrides)
    (message,) = problems(model, path)
    assert message.startswith("missing in the file: mask_head.") and "detector" not in message
    before = state(model)
    load(model, path, to_train=True)
    assert_holds(model, weights, "detector.")
    assert_holds(model, before, "mask_head.")


def only_backbone(weights: Weights) -> None:
    for name in [name for name in weights if not name.startswith("detector.backbone.")]:
        del weights[name]


def test_a_backbone_is_something_to_train_from(make_model, model, save):
    what = ["it is a backbone to train from, and not a trained detector"]
    path, weights = save(model, only_backbone)
    assert problems(model, path) == problems(make_model(*FROZEN), path, to_train=True) == what
    with pytest.raises(CheckpointError, match=r"Recognised as .*\(backbone\):"):
        load(model, path)
    trained = make_model()
    before = state(trained)
    load(trained, path, to_train=True)
    assert_holds(trained, weights, "detector.backbone.")
    assert_holds(trained, {**before, **weights})


def test_a_part_of_a_backbone_is_not(model, save):
    def change(weights: Weights) -> None:
        only_backbone(weights)
        del weights["detector.backbone.stem.conv1.weight"]

    path, _ = save(model, change)
    missing = ["missing in the file: detector.backbone.stem.conv1.weight"]
    assert problems(model, path, to_train=True) == missing


# --- queries ---


@pytest.mark.parametrize(("in_file", "what"), [(5, "add new ones"), (11, "keep the first of them")])
def test_other_queries(make_model, model, resizing_model, save, in_file, what):
    path, weights = save(make_model("MODEL.DETR.NUM_QUERIES", in_file))
    told = f"it has {in_file} queries, MODEL.DETR.NUM_QUERIES is 8."
    advice = f" Set {in_file}, or MODEL.DETR.RESIZE_ON_LOAD True to {what}."
    assert problems(model, path, to_train=True) == [told + advice]
    frozen = f" A frozen detector keeps its queries: set {in_file}."
    assert problems(make_model(*FROZEN, *RESIZE), path, to_train=True) == [told + frozen]
    assert problems(resizing_model, path) == [told + advice]  # there is nothing to evaluate

    resized = make_model(*RESIZE)
    weights[QUERIES] = torch.cat([weights[QUERIES][:8], state(resized)[QUERIES][in_file:]])
    load(resized, path, to_train=True)
    assert_holds(resized, weights)
