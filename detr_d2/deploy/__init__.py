"""Prediction with exported models by NumPy, Pillow and onnxruntime: no PyTorch, no Detectron2."""

from detr_d2.deploy.drawing import draw_panoptic
from detr_d2.deploy.model_info import ModelClass, ModelError, ModelInfo
from detr_d2.deploy.onnx_predictor import OnnxPredictor

__all__ = ["ModelClass", "ModelError", "ModelInfo", "OnnxPredictor", "draw_panoptic"]
