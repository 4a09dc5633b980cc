"""Box and mask AP from the JSON derived from a panoptic dataset."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances

from detr_d2.data.panoptic_png import write_panoptic_png
from detr_d2.evaluation import (
    build_instance_evaluator,
    write_thing_instances,
)

NAME = "thing_instances_test"
# Class → (name, dataset id, is thing). Things come neither first nor sorted by dataset id.
CLASSES = [("grass", 20, False), ("cat", 30, True), ("sky", 2, False), ("dog", 4, True)]
CAT, DOG, GRASS = 1, 3, 0
# Segments of each image: (id, class, crowd, rows, columns), painted in order.
IMAGES = [
    [
        (70_000, GRASS, 0, slice(0, 40), slice(0, 60)),
        (5, CAT, 0, slice(2, 12), slice(3, 23)),
        (900, DOG, 0, slice(20, 39), slice(30, 50)),
        (901, DOG, 1, slice(0, 10), slice(40, 60)),
        (6, CAT, 0, slice(8, 20), slice(10, 40)),  # covers a corner of segment 5
    ],
    [(1, GRASS, 0, slice(0, 9), slice(0, 60))],
    [(1, DOG, 0, slice(39, 40), slice(59, 60)), (2, CAT, 0, slice(0, 5), slice(0, 5))],
]


def id_map(segments: list) -> np.ndarray:
    ids = np.zeros((40, 60), dtype=int)
    for segment_id, _, _, rows, columns in segments:
        ids[rows, columns] = segment_id
    return ids


def register(root: Path, things: bool = True, **metadata) -> None:
    dicts = []
    for number, segments in enumerate(IMAGES):
        path = root / f"{number}.png"
        write_panoptic_png(id_map(segments), path)
        infos = [{"id": i, "category_id": k, "iscrowd": crowd} for i, k, crowd, _, _ in segments]
        dicts.append(
            {
                "file_name": f"{number}.jpg",
                "image_id": 10 + number,
                "pan_seg_file_name": str(path),
                "segments_info": infos,
            }
        )
    maps = [
        {c[1]: k for k, c in enumerate(CLASSES) if (c[2] and things) == kind}
        for kind in (True, False)
    ]
    DatasetCatalog.register(NAME, lambda: copy.deepcopy(dicts))
    names = [name for name, _, _ in CLASSES]
    MetadataCatalog.get(NAME).set(
        thing_classes=names,
        stuff_classes=names,
        thing_dataset_id_to_contiguous_id=maps[0],
        stuff_dataset_id_to_contiguous_id=maps[1],
        **metadata,
    )


def perfect_prediction(segments: list, shift: int = 0) -> dict:
    """All segments except crowds as instances, including stuff."""
    ids = id_map(segments)
    countable = [segment for segment in segments if not segment[2]]
    masks = np.array([np.roll(ids == segment[0], shift, axis=1) for segment in countable])
    boxes = [
        (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        for rows, columns in map(np.nonzero, masks)
    ]
    instances = Instances(ids.shape)
    instances.pred_boxes = Boxes(torch.tensor(np.array(boxes, dtype=np.float32)))
    instances.pred_masks = torch.from_numpy(masks)
    instances.scores = torch.full((len(countable),), 0.9)
    instances.pred_classes = torch.tensor([segment[1] for segment in countable])
    return {"instances": instances}


def evaluate(evaluator: COCOEvaluator, outputs: list[dict]) -> dict:
    evaluator.reset()
    evaluator.process([{"image_id": 10 + i} for i in range(len(outputs))], outputs)
    return evaluator.evaluate()


def test_perfect_predictions_have_an_ap_of_100(tmp_path, registry):
    register(tmp_path)
    evaluator = build_instance_evaluator(NAME, str(tmp_path / "out"), ("bbox", "segm"))
    assert isinstance(evaluator, COCOEvaluator)
    outputs = [perfect_prediction(segments) for segments in IMAGES]
    before = [output["instances"].pred_classes.clone() for output in outputs]
    results = evaluate(evaluator, outputs)
    for task in ("bbox", "segm"):
        assert results[task]["AP"] == pytest.approx(100)
        assert results[task]["AP-cat"] == results[task]["AP-dog"] == pytest.approx(100)
        assert set(results[task]) >= {"APs", "AP50"} and "AP-grass" not in results[task]
    for output, classes in zip(outputs, before, strict=True):
        assert torch.equal(output["instances"].pred_classes, classes)


def test_results_are_those_of_detectron2(tmp_path, registry):
    """Boxes, scores and encoded masks of the things are equal byte for byte."""
    register(tmp_path)
    ours = build_instance_evaluator(NAME, str(tmp_path))
    theirs = COCOEvaluator(f"{NAME}_thing_instances", output_dir=str(tmp_path))
    rng = np.random.default_rng(0)
    outputs = [{}]
    for masks in ([], rng.random((9, 40, 60)) < 0.5, np.ones((3, 40, 60)), np.zeros((2, 40, 60))):
        instances = Instances((40, 60))
        instances.pred_masks = torch.tensor(np.array(masks, bool).reshape(-1, 40, 60))
        instances.pred_boxes = Boxes(torch.rand(len(masks), 4) * 40)
        instances.scores = torch.rand(len(masks))
        instances.pred_classes = torch.tensor([DOG, GRASS, CAT, CAT] * 3)[: len(masks)]
        outputs.append({"instances": instances})
    inputs = [{"image_id": i} for i in range(len(outputs))]
    things = [{}]
    for output in outputs[1:]:
        instances = output["instances"]
        instances = instances[instances.pred_classes != GRASS]
        instances.pred_classes = (instances.pred_classes == CAT).long()  # by dataset id: dog, cat
        things.append({"instances": instances})
    for evaluator, predictions in ((ours, outputs), (theirs, things)):
        evaluator.reset()
        evaluator.process(inputs, predictions)
    assert ours._predictions == theirs._predictions
    assert [len(p["instances"]) for p in ours._predictions] == [0, 7, 2, 1]


def test_outputs_are_left_alone(tmp_path, registry):
    register(tmp_path)
    outputs = [perfect_prediction(segments) for segments in IMAGES]
    before = copy.deepcopy(outputs)
    evaluate(build_instance_evaluator(NAME, str(tmp_path)), outputs)
    for output, kept in zip(outputs, before, strict=True):
        fields, expected = output["instances"].get_fields(), kept["instances"].get_fields()
        assert fields.keys() == expected.keys()
        assert torch.equal(fields["pred_masks"], expected["pred_masks"])
        assert torch.equal(fields["pred_classes"], expected["pred_classes"])


def test_names_follow_classes(tmp_path, registry):
    """Only the dogs are predicted, so only AP-dog is 100."""
    register(tmp_path)
    outputs = [perfect_prediction(segments) for segments in IMAGES]
    for output in outputs:
        instances = output["instances"]
        output["instances"] = instances[instances.pred_classes == DOG]
    results = evaluate(build_instance_evaluator(NAME, str(tmp_path), ("bbox",)), outputs)
    assert list(results) == ["bbox"]
    assert results["bbox"]["AP-dog"] == pytest.approx(100)
    assert results["bbox"]["AP-cat"] == 0


def test_shifted_predictions_score_between(tmp_path, registry):
    register(tmp_path)
    outputs = [perfect_prediction(segments, shift=2) for segments in IMAGES]
    results = evaluate(build_instance_evaluator(NAME, str(tmp_path)), outputs)
    assert 10 < results["segm"]["AP"] < 90
    assert 10 < results["bbox"]["AP"] < 90


def test_without_any_prediction(tmp_path, registry):
    register(tmp_path)
    outputs = [perfect_prediction(segments) for segments in IMAGES]
    outputs = [{"instances": output["instances"][:0]} for output in outputs]
    results = evaluate(build_instance_evaluator(NAME, str(tmp_path)), outputs)
    assert math.isnan(results["bbox"]["AP"])


def test_derived_json(tmp_path, registry):
    register(tmp_path)
    path = tmp_path / "things.json"
    write_thing_instances(NAME, path)
    content = json.loads(path.read_text())
    assert content["categories"] == [{"id": 4, "name": "dog"}, {"id": 30, "name": "cat"}]
    assert content["images"][2] == {"id": 12, "file_name": "2.jpg", "height": 40, "width": 60}
    things = [
        (10 + number, segment, id_map(segments) == segment[0])
        for number, segments in enumerate(IMAGES)
        for segment in segments
        if CLASSES[segment[1]][2]
    ]
    assert [ann["id"] for ann in content["annotations"]] == [1, 2, 3, 4, 5, 6]
    for ann, (image_id, segment, mask) in zip(content["annotations"], things, strict=True):
        rows, columns = np.nonzero(mask)
        assert ann["image_id"] == image_id and ann["iscrowd"] == segment[2]
        assert ann["category_id"] == CLASSES[segment[1]][1]
        np.testing.assert_array_equal(mask_util.decode(ann["segmentation"]), mask)
        assert ann["area"] == mask.sum()
        x, y, width, height = ann["bbox"]
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)


def test_no_things_no_evaluator(tmp_path, registry):
    register(tmp_path, things=False)
    assert build_instance_evaluator(NAME, str(tmp_path / "out")) is None
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("metadata", [{}, {"json_file": None}, {"json_file": "nowhere.json"}])
def test_metadata_names_the_derived_json(tmp_path, registry, metadata):
    register(tmp_path, **metadata)
    build_instance_evaluator(NAME, str(tmp_path / "out"))
    (written,) = (tmp_path / "out").iterdir()
    assert MetadataCatalog.get(NAME).json_file == str(written)
    # The next evaluation of a training run, wherever it writes, takes the same file.
    assert build_instance_evaluator(NAME, str(tmp_path / "other")) is not None
    assert not (tmp_path / "other").exists()


def test_an_instance_json_of_the_dataset_is_used(tmp_path, registry):
    """COCO has such a file; its masks overlap, while panoptic masks don't."""
    path = tmp_path / "instances.json"
    register(tmp_path, json_file=str(path))
    write_thing_instances(NAME, path)
    content = json.loads(path.read_text())
    content["annotations"] = [ann for ann in content["annotations"] if ann["image_id"] == 12]
    path.write_text(json.dumps(content))
    evaluator = build_instance_evaluator(NAME, str(tmp_path / "out"), ("segm",))
    results = evaluate(evaluator, [perfect_prediction(segments) for segments in IMAGES])
    assert results["segm"]["AP"] < 100  # the instances of image 10 count as false now

    content["categories"].append({"id": 20, "name": "grass"})
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"categories \[4, 20, 30\] are not .* \[4, 30\]"):
        build_instance_evaluator(NAME, str(tmp_path / "out"))


def test_a_failed_write_leaves_the_old_file(tmp_path, registry):
    register(tmp_path)
    path = tmp_path / "out" / "things.json"
    path.parent.mkdir()
    path.write_text("old")
    write_panoptic_png(np.full((4, 4), 77), tmp_path / "1.png")
    with pytest.raises(ValueError, match=r"image 11 \(.*1\.png\): segments_info lacks ids \[77\]"):
        write_thing_instances(NAME, path)
    assert path.read_text() == "old"
    write_panoptic_png(np.full((4, 4), 1), tmp_path / "1.png")
    write_thing_instances(NAME, path)
    assert json.loads(path.read_text()) and [p.name for p in path.parent.iterdir()] == [path.name]


def test_segments_without_pixels_are_left_out(tmp_path, registry, caplog):
    register(tmp_path)
    write_panoptic_png(np.zeros((40, 60), dtype=int), tmp_path / "2.png")
    write_thing_instances(NAME, tmp_path / "things.json")
    content = json.loads((tmp_path / "things.json").read_text())
    assert {ann["image_id"] for ann in content["annotations"]} == {10}
    assert "2 thing segments" in caplog.text
