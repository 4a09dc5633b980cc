"""Figures are equal to the last digit for any number of processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import launch
from detectron2.utils import comm
from panopticapi.utils import rgb2id
from PIL import Image
from torch import nn

from detr_d2.data.panoptic_dataset import set_panoptic_metadata
from detr_d2.data.shapes.shape_categories import CATEGORIES
from detr_d2.engine.model_evaluation import evaluate

NAME = "some_shapes"


class NearlyRight(nn.Module):
    """Predicts the annotation, moved by a few pixels, and records the images."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.truth = {image["image_id"]: image for image in DatasetCatalog.get(NAME)}

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        (asked,) = batched_inputs
        image = self.truth[asked["image_id"]]
        with open(self.folder / f"asked_{comm.get_rank()}", "a") as file:
            file.write(f"{asked['image_id']}\n")
        ids = np.roll(rgb2id(np.asarray(Image.open(image["pan_seg_file_name"]))), asked["image_id"])
        segments = []
        for segment in image["segments_info"]:
            isthing = segment["category_id"] < len(MetadataCatalog.get(NAME).thing_classes)
            segments.append({**segment, "isthing": isthing, "score": 0.5})
        return [{"panoptic_seg": (torch.from_numpy(ids.astype(np.int32)), segments)}]


def _evaluate(cfg) -> None:
    results = evaluate(cfg, NearlyRight(Path(cfg.OUTPUT_DIR)))
    Path(cfg.OUTPUT_DIR, f"results_{comm.get_rank()}.json").write_text(json.dumps(results))


@pytest.mark.skipif(torch.cuda.is_available(), reason="would start the processes on GPUs")
@pytest.mark.parametrize("num_images", [3, 5])
def test_no_image_is_lost_or_counted_twice(
    make_tiny_cfg, tmp_path, small_shapes, registry, forked, num_images
):
    """Images can't be divided evenly; of 4 processes with 3 images, one has none."""
    images = DatasetCatalog.get("small_shapes_val")[:num_images]
    DatasetCatalog.register(NAME, lambda: images)
    set_panoptic_metadata(NAME, map(vars, CATEGORIES))
    found = {}
    for processes in (1, 2, 4):
        folder = tmp_path / str(processes)
        folder.mkdir()
        cfg = make_tiny_cfg(
            folder,
            *("DATASETS.TEST", (NAME,), "MODEL.DETR.TEST.INSTANCES_ON", False),
            *("MODEL.DETR.TEST.NUM_PICTURES", 0, "MODEL.DETR.TEST.SAVE_PREDICTIONS", True),
        )
        launch(_evaluate, processes, dist_url=f"file://{folder}_store", args=(cfg,))
        asked = "".join(path.read_text() for path in folder.glob("asked_*")).split()
        assert sorted(map(int, asked)) == [image["image_id"] for image in images]
        (predictions,) = folder.rglob("predictions.json")
        results = (folder / "results_0.json").read_text()
        found[processes] = (results, json.loads(predictions.read_text())["annotations"])
        others = [(folder / f"results_{rank}.json").read_text() for rank in range(1, processes)]
        assert others == ["{}"] * (processes - 1)
    assert 10 < json.loads(found[1][0])["panoptic_seg"]["PQ"] < 90
    assert found[2] == found[1] and found[4] == found[1]
