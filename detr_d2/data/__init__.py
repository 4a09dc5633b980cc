"""Data: from a dataset's files to the model's input."""

from detr_d2.lazy_names import lazy_names

# Modules on plain files and arrays work without Detectron2.
__all__, __getattr__ = lazy_names(
    __name__,
    {
        "dataset_mapper": ["DetrDatasetMapper"],
        "loader": ["build_test_loader", "build_train_loader"],
    },
)
