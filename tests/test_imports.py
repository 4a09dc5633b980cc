"""Who imports whom, what an import registers, and how long files are."""

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "detr_d2"
# Modules that import nothing of the project; everyone may import them.
LEAVES = {"config_files", "extras", "file_io", "lazy_names", "renamed_keys"}
# What each layer may import beside itself; evaluation and modeling don't know each other. Packages
# within a layer that are named here have rules of their own, and are no part of it.
LAYERS = {
    **dict.fromkeys(sorted(LEAVES), set()),
    "config_checks": set(),
    "config": {"config_checks"},
    "data": {"config_checks"},
    "data/shapes": {"data"},
    "data/prepare": {"data"},
    "data/check": {"config", "data"},
    "checkpoint": {"config_checks", "data"},
    "modeling": {"config_checks", "data"},
    "meta_architecture": {"config", "checkpoint", "modeling"},
    "evaluation": {"config", "data"},
    "visualization/fonts": set(),
    "visualization": {"data", "visualization/fonts"},
    "apps/html": set(),
    "apps/report": {"config", "data", "evaluation", "visualization", "apps/html"},
    "engine": {"config", "data", "checkpoint", "evaluation", "visualization"},
    "predictor": {"data", "checkpoint", "engine", "visualization"},
    "export": {"", "config", "data", "modeling", "engine", "visualization"},
    "deploy": {"data", "evaluation", "visualization", "visualization/fonts"},
    "apps/demo": {"data", "engine", "evaluation", "predictor", "visualization"},
    "apps/explain": {"data", "modeling", "engine", "predictor", "visualization", "apps/html"},
    "apps/web": {
        "config",
        "data",
        "modeling",
        "engine",
        "predictor",
        "visualization",
        "apps/explain",
        "apps/html",
    },
}
# What it registers is below it, and imported when it is built.
LAYERS["registration"] = {"data/shapes"}
LAYERS["cli"] = {"", *LAYERS}  # on top
# Length in lines that no file may exceed.
MAX_LINES = 300


def layer_of(parts: Sequence[str]) -> str:
    """The layer of a module, given by the parts of its name below the package; "" for that one."""
    for length in range(len(parts), 0, -1):
        if (name := "/".join(parts[:length])) in LAYERS:
            return name
    return ""


def imported_layers(file: Path) -> set[str]:
    """The layers that a file imports, wherever in it; "" for the package itself."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: relative import"
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [module.split(".") for module in modules]
    return {layer_of(below) for package, *below in parts if package == "detr_d2"}


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_one_way(layer):
    files = {
        file: layer_of(file.relative_to(PACKAGE).with_suffix("").parts)
        for file in PACKAGE.rglob("*.py")
    }
    files = [file for file, its_layer in files.items() if its_layer == layer]
    assert files
    for file in sorted(files):
        forbidden = imported_layers(file) - LAYERS[layer] - LEAVES - {layer}
        assert not forbidden, f"{file.name} of {layer} imports {sorted(forbidden)}"


def test_every_module_has_a_layer():
    modules = [file.relative_to(PACKAGE) for file in PACKAGE.rglob("*.py")]
    without = [str(m) for m in modules if not layer_of(m.with_suffix("").parts)]
    assert sorted(without) == ["__init__.py", "__main__.py", "apps/__init__.py"]


def test_names_of_modules_are_unique():
    """Commands aside, which are named as people type them."""
    names = [file.stem for file in PACKAGE.rglob("*.py") if file.parent.name != "cli"]
    shared = {name for name in names if names.count(name) > 1}
    assert shared == {"__init__", "__main__"}


# What is looked up after the imports of each case.
LOOK_UP = """
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY
from detr_d2.modeling import DETR_MASK_HEAD_REGISTRY
assert "DETR" in META_ARCH_REGISTRY
assert {"build_detr_resnet_backbone", "build_timm_backbone"} <= {n for n, _ in BACKBONE_REGISTRY}
assert "AttentionMaskHead" in DETR_MASK_HEAD_REGISTRY
assert {"shapes_panoptic_train", "shapes_panoptic_val"} <= set(DatasetCatalog.list())
assert "ball" in MetadataCatalog.get("shapes_panoptic_val").thing_classes
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import detr_d2",
        "import detectron2.engine, detr_d2",
        "import detr_d2, importlib.util; importlib.util.find_spec('detectron2.modeling')",
        "import detr_d2, detectron2.engine, importlib; importlib.reload(detr_d2)",
        # In the middle of whose own imports Detectron2's registries come to be.
        "import detr_d2.modeling.backbone",
        "import detr_d2.data.categories",
    ],
)
def test_importing_registers(imports):
    """In a fresh process, where nothing else has imported parts of it; also without a warning."""
    quietly = "import warnings; warnings.simplefilter('ignore', FutureWarning)"
    first = f"{quietly}; {imports}" if imports.startswith("import detectron2") else imports
    run_code(f"{first}\n{LOOK_UP}")


def test_a_model_is_built_by_its_registered_name():
    run_code("""
import detr_d2
from detectron2.modeling import build_model
cfg = detr_d2.load_config("shapes/detr_panoptic.yaml", ["MODEL.DEVICE", "cpu"])
assert type(build_model(cfg)).__name__ == "DETR"
""")


def run_code(code: str) -> None:
    """Runs Python code in a process of its own, which ends well and prints and warns of nothing."""
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
