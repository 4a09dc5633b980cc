"""Data. Importing this package registers the embedded datasets."""

from detr_d2.data.dataset_mapper import DetrDatasetMapper
from detr_d2.data.loader import build_test_loader, build_train_loader
from detr_d2.data.shapes_files import register_shapes

register_shapes()

__all__ = ["DetrDatasetMapper", "build_test_loader", "build_train_loader"]
