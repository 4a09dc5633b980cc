"""Checking a whole panoptic dataset, before it is trained or evaluated on."""

from detr_d2.checking.check import check_dataset, check_datasets
from detr_d2.checking.report import Report, write_reports

__all__ = ["Report", "check_dataset", "check_datasets", "write_reports"]
