"""Prediction on images, videos and webcams, and pictures of the results."""

from detr_d2.apps.demo.demo_run import predict_files, predict_webcam
from detr_d2.apps.demo.model_demo import Demo, DemoOptions
from detr_d2.apps.demo.tracking import SegmentTracker

__all__ = ["Demo", "DemoOptions", "SegmentTracker", "predict_files", "predict_webcam"]
