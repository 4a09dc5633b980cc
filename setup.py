"""Packaging of detr_d2. The versions it is tested with are in requirements/."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """The package's version, read rather than imported: importing needs Detectron2."""
    source = (ROOT / "detr_d2" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"', source, re.MULTILINE)
    if match is None:
        raise RuntimeError('detr_d2/__init__.py has no line __version__ = "…"')
    return match.group(1)


def read_long_description() -> str:
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


setup(
    name="detr_d2",
    version=read_version(),
    description="Panoptic segmentation with DETR as a Detectron2 plugin",
    long_description=read_long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author="detr_d2 contributors",
    python_requires=">=3.10",
    # Detectron2 is missing because it can't be declared: it isn't on PyPI under its own name. What
    # needs it says how to get it; tools/setup_env.sh does so. PyTorch (2.6 or newer: before, files
    # could run code in spite of weights_only) and torchvision are missing as in Detectron2's own
    # setup.py: they are there where it is, and detr_d2.deploy does without them.
    install_requires=[
        "fvcore>=0.1.5",
        "iopath>=0.1.9",
        "Jinja2>=3.1",
        "MarkupSafe>=2.1",
        "matplotlib>=3.7",
        "numpy>=1.23.5",
        "opencv-python>=4.6",
        "panopticapi-lite>=0.2.0",
        "Pillow>=10.4",
        "pycocotools>=2.0.7",
        "safetensors>=0.4",
        "scipy>=1.9",
        "tabulate>=0.9",
        "tensorboard>=2.10",
        "termcolor>=1.1",
        "tqdm>=4.60",
    ],
    extras_require={
        "benchmark": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5", "transformers>=5.0"],
        "deploy": ["onnx>=1.17", "onnxruntime>=1.20"],
        "export": ["onnx>=1.17", "onnx-ir>=0.1", "onnxscript>=0.5"],
        "submit": ["submitit>=1.5"],
        "web": ["gradio>=6.0"],
        "test": [
            "gradio>=6.0",
            "hypothesis>=6.80",
            "onnx>=1.17",
            "onnx-ir>=0.1",
            "onnxruntime>=1.20",
            "onnxscript>=0.5",
            "pytest>=8.0",
            "ruff>=0.9",
            "selenium>=4.20",
            "submitit>=1.5",
            "timm>=1.0",
            "transformers>=5.0",
        ],
    },
    # The configs lie at the top level, where Detectron2's users look for them, and go into the
    # package, so that an installed detr_d2 has them as well.
    packages=[*find_packages(include=["detr_d2", "detr_d2.*"]), "detr_d2.configs"],
    package_dir={"detr_d2.configs": "configs"},
    package_data={"detr_d2.configs": ["**/*.yaml"], "detr_d2.pages": ["templates/*"]},
    zip_safe=False,
)
