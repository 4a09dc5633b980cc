"""HTML pages that are one file each, need no network and fit screens of any size."""

from detr_d2.apps.html.render_html import json_for_script, png_uri, render_page, write_page

__all__ = ["json_for_script", "png_uri", "render_page", "write_page"]
