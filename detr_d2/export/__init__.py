"""Exports whole models to one file for other runtimes: ONNX, and programs of torch.export."""

from detr_d2.export.model_export import ExportOptions, export_model

__all__ = ["ExportOptions", "export_model"]
