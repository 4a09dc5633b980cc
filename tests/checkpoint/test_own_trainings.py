"""What people's own trainings with the reference left: rows by category ids, heads cut off."""

from __future__ import annotations

import pytest
import torch
from detectron2.data import MetadataCatalog

from detr_d2.checkpoint import CheckpointError, convert_file
from detr_d2.checkpoint.class_rows import ClassHead, RowPlan, plan_rows
from detr_d2.data.categories import PanopticClasses
from detr_d2.engine.checkpointer import StrictCheckpointer

# Contiguous class → category id, things first: not the order of ids.
IDS = (2, 7, 4)
CLASSES = PanopticClasses(("cat", "dog", "sky"), IDS, (True, True, False))
BOXES = {"MODEL.DETR.MASK_ON": False}


@pytest.fixture
def dataset(registry):
    name = "test_own_trainings"
    names = list(CLASSES.names)
    MetadataCatalog.get(name).set(
        thing_classes=names,
        stuff_classes=names,
        thing_dataset_id_to_contiguous_id={2: 0, 7: 1},
        stuff_dataset_id_to_contiguous_id={4: 2},
    )
    return name


@pytest.fixture
def weights(make_reference):
    """Of a detector with 9 rows: categories 0 to 7, and "no object"."""
    state = dict(make_reference().state_dict())
    width = state["class_embed.weight"].shape[1]
    torch.manual_seed(2)
    state.update({"class_embed.weight": torch.randn(9, width), "class_embed.bias": torch.randn(9)})
    return state


def plan(head: ClassHead, frozen: bool = False) -> RowPlan:
    return plan_rows(head, len(IDS), CLASSES, resize=False, frozen=frozen)


@pytest.mark.parametrize("frozen", [False, True])
def test_rows_up_to_the_largest_id_are_taken_by_id(frozen):
    planned = plan(ClassHead(9, has_ids=True), frozen)
    assert planned == RowPlan([2, 7, 4, 8], "by the dataset's ids, of 9")


@pytest.mark.parametrize(
    "head", [ClassHead(9), ClassHead(8, has_ids=True), ClassHead(10, None, True)]
)
def test_rows_of_anything_else_are_not(head):
    with pytest.raises(CheckpointError, match="NUM_CLASSES is 3"):
        plan(head)


def test_as_many_rows_as_classes_may_be_in_the_order_of_ids():
    classes = PanopticClasses(("cat", "sky", "dog"), (0, 2, 1), (True, True, False))
    for has_ids, rows in ((True, [0, 2, 1, 3]), (False, [0, 1, 2, 3])):
        planned = plan_rows(ClassHead(4, None, has_ids), 3, classes, resize=False, frozen=True)
        assert planned.rows == rows


def test_a_file_of_the_reference_is_taken_by_id(make_model, weights, dataset, tmp_path):
    overrides = {**BOXES, "MODEL.DETR.NUM_CLASSES": 3, "DATASETS.TEST": (dataset,)}
    torch.save({"model": weights}, tmp_path / "reference.pth")
    convert_file(str(tmp_path / "reference.pth"), tmp_path / "converted.pth")
    for name in ("reference.pth", "converted.pth"):
        model = make_model(overrides)
        StrictCheckpointer(model).load(str(tmp_path / name))
        head = model.detector.class_head
        assert torch.equal(head.weight, weights["class_embed.weight"][[2, 7, 4, 8]])
        assert torch.equal(head.bias, weights["class_embed.bias"][[2, 7, 4, 8]])


def test_the_wrappers_classes_are_contiguous(make_model, make_reference, dataset, tmp_path):
    state = {f"detr.{k}": v for k, v in make_reference(detectron2=True).state_dict().items()}
    width = state["detr.class_embed.weight"].shape[1]
    state["detr.class_embed.weight"] = torch.randn(9, width)
    state["detr.class_embed.bias"] = torch.randn(9)
    torch.save({"model": state}, tmp_path / "wrapper.pth")
    model = make_model({**BOXES, "MODEL.DETR.NUM_CLASSES": 3, "DATASETS.TEST": (dataset,)})
    with pytest.raises(CheckpointError, match="the file has 8 classes"):
        StrictCheckpointer(model).load(str(tmp_path / "wrapper.pth"))


@pytest.mark.parametrize(
    ("resize", "to_train", "loads"),
    [(True, True, True), (False, True, False), (True, False, False)],
)
def test_a_head_that_was_cut_off_starts_fresh(
    make_model, weights, tmp_path, resize, to_train, loads
):
    """As recipes for training on one's own data have it."""
    for part in ("weight", "bias"):
        del weights[f"class_embed.{part}"]
    torch.save({"model": weights}, tmp_path / "no_head.pth")
    model = make_model({**BOXES, "MODEL.DETR.RESIZE_ON_LOAD": resize})
    initial = model.detector.class_head.weight.clone()
    checkpointer = StrictCheckpointer(model, to_train=to_train)
    if loads:
        checkpointer.load(str(tmp_path / "no_head.pth"))
        assert torch.equal(model.detector.class_head.weight, initial)
        assert torch.equal(model.detector.query_embed.weight, weights["query_embed.weight"])
        return
    told = (
        r"missing in the file: detector\.class_head.*, all of the class head.*RESIZE_ON_LOAD True"
    )
    with pytest.raises(CheckpointError, match=f"{told} the class head starts fresh"):
        checkpointer.load(str(tmp_path / "no_head.pth"))


def test_a_frozen_detector_without_a_head_is_no_starting_point(make_model, weights, tmp_path):
    """Nor does the option help."""
    for part in ("weight", "bias"):
        del weights[f"class_embed.{part}"]
    torch.save({"model": weights}, tmp_path / "no_head.pth")
    overrides = {"MODEL.DETR.RESIZE_ON_LOAD": True, "MODEL.DETR.FREEZE_DETECTOR": True}
    with pytest.raises(
        CheckpointError, match=r"all of the class head\. The detector is frozen .*bo"
    ):
        StrictCheckpointer(make_model(overrides), to_train=True).load(str(tmp_path / "no_head.pth"))
