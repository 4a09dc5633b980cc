"""COCO's average precision of boxes and masks, as Detectron2 reports it, computed by hotcoco.

hotcoco gives the figures of pycocotools to the last bit, in a thirtieth of its time.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import hotcoco
from detectron2.evaluation import COCOEvaluator

from detr_d2.file_io import write_json_atomically

logger = logging.getLogger(__name__)

RESULTS_NAME = "coco_instances_results.json"


class InstanceEvaluator(COCOEvaluator):
    """Detectron2's COCOEvaluator for boxes and masks, whose figures come from hotcoco."""

    def __init__(
        self, dataset_name: str, *, tasks: Sequence[str], output_dir: str | None = None
    ) -> None:
        """
        Args:
            dataset_name: a registered dataset with COCO's instance JSON; without, one is made.
            tasks: "bbox", "segm" or both.
            output_dir: the folder of ``RESULTS_NAME``, the results in COCO's format.
        """
        super().__init__(dataset_name, tuple(tasks), output_dir=output_dir, use_fast_impl=False)

    def _eval_predictions(
        self, predictions: list[dict], img_ids: Collection[Any] | None = None
    ) -> None:
        """Fills in the figures of each task; COCOEvaluator calls it on the main process."""
        results = [result for prediction in predictions for result in prediction["instances"]]
        contiguous = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if contiguous is not None:
            dataset_id = {k: id_ for id_, k in contiguous.items()}
            for result in results:
                result["category_id"] = dataset_id[result["category_id"]]
        if self._output_dir:
            path = Path(self._output_dir) / RESULTS_NAME
            write_json_atomically(results, path)
            logger.info("Saved instances to %s", path)
        if not self._do_evaluation:
            logger.info("%s has no annotation to compare instances with", self._metadata.name)
            return
        for task in sorted(self._tasks):
            computed = average_precision(self._coco_api.dataset, results, task, img_ids)
            self._results[task] = self._derive_coco_results(
                computed, task, class_names=self._metadata.get("thing_classes")
            )


def average_precision(
    truth: dict[str, list],
    results: Sequence[dict[str, Any]],
    task: str,
    image_ids: Collection[Any] | None = None,
) -> hotcoco.COCOeval | None:
    """Computes AP and AR, and prints COCO's summary of them.

    Args:
        truth: COCO's instance JSON.
        results: COCO's results, with dataset ids; they aren't changed.
        task: "bbox" or "segm".
        image_ids: of the images that count; None: all.

    Returns:
        It has ``stats`` and ``eval`` as pycocotools' ``COCOeval`` has them; None without results.
    """
    if not results:
        return None
    # Ids of images may be texts, which hotcoco doesn't accept.
    images = [i for i in truth["images"] if image_ids is None or i["id"] in image_ids]
    numbers = {image["id"]: number for number, image in enumerate(images, start=1)}
    content = {
        "images": [{**image, "id": numbers[image["id"]]} for image in images],
        "annotations": _of_images(truth["annotations"], numbers),
        "categories": truth["categories"],
    }
    # The area of a result decides whether it is small or large. If a mask's result had a box, it
    # would be the area of the box.
    unused = "bbox" if task == "segm" else "segmentation"
    compared = [
        {key: value for key, value in result.items() if key != unused}
        for result in _of_images(results, numbers)
    ]
    coco = hotcoco.COCO(content)
    computed = hotcoco.COCOeval(coco, coco.load_res(compared), task)
    computed.evaluate()
    computed.accumulate()
    computed.summarize()
    return computed


def _of_images(entries: Sequence[dict], numbers: dict[Any, int]) -> list[dict]:
    """The entries of some images, with numbers in place of the images' ids."""
    return [
        {**entry, "image_id": numbers[entry["image_id"]]}
        for entry in entries
        if entry["image_id"] in numbers
    ]
