"""Box and mask AP on a dataset that has panoptic annotation alone.

Detectron2's COCOEvaluator wants a COCO instance JSON of the things, with classes numbered
0 … n-1. Panoptic classes number things and stuff together, so both are derived here.

Axes: H×W pixels, K panoptic classes, n of them things.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from detr_d2.data.panoptic_png import read_panoptic_png

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PanopticClasses:
    """The K classes of a panoptic dataset, things and stuff in one numbering.

    Attributes:
        names: K names.
        dataset_ids: K category ids as the dataset's files have them.
        is_thing: K flags.
    """

    names: tuple[str, ...]
    dataset_ids: tuple[int, ...]
    is_thing: tuple[bool, ...]

    @cached_property
    def things(self) -> tuple[int, ...]:
        """The n thing classes, by rising dataset id: the order in which COCO's API scores them."""
        things = (k for k, is_thing in enumerate(self.is_thing) if is_thing)
        return tuple(sorted(things, key=lambda k: self.dataset_ids[k]))

    @classmethod
    def from_metadata(cls, metadata: Metadata) -> PanopticClasses:
        """Reads ``{thing,stuff}_dataset_id_to_contiguous_id`` and ``{thing,stuff}_classes``.

        The stuff map may repeat things, as some datasets do, as long as both agree.

        Raises:
            ValueError: things and stuff use the same class numbers (as in Detectron2's
                ``*_separated`` datasets), numbers have gaps, or names are missing.
        """
        thing_map = metadata.get("thing_dataset_id_to_contiguous_id") or {}
        stuff_map = metadata.get("stuff_dataset_id_to_contiguous_id") or {}
        where = f"dataset {metadata.name!r}"
        dataset_ids: dict[int, int] = {}
        for dataset_id, class_id in [*thing_map.items(), *stuff_map.items()]:
            other = dataset_ids.setdefault(class_id, dataset_id)
            if other != dataset_id or thing_map.get(dataset_id, class_id) != class_id:
                raise ValueError(
                    f"{where}: things and stuff are numbered separately (class {class_id} of "
                    f"category {dataset_id}), as in Detectron2's '*_separated' datasets. Panoptic "
                    "DETR needs one numbering of all classes, as 'coco_2017_val_panoptic' has."
                )
        count = len(dataset_ids)
        if count == 0 or sorted(dataset_ids) != list(range(count)):
            raise ValueError(
                f"{where}: thing_ and stuff_dataset_id_to_contiguous_id together must number the "
                f"classes 0 … K-1 without gaps, got {sorted(dataset_ids)}"
            )
        lists = [metadata.get("thing_classes") or [], metadata.get("stuff_classes") or []]
        names = next((names for names in lists if len(names) == count), None)
        if names is None:
            raise ValueError(
                f"{where}: thing_classes or stuff_classes must name all {count} classes, "
                f"they have {len(lists[0])} and {len(lists[1])} names"
            )
        things = set(thing_map.values())
        return cls(
            names=tuple(names),
            dataset_ids=tuple(dataset_ids[k] for k in range(count)),
            is_thing=tuple(k in things for k in range(count)),
        )


def load_panoptic_dataset(dataset_name: str) -> tuple[list[dict[str, Any]], PanopticClasses]:
    """The dataset dicts and classes of a registered panoptic dataset.

    Raises:
        KeyError: no dataset is registered under that name.
        ValueError: the classes can't be resolved, an image has no panoptic annotation, or a
            segment's class is out of range.
    """
    records = DatasetCatalog.get(dataset_name)
    # After loading: some datasets fill in their metadata then.
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


def write_thing_instances(dataset_name: str, path: str | Path) -> None:
    """Writes the things of a panoptic dataset as a COCO instance JSON, in place or not at all.

    Masks are RLE; boxes and areas come from pixels; category ids are the dataset's. Segments
    without pixels are left out, as nothing could ever find them.

    Args:
        dataset_name: a registered panoptic dataset.
        path: the JSON to write or replace; its folder must exist.

    Raises:
        ValueError: segments_info lacks an id of the PNG, or see load_panoptic_dataset.
    """
    records, classes = load_panoptic_dataset(dataset_name)
    images, annotations, num_empty = [], [], 0
    for record in records:
        ids = read_panoptic_png(PathManager.get_local_path(record["pan_seg_file_name"]))
        present = set(np.unique(ids).tolist()) - {0}
        unknown = present - {segment["id"] for segment in record["segments_info"]}
        if unknown:
            raise ValueError(
                f"image {record['image_id']} ({record['pan_seg_file_name']}): "
                f"segments_info lacks ids {sorted(unknown)[:5]} of the PNG"
            )
        image = {"id": record["image_id"], "file_name": str(record["file_name"])}
        images.append({**image, "height": ids.shape[0], "width": ids.shape[1]})
        for segment in record["segments_info"]:
            if not classes.is_thing[segment["category_id"]]:
                continue
            if segment["id"] not in present:
                num_empty += 1
                continue
            annotations.append(
                {
                    "id": len(annotations) + 1,  # COCO's API takes id 0 for "no match"
                    "image_id": record["image_id"],
                    "category_id": classes.dataset_ids[segment["category_id"]],
                    "iscrowd": int(segment.get("iscrowd", 0)),
                    **_mask_fields(ids == segment["id"]),
                }
            )
    if num_empty:
        logger.warning(f"{num_empty} thing segments of {dataset_name} have no pixel: left out")
    categories = [{"id": classes.dataset_ids[k], "name": classes.names[k]} for k in classes.things]
    write_json_atomically(
        {
            "info": {"description": f"Things of the panoptic dataset {dataset_name}"},
            "images": images,
            "annotations": annotations,
            "categories": categories,
        },
        path,
    )


