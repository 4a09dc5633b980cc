"""The files of the embedded dataset: written once into a cache folder, then read like COCO's."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from detr_d2.data.panoptic_png import write_panoptic_png
from detr_d2.data.shapes.shape_categories import CATEGORIES
from detr_d2.data.shapes.shapes_dataset import NUM_IMAGES
from detr_d2.data.shapes.synthetic_scenes import VOID, SyntheticScene, draw_scene
from detr_d2.file_io import folder_written_whole

logger = logging.getLogger(__name__)


def write_shapes(root: Path, split: str, num_images: int) -> None:
    """Writes a split in COCO's panoptic format: images/, panoptic/ and panoptic.json.

    The folder appears under its name only when it is complete, even if several processes write it
    at once.

    Args:
        root: the folder to make.
        split: "train" or "val", whose scenes differ.
        num_images: how many.
    """
    try:
        with folder_written_whole(root) as folder:
            _write_split(folder, list(NUM_IMAGES).index(split), num_images, split)
        logger.info("Wrote %d scenes to %s", num_images, root)
    except OSError:
        if not root.is_dir():  # otherwise another process has written it first
            raise


def _write_split(folder: Path, split_seed: int, num_images: int, split: str) -> None:
    (folder / "images").mkdir()
    (folder / "panoptic").mkdir()
    images, annotations = [], []
    logger.info("Drawing %d scenes of the embedded data (%s)", num_images, split)
    # There is no bar if the output is a file and no terminal.
    for image_id in tqdm(range(1, num_images + 1), unit="scene", leave=False, disable=None):
        scene = draw_scene((split_seed, image_id))
        stem = f"{image_id:012d}"
        Image.fromarray(scene.image).save(folder / "images" / f"{stem}.jpg", quality=95)
        write_panoptic_png(scene.ids, folder / "panoptic" / f"{stem}.png")
        height, width = scene.ids.shape
        images.append(
            {"id": image_id, "file_name": f"{stem}.jpg", "height": height, "width": width}
        )
        annotations.append(
            {
                "image_id": image_id,
                "file_name": f"{stem}.png",
                "segments_info": _segments_info(scene),
            }
        )
    categories = [
        {
            "id": category.id,
            "name": category.name,
            "supercategory": "thing" if category.isthing else "stuff",
            "isthing": int(category.isthing),
            "color": list(category.color),
        }
        for category in CATEGORIES
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "panoptic.json").write_text(json.dumps(content))


def _segments_info(scene: SyntheticScene) -> list[dict]:
    """COCO's description of each segment: id, category, area, bbox (x, y, w, h) and iscrowd."""
    segments = []
    for segment_id in np.unique(scene.ids[scene.ids != VOID]).tolist():
        y, x = np.nonzero(scene.ids == segment_id)
        left, top = int(x.min()), int(y.min())
        segments.append(
            {
                "id": segment_id,
                "category_id": scene.categories[segment_id].id,
                "area": len(x),
                "bbox": [left, top, int(x.max()) - left + 1, int(y.max()) - top + 1],
                "iscrowd": int(segment_id in scene.crowds),
            }
        )
    return segments
