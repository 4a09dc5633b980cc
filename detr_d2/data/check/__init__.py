"""Checking a whole panoptic dataset, before it is trained or evaluated on."""

from detr_d2.lazy_names import lazy_names

# All but what a config says works without PyTorch and Detectron2.
__all__, __getattr__ = lazy_names(
    __name__,
    {
        "check_report": ["CheckReport", "write_reports"],
        "configured_check": ["check_datasets"],
        "dataset_check": ["check_dataset"],
    },
)
