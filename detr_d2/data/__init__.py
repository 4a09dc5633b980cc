"""Data: from a dataset's files to the model's input."""

from detr_d2.lazy_names import lazy_names

__all__ = ["DetrDatasetMapper", "build_test_loader", "build_train_loader"]

# Modules on plain files and arrays work without Detectron2.
__getattr__ = lazy_names(
    __name__,
    {
        "DetrDatasetMapper": "dataset_mapper",
        "build_test_loader": "loader",
        "build_train_loader": "loader",
    },
)
