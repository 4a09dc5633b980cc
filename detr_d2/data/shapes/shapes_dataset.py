"""The embedded dataset in Detectron2's catalogs."""

from __future__ import annotations

import os
from pathlib import Path

from detr_d2.data.panoptic_json import read_panoptic_json, set_panoptic_metadata
from detr_d2.data.shapes.shape_categories import CATEGORIES

# Part of the folder's name. It changes with the scenes, so that an old cache is never used.
VERSION = 1
# Images of each split.
NUM_IMAGES = {"train": 2000, "val": 200}


def cache_folder() -> Path:
    """Where the embedded data is kept: ``$DETR_D2_CACHE``, or ``~/.cache/detr_d2``."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "detr_d2"
    return Path(os.environ.get("DETR_D2_CACHE") or default)


def register_shapes() -> None:
    """Registers ``shapes_panoptic_train`` and ``shapes_panoptic_val``, once."""
    from detectron2.data import DatasetCatalog

    for split, num_images in NUM_IMAGES.items():
        name = f"shapes_panoptic_{split}"
        if name not in DatasetCatalog.list():
            root = cache_folder() / f"shapes_panoptic_v{VERSION}_{split}"
            register_shapes_split(name, root, split, num_images)


def register_shapes_split(name: str, root: Path, split: str, num_images: int) -> None:
    """Registers scenes under a name; they are written when they are first read.

    Args:
        name: in Detectron2's catalogs.
        root, split, num_images: see ``write_shapes``.
    """
    from detectron2.data import DatasetCatalog

    metadata = set_panoptic_metadata(
        name,
        [vars(category) for category in CATEGORIES],
        image_root=str(root / "images"),
        panoptic_root=str(root / "panoptic"),
        panoptic_json=str(root / "panoptic.json"),
        evaluator_type="coco_panoptic_seg",
    )

    def load() -> list[dict]:
        from detr_d2.data.shapes.shapes_files import write_shapes

        if not root.is_dir():
            write_shapes(root, split, num_images)
        return read_panoptic_json(
            metadata.panoptic_json, metadata.image_root, metadata.panoptic_root, metadata
        )

    DatasetCatalog.register(name, load)
