"""Box and mask AP on a dataset that has only panoptic annotation.

Detectron2's COCOEvaluator needs a COCO instance JSON of the things, and predicted classes 0 … n-1.
Panoptic classes number things and stuff together, so this module derives both.

Axes: H×W pixels, K panoptic classes, n of them things.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from detr_d2.data.categories import PanopticClasses
from detr_d2.data.file_names import file_name_of
from detr_d2.data.mistaken_png import why_ids_differ
from detr_d2.data.panoptic_dataset import load_panoptic_dataset
from detr_d2.data.panoptic_fields import is_crowd
from detr_d2.data.panoptic_png import read_panoptic_png
from detr_d2.evaluation.average_precision import InstanceEvaluator
from detr_d2.evaluation.segment_rles import encode_segments
from detr_d2.file_io import local_path, write_json_atomically

logger = logging.getLogger(__name__)


def write_thing_instances(
    dataset_name: str, path: str | Path, *, dataset_dicts: list[dict] | None = None
) -> None:
    """Writes the things of a panoptic dataset as a COCO instance JSON, whole or not at all.

    Masks are RLE, boxes and areas come from pixels, and category ids are the dataset's. Segments
    without pixels are left out, because no prediction could match them.

    Args:
        dataset_name: a registered panoptic dataset.
        path: the JSON to write or replace; its folder must exist.
        dataset_dicts: the dataset's dicts, if they have been read already.

    Raises:
        ValueError: segments_info lacks an id of the PNG, or see ``load_panoptic_dataset``.
    """
    records, classes = load_panoptic_dataset(dataset_name, dataset_dicts)
    images: list[dict] = []
    annotations: list[dict] = []
    num_empty = 0
    for record in records:
        ids = read_panoptic_png(local_path(record["pan_seg_file_name"]))
        rles = encode_segments(ids)
        unknown = rles.keys() - {segment["id"] for segment in record["segments_info"]}
        if unknown:
            raise ValueError(
                f"image {record['image_id']} ({record['pan_seg_file_name']}): "
                f"segments_info lacks ids {sorted(unknown)[:5]} of the PNG"
                + why_ids_differ(
                    record["pan_seg_file_name"], [s["id"] for s in record["segments_info"]]
                )
            )
        image = {"id": record["image_id"], "file_name": str(record["file_name"])}
        images.append({**image, "height": ids.shape[0], "width": ids.shape[1]})
        for segment in record["segments_info"]:
            if not classes.is_thing[segment["category_id"]]:
                continue
            rle = rles.get(segment["id"])
            if rle is None:
                num_empty += 1
                continue
            annotations.append(
                {
                    "id": len(annotations) + 1,  # COCO's API reads id 0 as "no match".
                    "image_id": record["image_id"],
                    "category_id": classes.dataset_ids[segment["category_id"]],
                    "iscrowd": int(is_crowd(segment)),
                    "segmentation": _for_json(rle),
                    "bbox": mask_util.toBbox(rle).tolist(),
                    "area": int(mask_util.area(rle)),
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


class ThingInstanceEvaluator(InstanceEvaluator):
    """An evaluator for models that number things and stuff together.

    ``pred_classes`` of the model's instances are panoptic classes 0 … K-1. Instances of stuff
    classes have no ground truth here, so they are left out, as COCO's own evaluation does.
    """

    def __init__(self, dataset_name: str, classes: PanopticClasses, json_file: str, **kwargs: Any):
        """
        Args:
            dataset_name: the name for the metadata of the renumbered things.
            classes: the panoptic classes; at least one is a thing.
            json_file: a COCO instance JSON whose categories are the things.
            **kwargs: further arguments of ``InstanceEvaluator``.

        Raises:
            ValueError: the JSON has other categories.
        """
        # The things need metadata of their own: thing_classes of a panoptic dataset also names the
        # stuff, and COCOEvaluator would fail after the whole evaluation.
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
        """Stores the things among ``outputs[i]["instances"]``. The outputs are not changed."""
        for image, output in zip(inputs, outputs, strict=True):
            if "instances" in output:
                results = self._results(output["instances"], image["image_id"])
                self._predictions.append({"image_id": image["image_id"], "instances": results})

    def _results(self, instances: Instances, image_id: Any) -> list[dict]:
        """The things among an image's instances, as COCO's results with classes 0 … n-1."""
        instances = instances.to("cpu")  # a new object, which may be changed
        things = self._thing_of_class[instances.pred_classes]
        is_thing = things >= 0
        masks = None
        if instances.has("pred_masks"):
            masks = instances.pred_masks.numpy()
            instances.remove("pred_masks")
        instances = instances[is_thing]
        instances.pred_classes = things[is_thing]
        results = instances_to_coco_json(instances, image_id)
        if masks is not None:
            for result, i in zip(results, np.flatnonzero(is_thing), strict=True):
                result["segmentation"] = _for_json(_encode(masks[i]))
        return results


def _encode(mask: np.ndarray) -> dict[str, Any]:
    """COCO's RLE of an (H, W) mask.

    The encoder needs Fortran order. OpenCV transposes several times as fast as NumPy, which
    Detectron2 uses.
    """
    return mask_util.encode(cv2.transpose(mask.astype(np.uint8)).T)


def _for_json(rle: dict[str, Any]) -> dict[str, Any]:
    return {**rle, "counts": rle["counts"].decode("ascii")}


def build_instance_evaluator(
    dataset_name: str,
    output_dir: str,
    tasks: Sequence[str] = ("bbox", "segm"),
    *,
    dataset_dicts: list[dict] | None = None,
) -> ThingInstanceEvaluator | None:
    """Builds the evaluator of the things' AP, from ``metadata.json_file`` or the panoptic PNGs.

    If the metadata names no instance JSON, or a missing one, the main process writes one into
    output_dir, and the metadata then names that file, as COCOEvaluator itself would do. All
    processes have to call this function.

    Args:
        dataset_name: a registered panoptic dataset.
        output_dir: the folder of the derived JSON and of COCOEvaluator's results.
        tasks: "bbox", "segm" or both.
        dataset_dicts: the dataset's dicts, if they have been read already.

    Returns:
        The evaluator, or None if the dataset has no thing class.

    Raises:
        ValueError: see ``write_thing_instances`` and ``ThingInstanceEvaluator``.
    """
    records, classes = load_panoptic_dataset(dataset_name, dataset_dicts)
    if not classes.things:
        return None
    metadata = MetadataCatalog.get(dataset_name)
    json_file = metadata.get("json_file")
    # A JSON from elsewhere has crowds as crowds, and one of ours may come from an earlier config.
    reread = bool(metadata.get("crowds_as_things"))
    is_there = bool(json_file) and PathManager.isfile(json_file) and not reread
    comm.synchronize()  # The file must not appear while other processes look for it.
    if not is_there:
        if json_file and not reread:
            logger.warning(f"{json_file} is not there: instances come from the panoptic PNGs")
        file_name = f"{file_name_of(dataset_name)}_thing_instances.json"
        json_file = str(Path(output_dir) / file_name)
        if comm.is_main_process():
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            write_thing_instances(dataset_name, json_file, dataset_dicts=records)
        comm.synchronize()
        if hasattr(metadata, "json_file"):  # Metadata refuses to change a value, even None.
            del metadata.json_file
        metadata.json_file = json_file
    return ThingInstanceEvaluator(
        f"{dataset_name}_thing_instances",
        classes,
        json_file,
        tasks=tasks,
        output_dir=output_dir,
    )
