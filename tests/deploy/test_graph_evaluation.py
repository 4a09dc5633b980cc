"""Panoptic quality of an exported model, beside panopticapi's on what it saves."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detr_d2.data.panoptic_png import write_panoptic_png
from detr_d2.deploy import ModelError, OnnxPredictor
from detr_d2.deploy.graph_evaluation import evaluate, main
from detr_d2.deploy.prediction_files import predict_files


@pytest.fixture
def dataset(tmp_path: Path, stripes, info) -> tuple[Path, Path, Path]:
    """JSON, images and PNGs of two images, on one of which the model is not quite right."""
    images, pngs = tmp_path / "data" / "images", tmp_path / "data" / "panoptic"
    images.mkdir(parents=True)
    pngs.mkdir()
    for name, image in (("one", stripes), ("two", stripes[:, ::-1])):
        Image.fromarray(np.ascontiguousarray(image)).save(images / f"{name}.png")
    red, blue = stripes[..., 0] > 0, stripes[..., 2] > 0
    ids = (1000 * red + 2000 * blue).astype(np.int32)
    write_panoptic_png(ids, pngs / "one.png")
    other = ids[:, ::-1].copy()
    other[:16] = 0
    other[40:] = 3000  # another class's
    write_panoptic_png(other, pngs / "two.png")
    segments = [{"id": 1000, "category_id": 7}, {"id": 2000, "category_id": 40}]
    content = {
        "images": [
            {"id": f"id {name}", "file_name": f"{name}.png", "height": 48, "width": 64}
            for name in ("one", "two")
        ],
        "annotations": [
            {"image_id": "id one", "file_name": "one.png", "segments_info": segments},
            {
                "image_id": "id two",
                "file_name": "two.png",
                "segments_info": [*segments, {"id": 3000, "category_id": 3}],
            },
        ],
        "categories": info["classes"],
    }
    for annotation, map_of_ids in zip(content["annotations"], (ids, other), strict=True):
        annotation["segments_info"] = [
            {**s, "iscrowd": 0, "area": int((map_of_ids == s["id"]).sum())}
            for s in annotation["segments_info"]
        ]
    path = tmp_path / "data" / "panoptic.json"
    path.write_text(json.dumps(content))
    return path, images, pngs


def changed(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_figures_are_panopticapis(make_model, dataset, tmp_path, capfd):
    from panopticapi.evaluation import pq_compute

    predictor = OnnxPredictor(make_model(), image_format="RGB")
    result = evaluate(predictor, *dataset)
    predict_files(predictor, [str(dataset[1])], tmp_path / "out", save_panoptic=True)
    saved = tmp_path / "out" / "predictions.json"

    def rename(content):
        for annotation in content["annotations"]:
            annotation["image_id"] = f"id {annotation['file_name'].removesuffix('.png')}"

    changed(saved, rename)
    expected = pq_compute(
        str(dataset[0]), str(saved), str(dataset[2]), str(tmp_path / "out" / "predictions")
    )
    capfd.readouterr()
    for name, group in result.groups.items():
        assert (group.pq, group.sq, group.rq) == pytest.approx(
            tuple(expected[name][figure] for figure in ("pq", "sq", "rq"))
        )
        assert group.num_classes == expected[name]["n"]
    assert 0.3 < result.groups["All"].pq < 0.9 and len(result.seconds) == 2


def test_the_command(make_model, dataset, monkeypatch, capsys):
    names = zip(("--json", "--images", "--panoptic"), map(str, dataset), strict=True)
    arguments = [argument for pair in names for argument in pair]
    monkeypatch.setattr(sys, "argv", ["evaluate", str(make_model()), *arguments])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["All", "Things", "Stuff"]
    assert lines[4].startswith("2 images, ") and lines[4].endswith(" MB")
    (dataset[1] / "two.png").unlink()
    with pytest.raises(SystemExit, match=r"error: .*two\.png"):
        main()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c["categories"].pop(), "has 2 classes .* exported for 3"),
        (lambda c: c["categories"][2].update(id=41), r"40 \(sky\) and 41 \(sky\)"),
        (lambda c: c["annotations"].clear(), "no image has an annotation"),
        (lambda c: c["annotations"][0].update(image_id=5), "no image has the annotated id '5'"),
        (lambda c: c["annotations"][0].update(file_name="../one.png"), "leaves its folder"),
        (lambda c: c["images"][1].update(file_name="/etc/passwd"), "leaves its folder"),
        (lambda c: c.update(annotations={"a": 1}), "no list 'annotations'"),
        (lambda c: c["annotations"][0]["segments_info"].pop(), r"one\.png: .*lacks segment 2000"),
    ],
)
def test_datasets_that_do_not_fit_are_refused(make_model, dataset, change, message):
    changed(dataset[0], change)
    with pytest.raises(ValueError, match=message) as raised:
        evaluate(OnnxPredictor(make_model(), image_format="RGB"), *dataset)
    assert isinstance(raised.value, ModelError) == ("sky" in message or "exported" in message)
