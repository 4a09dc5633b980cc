"""Prediction with exported models by NumPy, Pillow and onnxruntime: no PyTorch, no Detectron2."""

from detr_d2.lazy_names import lazy_names

# So that the command's help and wrong arguments don't wait for onnxruntime.
__all__, __getattr__ = lazy_names(
    __name__,
    {
        "drawing": ["draw_panoptic"],
        "model_info": ["ModelClass", "ModelError", "ModelInfo"],
        "onnx_predictor": ["OnnxPredictor"],
    },
)
