"""An evaluator that writes a report, beside those that write figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from detr_d2.apps.report.report_page import write_report
from detr_d2.apps.report.run_record import RunOptions, RunRecord
from detr_d2.apps.report.threshold_sweep import RawSweep
from detr_d2.data.image_file import ImageOptions
from detr_d2.data.panoptic_dataset import load_panoptic_dataset


class ReportCollector(DatasetEvaluator):
    """Writes ``report.html`` and ``report.json`` of a model, in the pass that evaluates it.

    The model's outputs need ``panoptic_seg`` and ``raw``: ``MODEL.DETR.TEST.RAW_ON``.
    """

    def __init__(
        self,
        cfg: CfgNode,
        dataset_name: str,
        output_dir: str,
        *,
        dataset_dicts: list[dict[str, Any]] | None = None,
    ) -> None:
        """
        Args:
            cfg: the whole config.
            dataset_name: a registered panoptic dataset.
            output_dir: where the report goes.
            dataset_dicts: the dataset's, where they have been read already.

        Raises:
            ValueError: the model predicts no panoptic picture, or see load_panoptic_dataset.
        """
        test = cfg.MODEL.DETR.TEST
        if not (cfg.MODEL.DETR.MASK_ON and test.PANOPTIC_ON):
            raise ValueError(
                "A report needs panoptic pictures: MODEL.DETR.MASK_ON and "
                "MODEL.DETR.TEST.PANOPTIC_ON have to be True, and the weights those of a model "
                "with masks."
            )
        self._records, self._classes = load_panoptic_dataset(dataset_name, dataset_dicts)
        self._dataset_name, self._output_dir = dataset_name, Path(output_dir)
        self._place = {record["image_id"]: i for i, record in enumerate(self._records)}
        self._merging = {"stuff_merging": test.STUFF_MERGING, "min_area": test.MIN_AREA}
        name, options = Path(cfg.MODEL.WEIGHTS).name or "model", ImageOptions.from_config(cfg)
        self._options = RunOptions(name, test.SCORE_THRESH, True, options)
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self._run = RunRecord(self._options, self._records, self._classes)

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Takes the outputs of some images, see ``RunRecord.add``."""
        for image, output in zip(inputs, outputs, strict=True):
            ids, segments_info = output["panoptic_seg"]
            self._run.add(
                self._place[image["image_id"]],
                torch.as_tensor(ids).cpu().numpy(),
                segments_info,
                RawSweep(output["raw"], **self._merging),
            )

    def evaluate(self) -> None:
        """Gathers all processes' images; the main one writes. Has to be called by all."""
        comm.synchronize()
        gathered = comm.gather(self._run)
        if not comm.is_main_process():
            return
        run = RunRecord(self._options, self._records, self._classes)
        for part in gathered:
            run.merge(part)
        write_report([run], self._records, self._classes, self._dataset_name, self._output_dir)
