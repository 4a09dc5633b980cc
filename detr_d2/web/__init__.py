"""A page on which one tries a model: pictures in, segments and their reasons out. Extra ``web``."""

from detr_d2.web.serve import serve
from detr_d2.web.viewer import Merging, Shown, Viewer

__all__ = ["Merging", "Shown", "Viewer", "serve"]
