"""Whose classes a run has: its datasets', or else its checkpoint's; and where both disagree."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from detr_d2 import register_panoptic
from detr_d2.checkpoint import DESCRIPTION, CheckpointError, describe, from_content, run_classes
from detr_d2.data.categories import PanopticClasses, classes_of
from detr_d2.data.panoptic_json import set_panoptic_metadata
from detr_d2.engine.checkpointer import StrictCheckpointer
from detr_d2.predictor import Predictor

pytestmark = pytest.mark.usefixtures("registry")

COLORS = ((1, 2, 3), (4, 5, 6), (7, 8, 9))
CLASSES = PanopticClasses(("cat", "dog", "sky"), (7, 9, 3), (True, True, False), COLORS)
ABSENT = ("DATASETS.TRAIN", ("absent_train",), "DATASETS.TEST", ("absent_val",))
NO_DATASET = ("DATASETS.TRAIN", (), "DATASETS.TEST", ())


@pytest.fixture
def make_cfg(make_tiny_cfg, tmp_path):
    """Makes configs of a model whose number of classes isn't told: ``(*overrides)``."""
    return lambda *more: make_tiny_cfg(tmp_path / "out", "MODEL.DETR.NUM_CLASSES", 0, *more)


@pytest.fixture
def save(make_cfg, tmp_path):
    """Writes a checkpoint of ``CLASSES``, its description changed; gives ``MODEL.WEIGHTS``."""

    def save(change=lambda description: None, classes=CLASSES, name="model.pth"):
        model = build_model(make_cfg(*NO_DATASET, "MODEL.DETR.NUM_CLASSES", 3))
        rules = replace(model.loading_rules, classes=classes)
        description = describe(rules.classes, rules.settings)
        change(description)
        torch.save({"model": model.state_dict(), DESCRIPTION: description}, tmp_path / name)
        return "MODEL.WEIGHTS", str(tmp_path / name)

    return save


def register(name: str, classes: PanopticClasses) -> None:
    DatasetCatalog.register(name, list)
    set_panoptic_metadata(name, classes.categories())


@pytest.mark.parametrize("datasets", [ABSENT, NO_DATASET], ids=["absent", "none"])
def test_a_checkpoint_tells_what_no_dataset_does(make_cfg, save, caplog, datasets):
    cfg = make_cfg(*datasets, *save())
    with caplog.at_level(logging.INFO):
        classes = run_classes(cfg)
    assert classes == CLASSES and classes.colors == COLORS
    assert "holds, 3, of which 2 are things" in caplog.text
    predictor = Predictor(make_cfg(*datasets, *save()))
    assert PanopticClasses.from_metadata(predictor.metadata) == CLASSES
    assert predictor.model.is_thing.tolist() == [True, True, False]
    if datasets is ABSENT:
        assert predictor.metadata is MetadataCatalog.get("absent_val")


def test_a_number_of_classes_may_be_told_and_has_to_be_the_checkpoints(make_cfg, save):
    weights = save()
    assert run_classes(make_cfg(*ABSENT, *weights, "MODEL.DETR.NUM_CLASSES", 3)) == CLASSES
    cfg = make_cfg(*ABSENT, *weights, "MODEL.DETR.NUM_CLASSES", 4)
    with pytest.raises(CheckpointError, match="the file has 3 classes, .*NUM_CLASSES is 4"):
        Predictor(cfg)


def test_datasets_that_are_there_have_precedence(make_cfg, save):
    """One of them tells what another that isn't there would."""
    register("present", replace(CLASSES, colors=()))
    cfg = make_cfg("DATASETS.TRAIN", ("present",), "DATASETS.TEST", ("absent_val",), *save())
    predictor = Predictor(cfg)
    assert predictor.metadata.stuff_classes == ["cat", "dog", "sky"]
    assert predictor.metadata.thing_colors != [list(color) for color in COLORS]


def test_a_dataset_that_is_there_and_has_not_been_read_tells_them_itself(make_cfg, save):
    """Nothing is put in its place that its own loader would contradict."""
    DatasetCatalog.register("unread", list)
    cfg = make_cfg("DATASETS.TRAIN", (), "DATASETS.TEST", ("unread",), *save())
    with pytest.raises(ValueError, match="NUM_CLASSES is 0"):
        run_classes(cfg)
    cfg.MODEL.DETR.NUM_CLASSES = 3
    assert run_classes(cfg) is None
    assert MetadataCatalog.get("unread").as_dict() == {"name": "unread"}


