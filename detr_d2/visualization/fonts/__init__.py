"""Names in any script on pictures, with the fonts that a machine has; NumPy and Pillow alone."""

from detr_d2.visualization.fonts.text_lines import Line, warn_of_missing

__all__ = ["Line", "warn_of_missing"]
