"""The numbering of a dataset's classes."""

import logging

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import Metadata, MetadataCatalog

from detr_d2 import add_detr_config
from detr_d2.data.categories import (
    PanopticClasses,
    check_num_classes,
    classes_of,
    first_classes,
    resolve_classes,
    thing_mask,
)
from detr_d2.data.panoptic_json import set_panoptic_metadata


def metadata(things: dict, stuff: dict, **names: list[str]) -> Metadata:
    return Metadata(
        name="made_up",
        thing_dataset_id_to_contiguous_id=things,
        stuff_dataset_id_to_contiguous_id=stuff,
        **names,
    )


def test_coco():
    classes = classes_of("coco_2017_val_panoptic")
    assert len(classes.names) == len(classes.dataset_ids) == len(classes.is_thing) == 133
    assert classes.is_thing == (True,) * 80 + (False,) * 53
    assert classes.things == tuple(range(80))
    assert (classes.names[0], classes.dataset_ids[0]) == ("person", 1)
    assert (classes.names[79], classes.dataset_ids[79]) == ("toothbrush", 90)
    assert (classes.names[80], classes.dataset_ids[80]) == ("banner", 92)
    assert (classes.names[132], classes.dataset_ids[132]) == ("rug-merged", 200)


def test_coco_instances():
    classes = classes_of("coco_2017_val")
    assert len(classes.names) == 80 and classes.is_thing == (True,) * 80
    assert classes.things == tuple(range(80))
    assert (classes.names[0], classes.dataset_ids[0]) == ("person", 1)
    assert (classes.names[11], classes.dataset_ids[11]) == ("stop sign", 13)  # 12 is no category
    assert (classes.names[79], classes.dataset_ids[79]) == ("toothbrush", 90)
    panoptic = classes_of("coco_2017_val_panoptic")
    assert classes.names == panoptic.names[:80]
    assert classes.dataset_ids == panoptic.dataset_ids[:80]


def test_any_order_of_things_and_stuff():
    classes = PanopticClasses.from_metadata(
        metadata({30: 1, 7: 3}, {2: 0, 9: 2}, stuff_classes=["sky", "cat", "sea", "dog"])
    )
    assert classes.dataset_ids == (2, 30, 9, 7)
    assert classes.is_thing == (False, True, False, True)
    assert classes.things == (3, 1)  # by rising dataset id


@pytest.mark.parametrize(
    ("things", "stuff", "is_thing"),
    [({5: 0, 6: 1}, {}, (True, True)), ({}, {5: 0, 6: 1}, (False, False))],
)
def test_things_alone_and_stuff_alone(things, stuff, is_thing):
    classes = PanopticClasses.from_metadata(metadata(things, stuff, thing_classes=["a", "b"]))
    assert classes.is_thing == is_thing
    assert classes.things == tuple(k for k in range(2) if is_thing[k])


def test_the_stuff_map_may_repeat_things():
    """As in Detectron2's ADE20k."""
    classes = PanopticClasses.from_metadata(
        metadata(
            {8: 1},
            {5: 0, 8: 1, 9: 2},
            thing_classes=["bed"],
            stuff_classes=["wall", "bed", "sky"],
        )
    )
    assert classes == PanopticClasses(("wall", "bed", "sky"), (5, 8, 9), (False, True, False))


@pytest.mark.parametrize(
    ("things", "stuff", "message"),
    [
        ({1: 0, 2: 1}, {3: 0}, "numbered separately .*category 3"),
        ({1: 0}, {1: 1}, "numbered separately"),
        ({1: 0}, {2: 2}, r"without gaps, got \[0, 2\]"),
        ({1: 1}, {2: 2}, "without gaps"),
        ({}, {}, r"without gaps, got \[\]"),
        ({1: 0, 2: 1, 3: 2}, {4: 3}, "name all 4 classes, they have 3 and 2 names"),
    ],
)
def test_numberings_that_cannot_be_resolved(things, stuff, message):
    names = {"thing_classes": ["a", "b", "c"], "stuff_classes": ["a", "b"]}
    with pytest.raises(ValueError, match=f"dataset 'made_up'.*{message}"):
        PanopticClasses.from_metadata(metadata(things, stuff, **names))


