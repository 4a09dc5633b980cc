"""PanopticEvaluator on a small dataset on disk."""

import copy
import logging
import math

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from detr_d2.evaluation import PanopticEvaluator

NAME = "blocks"
SIZE = (24, 32)
SEGMENT = {"id": 1, "category_id": 0, "isthing": False}
ONES = torch.ones(SIZE, dtype=torch.int32)


def test_areas_of_the_annotation_are_not_trusted(make_dataset, run, tmp_path):
    """Areas that are too small let panopticapi report a PQ above 100."""
    figures = []
    for area_factor in (1.0, 0.2):
        root = tmp_path / str(area_factor)
        root.mkdir()
        make_dataset(range(6), area_factor=area_factor, root=root)
        figures.append(run(PanopticEvaluator(NAME))["panoptic_seg"])
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)
    assert figures[0] == figures[1]
    assert all(0 <= value <= 100 for value in figures[0].values())


@pytest.mark.parametrize(("classes", "lacking"), [([0, 2], "things"), ([1, 3], "stuff")])
def test_a_group_without_segments_is_nan_and_explained(make_dataset, run, caplog, classes, lacking):
    make_dataset(range(4), classes=classes)
    with caplog.at_level(logging.INFO):
        figures = run(PanopticEvaluator(NAME))["panoptic_seg"]
    suffix, other = ("_th", "_st") if lacking == "things" else ("_st", "_th")
    assert all(math.isnan(figures[figure + suffix]) for figure in ("PQ", "SQ", "RQ"))
    assert figures["PQ"] == figures["PQ" + other] > 0
    assert sum(math.isnan(value) for value in figures.values()) == 3 + 2
    assert f"no {lacking} in the evaluated images of {NAME}: their PQ is undefined" in caplog.text
    assert "|  All   |" in caplog.text and "2 classes without any segment left out" in caplog.text


def test_without_images(make_dataset, run, caplog):
    make_dataset()
    assert run(PanopticEvaluator(NAME), images=[]) == {}
    assert "Did not receive valid predictions" in caplog.text


def test_empty_prediction_and_partial_evaluation(make_dataset, caplog):
    images = make_dataset()
    evaluator = PanopticEvaluator(NAME)
    nothing = {"panoptic_seg": (torch.zeros(SIZE, dtype=torch.int64), [])}
    evaluator.process(images[:1], [nothing])
    figures = evaluator.evaluate()["panoptic_seg"]
    assert figures["PQ"] == figures["RQ"] == 0
    assert "Evaluated 1 of 2 images" in caplog.text


def test_outputs_are_left_alone(make_dataset, predict, tmp_path):
    images = make_dataset()
    outputs = [predict(image) for image in images]
    kept_images, kept = copy.deepcopy(images), copy.deepcopy(outputs)
    evaluator = PanopticEvaluator(NAME, str(tmp_path / "out"), save_predictions=True)
    evaluator.process(images, outputs)
    assert images == kept_images
    for output, before in zip(outputs, kept, strict=True):
        assert torch.equal(output["panoptic_seg"][0], before["panoptic_seg"][0])
        assert output["panoptic_seg"][1] == before["panoptic_seg"][1]


def test_the_segments_own_isthing_is_not_trusted(make_dataset, predict, run):
    images = make_dataset()
    evaluator = PanopticEvaluator(NAME)
    expected = run(evaluator)
    evaluator.reset()
    for image in images:
        ids, segments = predict(image)["panoptic_seg"]
        segments = [{**s, "isthing": np.False_} for s in segments]
        evaluator.process([image], [{"panoptic_seg": (ids, segments)}])
    assert evaluator.evaluate() == expected


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"panoptic_seg": (ONES, None)}, "segments_info is None"),
        ({"instances": None}, r"no 'panoptic_seg', only \['instances'\]"),
        ({"panoptic_seg": (ONES, [])}, "segments_info lacks segment 1"),
        ({"panoptic_seg": (ONES, [{"id": 1, "category_id": 0}])}, "no 'isthing'"),
        ({"panoptic_seg": (ONES, [{**SEGMENT, "category_id": 20}])}, r"class 20 .* 0 … 3"),
        ({"panoptic_seg": (ONES, [SEGMENT, SEGMENT])}, "segment 1 more than once"),
        ({"panoptic_seg": (ONES.T, [SEGMENT])}, r"\(32, 24\) and \(24, 32\)"),
        ({"panoptic_seg": (ONES.float(), [SEGMENT])}, "must be integers .* float32"),
    ],
)
def test_an_invalid_prediction_is_refused_with_its_image(make_dataset, output, message):
    images = make_dataset()
    with pytest.raises(ValueError, match=rf"image 2 \(.*gt.1\.png\): .*{message}"):
        PanopticEvaluator(NAME).process(images[1:], [output])


def test_unknown_image_and_missing_png(make_dataset, predict, tmp_path):
    images = make_dataset()
    with pytest.raises(ValueError, match="image 3 is not in dataset"):
        PanopticEvaluator(NAME).process([{**images[0], "image_id": 3}], [predict(images[0])])
    outputs = [predict(images[0])]
    (tmp_path / "gt" / "0.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"0\.png"):
        PanopticEvaluator(NAME).process(images[:1], outputs)


def test_an_image_evaluated_twice_is_refused(make_dataset, run):
    images = make_dataset()
    with pytest.raises(ValueError, match="image 1 was evaluated more than once"):
        run(PanopticEvaluator(NAME), images=[*images, images[0]])


def test_reset_forgets(make_dataset, run):
    make_dataset()
    evaluator = PanopticEvaluator(NAME)
    assert run(evaluator) == run(evaluator)


def test_dicts_that_have_been_read_are_not_read_again(make_dataset, run, monkeypatch):
    images = make_dataset()
    kept, expected = copy.deepcopy(images), run(PanopticEvaluator(NAME))
    monkeypatch.setattr(DatasetCatalog, "get", None)
    assert run(PanopticEvaluator(NAME, dataset_dicts=images), images) == expected
    assert images == kept


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pan_seg_file_name": None}, "no panoptic annotation, .*pan_seg_file_name"),
        ({"image_id": 2}, "several images have the id 2"),
        ({"segments_info": [{"id": 9, "category_id": 20}]}, "class 20 of segment 9 .* 0 … 3"),
    ],
)
def test_unusable_dataset(make_dataset, changes, message):
    images = make_dataset()
    changed = {key: value for key, value in {**images[0], **changes}.items() if value is not None}
    DatasetCatalog.remove(NAME)
    DatasetCatalog.register(NAME, lambda: [changed, images[1]])
    with pytest.raises(ValueError, match=message):
        PanopticEvaluator(NAME)


def test_classes_of_one_name_keep_their_own_figure(make_dataset, run):
    make_dataset()
    MetadataCatalog.remove(NAME)
    MetadataCatalog.get(NAME).set(
        thing_dataset_id_to_contiguous_id={3: 1, 1: 3},
        stuff_dataset_id_to_contiguous_id={20: 0, 11: 2},
        stuff_classes=["grass", "cat", "sky", "cat"],
    )
    figures = run(PanopticEvaluator(NAME))["panoptic_seg"]
    per_class = [key for key in figures if key.startswith("PQ-")]
    assert per_class == ["PQ-grass", "PQ-cat (3)", "PQ-sky", "PQ-cat (1)"]
