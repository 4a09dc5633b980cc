"""Data: from a dataset's files to the model's input."""

from importlib.util import find_spec

__all__ = ["DetrDatasetMapper", "build_test_loader", "build_train_loader"]

if find_spec("detectron2") is not None:  # without it, modules on plain files and arrays work
    from detr_d2.data.dataset_mapper import DetrDatasetMapper
    from detr_d2.data.loader import build_test_loader, build_train_loader
