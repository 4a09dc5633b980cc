"""The wheel holds what it must, and what it declares fits the code and the pinned versions."""

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
# What is there where Detectron2 is, and isn't declared, as in Detectron2's own setup.py.
WITH_DETECTRON2 = {"torch", "torchvision"}
# Modules that are not called like their distribution.
DISTRIBUTIONS = {
    "cv2": "opencv-python",
    "PIL": "Pillow",
    "panopticapi": "panopticapi-lite",
    "yaml": "PyYAML",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the checkout, so that the build leaves nothing in it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("detr_d2", "configs"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, source / name)
    command = ["pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)]
    result = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def declared(wheel: Path) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    return [Requirement(text) for text in metadata.get_all("Requires-Dist")]


def pins(file: Path) -> dict[str, list[Requirement]]:
    """The pinned versions of a requirements file and of those that it includes, by package."""
    found: dict[str, list[Requirement]] = {}
    for line in file.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            found |= pins(file.parent / line.removeprefix("-r "))
        elif line:
            requirement = Requirement(line)
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def third_party_modules(files: Iterable[Path]) -> set[str]:
    """Top-level modules that files import, wherever in a file they do so."""
    modules = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(node.module.split(".")[0])
    return modules - sys.stdlib_module_names - {"detr_d2", "detectron2"}


def test_wheel_holds_all_modules_configs_and_templates(wheel: Path):
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "detr_d2").rglob("*.py")}
    configs = {
        "detr_d2/" + path.relative_to(ROOT).as_posix()
        for path in (ROOT / "configs").rglob("*.yaml")
    }
    templates = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "detr_d2" / "pages" / "templates").iterdir()
    }
    assert modules and configs and templates
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == modules | configs | templates


def test_every_import_is_declared(declared: list[Requirement]):
    def declared_for(extra: str) -> set[str]:
        environment = {"extra": extra}
        chosen = (r for r in declared if not r.marker or r.marker.evaluate(environment))
        return {canonicalize_name(each.name) for each in chosen}

    def needed_by(files: set[Path]) -> set[str]:
        names = third_party_modules(files)
        return {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in names}

    of_extras = {
        "benchmark": set((ROOT / "detr_d2" / "benchmark").rglob("*.py")),
        "submit": {ROOT / "detr_d2" / "engine" / "submission.py"},
        "deploy": set((ROOT / "detr_d2" / "deploy").rglob("*.py")),
        "export": set((ROOT / "detr_d2" / "export").rglob("*.py")),
        "web": set((ROOT / "detr_d2" / "web").rglob("*.py")),
    }
    others = set((ROOT / "detr_d2").rglob("*.py")).difference(*of_extras.values())
    assert needed_by(others) - declared_for("") == WITH_DETECTRON2
    for extra, files in of_extras.items():
        assert needed_by(files) - declared_for(extra) - WITH_DETECTRON2 == set(), extra
    assert needed_by(of_extras["deploy"]) & WITH_DETECTRON2 == set()


def test_pinned_versions_fit_what_is_declared(declared: list[Requirement]):
    runtime, test = (pins(ROOT / "requirements" / f"{level}.txt") for level in ("runtime", "test"))
    for requirement in declared:
        pinned = (runtime if requirement.marker is None else test)[
            canonicalize_name(requirement.name)
        ]
        for pin in pinned:
            (version,) = pin.specifier
            assert version.operator == "=="
            assert version.version in requirement.specifier, requirement


@pytest.mark.parametrize("level", ["runtime", "test"])
@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12"])
def test_each_python_has_one_version_of_a_package(level: str, version: str):
    environment = {"python_version": version}
    for name, choices in pins(ROOT / "requirements" / f"{level}.txt").items():
        fitting = [pin for pin in choices if not pin.marker or pin.marker.evaluate(environment)]
        assert len(fitting) <= 1, name
        assert fitting or version != "3.10", name  # what 3.10 alone needs, others lack


@pytest.mark.parametrize(
    "wanted", ["from detr_d2 import add_detr_config", "import detr_d2; detr_d2.register_panoptic"]
)
def test_without_detectron2_whoever_needs_it_is_told_how_to_get_it(wanted: str, tmp_path: Path):
    code = f"import sys; sys.modules['detectron2'] = None; {wanted}"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    last_line = result.stderr.strip().splitlines()[-1]
    assert last_line.startswith("ImportError: detr_d2 needs Detectron2")
    assert "pip install" in last_line


def test_tools_say_that_detectron2_is_missing(tmp_path: Path):
    for tool in ("train_net", "demo", "prepare_panoptic", "check_dataset", "convert_weights"):
        code = "import runpy, sys; sys.modules['detectron2'] = None; runpy.run_path(sys.argv[1])"
        result = subprocess.run(
            [sys.executable, "-c", code, str(ROOT / "tools" / f"{tool}.py")],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert "ImportError: detr_d2 needs Detectron2" in result.stderr, tool
