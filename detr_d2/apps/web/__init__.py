"""A page on which one tries a model: pictures in, segments and their reasons out. Extra ``web``."""

from detr_d2.apps.web.image_viewer import Shown, Viewer
from detr_d2.apps.web.web_server import serve

__all__ = ["Shown", "Viewer", "serve"]
