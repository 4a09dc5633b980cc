"""What is built of a copy of the checkout, so that builds leave nothing in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = """
import os, sys
from setuptools import build_meta
os.chdir(sys.argv[2])
print(getattr(build_meta, sys.argv[1])(sys.argv[3]))
"""


def build(kind: str, source: Path, output: Path) -> Path:
    """Builds "wheel" or "sdist" by the backend that pip calls, without its downloads."""
    command = [sys.executable, "-c", BUILD, f"build_{kind}", str(source), str(output)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return output / result.stdout.split()[-1]


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of what is tracked, less the tests and pictures, which no build looks at."""
    source = tmp_path_factory.mktemp("source")
    for name in ("detr_d2", "configs"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    return build("sdist", source, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, as pip does where it finds no wheel."""
    folder = tmp_path_factory.mktemp("unpacked")
    shutil.unpack_archive(sdist, folder, filter="data")
    (source,) = folder.iterdir()
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))
