"""Saved predictions have COCO's format, which panopticapi reads, at every moment."""

import json
import resource

import numpy as np
import pytest
import torch
from detectron2.evaluation import DatasetEvaluators, inference_on_dataset
from panopticapi.evaluation import pq_compute

from detr_d2.data.panoptic_png import read_panoptic_png
from detr_d2.evaluation import PanopticEvaluator
from detr_d2.evaluation.saved_predictions import PredictionWriter, image_id_of

NAME = "blocks"


def test_saved_predictions_score_the_same_in_panopticapi(make_dataset, predict, tmp_path, capfd):
    images = make_dataset(range(100, 112))
    evaluator = PanopticEvaluator(NAME, str(tmp_path / "out"), save_predictions=True)
    batches = [images[i : i + 5] for i in range(0, 12, 5)]
    results = inference_on_dataset(
        lambda batch: [predict(image) for image in batch], batches, DatasetEvaluators([evaluator])
    )["panoptic_seg"]

    saved = tmp_path / "out" / "predictions.json"
    expected = pq_compute(str(tmp_path / "gt.json"), str(saved), str(tmp_path / "gt"))
    capfd.readouterr()
    for suffix, group in (("", "All"), ("_th", "Things"), ("_st", "Stuff")):
        for figure in ("PQ", "SQ", "RQ"):
            value = 100 * expected[group][figure.lower()]
            assert results[figure + suffix] == pytest.approx(value, abs=1e-9)
    categories = json.loads((tmp_path / "gt.json").read_text())["categories"]
    for category in categories:
        value = 100 * expected["per_class"][category["id"]]["pq"]
        assert results[f"PQ-{category['name']}"] == pytest.approx(value, abs=1e-9)
    assert 20 < results["PQ"] < 90  # the scene is neither trivial nor hopeless
    content = json.loads(saved.read_text())
    kept = [{k: c[k] for k in ("id", "name", "isthing")} for c in content["categories"]]
    assert kept == categories and all(len(c["color"]) == 3 for c in content["categories"])
    segment = content["annotations"][3]["segments_info"][0]
    ids = read_panoptic_png(saved.with_suffix("") / content["annotations"][3]["file_name"])
    assert segment["area"] == (ids == segment["id"]).sum() and segment["score"] == 0.9
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "predictions",
        "predictions.json",
    ]


def test_hostile_and_colliding_image_ids(make_dataset, run, tmp_path):
    """These ids would lead out of the folder, or differ only in characters no file name has."""
    image_ids = ["../../x", "a/b", "a\\b", "a b", "", "..", "x" * 300, 7, "7", "/etc/y"]
    make_dataset(image_ids)
    out = tmp_path / "deep" / "out"
    run(PanopticEvaluator(NAME, str(out), save_predictions=True))
    saved = json.loads((out / "predictions.json").read_text())["annotations"]
    assert [annotation["image_id"] for annotation in saved] == image_ids
    names = [annotation["file_name"] for annotation in saved]
    assert sorted(p.name for p in (out / "predictions").iterdir()) == sorted(set(names))
    assert len(set(names)) == len(image_ids) == len(set(map(str.lower, names)))
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


def test_saving_needs_a_folder_and_ids_that_fit_a_png(make_dataset, tmp_path):
    images = make_dataset()
    with pytest.raises(ValueError, match="output_dir"):
        PanopticEvaluator(NAME, save_predictions=True)
    evaluator = PanopticEvaluator(NAME, str(tmp_path), save_predictions=True)
    segment = {"id": 1 << 25, "category_id": 0, "isthing": False}
    output = {"panoptic_seg": (torch.full((24, 32), segment["id"]), [segment])}
    with pytest.raises(ValueError, match=r"image 1 .*segment ids must lie in"):
        evaluator.process(images[:1], [output])


CLASSES = [
    {"id": 5, "name": "bäll", "isthing": True, "color": [1, 2, 3]},
    {"id": 9, "name": "sky", "isthing": False, "color": [4, 5, 6]},
]


def test_a_stream_is_valid_after_each_prediction(tmp_path):
    ids = np.array([[7, 7, 0], [300, 0, 0]])
    infos = [{"id": 7, "category_id": 0, "score": 0.5}, {"id": 300, "category_id": 1}]
    with PredictionWriter(tmp_path / "out", CLASSES) as stream:
        assert json.loads(stream.path.read_bytes())["annotations"] == []
        for number in range(4):
            stream.add(f"clip/{number}.png", f"clip/{number}", ids, infos)
            # This is the file that a process leaves if it is killed here.
            content = json.loads(stream.path.read_bytes())
            assert [entry["image_id"] for entry in content["annotations"]] == [
                f"clip/{k}" for k in range(number + 1)
            ]
        assert content["categories"] == CLASSES
        assert '"isthing": 1' in stream.path.read_text()  # as COCO writes flags
        assert content["annotations"][3] == {
            "image_id": "clip/3",
            "file_name": "clip/3.png",
            "segments_info": [
                {"id": 7, "category_id": 5, "area": 2, "score": 0.5},
                {"id": 300, "category_id": 9, "area": 1},
            ],
        }
    assert np.array_equal(read_panoptic_png(tmp_path / "out" / "predictions" / "clip/3.png"), ids)


def test_a_stream_stays_valid_when_the_disk_is_full(tmp_path):
    infos = [{"id": id, "category_id": 0} for id in range(1, 90)]
    ids = np.arange(90).reshape(9, 10)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with PredictionWriter(tmp_path, CLASSES) as stream:
        stream.add("a.png", "a", ids, infos)
        limit = stream.path.stat().st_size + 1000
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(OSError, match="(?i)too large"):
                stream.add("b.png", "b", ids, infos)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert [
            entry["image_id"] for entry in json.loads(stream.path.read_bytes())["annotations"]
        ] == ["a"]
        stream.add("c.png", "c", ids, infos)
        assert len(json.loads(stream.path.read_bytes())["annotations"]) == 2


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("000000000139", 139),
        ("clip_2", "clip_2"),
        ("139", "139"),
        ("0000000001390", "0" * 9 + "1390"),
    ],
)
def test_images_without_annotation_have_their_names_as_ids(name, image_id):
    assert image_id_of(name) == image_id
