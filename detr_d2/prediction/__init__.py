"""Prediction on images, videos and webcams: reads them, draws what the model sees."""

from detr_d2.data.inputs import find_images, find_pictures
from detr_d2.prediction.demo import Demo, DemoOptions
from detr_d2.prediction.predictor import Predictor, picture_config, predict_stream
from detr_d2.prediction.run import predict_files, predict_webcam
from detr_d2.prediction.tracking import SegmentTracker

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
