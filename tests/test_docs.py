"""What all pages say is true: keys, links, paths, options of commands, YAML, extras."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from detectron2.config import CfgNode, get_cfg
from page_blocks import blocks

from detr_d2 import add_detr_config, load_config
from detr_d2.cli.program import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
SUBCOMMANDS = {"prepare": ["semantic", "instances", "cityscapes", "labelme", "split"]}
# Pages whose tables are about the options of one command.
TABLES = {"docs/training.md": "train", "docs/prediction.md": "demo", "docs/export.md": "export"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.fixture(scope="module")
def defaults() -> CfgNode:
    cfg = get_cfg()
    add_detr_config(cfg)
    return cfg


def test_there_are_pages():
    assert {"README.md", "docs/backbones.md"} <= set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "CHANGELOG.md"])  # old names
def test_keys_exist_with_the_defaults_that_tables_give(name, defaults):
    text = read(name)
    for key in set(
        re.findall(r"`((?:MODEL|SOLVER|INPUT|DATALOADER|DATASETS|TEST)\.[A-Z_.0-9]+)", text)
    ):
        value = defaults
        for part in key.rstrip(".").split("."):
            value = value[part]
    for key, default in re.findall(r"^\| `([A-Z_.]+)` \| `?([^|`]*)`? \|", text, re.M):
        value = defaults
        for part in key.split("."):
            value = value[part]
        assert isinstance(value, list) or str(value) == default.strip(), key


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    page = ROOT / name
    for link in re.findall(r"\]\(([^)]+)\)", read(name)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page if not path else (page.parent / path).resolve()
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("name", NAMES)
def test_yaml_is_a_config(name, tmp_path):
    for i, text in enumerate(blocks(name, "yaml")):
        path = tmp_path / f"{i}.yaml"
        base = ROOT / "configs" / "detr_panoptic.yaml"
        path.write_text(yaml.safe_dump({"_BASE_": str(base), **yaml.safe_load(text)}))
        load_config(str(path))


@pytest.mark.parametrize("name", NAMES)
def test_commands_have_options_that_exist(name, run_cli, capsys):
    text = "\n".join(blocks(name, "bash")).replace("\\\n", " ")
    scripts = {path.stem: path.read_text() for path in (ROOT / "tools").glob("*.py")}
    for line in text.splitlines():
        match = re.match(r"(?:\w+=\S+ )*(?:tools/(\w+)\.py|detr-d2 (\w+))", line)
        if not match or match[1] == "benchmark":  # which is no sub-command
            continue
        command = match[2] or re.search(r'tool_main\("(\w+)"\)', scripts[match[1]])[1]
        assert command in COMMANDS
        words = line.split()
        kind = next((k for k in SUBCOMMANDS.get(command, []) if k in words), None)
        with pytest.raises(SystemExit, match="0"):
            run_cli(command, *([kind] if kind else []), "--help")
        known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
        assert set(re.findall(r"(?<!\S)--[\w-]+", line)) <= known, line
        if "--config-file" in words:
            load_config(str(ROOT / words[words.index("--config-file") + 1]))


@pytest.mark.parametrize("name", TABLES)
def test_tables_have_options_that_exist(name, run_cli, capsys):
    rows = " ".join(re.findall(r"^\|.*", read(name), re.M))
    with pytest.raises(SystemExit, match="0"):
        run_cli(TABLES[name], "--help")
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    used = set(re.findall(r"`(--[\w-]+)", rows))
    assert used and used <= known


@pytest.mark.parametrize("name", NAMES)
def test_named_files_exist(name):
    commands = "\n".join(blocks(name, "bash"))
    paths = re.findall(r"(?<![\w/])(?:tools|configs|docs)/[\w./-]+", commands)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_command_and_its_script_are_listed():
    page = read("docs/getting-started.md")
    listed = re.findall(r"^\| (?:`tools/\w+\.py` )?\| `detr-d2 (\w+)` \|", page, re.M)
    assert sorted(listed) == sorted(COMMANDS)
    of_script = dict(re.findall(r"^\| `tools/(\w+)\.py` \| `detr-d2 (\w+)` \|", page, re.M))
    scripts = {path.stem for path in (ROOT / "tools").glob("*.py")}
    assert set(of_script) == scripts - {"benchmark"}  # which is no part of what is installed
    for script, command in of_script.items():
        assert f'tool_main("{command}")' in read(f"tools/{script}.py")


def test_extras_are_those_that_can_be_installed():
    table = re.search(r"^\| Extra \|.*?(?=\n\n)", read("docs/getting-started.md"), re.M | re.S)[0]
    named = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| ([^|]*)", table, re.M))))
    declared = re.search(r"extras_require=\{(.*?)\n    \}", read("setup.py"), re.S)[1]
    assert named == set(re.findall(r'^        "(\w+)": ', declared, re.M)) - {"test"}


def test_all_keys_are_on_the_page_of_keys(defaults):
    from key_reference import read_keys

    ours = {key.name for key in read_keys()}
    assert len(ours) > 70

    def names(cfg: CfgNode, prefix: str = "") -> set[str]:
        found: set[str] = set()
        for key, value in cfg.items():
            name = prefix + key
            found |= names(value, f"{name}.") if isinstance(value, CfgNode) else {name}
        return found

    assert ours == names(defaults) - names(get_cfg())


def test_the_picture_of_the_architecture_shows_who_imports_whom():
    from draw_architecture import ROOMS
    from test_imports import LAYERS

    place = {name: (row, column) for name, column, row, *_ in ROOMS}
    for layer, imported in LAYERS.items():
        package = layer.split("/")[0]
        for other in {name.split("/")[0] for name in imported} & place.keys() - {package}:
            if package in place:
                assert place[other] < place[package], (package, other)
    assert place.keys() >= {name for name in LAYERS if (ROOT / "detr_d2" / name).is_dir()} - {
        *("data/shapes", "data/prepare", "data/check", "visualization/fonts"),
        *(name for name in LAYERS if name.startswith("apps/")),
    }


def test_modules_of_the_architecture_exist():
    page = read("docs/architecture.md")
    modules = re.findall(r"`([a-z_/]+\.py)`", page)
    assert len(modules) > 8
    folders = (ROOT / "detr_d2", ROOT)
    assert [name for name in modules if not any((f / name).exists() for f in folders)] == []
    for name, module in re.findall(r"`(?:\w+\.)?(\w+)` in `([a-z_/]+\.py)`", page):
        assert f"def {name}(" in read(f"detr_d2/{module}"), (name, module)
