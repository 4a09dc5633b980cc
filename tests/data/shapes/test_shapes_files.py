"""The embedded dataset on disk: COCO's panoptic format, written once and as a whole."""

import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco_panoptic import load_coco_panoptic_json
from panopticapi.evaluation import pq_compute
from PIL import Image

from detr_d2.data.shapes import shapes_dataset, shapes_files
from detr_d2.data.shapes.shape_categories import CATEGORIES
from detr_d2.data.shapes.shapes_dataset import cache_folder, register_shapes
from detr_d2.data.shapes.shapes_files import write_shapes
from detr_d2.data.shapes.synthetic_scenes import draw_scene

NUM_IMAGES = 16  # enough for a crowd and a void region


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "train"
    write_shapes(folder, "train", NUM_IMAGES)
    return folder


@pytest.fixture(scope="module")
def content(root: Path) -> dict:
    return json.loads((root / "panoptic.json").read_text())


@pytest.fixture
def small_cache(tmp_path, monkeypatch):
    """The embedded datasets registered anew, three and two images of them, in an empty cache."""
    names = [f"shapes_panoptic_{split}" for split in shapes_dataset.NUM_IMAGES]

    def register_again():
        for name in names:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        register_shapes()

    with monkeypatch.context() as patched:
        patched.setenv("DETR_D2_CACHE", str(tmp_path / "a" / "cache"))
        patched.setattr(shapes_dataset, "NUM_IMAGES", {"train": 3, "val": 2})
        register_again()
        yield tmp_path / "a" / "cache"
    register_again()


def test_files_are_those_that_the_json_names(root, content):
    assert sorted(path.name for path in root.iterdir()) == ["images", "panoptic", "panoptic.json"]
    for key, folder in (("images", "images"), ("annotations", "panoptic")):
        names = [entry["file_name"] for entry in content[key]]
        assert sorted(path.name for path in (root / folder).iterdir()) == sorted(names)
        assert len(set(names)) == NUM_IMAGES
    assert [image["id"] for image in content["images"]] == list(range(1, NUM_IMAGES + 1))


def test_json_has_cocos_keys(content):
    assert content.keys() == {"images", "annotations", "categories"}
    for image in content["images"]:
        assert image.keys() == {"id", "file_name", "height", "width"}
    for annotation in content["annotations"]:
        assert annotation.keys() == {"image_id", "file_name", "segments_info"}
        for segment in annotation["segments_info"]:
            assert segment.keys() == {"id", "category_id", "area", "bbox", "iscrowd"}
    assert content["categories"] == [
        {
            "id": category.id,
            "name": category.name,
            "supercategory": "thing" if category.isthing else "stuff",
            "isthing": int(category.isthing),
            "color": list(category.color),
        }
        for category in CATEGORIES
    ]


def test_segments_are_described_as_their_pixels_say(root, content):
    num_crowds = num_void = 0
    for image, annotation in zip(content["images"], content["annotations"], strict=True):
        png = Image.open(root / "panoptic" / annotation["file_name"])
        assert png.mode == "RGB" and png.format == "PNG"
        red, green, blue = np.asarray(png).astype(np.int64).transpose(2, 0, 1)
        ids = red + 256 * green + 65536 * blue
        assert ids.shape == (image["height"], image["width"])
        scene = draw_scene((0, image["id"]))
        np.testing.assert_array_equal(ids, scene.ids)
        described = [segment["id"] for segment in annotation["segments_info"]]
        assert described == np.setdiff1d(ids, 0).tolist()
        num_void += bool((ids == 0).any())
        for segment in annotation["segments_info"]:
            y, x = np.where(ids == segment["id"])
            assert segment["area"] == len(y)
            left, top, width, height = segment["bbox"]
            assert (left, left + width - 1) == (min(x), max(x))
            assert (top, top + height - 1) == (min(y), max(y))
            assert segment["category_id"] == scene.categories[segment["id"]].id
            assert segment["iscrowd"] == int(segment["id"] in scene.crowds)
            num_crowds += segment["iscrowd"]
    assert num_crowds and num_void


