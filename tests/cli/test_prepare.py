"""detr-d2 prepare at the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detr_d2.data.check import check_dataset

STUFF = "--categories stuff.json --ignore 255"
PIXELS = [[7, 7, 255], [7, 9, 9]]
BOX = {"label": "cat", "points": [[0, 0], [2, 2]], "shape_type": "rectangle"}
LINE = {"label": "cat", "points": [[0, 0], [2, 2]], "shape_type": "line"}


@pytest.fixture
def run(run_cli, monkeypatch, tmp_path):
    """Runs the command below tmp_path; returns its status, or the line in which it gives up."""

    def run(*arguments: object):
        monkeypatch.chdir(tmp_path)
        try:
            return run_cli("prepare", *arguments)
        except SystemExit as end:
            return end.code

    return run


@pytest.fixture
def data(tmp_path) -> Path:
    """A little of each source."""

    def save(name, pixels, dtype=np.uint8):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array(pixels, dtype)).save(path)

    save("images/a.png", PIXELS)
    save("images/a_leftImg8bit.png", PIXELS)
    save("semantic/a.png", PIXELS)
    save("city/a_gtFine_instanceIds.png", [[7, 7, 0], [26, 24000, 24001]], np.uint16)
    save("labelme/a.png", PIXELS)
    save("labelme/b.png", PIXELS)
    polygon = {"segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]], "image_id": 1, "category_id": 1}
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 2, "width": 3} for i in (1, 2, 3)]
    images[0]["file_name"] = "a.jpg"
    stuff = [{"id": 7, "name": "sky", "isthing": 0}, {"id": 9, "name": "sea", "isthing": 0}]
    contents = {
        "instances.json": {
            "images": images,
            "annotations": [polygon, {**polygon, "image_id": 2, "id": 8, "category_id": 5}],
            "categories": [{"id": 1, "name": "cat"}],
        },
        "stuff.json": stuff,
        "all.json": {"categories": [*stuff, {"id": 1, "name": "cat"}]},
        "labelme/a.json": {"shapes": [BOX]},
        "labelme/b.json": {"shapes": [{**BOX, "label": "sky"}]},
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "images", "figures"),
    [
        (
            f"semantic semantic out --images images {STUFF} --workers 2",
            "images",
            "1 images, 2 segments, 0 of them crowds",
        ),
        (
            "cityscapes city out --images images",
            "images",
            "1 images, 4 segments, 1 of them crowds",
        ),
        ("labelme labelme out --stuff sky", "labelme", "2 images, 2 segments, 0 of them crowds"),
    ],
)
def test_sources(arguments, images, figures, run, data, capsys):
    assert run(*arguments.split()) == 0
    assert capsys.readouterr().out.splitlines()[0] == figures
    out = data / "out"
    report = check_dataset(str(data / images), str(out / "panoptic"), str(out / "panoptic.json"))
    assert not report.breaks
    assert len(report.heights) == int(figures[0])


def test_errors_are_one_line_or_skipped(run, data, capsys):
    message = "instances.json: image 2, annotation 8: there is no category 5"
    assert run("instances", "instances.json", "out") == f"error: {message}"
    assert not (data / "out").exists()
    assert run("instances", "instances.json", "out", "--skip-errors") == 1
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "3 images, 1 segments, 0 of them crowds",
        "classes:",
        "  'cat' (thing): 1 segments in 1 images",
        "All classes are things, and 77.8% of all pixels are void: training and PQ ignore what is "
        "predicted there, so that objects invented there cost nothing. --background NAME makes "
        "them stuff of that name, so that they count.",
        "1 left out because of errors:",
        f"  {message}",
    ]


def test_instances_in_front_of_semantic_pngs(run, data):
    content = json.loads((data / "instances.json").read_text())
    content["images"] = content["images"][:1]
    content["annotations"] = content["annotations"][:1]
    (data / "instances.json").write_text(json.dumps(content))
    options = "--semantic semantic --categories all.json --ignore 255"
    assert run("instances", "instances.json", "out", *options.split()) == 0
    (annotation,) = json.loads((data / "out" / "panoptic.json").read_text())["annotations"]
    areas = {s["category_id"]: s["area"] for s in annotation["segments_info"]}
    assert areas == {1: 4, 9: 1}


def test_options_that_mend_labels(run, data, capsys):
    content = json.loads((data / "instances.json").read_text())
    content["annotations"] = [{**content["annotations"][0], "iscrowd": 1}]
    content["images"][0].update(file_name="a.png", height=-1, width=-1)
    (data / "instances.json").write_text(json.dumps(content))
    options = "--images images --crowds-as-things --background floor"
    assert run("instances", "instances.json", "one", *options.split()) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[2:] == [
        "  'cat' (thing): 1 segments in 1 images",
        "  'floor' (stuff): 3 segments in 3 images",
    ]
    assert run("labelme", "labelme", "two", "--ignore", "sky", "--background", "floor") == 0
    assert "1 shapes are void, as their labels are ignored" in capsys.readouterr().out
    options = f"--things 7 9 --min-area 3 --crumbs crowd --images images {STUFF}"
    assert run("semantic", "semantic", "three", *options.split()) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == [
        "1 images, 2 segments, 1 of them crowds",
        "2 connected components of things were found",
        "1 of them are smaller than --min-area and became crowds",
    ]


def test_split(run, data, capsys):
    assert run("labelme", "labelme", "out") == 0
    assert run("split", "out/panoptic.json", "out", "--val", "0.5", "--seed", "3") == 0
    assert "panoptic_val.json: 1 images" in capsys.readouterr().out
    assert {path.name for path in (data / "out").iterdir()} == {
        *("panoptic", "panoptic.json", "panoptic_train.json", "panoptic_val.json")
    }
    again = run("split", "out/panoptic.json", "out")
    assert again == "error: out/panoptic_train.json is there already; it is left as it is."


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("instances gone.json out", "error: [Errno 2] No such file"),
        ("labelme gone out", "error: There is no folder gone."),
        ("labelme labelme images", "error: images is there already"),
        ("semantic semantic out --images images --categories stuff.json", "--ignore 255"),
    ],
)
def test_what_is_refused(arguments, said, run, data):
    before = sorted(data.rglob("*"))
    message = run(*arguments.split())
    assert said in message and "\n" not in message
    assert sorted(data.rglob("*")) == before


def test_shapes_without_an_area(run, data):
    (data / "labelme" / "a.json").write_text(json.dumps({"shapes": [BOX, LINE]}))
    assert "shape number 1 ('cat'): its type is 'line'" in run("labelme", "labelme", "out")


@pytest.mark.parametrize("arguments", ["", "semantic a b", "split", "unknown a b"])
def test_arguments_are_needed(arguments, run, capsys):
    assert run(*arguments.split()) == 2
    assert "usage" in capsys.readouterr().err


def test_help_tells_the_rule(run, capsys):
    assert run("--help") == 0
    assert "smaller one lies on top" in capsys.readouterr().out
