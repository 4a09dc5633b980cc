"""Photographs that their EXIF tags turn by 90°, and annotations of either frame."""

import json

import numpy as np
import pytest
from PIL import Image

from detr_d2.data.prepare import (
    PreparationError,
    prepare_cityscapes,
    prepare_instances,
    prepare_labelme,
    prepare_semantic,
)

STORED = (12, 16)  # height and width
SIZES = {"stored": STORED, "upright": STORED[::-1]}
CATEGORIES = [{"id": 7, "name": "road", "isthing": 0}]


@pytest.fixture
def prepare(tmp_path):
    """Prepares a photograph whose annotation has a size, from a source; gives the JSON's image."""

    def run(source: str, size: tuple[int, int], ignore_exif: bool) -> dict:
        images, labels = tmp_path / "images", tmp_path / "labels"
        for folder in (images, labels):
            folder.mkdir(exist_ok=True)
        tags = Image.Exif()
        tags[0x112] = 6
        Image.new("RGB", STORED[::-1]).save(images / "a.jpg", exif=tags)
        categories = tmp_path / "categories.json"
        categories.write_text(json.dumps(CATEGORIES))
        Image.fromarray(np.full(size, 7, np.uint8)).save(labels / "a.png")
        height, width = size
        points = [[0, 0], [4, 4]]
        shape = {"label": "road", "points": points, "shape_type": "rectangle"}
        (labels / "a.json").write_text(
            json.dumps({"imageHeight": height, "imageWidth": width, "shapes": [shape]})
        )
        output = tmp_path / f"out_{source}_{height}_{ignore_exif}"
        options = {"images": images, "ignore_exif": ignore_exif}
        if source == "semantic":
            prepare_semantic(labels, output, categories=categories, **options)
        elif source == "cityscapes":
            names = {"png_suffix": "", "image_suffix": ""}
            prepare_cityscapes(labels, output, categories=categories, **names, **options)
        else:
            prepare_labelme(labels, output, **options)
        (image,) = json.loads((output / "panoptic.json").read_text())["images"]
        return image

    return run


@pytest.mark.parametrize("source", ["semantic", "cityscapes", "labelme"])
@pytest.mark.parametrize("frame", SIZES)
def test_the_annotations_frame_is_taken_or_named(prepare, source, frame):
    ignored = frame == "stored"
    image = prepare(source, SIZES[frame], ignored)
    assert (image["height"], image["width"]) == SIZES[frame]
    with pytest.raises(PreparationError, match=r"EXIF tag.*--ignore-exif"):
        prepare(source, SIZES[frame], not ignored)


def test_other_sizes_are_no_turn(prepare):
    with pytest.raises(PreparationError) as caught:
        prepare("semantic", (12, 17), False)
    assert "EXIF" not in str(caught.value)


@pytest.mark.parametrize("ignored", [False, True])
def test_sizes_that_an_instance_json_lacks_are_those_of_the_frame(tmp_path, ignored):
    tags = Image.Exif()
    tags[0x112] = 6
    Image.new("RGB", STORED[::-1]).save(tmp_path / "a.jpg", exif=tags)
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "segmentation": [[0, 0, 4, 0, 4, 4]]}
        ],
        "categories": [{"id": 7, "name": "cat"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    prepare_instances(tmp_path / "coco.json", tmp_path / "out", ignore_exif=ignored)
    (image,) = json.loads((tmp_path / "out/panoptic.json").read_text())["images"]
    assert (image["height"], image["width"]) == SIZES["stored" if ignored else "upright"]
