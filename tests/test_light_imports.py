"""What doesn't wait for PyTorch: help, preparing and checking. tests/deploy has prediction.

Each runs in a process of its own, which says what it has imported.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detr_d2.cli.program import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
# Each takes a second or more to import, or hundreds of megabytes.
HEAVY = ("torch", "torchvision", "detectron2", "cv2", "scipy", "matplotlib", "timm", "transformers")
# Prints which modules of a list the code before has imported.
REPORT = "import sys; print([name for name in sys.argv[1].split() if name in sys.modules])"


def imported(code: str, names: tuple[str, ...], cwd: Path) -> list[str]:
    """Which of some modules are imported after running code."""
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\n{REPORT}", " ".join(names)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tools'}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1].replace("'", '"'))


def command(*argv: str) -> str:
    """Code that runs a command; its status is 0."""
    return f"from detr_d2.cli import main\nassert main({list(argv)!r}) == 0"


def test_importing_the_package_imports_nothing_heavy(tmp_path):
    assert imported("import detr_d2, detr_d2.deploy", (*HEAVY, "numpy", "PIL"), tmp_path) == []


def test_help_comes_before_anything_heavy(tmp_path):
    """All commands, and the benchmark, in one process."""
    code = f"""
from detr_d2.cli.program import main, run_module
for argv in [["--help"], *([name, "--help"] for name in {list(COMMANDS)!r})]:
    try:
        main(argv)
    except SystemExit as end:
        assert end.code == 0
try:
    run_module("benchmarks.benchmark_command", ["--help"], "tools/benchmark.py")
except SystemExit as end:
    assert end.code == 0
import detr_d2.deploy.__main__
"""
    assert imported(code, (*HEAVY, "numpy", "PIL", "onnxruntime"), tmp_path) == []


def test_wrong_arguments_are_told_before_anything_heavy(tmp_path):
    code = """
from detr_d2.cli import main
try:
    main(["train", "--config-file", "x.yaml", "--report"])
except SystemExit as end:
    assert end.code == 2
"""
    assert imported(code, HEAVY, tmp_path) == []


@pytest.fixture
def labelled(tmp_path) -> Path:
    """A folder with an image, its semantic PNG and their categories."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    Image.fromarray(np.repeat(np.uint8([1, 2]), 32).reshape(8, 8)).save(tmp_path / "labels/a.png")
    categories = [{"id": 1, "name": "sky", "isthing": 0}, {"id": 2, "name": "car", "isthing": 1}]
    (tmp_path / "categories.json").write_text(json.dumps(categories))
    return tmp_path


def test_data_is_prepared_and_checked_without_pytorch(labelled):
    options = ["--images", "images", "--categories", "categories.json", "--things", "2"]
    prepare = command("prepare", "semantic", "labels", "made", *options)
    paths = ["--image-root", "images", "--panoptic-root", "made/panoptic"]
    check = command("check", *paths, "--panoptic-json", "made/panoptic.json")
    heavy = tuple(name for name in HEAVY if name != "scipy")
    assert imported(f"{prepare}\n{check}", heavy, labelled) == []
    assert json.loads((labelled / "made" / "panoptic.json").read_text())["images"]
