"""Checking a whole panoptic dataset, before it is trained or evaluated on."""

from detr_d2.data.check.check_report import CheckReport, write_reports
from detr_d2.data.check.dataset_check import check_dataset, check_datasets

__all__ = ["CheckReport", "check_dataset", "check_datasets", "write_reports"]
