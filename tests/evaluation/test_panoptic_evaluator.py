"""PanopticEvaluator on small datasets on disk, against panopticapi and over several processes."""

import copy
import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluators, inference_on_dataset
from detectron2.utils import comm
from panopticapi.evaluation import pq_compute
from torch.multiprocessing import start_processes

from detr_d2.data.panoptic_png import read_panoptic_png, write_panoptic_png
from detr_d2.evaluation import PanopticEvaluator

NAME = "panoptic_evaluator_test"
SIZE = (24, 32)
# Neither dataset ids nor things come in the order of classes.
CATEGORIES = [
    {"id": 20, "name": "grass", "isthing": 0},
    {"id": 3, "name": "cat", "isthing": 1},
    {"id": 11, "name": "sky", "isthing": 0},
    {"id": 1, "name": "dog", "isthing": 1},
]


def class_maps(isthing: int) -> dict[int, int]:
    return {c["id"]: k for k, c in enumerate(CATEGORIES) if c["isthing"] == isthing}


def register(root: Path) -> None:
    """Registers the dataset written in `root`, as Detectron2 registers COCO panoptic."""
    annotations = json.loads((root / "gt.json").read_text())["annotations"]
    class_of = {c["id"]: k for k, c in enumerate(CATEGORIES)}

    def dataset_dicts() -> list[dict]:
        return [
            {
                "file_name": f"images/{ann['file_name']}",
                "image_id": ann["image_id"],
                "pan_seg_file_name": str(root / "gt" / ann["file_name"]),
                "segments_info": [
                    {**s, "category_id": class_of[s["category_id"]]} for s in ann["segments_info"]
                ],
            }
            for ann in annotations
        ]

    DatasetCatalog.register(NAME, dataset_dicts)
    names = [c["name"] for c in CATEGORIES]
    MetadataCatalog.get(NAME).set(
        thing_classes=names,
        stuff_classes=names,
        thing_dataset_id_to_contiguous_id=class_maps(1),
        stuff_dataset_id_to_contiguous_id=class_maps(0),
    )


def write_dataset(root: Path, image_ids, classes=range(4), area_factor: float = 1.0) -> None:
    """Random ground truth: 3 × 4 blocks of segments, every third block void, some crowds."""
    rng = np.random.default_rng(0)
    (root / "gt").mkdir()
    annotations = []
    for number, image_id in enumerate(image_ids):
        ids = rng.permutation(12).reshape(3, 4) * (rng.random((3, 4)) < 0.7)
        ids = np.kron(ids * 70_001, np.ones((8, 8), dtype=int))
        segments = [
            {
                "id": int(i),
                "category_id": CATEGORIES[rng.choice(classes)]["id"],
                "iscrowd": int(rng.random() < 0.2),
                "area": int((ids == i).sum() * area_factor),
            }
            for i in np.setdiff1d(ids, 0)
        ]
        name = f"{number}.png"
        write_panoptic_png(ids, root / "gt" / name)
        annotations.append({"image_id": image_id, "file_name": name, "segments_info": segments})
    content = {"annotations": annotations, "categories": CATEGORIES}
    (root / "gt.json").write_text(json.dumps(content))


def predict(image: dict) -> dict:
    """The ground truth moved by an image-dependent step, with some classes wrong."""
    rng = np.random.default_rng(len(str(image["image_id"])) + len(image["segments_info"]))
    gt_ids = read_panoptic_png(image["pan_seg_file_name"])
    gt_ids = np.roll(gt_ids, rng.integers(0, 4, size=2), axis=(0, 1))
    class_of = {s["id"]: s["category_id"] for s in image["segments_info"]}
    pred_ids, segments = torch.zeros(SIZE, dtype=torch.int32), []
    for number, gt_id in enumerate(np.setdiff1d(gt_ids, 0).tolist(), start=1):
        pred_ids[torch.from_numpy(gt_ids == gt_id)] = number
        wrong = rng.random() < 0.15
        category = int(rng.choice(list(class_of.values()))) if wrong else class_of[gt_id]
        segments.append({"id": number, "category_id": category, "isthing": True, "score": 0.9})
    return {"panoptic_seg": (pred_ids, segments)}


def run(evaluator: PanopticEvaluator, images=None) -> dict:
    images = DatasetCatalog.get(NAME) if images is None else images
    evaluator.reset()
    for image in images:
        evaluator.process([image], [predict(image)])
    return evaluator.evaluate()


def two_images(tmp_path) -> list[dict]:
    write_dataset(tmp_path, [1, 2])
    register(tmp_path)
    return DatasetCatalog.get(NAME)


