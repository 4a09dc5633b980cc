"""A page on which one tries a model: pictures in, segments and their reasons out. Extra ``web``."""

from detr_d2.apps.web.image_viewer import Merging, Shown, Viewer
from detr_d2.apps.web.web_server import serve

__all__ = ["Merging", "Shown", "Viewer", "serve"]
