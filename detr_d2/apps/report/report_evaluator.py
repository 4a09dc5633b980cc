"""An evaluator that writes a report, in the same pass as the evaluators that compute figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from detr_d2.apps.report.report_page import write_report
from detr_d2.apps.report.run_record import RunOptions, RunRecord
from detr_d2.apps.report.threshold_sweep import RawSweep
from detr_d2.data.image_file import ImageOptions
from detr_d2.data.panoptic_dataset import load_panoptic_dataset
from detr_d2.evaluation import MatchedImage, PanopticEvaluator, read_panoptic_output


class ReportCollector(DatasetEvaluator):
    """Writes ``report.html`` and ``report.json`` while a model is evaluated.

    The model's outputs need ``panoptic_seg`` and ``raw``, so ``MODEL.DETR.TEST.RAW_ON`` is True.
    """

    def __init__(
        self,
        cfg: CfgNode,
        dataset_name: str,
        output_dir: str,
        *,
        dataset_dicts: list[dict[str, Any]] | None = None,
        panoptic: PanopticEvaluator | None = None,
    ) -> None:
        """
        Args:
            cfg: the whole config.
            dataset_name: a registered panoptic dataset.
            output_dir: the folder of the report.
            dataset_dicts: the dataset's dicts, if they have been read already.
            panoptic: an evaluator that processes the same images just before this one, so that
                annotations are read and matched once.

        Raises:
            ValueError: the model has no panoptic output, or see ``load_panoptic_dataset``.
        """
        test = cfg.MODEL.DETR.TEST
        if not (cfg.MODEL.DETR.MASK_ON and test.PANOPTIC_ON):
            raise ValueError(
                "A report needs panoptic predictions: MODEL.DETR.MASK_ON and "
                "MODEL.DETR.TEST.PANOPTIC_ON have to be True, and the weights have to be those of "
                "a model with masks."
            )
        self._records, self._classes = load_panoptic_dataset(dataset_name, dataset_dicts)
        self._dataset_name, self._output_dir = dataset_name, Path(output_dir)
        self._panoptic = panoptic
        self._place = {record["image_id"]: i for i, record in enumerate(self._records)}
        name, options = Path(cfg.MODEL.WEIGHTS).name or "model", ImageOptions.from_config(cfg)
        self._options = RunOptions(name, test.SCORE_THRESH, True, options)
        self.reset()

    def reset(self) -> None:
        """Starts a new record, without any image."""
        self._run = RunRecord(self._options, self._records, self._classes)

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Adds the outputs of some images to the record, see ``RunRecord.add``."""
        for image, output in zip(inputs, outputs, strict=True):
            place = self._place[image["image_id"]]
            if self._panoptic is None:
                prediction = read_panoptic_output(output)
                matched = MatchedImage.of_record(
                    self._records[place], *prediction, len(self._classes.names)
                )
            else:
                matched = self._panoptic.matched[image["image_id"]]
            self._run.add(place, matched, RawSweep(output["raw"]))

    def evaluate(self) -> None:
        """Merges the records of all processes, which all have to call it. The main one writes."""
        comm.synchronize()
        gathered = comm.gather(self._run)
        if not comm.is_main_process():
            return
        run = RunRecord(self._options, self._records, self._classes)
        for part in gathered:
            run.merge(part)
        write_report([run], self._records, self._classes, self._dataset_name, self._output_dir)
