"""A wheel, built from the sdist, holds all that it needs and works outside the checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from detr_d2.cli.program import COMMANDS
from detr_d2.data.shapes.shapes_files import write_shapes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel in it, as pip puts it there."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--no-compile"]
    result = subprocess.run([*pip, "--target", folder, wheel], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def run_installed(installed: Path, tmp_path: Path):
    """Runs the installed ``detr-d2`` below tmp_path; gives its status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        result = subprocess.run(
            [sys.executable, installed / "bin" / "detr-d2", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        return result.returncode, result.stdout, result.stderr

    return run


def test_it_holds_all_modules_configs_and_templates(wheel: Path):
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "detr_d2").rglob("*.py")}
    configs = {
        "detr_d2/" + path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.*")
    }
    templates = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "detr_d2" / "apps" / "html" / "templates").iterdir()
    }
    assert modules and configs and templates
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == modules | configs | templates


def test_both_stages_are_trained_without_a_checkout(run_installed, installed, tmp_path):
    write_shapes(tmp_path / "data", "train", 4)
    data = ["few", "data/images", "data/panoptic", "data/panoptic.json"]
    paths = [data[0], *(str(tmp_path / path) for path in data[1:])]
    overrides = {
        "DATASETS.PANOPTIC": [paths],
        "DATASETS.TRAIN": ("few",),
        "DATASETS.TEST": ("few",),
        "DATALOADER.NUM_WORKERS": 0,
        "MODEL.DEVICE": "cpu",
        "MODEL.DETR.HIDDEN_DIM": 32,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 2,
        "SOLVER.MASK_STAGE.IMS_PER_BATCH": 2,
        "SOLVER.MASK_STAGE.MAX_ITER": 2,
        "OUTPUT_DIR": "output",
    }
    flat = [part for override in overrides.items() for part in override]
    status, printed, errors = run_installed(
        "train", "--config-file", "shapes/detr_panoptic.yaml", *flat
    )
    assert status == 0, errors
    for stage in ("boxes", "masks"):
        assert (tmp_path / "output" / stage / "model_final.pth").is_file()
    metrics = (tmp_path / "output/masks/metrics.json").read_text().splitlines()
    assert json.loads(metrics[-1])["iteration"] == 2
    status, printed, errors = run_installed("train", "--config-file", "unknown.yaml")
    assert status == 1 and printed == ""
    assert errors.startswith("error: There is no config file 'unknown.yaml'")
    assert "shapes/detr_panoptic.yaml" in errors
    # Nothing of the checkout was imported.
    status, printed, errors = run_installed("env")
    assert f" in {installed / 'detr_d2'}\n" in printed


def test_every_command_has_its_help(installed: Path, tmp_path: Path):
    """In one process, which imports Detectron2 once."""
    code = """
import contextlib, io, sys
from detr_d2.cli import main
for command in sys.argv[1:]:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main([command, "--help"])
    print(shown.getvalue().split()[2])
"""
    result = subprocess.run(
        [sys.executable, "-c", code, *COMMANDS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == list(COMMANDS)


def test_installing_it_changes_no_other_package(wheel: Path, tmp_path: Path):
    """Where Detectron2 is; numpy for one stays as it is."""
    report = tmp_path / "report.json"
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--dry-run", "--report", report]
    extras = f"detr_d2[train,deploy,export,web,submit,benchmark,quantize] @ {wheel.as_uri()}"
    result = subprocess.run([*pip, extras], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    changed = [each["metadata"]["name"] for each in json.loads(report.read_text())["install"]]
    assert changed == ["detr_d2"]
