"""A model of one's own data where that data isn't: its config and its checkpoint are enough."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.fx.experimental import _config as symbolic_config

pytestmark = pytest.mark.skipif(
    not hasattr(symbolic_config, "backed_size_oblivious"), reason="exporting needs a newer PyTorch"
)
# Neither in order of ids nor things first; the last has no colour.
CATEGORIES = [
    {"id": 30, "name": "grass", "isthing": 0, "color": [10, 200, 30]},
    {"id": 7, "name": "cat", "isthing": 1, "color": [250, 1, 2]},
    {"id": 9, "name": "dog", "isthing": 1},
]
# What is done in a fresh process, each thing as people do it.
PREDICT = """
import json, sys, zipfile
import cv2
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultPredictor
from detr_d2.cli import main
from detr_d2.config import load_config
from detr_d2.predictor import Predictor
from detr_d2.apps.web.image_viewer import Viewer

folder = sys.argv[1]
config, image = f"{folder}/config.yaml", f"{folder}/image.png"
weights = ["MODEL.WEIGHTS", f"{folder}/model_final.pth"]
model = ["--config-file", config]


def run(*arguments):
    assert not main(list(arguments)), arguments


run("demo", *model, "--input", image, "--output", f"{folder}/demo", "--save-panoptic", *weights)
run("explain", *model, "--input", image, "--output", f"{folder}/explained", *weights)
run("convert", weights[1], f"{folder}/converted.pth")
converted = ["MODEL.WEIGHTS", f"{folder}/converted.pth"]
no_dataset = ["DATASETS.TEST", "()", "DATASETS.TRAIN", "()", "DATASETS.PANOPTIC", "[]"]
run("demo", *model, "--input", image, "--output", f"{folder}/demo_2", "--save-panoptic",
    *converted, *no_dataset, "MODEL.DETR.NUM_CLASSES", "0")
file = f"{folder}/exported.pt2"
run("export", *model, "--output", file, "--format", "torch", "--size", "64", "64", *weights)

cfg = load_config(config, weights)
with zipfile.ZipFile(file) as archive:
    (entry,) = [name for name in archive.namelist() if name.endswith("detr_d2.json")]
    told = {"exported": json.loads(archive.read(entry))["classes"]}
for name, build in (("detectron2", DefaultPredictor), ("ours", Predictor)):
    predictor = build(cfg)
    metadata = predictor.metadata
    assert metadata is MetadataCatalog.get("own_val")
    told[name] = [
        metadata.thing_classes,
        metadata.stuff_classes,
        metadata.thing_colors,
        sorted(metadata.thing_dataset_id_to_contiguous_id.items()),
        sorted(metadata.stuff_dataset_id_to_contiguous_id.items()),
        predictor.model.is_thing.tolist(),
    ]
