"""Lists versions, devices and the Detectron2 in use, for reports of bugs.

detr-d2 env

If Detectron2 is installed, its own list follows. It may lack detectron2._C, which isn't needed.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import detr_d2

# Distributions that decide how detr_d2 behaves.
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "Pillow",
    "opencv-python",
    "pycocotools",
    "fvcore",
    "onnx",
    "onnxruntime",
    "transformers",
    "timm",
    "gradio",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds no arguments."""


def run(args: argparse.Namespace) -> None:
    """Prints the list."""
    rows = [
        ("detr_d2", f"{detr_d2.__version__} in {Path(detr_d2.__file__).parent}"),
        ("Python", f"{platform.python_version()}, {sys.executable}"),
        ("system", f"{platform.platform()}, {os.cpu_count()} cores"),
        *((name, _version_of(name)) for name in PACKAGES),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}}  {value}")
    try:
        from detectron2.utils.collect_env import collect_env_info
    except ModuleNotFoundError as error:
        print(f"{'Detectron2':{width}}  missing: {error}")
    else:
        print(collect_env_info())


def _version_of(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "missing"