def write_json_atomically(content: Any, path: str | Path) -> None:
    """Writes JSON so that readers see the whole file or none of it."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w") as file:
            json.dump(content, file)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _mask_fields(mask: np.ndarray) -> dict[str, Any]:
    """RLE, box (x, y, width, height in pixels) and area of a mask (H×W bool)."""
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "segmentation": {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")},
        "bbox": mask_util.toBbox(rle).tolist(),
        "area": int(mask_util.area(rle)),
    }


class ThingInstanceEvaluator(COCOEvaluator):
    """Detectron2's COCOEvaluator for models that number things and stuff together.

    ``pred_classes`` of the model's instances are panoptic classes 0 … K-1; instances of stuff
    classes have no instance ground truth and are left out, as COCO's own evaluation does.
    """

    def __init__(self, dataset_name: str, classes: PanopticClasses, json_file: str, **kwargs: Any):
        """
        Args:
            dataset_name: a name under which the renumbered things' metadata is kept.
            classes: the panoptic classes; at least one thing.
            json_file: COCO instance JSON; its categories must be the things, else ValueError.
            **kwargs: of COCOEvaluator.
        """
        # An entry of its own, as thing_classes of a panoptic dataset also names the stuff, at
        # which COCOEvaluator fails after the whole evaluation.
        if dataset_name in MetadataCatalog.list():
            MetadataCatalog.remove(dataset_name)
        things = classes.things
        MetadataCatalog.get(dataset_name).set(
            json_file=json_file,
            thing_classes=[classes.names[k] for k in things],
            thing_dataset_id_to_contiguous_id={
                classes.dataset_ids[k]: i for i, k in enumerate(things)
            },
        )
        super().__init__(dataset_name, **kwargs)
        in_file = sorted(self._coco_api.getCatIds())
        expected = [classes.dataset_ids[k] for k in things]
        if in_file != expected:
            raise ValueError(
                f"{json_file}: its categories {in_file} are not the things of the dataset, "
                f"{expected}"
            )
        self._thing_of_class = torch.full((len(classes.names),), -1)
        self._thing_of_class[list(things)] = torch.arange(len(things))

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Takes ``outputs[i]["instances"]``, where there are any."""
        super().process(inputs, [self._renumber(output) for output in outputs])

    def _renumber(self, output: dict) -> dict:
        if "instances" not in output:
            return output
        instances: Instances = output["instances"].to("cpu")
        things = self._thing_of_class[instances.pred_classes]
        kept = instances[things >= 0]
        kept.pred_classes = things[things >= 0]
        return {**output, "instances": kept}


def build_instance_evaluator(
    dataset_name: str, output_dir: str, tasks: Sequence[str] = ("bbox", "segm")
) -> ThingInstanceEvaluator | None:
    """Box and mask AP of the things, from ``metadata.json_file`` or from the panoptic PNGs.

    Where the metadata names no instance JSON, or one that isn't there, the main process writes
    one into output_dir and the metadata then names it, as COCOEvaluator itself would do. All
    processes have to call this.

    Args:
        dataset_name: a registered panoptic dataset.
        output_dir: folder for the derived JSON and for COCOEvaluator's results.
        tasks: of "bbox" and "segm".

    Returns:
        The evaluator, or None where the dataset has no thing class.

    Raises:
        ValueError: see write_thing_instances and ThingInstanceEvaluator.
    """
    _, classes = load_panoptic_dataset(dataset_name)
    if not classes.things:
        return None
    metadata = MetadataCatalog.get(dataset_name)
    json_file = metadata.get("json_file")
    is_there = bool(json_file) and PathManager.isfile(json_file)
    comm.synchronize()  # the file must not appear while other processes still look for it
    if not is_there:
        if json_file:
            logger.warning(f"{json_file} is not there: instances come from the panoptic PNGs")
        file_name = re.sub(r"[^\w.-]+", "_", dataset_name) + "_thing_instances.json"
        json_file = str(Path(output_dir) / file_name)
        if comm.is_main_process():
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            write_thing_instances(dataset_name, json_file)
        comm.synchronize()
        if hasattr(metadata, "json_file"):  # metadata refuses to change a value, even None
            del metadata.json_file
        metadata.json_file = json_file
    return ThingInstanceEvaluator(
        f"{dataset_name}_thing_instances",
        classes,
        json_file,
        tasks=tuple(tasks),
        output_dir=output_dir,
        use_fast_impl=False,
    )
