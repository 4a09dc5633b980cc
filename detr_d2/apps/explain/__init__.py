"""Follows one image through the model in seven moves: its tensors, and a page that shows them."""

from detr_d2.apps.explain.explanation import Explanation, explain
from detr_d2.apps.explain.explanation_files import explain_file, explain_image, write_explanation

__all__ = ["Explanation", "explain", "explain_file", "explain_image", "write_explanation"]