viewer = Viewer.from_config(cfg)
shown = viewer.look_at(cv2.imread(image), viewer.merging)
told["web"] = shown.metadata.stuff_classes
print("TOLD", json.dumps(told))
"""


def run_python(*arguments: object, status: int = 0) -> str:
    """What a fresh process says; it must end with a status."""
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert result.returncode == status, result.stdout + result.stderr
    return result.stdout + result.stderr


def write_dataset(root: Path) -> list[str]:
    """An image whose three columns are the categories; gives the paths of DATASETS.PANOPTIC."""
    for name in ("images", "pngs"):
        (root / name).mkdir(parents=True)
    ids = np.repeat(np.arange(1, 4, dtype=np.uint8), 20)[None].repeat(60, 0)
    cv2.imwrite(str(root / "images/a.png"), np.stack([80 * ids] * 3, 2))
    cv2.imwrite(str(root / "pngs/a.png"), np.stack([0 * ids, 0 * ids, ids], 2))
    segments = [
        {"id": k, "category_id": c["id"], "area": 1200, "bbox": [20 * k - 20, 0, 20, 60]}
        | {"iscrowd": 0}
        for k, c in enumerate(CATEGORIES, start=1)
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 60, "width": 60}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": CATEGORIES,
    }
    (root / "panoptic.json").write_text(json.dumps(content))
    return [str(root / name) for name in ("images", "pngs", "panoptic.json")]


@pytest.fixture(scope="module")
def elsewhere(make_tiny_cfg, tmp_path_factory) -> Path:
    """A folder with a run's config and checkpoint and an image, and nothing else of the run."""
    folder = tmp_path_factory.mktemp("own")
    paths = write_dataset(folder / "data")
    cfg = make_tiny_cfg(
        folder / "output",
        *("DATASETS.PANOPTIC", [["own_train", *paths], ["own_val", *paths]]),
        *("DATASETS.TRAIN", ("own_train",), "DATASETS.TEST", ("own_val",)),
        *("MODEL.DETR.NUM_CLASSES", 0, "SOLVER.STAGES", ["joint"], "SOLVER.MAX_ITER", 1),
        *("MODEL.DETR.TEST.SCORE_THRESH", 0.0, "SOLVER.IMS_PER_BATCH", 1),
        *("MODEL.DETR.TEST.MIN_AREA", 0, "INPUT.MIN_SIZE_TEST", 64),
    )
    (folder / "train.yaml").write_text(cfg.dump())
    run_python("-m", "detr_d2", "train", "--config-file", folder / "train.yaml")
    other = tmp_path_factory.mktemp("elsewhere")
    shutil.copy(folder / "output/config.yaml", other)
    content = torch.load(folder / "output/joint/model_final.pth", weights_only=True)
    content["model"]["detector.class_head.bias"] += torch.tensor([0.0, 0, 50, 0])  # it sees grass
    torch.save(content, other / "model_final.pth")
    shutil.copy(folder / "data/images/a.png", other / "image.png")
    shutil.rmtree(folder)
    return other


def test_all_that_predicts_knows_the_classes(elsewhere):
    (elsewhere / "predict.py").write_text(PREDICT)
    said = run_python(elsewhere / "predict.py", elsewhere)
    weights = elsewhere / "model_final.pth"
    held = f"the classes are those that {weights} holds, 3, of which 2 are things"
    assert f"No dataset of DATASETS is available (own_train, own_val): {held}" in said
    assert "No dataset of DATASETS is available (none is named): the classes" in said
    assert "all count as things" not in said

    told = json.loads(next(line for line in said.splitlines() if line.startswith("TOLD"))[5:])
    names = ["cat", "dog", "grass"]
    colors = torch.load(weights, weights_only=True)["detr_d2"]["colors"]
    assert (colors[0], colors[2]) == ([250, 1, 2], [10, 200, 30]) and colors[1] not in colors[::2]
    of_catalog = [names, names, colors, [[7, 0], [9, 1]], [[30, 2]], [True, True, False]]
    assert told["detectron2"] == told["ours"] == of_catalog
    assert told["web"] == names
    known = [
        {"id": i, "name": name, "isthing": isthing}
        for i, name, isthing in zip((7, 9, 30), names, (1, 1, 0), strict=True)
    ]
    with_colors = [{**c, "color": color} for c, color in zip(known, colors, strict=True)]
    assert told["exported"] == with_colors

    predictions = [
        json.loads((elsewhere / folder / "predictions.json").read_text())
        for folder in ("demo", "demo_2")
    ]
    assert predictions[0]["categories"] == predictions[1]["categories"] == with_colors
    assert predictions[0]["annotations"] == predictions[1]["annotations"]
    (annotation,) = predictions[0]["annotations"]
    assert [segment["category_id"] for segment in annotation["segments_info"]] == [30]
    assert "grass" in (elsewhere / "explained/explain.html").read_text()


@pytest.mark.parametrize("more", [[], ["--eval-only"]])
def test_training_and_evaluation_want_the_data(elsewhere, run_cli, registry, more):
    arguments = ["--config-file", elsewhere / "config.yaml", *more]
    overrides = ["MODEL.WEIGHTS", elsewhere / "model_final.pth", "OUTPUT_DIR", elsewhere / "run"]
    with pytest.raises(SystemExit, match="Dataset 'own_val' is not there"):
        run_cli("train", *arguments, *overrides)
