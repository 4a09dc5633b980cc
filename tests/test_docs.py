"""What the pages in docs/ say is true: keys, links, paths, options of commands, YAML."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from detectron2.config import CfgNode, get_cfg

from detr_d2 import add_detr_config, load_config
from detr_d2.cli.program import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
SUBCOMMANDS = {"prepare": ["semantic", "instances", "split"]}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


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
    assert "docs/backbones.md" in NAMES


@pytest.mark.parametrize("name", NAMES)
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
        assert str(value) == default.strip(), key


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
    for i, text in enumerate(blocks(read(name), "yaml")):
        path = tmp_path / f"{i}.yaml"
        base = ROOT / "configs" / "detr_panoptic.yaml"
        path.write_text(yaml.safe_dump({"_BASE_": str(base), **yaml.safe_load(text)}))
        load_config(str(path))


@pytest.mark.parametrize("name", NAMES)
def test_commands_have_options_that_exist(name, run_cli, capsys):
    text = "\n".join(blocks(read(name), "bash")).replace("\\\n", " ")
    scripts = {path.stem: path.read_text() for path in (ROOT / "tools").glob("*.py")}
    for line in text.splitlines():
        match = re.match(r"(?:\w+=\S+ )*(?:tools/(\w+)\.py|detr-d2 (\w+))", line)
        if not match:
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
