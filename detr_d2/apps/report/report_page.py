"""The files of a report: ``report.html``, and ``report.json`` with all its figures."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog

from detr_d2.apps.html import write_page
from detr_d2.apps.report.chart_data import calibration_chart, size_chart, sweep_chart
from detr_d2.apps.report.confusion import confusion_views
from detr_d2.apps.report.mismatch_reasons import ROUGH_IOU
from detr_d2.apps.report.report_counts import NUM_SCORE_BINS
from detr_d2.apps.report.report_figures import run_figures
from detr_d2.apps.report.report_gallery import gallery, mistake_cards
from detr_d2.apps.report.report_tables import class_table, group_cards
from detr_d2.apps.report.run_record import RunRecord
from detr_d2.data.categories import PanopticClasses
from detr_d2.file_io import write_json_atomically

logger = logging.getLogger(__name__)


def write_report(
    runs: list[RunRecord],
    records: list[dict[str, Any]],
    classes: PanopticClasses,
    dataset_name: str,
    output_dir: Path,
) -> Path:
    """Writes the report of one run, or of two side by side.

    Args:
        runs: one or two, of the same dataset.
        records: the dataset's dicts.
        classes: the dataset's classes.
        dataset_name: its name in Detectron2's catalogs.
        output_dir: the folder of the files; it is made if it is missing.

    Returns:
        The path of the page.

    Raises:
        OSError: a file can't be written, or an image can't be read.
    """
    metadata = MetadataCatalog.get(dataset_name)
    letters = "AB" if len(runs) == 2 else (None,)
    figures = [
        run_figures(run, records, classes, letter)
        for run, letter in zip(runs, letters, strict=True)
    ]
    colors = metadata.get("stuff_colors") or metadata.get("thing_colors")
    images, place_of_card = gallery(runs, records, metadata)
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json_atomically({"dataset": dataset_name, "runs": figures}, output_dir / "report.json")
    path = output_dir / "report.html"
    write_page(
        path,
        "report.html.j2",
        dataset=dataset_name,
        runs=figures,
        cards=group_cards(figures),
        sweep=sweep_chart(figures),
        table=class_table(figures, colors),
        sizes=size_chart(figures),
        calibration=calibration_chart(figures),
        confusion=confusion_views(runs, classes),
        mistakes=mistake_cards(runs, figures, records, place_of_card),
        gallery=images,
        rough_iou=ROUGH_IOU,
        num_score_bins=NUM_SCORE_BINS,
    )
    logger.info(f"Report: {path}")
    return path
