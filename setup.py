"""Packaging of detr_d2. The versions it is tested with are in requirements/."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """The package's version, read rather than imported: importing needs NumPy at least."""
    source = (ROOT / "detr_d2" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"', source, re.MULTILINE)
    if match is None:
        raise RuntimeError('detr_d2/__init__.py has no line __version__ = "…"')
    return match.group(1)


# What everything that has to do with Detectron2 needs: training, prediction, reports, preparation.
# Detectron2 itself can't be declared, as it isn't on PyPI under its own name: what needs it says
# how to get it, and tools/setup_env.sh does so. PyTorch (2.6 or newer: before, files could run code
# in spite of weights_only) and torchvision are missing as in Detectron2's own setup.py: they are
# there where it is, and pip shall not replace the build that Detectron2 was compiled for.
TRAIN = [
    "fvcore>=0.1.5.post20221221",
    "hotcoco>=1.3",
    "iopath>=0.1.9",
    "Jinja2>=3.1",
    "MarkupSafe>=2.1",
    "matplotlib>=3.8",
    "msgspec>=0.19",
    "opencv-python>=4.11",
    "pycocotools>=2.0.7",
    "PyYAML>=6.0",
    "safetensors>=0.4.3",
    "scipy>=1.11.3",
    "tabulate>=0.9",
    "tensorboard>=2.15",
    "termcolor>=1.1",
    "tqdm>=4.60",
]
DEPLOY = ["onnxruntime>=1.21"]
DOCS = ["furo>=2025.12", "myst-nb>=1.4", "sphinx>=9.0"]
EXPORT = ["onnx>=1.18", "onnx-ir>=0.1", "onnxscript>=0.5"]
SUBMIT = ["submitit>=1.5"]
TIMM = ["timm>=1.0.22"]
WEB = ["gradio>=6.26"]

setup(
    name="detr_d2",
    version=read_version(),
    description="Panoptic segmentation with DETR as a Detectron2 plugin",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author="detr_d2 contributors",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    python_requires=">=3.11",
    # What every part needs. The rest comes with the extras, so that a machine that only runs
    # exported models gets nothing for training.
    install_requires=["numpy>=1.26", "Pillow>=10.4"],
    extras_require={
        "train": TRAIN,
        "benchmark": [*TRAIN, *DEPLOY, *EXPORT, "orjson>=3.13", "transformers>=5.20"],
        "deploy": DEPLOY,
        "docs": [*TRAIN, *DEPLOY, *EXPORT, *DOCS],
        "export": [*TRAIN, *EXPORT],
        "quantize": [*DEPLOY, "onnx>=1.18"],
        "submit": [*TRAIN, *SUBMIT],
        "timm": [*TRAIN, *TIMM],
        "web": [*TRAIN, *WEB],
        "test": [
            *TRAIN,
            *DEPLOY,
            *EXPORT,
            *SUBMIT,
            *WEB,
            *DOCS,
            "hypothesis>=6.80",
            "ipykernel>=7.4",
            "mypy>=2.4",
            "nbclient>=0.11",
            "nbformat>=5.11",
            "orjson>=3.13",
            # The oracle of panoptic quality. Its metadata ask for numpy < 2, its code doesn't:
            # tools/setup_env.sh installs it without its dependencies.
            "panopticapi-lite>=0.2.0",
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "ruff>=0.9",
            "safetensors>=0.8",  # which transformers asks for
            "selenium>=4.20",
            *TIMM,
            "transformers>=5.20",
        ],
    },
    # The configs lie at the top level, where Detectron2's users look for them, and go into the
    # package, so that an installed detr_d2 has them as well.
    packages=[*find_packages(include=["detr_d2", "detr_d2.*"]), "detr_d2.configs"],
    package_dir={"detr_d2.configs": "configs"},
    package_data={
        "detr_d2.configs": ["**/*.yaml", "**/*.json"],
        "detr_d2.apps.html": ["templates/*"],
    },
    entry_points={"console_scripts": ["detr-d2 = detr_d2.cli:main"]},
    zip_safe=False,
)
