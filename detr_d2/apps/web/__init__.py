"""A web page for trying a model: it shows the segments of an image, and why they are there.

The page needs the extra ``web``.
"""

from detr_d2.apps.web.image_viewer import Shown, Viewer
from detr_d2.apps.web.web_server import serve

__all__ = ["Shown", "Viewer", "serve"]
