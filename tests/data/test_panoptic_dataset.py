"""Registered datasets: their dicts, and what is said where there are none."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances, register_coco_panoptic

from detr_d2.data.categories import classes_of
from detr_d2.data.panoptic_dataset import (
    get_dataset_dicts,
    load_panoptic_dataset,
    require_datasets,
)

pytestmark = pytest.mark.usefixtures("registry")

NAME = "panoptic_dataset_test"


@pytest.mark.parametrize("folder", [None, "nowhere"])
def test_missing_coco_says_where_it_was_looked_for_and_what_runs_without(
    tmp_path, monkeypatch, folder
):
    # Relative paths of an unset DETECTRON2_DATASETS start here.
    monkeypatch.chdir(tmp_path)
    if folder is None:
        monkeypatch.delenv("DETECTRON2_DATASETS")
    else:
        monkeypatch.setenv("DETECTRON2_DATASETS", folder)
    with pytest.raises(FileNotFoundError) as caught:
        get_dataset_dicts(["coco_2017_val_panoptic"])
    message = str(caught.value)
    assert "'coco_2017_val_panoptic'" in message
    assert "coco/annotations/panoptic_val2017.json does not exist" in message
    assert "DETECTRON2_DATASETS names " in message
    assert f"({folder or 'unset, so ./datasets'})" in message
    assert "configs/shapes/detr_panoptic.yaml" in message
    assert "\n" not in message


def test_missing_pictures_are_named_too(tmp_path, content):
    """Detectron2's own reader asserts that they exist."""
    maps = {"thing_dataset_id_to_contiguous_id": {9: 0}}
    maps["stuff_dataset_id_to_contiguous_id"] = {40: 1}
    paths = [str(tmp_path / name) for name in ("images", "pngs", "panoptic.json")]
    wrong = content()
    wrong["annotations"][0]["image_id"] = 1
    Path(paths[2]).write_text(json.dumps(wrong))
    register_coco_panoptic(NAME, maps, *paths)
    with pytest.raises(FileNotFoundError, match=r"images.b_pan\.jpg does not exist"):
        get_dataset_dicts([NAME])


@pytest.fixture
def register_instances(tmp_path: Path, categories: list[dict]) -> Callable[..., None]:
    """Registers a dataset of instances whose classes are known from its file alone."""

    def register(**changes: list) -> None:
        instances = {
            "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 6}],
            "annotations": [{"id": 8, "image_id": 1, "category_id": 9, "bbox": [1, 1, 2, 2]}],
            "categories": [category for category in categories if category["isthing"]],
            **changes,
        }
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(instances))
        register_coco_instances(NAME, {}, str(path), str(tmp_path / "images"))

    return register


def test_instance_datasets_are_read_as_well(register_instances):
    register_instances()
    (image,) = get_dataset_dicts([NAME])
    assert [annotation["category_id"] for annotation in image["annotations"]] == [0]


def test_required_datasets_tell_their_classes(tmp_path, register_instances):
    (tmp_path / "images").mkdir()
    register_instances()
    assert classes_of(NAME) is None
    require_datasets([NAME])
    assert classes_of(NAME).names == ("cat", "dog")


def test_an_annotation_that_is_there_is_not_read_twice(tmp_path, register_instances, monkeypatch):
    (tmp_path / "images").mkdir()
    register_instances()
    require_datasets([NAME])
    monkeypatch.setattr(DatasetCatalog, "get", lambda name: pytest.fail("read again"))
    require_datasets([NAME])


def test_required_images_are_missing(register_instances):
    register_instances()
    with pytest.raises(FileNotFoundError, match=rf"{NAME}.* not there: .*images does not exist"):
        require_datasets([NAME])


@pytest.mark.parametrize(
    ("name", "annotation"),
    [
        ("coco_2017_train", "instances_train2017"),
        ("coco_2017_val", "instances_val2017"),
        ("coco_2017_val_panoptic", "panoptic_val2017"),
    ],
)
def test_required_coco_is_missing(name, annotation):
    message = rf"'{name}' is not there: .*coco/annotations/{annotation}\.json does not exist"
    with pytest.raises(FileNotFoundError, match=message):
        require_datasets([name])


def test_what_is_wrong_with_instances_is_not_taken_for_a_missing_file(register_instances):
    """Detectron2's reader asserts it."""
    box = {"id": 8, "image_id": 1, "category_id": 9, "bbox": [1, 1, 2, 2]}
    register_instances(annotations=[box, box])
    with pytest.raises(ValueError, match=f"'{NAME}' cannot be read: .*ids in .* are not unique"):
        get_dataset_dicts([NAME])


def test_an_unregistered_dataset_is_named():
    with pytest.raises(KeyError, match="no_such_dataset"):
        get_dataset_dicts(["no_such_dataset"])


def test_no_images(content, read):
    empty = content(images=[], annotations=[])
    DatasetCatalog.register(NAME, lambda: read(NAME, empty))
    with pytest.raises(ValueError, match=f"No images in {NAME}"):
        get_dataset_dicts([NAME])
    with pytest.raises(ValueError, match="No images in DATASETS"):
        get_dataset_dicts([])


def test_datasets_are_joined_in_order(small_shapes):
    train, val = small_shapes
    dicts = get_dataset_dicts([val, train, val])
    first, last = DatasetCatalog.get(val), DatasetCatalog.get(train)
    assert dicts == first + last + first


def test_records_and_classes_come_together(content, read, small_shapes):
    records, classes = load_panoptic_dataset("small_shapes_val")
    assert len(records) == small_shapes["small_shapes_val"] and len(classes.names) == 12
    DatasetCatalog.register(NAME, lambda: read(NAME, content()))
    records, classes = load_panoptic_dataset(NAME)
    assert [segment["category_id"] for segment in records[0]["segments_info"]] == [0, 3]
    assert classes.dataset_ids == (9, 70, 3, 40)