def test_images_are_the_scenes(root, content):
    for image in content["images"]:
        pixels = np.asarray(Image.open(root / "images" / image["file_name"])).astype(int)
        error = np.abs(pixels - draw_scene((0, image["id"])).image)
        assert error.mean() < 15  # JPEG blurs noise; another scene is off by 30 and more


def test_detectron2_reads_the_same_dicts(small_shapes):
    for name, num_images in small_shapes.items():
        metadata = MetadataCatalog.get(name)
        theirs = load_coco_panoptic_json(
            metadata.panoptic_json,
            metadata.image_root,
            metadata.panoptic_root,
            metadata.as_dict(),
        )
        ours = DatasetCatalog.get(name)
        assert len(theirs) == len(ours) == num_images
        for our, their in zip(ours, theirs, strict=True):
            assert {key: our[key] for key in their} == their
            assert our.keys() - their.keys() == {"height", "width"}


def test_the_dataset_against_itself_is_perfect_for_panopticapi(root, capfd):
    results = pq_compute(*[str(root / "panoptic.json")] * 2, *[str(root / "panoptic")] * 2)
    capfd.readouterr()
    for group in ("All", "Things", "Stuff"):
        assert results[group]["pq"] == results[group]["sq"] == results[group]["rq"] == 1
    assert results["All"]["n"] == len(CATEGORIES)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full")])
def test_an_interrupted_writer_leaves_nothing(tmp_path, monkeypatch, error):
    scenes = iter([draw_scene((0, 1)), error])

    def draw(seed):
        scene = next(scenes)
        if scene is error:
            raise error
        return scene

    monkeypatch.setattr(shapes_files, "draw_scene", draw)
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        write_shapes(tmp_path / "cache" / "val", "val", 3)
    assert list((tmp_path / "cache").iterdir()) == []


def test_of_two_writers_the_faster_wins(tmp_path, monkeypatch):
    root = tmp_path / "val"

    def draw_while_another_writes(seed):
        monkeypatch.undo()
        write_shapes(root, "val", 2)
        return draw_scene(seed)

    monkeypatch.setattr(shapes_files, "draw_scene", draw_while_another_writes)
    write_shapes(root, "val", 3)
    assert list(tmp_path.iterdir()) == [root]
    assert len(json.loads((root / "panoptic.json").read_text())["images"]) == 2


def test_others_may_read_the_cache(root):
    assert root.stat().st_mode & 0o777 == 0o755


def test_the_cache_is_filled_on_first_use_alone(small_cache, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        shapes_files, "draw_scene", lambda seed: drawn.append(seed) or draw_scene(seed)
    )
    assert not small_cache.exists()
    first = DatasetCatalog.get("shapes_panoptic_val")
    assert len(first) == 2 and len(drawn) == 2
    assert DatasetCatalog.get("shapes_panoptic_val") == first
    assert len(drawn) == 2
    train = DatasetCatalog.get("shapes_panoptic_train")
    assert len(train) == 3 and len(set(drawn)) == len(drawn) == 5
    for image in train + first:
        assert small_cache in Path(image["file_name"]).parents
        assert Path(image["file_name"]).is_file() and Path(image["pan_seg_file_name"]).is_file()


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("DETR_D2_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.setenv("DETR_D2_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/detr_d2")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "detr_d2"


def test_metadata_is_there_without_drawing():
    metadata = MetadataCatalog.get("shapes_panoptic_train")
    assert metadata.evaluator_type == "coco_panoptic_seg"
    assert metadata.thing_classes == metadata.stuff_classes
    assert len(metadata.thing_dataset_id_to_contiguous_id) == 6
    assert not metadata.thing_dataset_id_to_contiguous_id.keys() & (
        metadata.stuff_dataset_id_to_contiguous_id.keys()
    )
