"""Who imports whom, what an import registers, and how long files are."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "detr_d2"
# What each layer may import beside itself; evaluation and modeling don't know each other. Modules
# that are not named here sit on top: they may import all, and no layer may import them.
LAYERS = {
    "extras": set(),
    "lazy_names": set(),
    "config_files": set(),
    "fonts": set(),
    "config": {"config_files"},
    "data": {"config", "lazy_names"},
    "preparation": {"config", "data"},
    "checkpoint": {"config", "data"},
    "modeling": {"config", "data", "checkpoint"},
    "evaluation": {"config", "data", "lazy_names"},
    "visualization": {"config", "data", "fonts", "lazy_names"},
    "checking": {"config", "data"},
    "pages": {"data"},
    "reporting": {"config", "data", "evaluation", "visualization", "pages"},
    "engine": {
        "extras",
        "config",
        "config_files",
        "data",
        "checkpoint",
        "evaluation",
        "visualization",
        "reporting",
    },
    "explanation": {"data", "engine", "modeling", "pages", "prediction", "visualization"},
    "export": {"", "extras", "config", "data", "modeling", "engine", "visualization"},
    "deploy": {"", "extras", "data", "evaluation", "fonts"},
    "benchmark": {"", "extras", "config", "data", "modeling", "evaluation", "engine", "export"},
}
# Length in lines that no file may exceed.
MAX_LINES = 300


def imported_layers(file: Path) -> set[str]:
    """The layers that a file imports, wherever in it; "" for the package itself."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: relative import"
            modules.add(node.module)
    parts = [[*module.split("."), ""] for module in modules]
    return {layer for package, layer, *_ in parts if package == "detr_d2"}


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_one_way(layer):
    path = PACKAGE / layer
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    assert files
    for file in files:
        forbidden = imported_layers(file) - LAYERS[layer] - {layer}
        assert not forbidden, f"{file.name} of {layer} imports {sorted(forbidden)}"


def test_importing_registers():
    """In a fresh process, where nothing else has imported parts of it."""
    code = """
import detr_d2
from detectron2.data import DatasetCatalog
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY
from detr_d2.modeling import DETR_MASK_HEAD_REGISTRY
assert META_ARCH_REGISTRY.get("DETR") is detr_d2.modeling.DETR
assert "build_detr_resnet_backbone" in BACKBONE_REGISTRY
assert "AttentionMaskHead" in DETR_MASK_HEAD_REGISTRY
assert {"shapes_panoptic_train", "shapes_panoptic_val"} <= set(DatasetCatalog.list())
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("folder", ["detr_d2", "tools"])
def test_files_stay_short(folder):
    files = [p for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".sh")]
    assert files
    lengths = {p.name: len(p.read_text(encoding="utf-8").splitlines()) for p in files}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}
