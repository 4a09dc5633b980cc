"""What the README says is true: its snippet runs, its commands parse, its paths exist."""

import re
import sys
from pathlib import Path

import cv2
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def quickstart_model(tmp_path, monkeypatch):
    """A folder as the quickstart leaves it; its model is sure of seeing class 3 everywhere."""
    from detectron2.modeling import build_model

    from detr_d2 import config_file, load_config
    from detr_d2.data.shapes import draw_scene

    model = build_model(load_config(config_file("shapes/detr_panoptic.yaml")))
    torch.nn.init.zeros_(model.detector.class_head.weight)
    torch.nn.init.zeros_(model.mask_head.output_conv.weight)  # whole, quick to draw
    model.detector.class_head.bias.data = 20.0 * torch.eye(13)[3]
    weights = tmp_path / "output" / "quickstart" / "masks" / "model_final.pth"
    weights.parent.mkdir(parents=True)
    torch.save({"model": model.state_dict()}, weights)
    cv2.imwrite(str(tmp_path / "image.jpg"), draw_scene((7, 7)).image[:, :, ::-1])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_prediction_snippet_runs(quickstart_model, capsys):
    snippet = blocks("python")[0]
    exec(compile(snippet, "README.md", "exec"), {})
    printed = capsys.readouterr().out.strip().splitlines()
    assert printed
    assert re.fullmatch(r"1: \w+ \(thing\), \d+ pixels, 100%", printed[0])
    assert cv2.imread(str(quickstart_model / "picture.png")) is not None


def test_named_files_and_folders_exist():
    commands = "\n".join(blocks("bash"))
    paths = re.findall(r"(?:tools|configs)/[\w./-]+", commands)
    paths += [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(paths) > 5
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_layout_lists_every_module_and_nothing_else():
    (layout,) = re.findall(r"## Layout\n\n```\n(.*?)```", README, re.DOTALL)
    listed, folder = set(), ""
    for line in layout.splitlines():
        name = line.split()[0]
        if line.startswith("    "):
            listed.add(f"{folder}{name}")
        elif line.startswith("  "):
            folder = name if name.endswith("/") else ""
            if not folder:
                listed.add(name)
    package = ROOT / "detr_d2"
    modules = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    assert listed == {name for name in modules if not name.endswith("__init__.py")}


@pytest.mark.parametrize("tool", ["train_net", "demo"])
def test_tools_know_the_options_that_the_readme_uses(tool, load_tool, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [tool, "--help"])
    with pytest.raises(SystemExit):
        load_tool(tool).parse_args()
    help_text = capsys.readouterr().out
    text = README.replace("\\\n", " ")
    if tool == "train_net":  # the table of options is about this one
        used = set(re.findall(r"`(--[\w-]+)", text))
    else:
        used = set(re.findall(r"--[\w-]+", re.search(r"tools/demo\.py.*", text)[0]))
    assert used
    assert {option for option in used if option not in help_text} == set()


def test_keys_of_the_readme_exist_with_the_defaults_it_gives():
    from detectron2.config import get_cfg

    from detr_d2 import add_detr_config

    cfg = get_cfg()
    add_detr_config(cfg)
    rows = re.findall(r"^\| `([A-Z_.]+)(?:\.\*)?` \| ([^|]*) \|", README, re.MULTILINE)
    assert len(rows) > 7
    for key, default in rows:
        value = cfg
        for part in key.rstrip(".").split("."):
            value = value[part]
        default = default.strip().strip("`")
        if default and not isinstance(value, list):
            assert str(value) == default, key
