"""Prediction on images, videos and webcams: reads them, draws what the model sees."""

from detr_d2.apps.demo.demo_run import predict_files, predict_webcam
from detr_d2.apps.demo.model_demo import Demo, DemoOptions
from detr_d2.apps.demo.tracking import SegmentTracker
from detr_d2.data.input_files import find_images, find_pictures
from detr_d2.predictor import Predictor, picture_config, predict_stream

__all__ = [
    "Demo",
    "DemoOptions",
    "Predictor",
    "SegmentTracker",
    "find_images",
    "find_pictures",
    "picture_config",
    "predict_files",
    "predict_stream",
    "predict_webcam",
]