def test_saved_predictions_score_the_same_in_panopticapi(tmp_path, registry, capfd):
    write_dataset(tmp_path, range(100, 112))
    register(tmp_path)
    evaluator = PanopticEvaluator(NAME, str(tmp_path / "out"), save_predictions=True)
    images = DatasetCatalog.get(NAME)
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
    for category in CATEGORIES:
        value = 100 * expected["per_class"][category["id"]]["pq"]
        assert results[f"PQ-{category['name']}"] == pytest.approx(value, abs=1e-9)
    assert 20 < results["PQ"] < 90  # the scene is neither trivial nor hopeless
    content = json.loads(saved.read_text())
    assert content["categories"] == CATEGORIES
    segment = content["annotations"][3]["segments_info"][0]
    ids = read_panoptic_png(saved.with_suffix("") / content["annotations"][3]["file_name"])
    assert segment["area"] == (ids == segment["id"]).sum() and segment["score"] == 0.9
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "predictions",
        "predictions.json",
    ]


def test_areas_of_the_annotation_are_not_trusted(tmp_path, registry):
    """Areas that are too small let panopticapi report a PQ above 100."""
    figures = []
    for area_factor in (1.0, 0.2):
        root = tmp_path / str(area_factor)
        root.mkdir()
        write_dataset(root, range(6), area_factor=area_factor)
        register(root)
        figures.append(run(PanopticEvaluator(NAME))["panoptic_seg"])
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)
    assert figures[0] == figures[1]
    assert all(0 <= value <= 100 for value in figures[0].values())


@pytest.mark.parametrize(("classes", "lacking"), [([0, 2], "things"), ([1, 3], "stuff")])
def test_a_group_without_segments_is_nan_and_explained(
    tmp_path, registry, caplog, classes, lacking
):
    write_dataset(tmp_path, range(4), classes=classes)
    register(tmp_path)
    with caplog.at_level(logging.INFO):
        figures = run(PanopticEvaluator(NAME))["panoptic_seg"]
    suffix, other = ("_th", "_st") if lacking == "things" else ("_st", "_th")
    assert all(math.isnan(figures[figure + suffix]) for figure in ("PQ", "SQ", "RQ"))
    assert figures["PQ"] == figures["PQ" + other] > 0
    assert sum(math.isnan(value) for value in figures.values()) == 3 + 2
    assert f"no {lacking} in the evaluated images of {NAME}: their PQ is undefined" in caplog.text
    assert "|  All   |" in caplog.text and "2 classes without any segment left out" in caplog.text


def test_without_images(tmp_path, registry, caplog):
    two_images(tmp_path)
    assert run(PanopticEvaluator(NAME), images=[]) == {}
    assert "Did not receive valid predictions" in caplog.text


def test_empty_prediction_and_partial_evaluation(tmp_path, registry, caplog):
    images = two_images(tmp_path)
    evaluator = PanopticEvaluator(NAME)
    nothing = {"panoptic_seg": (torch.zeros(SIZE, dtype=torch.int64), [])}
    evaluator.process(images[:1], [nothing])
    figures = evaluator.evaluate()["panoptic_seg"]
    assert figures["PQ"] == figures["RQ"] == 0
    assert "Evaluated 1 of 2 images" in caplog.text


def test_outputs_are_left_alone(tmp_path, registry):
    images = two_images(tmp_path)
    outputs = [predict(image) for image in images]
    kept_images, kept = copy.deepcopy(images), copy.deepcopy(outputs)
    evaluator = PanopticEvaluator(NAME, str(tmp_path / "out"), save_predictions=True)
    evaluator.process(images, outputs)
    assert images == kept_images
    for output, before in zip(outputs, kept, strict=True):
        assert torch.equal(output["panoptic_seg"][0], before["panoptic_seg"][0])
        assert output["panoptic_seg"][1] == before["panoptic_seg"][1]


def test_the_segments_own_isthing_is_not_trusted(tmp_path, registry):
    images = two_images(tmp_path)
    evaluator = PanopticEvaluator(NAME)
    expected = run(evaluator)
    evaluator.reset()
    for image in images:
        ids, segments = predict(image)["panoptic_seg"]
        segments = [{**s, "isthing": np.False_} for s in segments]
        evaluator.process([image], [{"panoptic_seg": (ids, segments)}])
    assert evaluator.evaluate() == expected


SEGMENT = {"id": 1, "category_id": 0, "isthing": False}
ONES = torch.ones(SIZE, dtype=torch.int32)


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
def test_an_invalid_prediction_is_refused_with_its_image(tmp_path, registry, output, message):
    images = two_images(tmp_path)
    with pytest.raises(ValueError, match=rf"image 2 \(.*gt.1\.png\): .*{message}"):
        PanopticEvaluator(NAME).process(images[1:], [output])


