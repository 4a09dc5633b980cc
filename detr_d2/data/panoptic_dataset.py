"""Registered datasets: their dicts, and clear errors if these can't be read.

The dicts come from Detectron2's catalog, which has instance datasets, too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from detr_d2.data.categories import PanopticClasses, classes_of
from detr_d2.data.panoptic_entries import read_crowds_as_things
from detr_d2.data.panoptic_json import read_panoptic_json, set_panoptic_metadata

__all__ = [
    "get_dataset_dicts",
    "load_panoptic_dataset",
    "read_panoptic_json",
    "require_datasets",
    "set_panoptic_metadata",
]

CONFIG_WITHOUT_DATA = "configs/shapes/detr_panoptic.yaml"


def get_dataset_dicts(names: Sequence[str]) -> list[dict]:
    """The images of one or more registered datasets, panoptic or not, in order.

    Raises:
        KeyError: a name isn't registered.
        FileNotFoundError: a dataset's files are missing; the message says where they should be.
        ValueError: there are no images, or a dataset's annotation contradicts itself.
    """
    dicts = []
    for name in names:
        try:
            dicts.extend(_with_crowds_as_asked(name, DatasetCatalog.get(name)))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                _missing_files_message(name, error.filename or error)
            ) from error
        except AssertionError as error:
            # Detectron2's panoptic reader asserts that the first image and PNG exist. Its reader of
            # instances asserts that the annotation makes sense.
            if MetadataCatalog.get(name).get("panoptic_json") is None:
                raise ValueError(f"Dataset {name!r} cannot be read: {error}") from error
            raise FileNotFoundError(_missing_files_message(name, error)) from error
    if not dicts:
        raise ValueError(f"No images in {', '.join(names) or 'DATASETS: no dataset is named'}.")
    return dicts


def _with_crowds_as_asked(name: str, records: list[dict]) -> list[dict]:
    """Reads crowds of things as single objects if the config said so to ``register_from_config``.

    Instances without panoptic annotation stay as they are.
    """
    metadata = MetadataCatalog.get(name)
    if not metadata.get("crowds_as_things"):
        return records
    things = set((metadata.get("thing_dataset_id_to_contiguous_id") or {}).values())
    return [
        {**record, "segments_info": read_crowds_as_things(record["segments_info"], things)}
        if "segments_info" in record
        else record
        for record in records
    ]


def require_datasets(names: Sequence[str]) -> None:
    """Raises an error if a dataset is missing, before anything slow begins.

    Missing embedded datasets are written: on each machine, the first process does it for all. A
    dataset whose classes are known only from its files is read, so that models can be compared with
    it.

    Raises:
        KeyError, FileNotFoundError, ValueError: see ``get_dataset_dicts``.
    """
    for rank in range(min(2, comm.get_world_size())):
        if (comm.get_local_rank() == 0) == (rank == 0):
            for name in names:
                _require_dataset(name)
        comm.synchronize()


def _require_dataset(name: str) -> None:
    metadata = MetadataCatalog.get(name)
    # A panoptic dataset may name COCO's instance JSON as well, and doesn't need it.
    annotation = metadata.get("panoptic_json") or metadata.get("json_file")
    if not annotation or not PathManager.exists(annotation) or classes_of(name) is None:
        get_dataset_dicts([name])
    for root in (metadata.get("image_root"), metadata.get("panoptic_root")):
        if root and not PathManager.exists(root):
            raise FileNotFoundError(_missing_files_message(name, root))


def _missing_files_message(name: str, what: object) -> str:
    """A message on a missing file or folder, or on what Detectron2 says of an empty folder."""
    root = os.environ.get("DETECTRON2_DATASETS") or "unset, so ./datasets"
    reason = str(what)
    if not reason.startswith("No images"):
        reason += " does not exist"
    return (
        f"Dataset {name!r} is not there: {reason}. "
        "Detectron2's built-in datasets and relative paths in DATASETS.PANOPTIC start from the "
        f"folder that the environment variable DETECTRON2_DATASETS names ({root}); COCO belongs "
        "into its sub-folder coco. To run without downloading anything, use "
        f"{CONFIG_WITHOUT_DATA}."
    )


def load_panoptic_dataset(
    dataset_name: str, dataset_dicts: list[dict[str, Any]] | None = None
) -> tuple[list[dict[str, Any]], PanopticClasses]:
    """The dataset dicts and classes of a registered panoptic dataset, both checked.

    Args:
        dataset_name: a registered dataset.
        dataset_dicts: its dicts, if they have been read already.

    Raises:
        KeyError: no dataset is registered under that name.
        FileNotFoundError: its files are missing.
        ValueError: there are no images, the classes can't be resolved, an image has no panoptic
            annotation, or a segment's class is out of range.
    """
    records = get_dataset_dicts([dataset_name]) if dataset_dicts is None else dataset_dicts
    # This comes after loading, because some datasets fill in their metadata then.
    classes = PanopticClasses.from_metadata(MetadataCatalog.get(dataset_name))
    for record in records:
        annotated_by = record.get("pan_seg_file_name") or record.get("file_name")
        where = f"dataset {dataset_name!r}: {annotated_by}"
        lacking = {"image_id", "pan_seg_file_name", "segments_info"} - record.keys()
        if lacking:
            raise ValueError(f"{where}: no panoptic annotation, {sorted(lacking)} missing")
        for segment in record["segments_info"]:
            if not 0 <= segment["category_id"] < len(classes.names):
                raise ValueError(
                    f"{where}: class {segment['category_id']} of segment {segment['id']} is "
                    f"outside 0 … {len(classes.names) - 1} (a dataset id instead of a class?)"
                )
    return records, classes