def test_detectron2s_separated_datasets_are_refused():
    with pytest.raises(ValueError, match="coco_2017_val_panoptic_separated.*separately"):
        PanopticClasses.from_metadata(MetadataCatalog.get("coco_2017_val_panoptic_separated"))


@pytest.fixture
def unknown_dataset():
    """A name without classes. Asking for its metadata adds it to the catalog."""
    yield "no_such_dataset"
    MetadataCatalog.remove("no_such_dataset")


def test_an_unknown_dataset_has_no_classes(unknown_dataset):
    assert classes_of(unknown_dataset) is None


def test_a_wrong_number_of_classes_names_the_key(unknown_dataset):
    cfg = get_cfg()
    add_detr_config(cfg)
    check_num_classes(cfg, "coco_2017_val_panoptic")
    check_num_classes(cfg, unknown_dataset)
    cfg.MODEL.DETR.NUM_CLASSES = 80
    check_num_classes(cfg, "coco_2017_val")
    with pytest.raises(
        ValueError, match=r"NUM_CLASSES is 80, .* 133 classes \(80 .* Set .*NUM_CLASSES to 133"
    ):
        check_num_classes(cfg, "coco_2017_val_panoptic")


def config(num_classes: int, *dataset_names: str) -> CfgNode:
    cfg = get_cfg()
    add_detr_config(cfg)
    cfg.MODEL.DETR.NUM_CLASSES, cfg.DATASETS.TRAIN = num_classes, dataset_names
    return cfg


@pytest.mark.parametrize("frozen", [True, False])
def test_no_number_of_classes_is_the_datasets(unknown_dataset, frozen):
    cfg = config(0, unknown_dataset, "coco_2017_val", "coco_2017_train")
    if frozen:
        cfg.freeze()
    assert resolve_classes(cfg) == classes_of("coco_2017_val")
    assert cfg.MODEL.DETR.NUM_CLASSES == 0 and cfg.is_frozen() is frozen
    assert resolve_classes(config(5, unknown_dataset)) is None


def test_no_number_of_classes_and_datasets_that_disagree():
    with pytest.raises(ValueError, match=r"NUM_CLASSES is 80, .*'coco_2017_val_panoptic' has 133"):
        resolve_classes(config(0, "coco_2017_val", "coco_2017_val_panoptic"))


def test_no_number_of_classes_and_nobody_who_knows_it(unknown_dataset):
    for cfg in (config(0), config(0, unknown_dataset)):
        with pytest.raises(ValueError, match=r"^MODEL\.DETR\.NUM_CLASSES is 0, .*ive the number"):
            resolve_classes(cfg)


@pytest.mark.parametrize(
    "classes", [{"a": 1, "b": 1, "c": 0}, {"b": 1, "a": 1, "x": 0}, {"a": 1, "b": 0, "x": 0}]
)
def test_other_classes_of_the_same_number_are_refused(registry, classes):
    """Other names, another order, other things: else a model would be judged by wrong names."""
    for name, given in (("first", {"a": 1, "b": 1, "x": 0}), ("second", classes)):
        set_panoptic_metadata(
            name,
            [
                {"id": i, "name": c, "isthing": isthing, "color": [i, i, i]}
                for i, (c, isthing) in enumerate(given.items())
            ],
        )
    assert resolve_classes(config(3, "first", "first")).names == ("a", "b", "x")
    with pytest.raises(ValueError, match=r"'second' of DATASETS has other classes .*: a, b, x\."):
        resolve_classes(config(3, "first", "second"))


def test_thing_mask_comes_from_the_first_dataset_that_knows(unknown_dataset, caplog):
    names = [unknown_dataset, "coco_2017_val_panoptic", "shapes_panoptic_val"]
    mask = thing_mask(first_classes(names), 133)
    assert mask.dtype == torch.bool and mask.shape == (133,) and mask.sum() == 80
    assert thing_mask(first_classes(["coco_2017_val"]), 80).all()
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert thing_mask(first_classes([unknown_dataset]), 5).tolist() == [True] * 5
    assert "all count as things" in caplog.text
