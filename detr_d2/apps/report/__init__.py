"""Reports on trained models: a page that shows where a model fails, and a JSON of its figures."""

from detr_d2.apps.report.report_evaluator import ReportCollector
from detr_d2.apps.report.saved_runs import report_on_saved

__all__ = ["ReportCollector", "report_on_saved"]