def test_unknown_image_and_missing_png(tmp_path, registry):
    images = two_images(tmp_path)
    with pytest.raises(ValueError, match="image 3 is not in dataset"):
        PanopticEvaluator(NAME).process([{**images[0], "image_id": 3}], [predict(images[0])])
    outputs = [predict(images[0])]
    (tmp_path / "gt" / "0.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"0\.png"):
        PanopticEvaluator(NAME).process(images[:1], outputs)


def test_an_image_evaluated_twice_is_refused(tmp_path, registry):
    images = two_images(tmp_path)
    with pytest.raises(ValueError, match="image 1 was evaluated more than once"):
        run(PanopticEvaluator(NAME), images=[*images, images[0]])


def test_reset_forgets(tmp_path, registry):
    two_images(tmp_path)
    evaluator = PanopticEvaluator(NAME)
    assert run(evaluator) == run(evaluator)


def test_hostile_and_colliding_image_ids(tmp_path, registry):
    """Ids that would leave the folder, or differ only in what a file name can't hold."""
    image_ids = ["../../x", "a/b", "a\\b", "a b", "", "..", "x" * 300, 7, "7", "/etc/y"]
    write_dataset(tmp_path, image_ids)
    register(tmp_path)
    out = tmp_path / "deep" / "out"
    run(PanopticEvaluator(NAME, str(out), save_predictions=True))
    saved = json.loads((out / "predictions.json").read_text())["annotations"]
    assert [annotation["image_id"] for annotation in saved] == image_ids
    names = [annotation["file_name"] for annotation in saved]
    assert sorted(p.name for p in (out / "predictions").iterdir()) == sorted(set(names))
    assert len(set(names)) == len(image_ids) == len(set(map(str.lower, names)))
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


def test_saving_needs_a_folder_and_ids_that_fit_a_png(tmp_path, registry):
    images = two_images(tmp_path)
    with pytest.raises(ValueError, match="output_dir"):
        PanopticEvaluator(NAME, save_predictions=True)
    evaluator = PanopticEvaluator(NAME, str(tmp_path), save_predictions=True)
    output = {"panoptic_seg": (ONES << 25, [{**SEGMENT, "id": 1 << 25}])}
    with pytest.raises(ValueError, match=r"image 1 .*segment ids must lie in"):
        evaluator.process(images[:1], [output])


@pytest.mark.parametrize("num_processes", [2, 3, 7])
def test_figures_do_not_depend_on_the_number_of_processes(
    tmp_path, registry, monkeypatch, num_processes
):
    write_dataset(tmp_path, range(20))
    register(tmp_path)
    images = DatasetCatalog.get(NAME)
    whole = run(PanopticEvaluator(NAME, str(tmp_path / "one"), save_predictions=True))

    gathered = []
    monkeypatch.setattr(comm, "gather", lambda data: gathered.append(data) or gathered)
    for rank in reversed(range(num_processes)):  # the main process comes last
        monkeypatch.setattr(comm, "is_main_process", lambda rank=rank: rank == 0)
        evaluator = PanopticEvaluator(NAME, str(tmp_path / "many"), save_predictions=True)
        results = run(evaluator, images[rank::num_processes])
        assert rank == 0 or results == {}
    assert results == whole  # to the last digit
    one, many = ((tmp_path / name / "predictions.json") for name in ("one", "many"))
    assert one.read_text() == many.read_text()


def _worker(rank: int, root: Path) -> None:
    store = f"file://{root / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, world_size=2, rank=rank)
    results = run(PanopticEvaluator(NAME), DatasetCatalog.get(NAME)[rank::2])
    (root / f"rank{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


def test_two_real_processes(tmp_path, registry):
    write_dataset(tmp_path, range(9))
    register(tmp_path)
    expected = run(PanopticEvaluator(NAME))
    # Forked, as fresh processes would spend 20 s on imports.
    start_processes(_worker, args=(tmp_path,), nprocs=2, start_method="fork")
    assert json.loads((tmp_path / "rank0.json").read_text()) == expected
    assert json.loads((tmp_path / "rank1.json").read_text()) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pan_seg_file_name": None}, "no panoptic annotation, .*pan_seg_file_name"),
        ({"image_id": 2}, "several images have the id 2"),
        ({"segments_info": [{"id": 9, "category_id": 20}]}, "class 20 of segment 9 .* 0 … 3"),
    ],
)
def test_unusable_dataset(tmp_path, registry, changes, message):
    images = two_images(tmp_path)
    changed = {key: value for key, value in {**images[0], **changes}.items() if value is not None}
    DatasetCatalog.remove(NAME)
    DatasetCatalog.register(NAME, lambda: [changed, images[1]])
    with pytest.raises(ValueError, match=message):
        PanopticEvaluator(NAME)


def test_classes_of_one_name_keep_their_own_figure(tmp_path, registry):
    two_images(tmp_path)
    MetadataCatalog.remove(NAME)
    MetadataCatalog.get(NAME).set(
        thing_dataset_id_to_contiguous_id=class_maps(1),
        stuff_dataset_id_to_contiguous_id=class_maps(0),
        stuff_classes=["grass", "cat", "sky", "cat"],
    )
    figures = run(PanopticEvaluator(NAME))["panoptic_seg"]
    per_class = [key for key in figures if key.startswith("PQ-")]
    assert per_class == ["PQ-grass", "PQ-cat (3)", "PQ-sky", "PQ-cat (1)"]
