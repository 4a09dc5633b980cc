"""What the wheel declares fits the code and the pinned versions, and leaves numpy alone."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import detr_d2

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# All but the tests'.
EXTRAS = ("", "benchmark", "deploy", "docs", "export", "quantize", "submit", "timm", "train", "web")
# Modules of the deploy extra that need another one.
QUANTIZE = {"quantize.py", "eight_bits.py", "half_precision.py", "graph_nodes.py"}
# Modules that import timm.
OF_TIMM = {
    "build_timm_backbone.py",
    "pretrained_backbone.py",
    "timm_backbone.py",
    "timm_stages.py",
}
# What is there where Detectron2 is, and isn't declared, as in Detectron2's own setup.py.
WITH_DETECTRON2 = {"torch", "torchvision"}
# What tools/setup_env.sh installs without its dependencies.
UNCAPPED = {"panopticapi-lite"}
# Modules that are not called like their distribution.
DISTRIBUTIONS = {
    "cv2": "opencv-python",
    "PIL": "Pillow",
    "yaml": "PyYAML",
}


@pytest.fixture(scope="module")
def declared(wheel: Path) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        told = Parser().parsestr(archive.read(name).decode())
    return [Requirement(text) for text in told.get_all("Requires-Dist")]


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
    return modules - sys.stdlib_module_names - {"detr_d2", "detectron2", "benchmarks", "oracles"}


def declared_for(declared: list[Requirement], extra: str) -> dict[str, Requirement]:
    """What is installed with an extra ("" for none), by package."""
    environment = {"extra": extra}
    chosen = (r for r in declared if not r.marker or r.marker.evaluate(environment))
    return {canonicalize_name(each.name): each for each in chosen}


def requirements_of(name: str) -> list[Requirement]:
    """What the installed version of a package declares for this environment, without extras."""
    needed = map(Requirement, metadata.requires(name) or [])
    return [each for each in needed if not each.marker or each.marker.evaluate({"extra": ""})]


def closure(names: Iterable[str]) -> set[str]:
    """Packages and all that they need, as the installed versions declare it."""
    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [canonicalize_name(each.name) for each in requirements_of(name)]
    return found


def test_every_import_is_declared(declared: list[Requirement]):
    def needed_by(files: set[Path]) -> set[str]:
        names = third_party_modules(files)
        return {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in names}

    package = ROOT / "detr_d2"
    of_deploy = set((package / "deploy").rglob("*.py"))
    of_quantize = {file for file in of_deploy if file.name in QUANTIZE}
    of_extras = {
        "benchmark": set((ROOT / "tools" / "benchmarks").rglob("*.py")),
        "submit": {package / "cli" / "submission.py"},
        "deploy": of_deploy - of_quantize,
        "quantize": of_quantize,
        "export": set((package / "export").rglob("*.py")),
        "web": set((package / "apps" / "web").rglob("*.py")),
        "timm": {file for file in package.rglob("*.py") if file.name in OF_TIMM},
    }
    of_extras["train"] = set(package.rglob("*.py")).difference(*of_extras.values())
    assert len(of_quantize) == len(QUANTIZE) and len(of_extras["timm"]) == len(OF_TIMM)
    for extra, files in of_extras.items():
        allowed = set() if extra in ("deploy", "quantize") else WITH_DETECTRON2
        assert needed_by(files) - declared_for(declared, extra).keys() - allowed == set(), extra
    assert needed_by(of_extras["train"]) >= WITH_DETECTRON2


def test_prediction_with_exported_models_brings_no_more_than_it_needs(declared):
    direct = declared_for(declared, "deploy").keys()
    assert direct == {"numpy", "pillow", "onnxruntime"}
    of_onnxruntime = {"flatbuffers", "packaging", "protobuf"}
    of_older_ones = {"coloredlogs", "humanfriendly", "mpmath", "sympy"}
    assert {*direct, *of_onnxruntime} <= closure(direct)
    assert closure(direct) <= {*direct, *of_onnxruntime, *of_older_ones}


def test_nothing_that_is_needed_holds_numpy_down(declared: list[Requirement]):
    needed = {name for extra in EXTRAS for name in declared_for(declared, extra)}
    assert "scipy" in needed and not needed & UNCAPPED
    for name in closure(needed):
        for requirement in requirements_of(name):
            if requirement.name == "numpy":
                assert np.__version__ in requirement.specifier, name


def test_pinned_versions_fit_what_is_declared(declared: list[Requirement]):
    runtime, test = (pins(ROOT / "requirements" / f"{level}.txt") for level in ("runtime", "test"))
    of_train, of_test = (declared_for(declared, extra) for extra in ("train", "test"))
    for pinned, wanted in ((runtime, of_train), (test, of_test)):
        for name in wanted.keys() - UNCAPPED:
            for pin in pinned[name]:
                (version,) = pin.specifier
                assert version.operator == "=="
                assert version.version in wanted[name].specifier, pin
    script = (ROOT / "tools" / "setup_env.sh").read_text(encoding="utf-8")
    version = re.search(r"^panopticapi=(\S+)$", script, re.M)[1]
    assert version in of_test["panopticapi-lite"].specifier


def test_lower_bounds_are_the_oldest_that_are_admitted(declared: list[Requirement]):
    oldest = pins(ROOT / "requirements" / "lower-bounds.txt")
    for name, requirement in declared_for(declared, "test").items():
        if name in UNCAPPED:
            continue
        (bound,) = requirement.specifier
        assert bound.operator == ">="
        (pin,) = oldest[name]
        (version,) = pin.specifier
        # A bound of two numbers means the first release with them.
        assert version.version in requirement.specifier
        numbers = Version(bound.version).release
        assert Version(version.version).release[: len(numbers)] == numbers, pin


@pytest.mark.parametrize("level", ["runtime", "test"])
@pytest.mark.parametrize("version", PYTHONS)
def test_each_python_has_one_version_of_a_package(level: str, version: str):
    environment = {"python_version": version}
    for name, choices in pins(ROOT / "requirements" / f"{level}.txt").items():
        fitting = [pin for pin in choices if not pin.marker or pin.marker.evaluate(environment)]
        assert len(fitting) <= 1, name
        assert fitting or version != PYTHONS[-1], name  # what newer ones alone need, others lack


def test_pythons_are_the_same_wherever_they_are_named(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        told = Parser().parsestr(archive.read(name).decode())
    assert told["Requires-Python"] == f">={PYTHONS[0]}"
    classifiers = re.findall(r"Python :: (3\.\d+)$", "\n".join(told.get_all("Classifier")), re.M)
    assert tuple(classifiers) == PYTHONS
    script = (ROOT / "tools" / "setup_env.sh").read_text(encoding="utf-8")
    candidates = re.search(r"candidates=\(([^)]*)\)", script)[1].split()
    assert candidates[:4] == [f"python{version}" for version in reversed(PYTHONS)]
    assert told["Version"] == detr_d2.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[1]
    assert newest in ("Unreleased", detr_d2.__version__)


def what_fails_says(code: str, folder: Path, *arguments: str) -> str:
    """What a program of Python, which fails, writes for people."""
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    return result.stderr


@pytest.mark.parametrize(
    "wanted", ["from detr_d2 import add_detr_config", "import detr_d2; detr_d2.register_panoptic"]
)
def test_without_detectron2_whoever_needs_it_is_told_how_to_get_it(wanted: str, tmp_path: Path):
    code = f"import sys; sys.modules['detectron2'] = None; {wanted}"
    last_line = what_fails_says(code, tmp_path).strip().splitlines()[-1]
    assert last_line.startswith("ImportError: detr_d2 needs Detectron2")
    assert "pip install" in last_line


def test_a_package_that_registering_needs_is_named_with_its_extra(tmp_path: Path):
    """In a Detectron2 that lacks what the extra brings, whose own import then fails."""
    code = "import sys; sys.modules['msgspec'] = None; import detr_d2, detectron2.data"
    last_line = what_fails_says(code, tmp_path).strip().splitlines()[-1]
    assert last_line.startswith("ImportError: detr_d2 needs msgspec")
    assert "pip install 'detr_d2[train]'" in last_line


def test_commands_say_what_is_missing(tmp_path: Path):
    """Also where Detectron2 is there, and what else a training needs is not."""
    for module, said in (("detectron2", "Detectron2"), ("scipy", "scipy"), ("cv2", "cv2")):
        code = f"import sys; sys.modules[{module!r}] = None; import detr_d2.cli as cli; cli.main()"
        arguments = ("train", "--config-file", "detr_panoptic.yaml")
        written = what_fails_says(code, tmp_path, *arguments)
        assert written.startswith(f"error: detr_d2 needs {said}"), written
        assert "pip install 'detr_d2[train]'" in written