def test_two_models_of_one_dataset_that_is_not_there(make_cfg, save):
    others = PanopticClasses(("a", "b", "c"), (1, 2, 3), (True, False, False))
    predictors = [
        Predictor(make_cfg(*ABSENT, *weights))
        for weights in (save(), save(classes=others, name="other.pth"))
    ]
    found = [PanopticClasses.from_metadata(predictor.metadata) for predictor in predictors]
    assert found == [CLASSES, others]
    assert classes_of("absent_val") is None


def test_data_that_comes_later_takes_its_place(make_cfg, save, tmp_path):
    Predictor(make_cfg(*ABSENT, *save()))
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "x", "isthing": 1}],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    metadata = register_panoptic("absent_val", tmp_path, tmp_path, tmp_path / "panoptic.json")
    assert metadata.stuff_classes == ["x"] and metadata is MetadataCatalog.get("absent_val")
    assert classes_of("absent_val").names == ("x",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ("cat", "wolf", "sky")}, "only the file has dog; only the dataset has wolf"),
        ({"is_thing": (True, False, False)}, "'dog' is a thing in the file and stuff in the datas"),
        ({"dataset_ids": (7, 10, 3)}, "'dog' has the id 9 in the file and 10 in the dataset"),
        ({"names": ("dog", "cat", "sky")}, "another order: cat, dog, sky in the file, dog, cat, s"),
    ],
    ids=["names", "things", "ids", "order"],
)
def test_a_dataset_that_disagrees_is_refused(make_cfg, save, changes, message):
    register("other", replace(CLASSES, **changes))
    cfg = make_cfg("DATASETS.TRAIN", (), "DATASETS.TEST", ("other",), *save())
    with pytest.raises(CheckpointError, match=f"classes don't fit the dataset: .*{message}"):
        Predictor(cfg)
    cfg.MODEL.DETR.RESIZE_ON_LOAD = True
    StrictCheckpointer(build_model(cfg), to_train=True).load(cfg.MODEL.WEIGHTS)


def test_other_colours_are_no_disagreement(make_cfg, save):
    register("other", replace(CLASSES, colors=()))
    Predictor(make_cfg("DATASETS.TRAIN", (), "DATASETS.TEST", ("other",), *save()))


DAMAGES = {
    "older": lambda d: [d.pop(key) for key in ("is_thing", "colors")],
    "no ids": lambda d: d.pop("dataset_ids"),
    "too few": lambda d: d["is_thing"].pop(),
    "numbers": lambda d: d.update(is_thing=[1, 1, 0]),
    "no names": lambda d: d.update(class_names=["cat", None, "sky"]),
    "twice": lambda d: d.update(dataset_ids=[7, 7, 3]),
    "a text": lambda d: d.update(dataset_ids="793"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_checkpoints_that_do_not_say_all(make_cfg, save, damage):
    """They load where a dataset, or nobody, tells the classes, as before."""
    weights = save(DAMAGES[damage])
    with pytest.raises(ValueError, match=r"^MODEL.DETR.NUM_CLASSES is 0, .*model.pth doesn't hold"):
        run_classes(make_cfg(*ABSENT, *weights))
    cfg = make_cfg(*ABSENT, *weights, "MODEL.DETR.NUM_CLASSES", 3)
    assert Predictor(cfg).model.is_thing.all()
    register("present", CLASSES)
    cfg = make_cfg("DATASETS.TRAIN", (), "DATASETS.TEST", ("present",), *weights)
    assert Predictor(cfg).model.is_thing.tolist() == [True, True, False]


@pytest.mark.parametrize("colors", [None, 5, [], [[1, 2, 3]], [[1, 2, 3], "red", [300, -4, 0.5]]])
def test_colors_never_refuse(save, colors):
    _, path = save(lambda d: d.update(colors=colors))
    classes = from_content(torch.load(path, weights_only=True), path).classes
    assert classes == CLASSES
    assert all(0 <= part <= 255 for color in classes.colors for part in color)


@pytest.mark.parametrize("weights", ["", "torchvision://resnet50", "detectron2://R-50.pkl"])
def test_backbones_are_not_asked(make_cfg, weights):
    with pytest.raises(ValueError, match=r"^MODEL\.DETR\.NUM_CLASSES is 0, .*Give the number\.$"):
        run_classes(make_cfg(*ABSENT, "MODEL.WEIGHTS", weights))


def test_weights_that_are_missing_are_named(make_cfg, tmp_path):
    cfg = make_cfg(*ABSENT, "MODEL.WEIGHTS", str(tmp_path / "gone.pth"))
    with pytest.raises(FileNotFoundError, match=r"There is no checkpoint .*gone\.pth"):
        run_classes(cfg)
    cfg.MODEL.DETR.NUM_CLASSES = 3
    assert run_classes(cfg) is None  # a model may be built without what it will load
