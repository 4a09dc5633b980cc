"""Checks a whole dataset: the JSON first, then the files of its images, in several processes."""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import partial

from tqdm import tqdm

from detr_d2.data.check.annotation_checks import AnnotationCheck
from detr_d2.data.check.check_report import CheckReport
from detr_d2.data.check.image_checks import check_files
from detr_d2.data.check.label_checks import pixel_findings
from detr_d2.data.image_file import DEFAULT_OPTIONS, ImageOptions
from detr_d2.data.panoptic_entries import read_panoptic_lists
from detr_d2.data.processes import map_in_processes
from detr_d2.file_io import local_path


def check_dataset(
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    *,
    num_queries: int = 100,
    name: str = "",
    known_ids: Collection[int] | None = None,
    crowds_as_things: bool = False,
    image_options: ImageOptions = DEFAULT_OPTIONS,
    workers: int = 0,
) -> CheckReport:
    """Looks for everything that would break or bias training, in all files of a dataset.

    Args:
        image_root: the folder that the images' file names start from.
        panoptic_root: the folder that the panoptic PNGs' file names start from.
        panoptic_json: the annotation, in COCO's format.
        num_queries: of the model, which can find no more segments than that.
        name: of the dataset, for the report.
        known_ids: category ids of the registered dataset; None: those of the JSON.
        crowds_as_things: whether crowds of things are read as single objects, see
            ``DATASETS.CROWDS_AS_THINGS``.
        image_options: how image files are to be understood.
        workers: number of processes; 0: only this one.

    Raises:
        FileNotFoundError: the JSON or a folder is missing.
        ValueError: the JSON can't be read as one of panoptic annotation.
        ChildProcessError: a process died.
    """
    for root in (image_root, panoptic_root):
        if not os.path.isdir(root):
            raise FileNotFoundError(f"There is no folder {root}.")
    report = CheckReport(name or panoptic_json)
    check = AnnotationCheck(
        panoptic_json,
        image_root,
        panoptic_root,
        num_queries,
        known_ids,
        crowds_as_things=crowds_as_things,
    )
    content = read_panoptic_lists(local_path(panoptic_json))
    tasks = check.check(content, report.findings.add)
    report.categories = check.categories
    results = map_in_processes(partial(check_files, options=image_options), tasks, workers)
    # There is no bar if the output is a file and no terminal.
    bar = tqdm(results, total=len(tasks), unit="image", disable=None)
    for task, result in zip(tasks, bar, strict=True):
        report.add(task, result)
    for finding in pixel_findings(panoptic_json, report):
        report.findings.add(finding)
    return report
