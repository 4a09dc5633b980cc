"""Training and validation from one dataset."""

import json
import random

import pytest

from detr_d2.data.prepare import PreparationError, split_panoptic


def dataset(categories, count=20) -> dict:
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 1, "width": 1} for i in range(count)]
    annotations = [
        {
            "image_id": i,
            "file_name": f"{i}.png",
            "segments_info": [{"id": 1, "category_id": 7 if i else 9, "iscrowd": int(i == 3)}],
        }
        for i in range(count)
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return {**content, "info": {"year": 1}}


@pytest.fixture
def split(write_json, tmp_path, categories):
    def run(content=None, name="out", **options):
        path = write_json("panoptic.json", content or dataset(categories))
        report = split_panoptic(path, tmp_path / name, **options)
        files = [tmp_path / name / f"panoptic_{part}.json" for part in ("train", "val")]
        return report, [json.loads(file.read_text()) for file in files]

    return run


def ids(part) -> set:
    return {image["id"] for image in part["images"]}


@pytest.mark.parametrize(("val", "count"), [(0.25, 5), (0.001, 1), (0.999, 19)])
def test_parts_are_disjoint_and_complete(val, count, split, categories):
    report, (train, val_part) = split(val=val)
    whole = dataset(categories)
    assert len(val_part["images"]) == len(ids(val_part)) == count
    for key, name in (("images", "id"), ("annotations", "image_id")):
        both = sorted([*train[key], *val_part[key]], key=lambda entry: entry[name])
        assert both == whole[key]
    for part in (train, val_part):
        assert {a["image_id"] for a in part["annotations"]} == ids(part)
        assert (part["categories"], part["info"]) == (whole["categories"], whole["info"])
    assert (report.images, report.segments, report.crowds) == (20, 20, 1)


def test_the_seed_decides_and_the_order_does_not(split, categories):
    whole = dataset(categories)
    shuffled = {**whole, "images": random.Random(5).sample(whole["images"], 20)}
    draws = [
        ids(split(content, f"out{i}", val=0.3, seed=seed)[1][1])
        for i, (content, seed) in enumerate([(whole, 1), (whole, 1), (shuffled, 1), (whole, 2)])
    ]
    assert draws[0] == draws[1] == draws[2] != draws[3]


def test_missing_examples_are_told(split):
    report, (train, _) = split(val=0.2)
    without = "val" if 0 in ids(train) else "train"
    (note,) = [note for note in report.notes if "no example" in note]
    assert note.endswith(f"panoptic_{without}.json has no example of grass")


def test_ids_may_be_written_otherwise(split, categories):
    whole = dataset(categories)
    for annotation in whole["annotations"]:
        annotation["image_id"] = str(annotation["image_id"])
        annotation["segments_info"][0]["category_id"] = 7.0
    report, parts = split(whole)
    assert sum(len(part["annotations"]) for part in parts) == 20
    assert [str(count) for count in report.classes if count.segments] == [
        "'sky' (stuff): 20 segments, 1 of them crowds, in 20 images"
    ]


def test_images_without_annotation_are_kept(split, categories):
    whole = {**dataset(categories), "annotations": []}
    _, (train, val) = split(whole)
    assert len(ids(train) | ids(val)) == 20


def test_nothing_is_written_over(split, tmp_path):
    split()
    before = (tmp_path / "out" / "panoptic_train.json").read_bytes()
    with pytest.raises(FileExistsError, match="panoptic_train.json is there already"):
        split(seed=3)
    assert (tmp_path / "out" / "panoptic_train.json").read_bytes() == before


BROKEN = {
    "no object": ({"images": 3}, "no panoptic JSON"),
    "instances": ({"annotations": [{"image_id": 1, "segmentation": []}]}, "segments_info"),
    "segments": ({"annotations": [{"image_id": 1, "segments_info": [{"id": 1}]}]}, "category_id"),
    "stray": ({"annotations": [{"image_id": 77, "segments_info": []}]}, "image 77 is annotated"),
    "twice": ({"images": [{"id": 1}, {"id": 1}]}, "image 1 is no number or text, or is there tw"),
    "id": ({"images": [{"id": None}]}, "image None"),
    "one": ({"images": [{"id": 1}], "annotations": []}, "1 images can't be split"),
    "categories": ({"categories": []}, "list of categories"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(name, split, categories, tmp_path):
    change, said = BROKEN[name]
    with pytest.raises(PreparationError) as caught:
        split({**dataset(categories), **change})
    assert said in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("val", [0, 1, -1, 2, float("nan")])
def test_shares_that_leave_nothing(val, split):
    with pytest.raises(PreparationError, match="between 0 and 1"):
        split(val=val)
