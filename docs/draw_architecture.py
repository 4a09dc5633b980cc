"""Draws architecture.svg: the packages of detr_d2, and which of them may import which.

python docs/draw_architecture.py
"""

from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

# name, column, row, width, what is in it. Row 0 is at the bottom.
ROOMS = (
    ("data", 0, 1, 1, "files → the model's\ninput"),
    ("modeling", 1, 1, 2, "backbone → transformer → heads\n→ criterion or inference"),
    ("evaluation", 3, 1, 1, "PQ and AP"),
    ("checkpoint", 0, 2, 1, "weights of any kind"),
    ("visualization", 1, 2, 1, "pictures"),
    ("engine", 2, 2, 1, "whole trainings"),
    ("export", 3, 2, 1, "the model as one graph"),
    ("deploy", 0, 3, 1, "that graph without\nPyTorch"),
    ("apps", 1, 3, 2, "demo · explain · report · web"),
    ("cli", 3, 3, 1, "detr-d2, tools/*.py"),
    ("Detectron2 · PyTorch · timm", 0, 0, 4, "registries, configs, training loop, backbones"),
)
COLUMN, ROW, GAP = 2.5, 1.15, 0.12
PLAIN, CORE, BELOW = "#e8eef7", "#f9e3c5", "#eeeeee"


def draw(path: Path) -> None:
    """Writes the picture as SVG, the same one each time."""
    matplotlib.rcParams.update({"svg.hashsalt": "detr_d2", "svg.fonttype": "path"})
    figure, axes = plt.subplots(figsize=(10, 4.6))
    for name, column, row, width, about in ROOMS:
        x, y = column * COLUMN, row * ROW
        color = BELOW if row == 0 else CORE if row == 1 else PLAIN
        size = (width * COLUMN - GAP, ROW - GAP)
        axes.add_patch(
            FancyBboxPatch((x, y), *size, boxstyle="round,pad=0,rounding_size=0.08", fc=color)
        )
        middle = x + size[0] / 2
        axes.text(middle, y + 0.76, name, ha="center", va="center", weight="bold", size=12)
        axes.text(middle, y + 0.33, about, ha="center", va="center", size=9.5)
    axes.set(xlim=(-0.1, 4 * COLUMN), ylim=(-0.1, 4 * ROW))
    axes.set_axis_off()
    figure.savefig(path, bbox_inches="tight", facecolor="white", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(__file__).with_name("architecture.svg"))
