"""Checks the datasets that a config names."""

from __future__ import annotations

from collections.abc import Iterator

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from detr_d2.data.categories import classes_of
from detr_d2.data.check.check_report import CheckReport
from detr_d2.data.check.dataset_check import check_dataset
from detr_d2.data.image_file import ImageOptions
from detr_d2.data.panoptic_dataset import get_dataset_dicts
from detr_d2.data.register import register_from_config


def check_datasets(cfg: CfgNode, workers: int = 0) -> Iterator[CheckReport]:
    """Checks the datasets of ``DATASETS.TRAIN`` and ``DATASETS.TEST``, one after the other.

    Raises:
        KeyError: a dataset isn't registered.
        FileNotFoundError, ValueError, ChildProcessError: see ``check_dataset``; also a dataset that
            isn't panoptic.
    """
    register_from_config(cfg)
    for name in dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]):
        yield check_dataset(
            **_keywords_of(name),
            num_queries=cfg.MODEL.DETR.NUM_QUERIES,
            image_options=ImageOptions.from_config(cfg),
            workers=workers,
        )


def _keywords_of(name: str) -> dict:
    """What ``check_dataset`` needs of a registered dataset."""
    metadata = MetadataCatalog.get(name)
    panoptic_json = metadata.get("panoptic_json")
    if panoptic_json is None or not PathManager.exists(panoptic_json):
        get_dataset_dicts([name])  # writes the embedded datasets, and says what is missing
        panoptic_json = metadata.get("panoptic_json")
    if panoptic_json is None:
        raise ValueError(f"Dataset {name!r} has no panoptic annotation and can't be checked.")
    classes = classes_of(name)
    return {
        "name": name,
        "image_root": metadata.image_root,
        "panoptic_root": metadata.panoptic_root,
        "panoptic_json": panoptic_json,
        "crowds_as_things": bool(metadata.get("crowds_as_things")),
        "known_ids": classes and classes.dataset_ids,
    }
