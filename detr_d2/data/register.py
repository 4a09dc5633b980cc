"""Registers the user's own panoptic datasets, by one call or by a config."""

from __future__ import annotations

import errno
import logging
import os
from functools import partial
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.utils.file_io import PathManager

from detr_d2.data.lent_classes import take_back
from detr_d2.data.panoptic_json import read_categories, read_panoptic_json, set_panoptic_metadata

logger = logging.getLogger(__name__)


def register_panoptic(
    name: str, image_root: str | Path, panoptic_root: str | Path, panoptic_json: str | Path
) -> Metadata:
    """Registers a dataset in COCO's panoptic format with Detectron2.

    Everything is derived from the JSON: names, colours, things and stuff, contiguous ids. Its
    categories are read at once, its images and annotations when they are first needed. To register
    the same dataset again changes nothing.

    Args:
        name: for ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        image_root: the folder that the images' file names start from.
        panoptic_root: the folder that the panoptic PNGs' file names start from.
        panoptic_json: the annotation.

    Returns:
        The metadata.

    Raises:
        FileNotFoundError: there is no such JSON. Missing folders are errors when they are used.
        ValueError: the JSON isn't panoptic or its categories make no sense, or another dataset has
            the name.
    """
    paths = _paths(image_root, panoptic_root, panoptic_json)
    if not PathManager.isfile(paths["panoptic_json"]):
        raise FileNotFoundError(
            f"Dataset {name!r} cannot be registered: there is no file {panoptic_json}."
        )
    return _register(name, paths)


def register_from_config(cfg: CfgNode) -> None:
    """Registers those datasets of ``DATASETS.PANOPTIC`` that are not registered yet.

    The metadata of all datasets of the config get ``crowds_as_things``, which says how their dicts
    are read.

    A dataset whose JSON is missing is registered without classes. Only reading it is an error,
    because a model also predicts on machines that lack the data it was trained on.

    Raises:
        ValueError: see ``register_panoptic``.
    """
    root = os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))
    for name, *paths in cfg.DATASETS.PANOPTIC:
        located = (p if "://" in p else os.path.join(root, os.path.expanduser(p)) for p in paths)
        _register(name, _paths(*located))
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        metadata = MetadataCatalog.get(name)
        if hasattr(metadata, "crowds_as_things"):  # of an earlier config
            del metadata.crowds_as_things
        if cfg.DATASETS.CROWDS_AS_THINGS:
            metadata.crowds_as_things = True


def _paths(image_root: str | Path, panoptic_root: str | Path, panoptic_json: str | Path) -> dict:
    """The paths under the keys that Detectron2's metadata has for them."""
    return {
        "image_root": os.fspath(image_root),
        "panoptic_root": os.fspath(panoptic_root),
        "panoptic_json": os.fspath(panoptic_json),
    }


def _register(name: str, paths: dict[str, str]) -> Metadata:
    metadata = MetadataCatalog.get(name)
    if name in DatasetCatalog.list():
        for key, path in paths.items():
            if metadata.get(key) != path:
                raise ValueError(
                    f"Dataset {name!r} is registered already, with another {key}: "
                    f"{metadata.get(key)!r}, not {path!r}. Choose another name."
                )
        return metadata
    if PathManager.isfile(paths["panoptic_json"]):
        _describe(name, paths["panoptic_json"])
    metadata = MetadataCatalog.get(name)
    metadata.set(**paths, evaluator_type="coco_panoptic_seg")
    DatasetCatalog.register(name, partial(_load, name))
    return metadata


def _describe(name: str, panoptic_json: str) -> None:
    """Fills in the classes, or makes sure that they are still those of the file."""
    categories = read_categories(panoptic_json)
    take_back(name)
    known = MetadataCatalog.get(name).get("thing_classes")
    try:
        set_panoptic_metadata(name, categories)
    except AssertionError as error:  # Detectron2 raises it for values that have changed
        raise ValueError(
            f"The categories of {panoptic_json} are no longer those that dataset {name!r} was "
            "registered with. Start a new process."
        ) from error
    if known is None:
        logger.info(
            "Dataset %r: %d classes, %d of them things (%s)",
            name,
            len(categories),
            sum(category["isthing"] for category in categories),
            panoptic_json,
        )


def _load(name: str) -> list[dict]:
    _describe(name, MetadataCatalog.get(name).panoptic_json)
    metadata = MetadataCatalog.get(name)
    for root in (metadata.image_root, metadata.panoptic_root):
        if not PathManager.isdir(root):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), root)
    return read_panoptic_json(
        metadata.panoptic_json, metadata.image_root, metadata.panoptic_root, metadata
    )
