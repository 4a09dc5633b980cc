"""What the README says is true: its snippet runs, its commands parse, its paths exist."""

import re
from pathlib import Path

import cv2
import pytest
import torch

from detr_d2.cli.program import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def quickstart_model(tmp_path, monkeypatch):
    """A folder as the quickstart leaves it; its model is sure of seeing class 3 everywhere."""
    from detectron2.modeling import build_model

    from detr_d2 import config_file, load_config
    from detr_d2.data.shapes.synthetic_scenes import draw_scene

    model = build_model(load_config(config_file("shapes/detr_panoptic.yaml")))
    torch.nn.init.zeros_(model.detector.class_head.weight)
    # Masks are whole, which is quick to draw.
    torch.nn.init.zeros_(model.mask_head.pixel_embedding.output_conv.weight)
    model.detector.class_head.bias.data = 20.0 * torch.eye(13)[3]
    weights = tmp_path / "output" / "quickstart" / "masks" / "model_final.pth"
    weights.parent.mkdir(parents=True)
    torch.save({"model": model.state_dict()}, weights)
    cv2.imwrite(str(tmp_path / "image.jpg"), draw_scene((7, 7)).image[:, :, ::-1])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_snippets_on_predictions_run_one_after_the_other(quickstart_model, capsys):
    prediction, views, explanation = blocks("python")[:3]
    names: dict = {}
    exec(compile(prediction, "README.md", "exec"), names)
    printed = capsys.readouterr().out.strip().splitlines()
    assert printed
    assert re.fullmatch(r"1: \w+ \(thing\), \d+ pixels, 100%", printed[0])
    assert cv2.imread(str(quickstart_model / "picture.png")) is not None
    exec(compile(views, "README.md", "exec"), names)
    height, width = names["image"].shape[:2]
    assert names["picture"].shape[0] * width == names["picture"].shape[1] * height
    exec(compile(explanation, "README.md", "exec"), names)
    assert names["attention"].shape[0] == 8
    assert (quickstart_model / "explained" / "explain.html").is_file()


def test_named_files_and_folders_exist():
    commands = "\n".join(blocks("bash"))
    paths = re.findall(r"(?:tools|configs)/[\w./-]+", commands)
    paths += [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(paths) > 5
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_layout_lists_every_package_and_nothing_that_is_not_there():
    (layout,) = re.findall(r"## Layout\n\n```\n(.*?)```", README, re.DOTALL)
    listed: set[str] = set()
    above: list[str] = []
    for line in layout.splitlines():
        name = line.split()[0]
        above = [*above[: (len(line) - len(line.lstrip())) // 2], name]
        listed.add("".join(above))
    assert {path for path in listed if not (ROOT / path).exists()} == set()
    packages = {path.parent for path in (ROOT / "detr_d2").rglob("__init__.py")}
    assert {f"{path.relative_to(ROOT)}/" for path in packages} - listed == set()


SUBCOMMANDS = {"prepare": [["instances"], ["split"]]}
# Whose options the tables of a section are about.
TABLES = {"train": ("Training",), "demo": ("Predicting",), "export": ("Without Detectron2",)}
SCRIPTS = dict(re.findall(r"^\| `tools/(\w+)\.py` \| `detr-d2 (\w+)` \|", README, re.M))


def test_every_command_and_its_script_are_listed():
    listed = re.findall(r"^\| (?:`tools/\w+\.py` )?\| `detr-d2 (\w+)` \|", README, re.M)
    assert sorted(listed) == sorted(COMMANDS)
    scripts = {path.stem for path in (ROOT / "tools").glob("*.py")}
    assert set(SCRIPTS) == scripts - {"benchmark"}  # which is no part of what is installed
    for script, command in SCRIPTS.items():
        assert f'tool_main("{command}")' in (ROOT / "tools" / f"{script}.py").read_text()


@pytest.mark.parametrize("script", SCRIPTS)
def test_commands_know_the_options_that_the_readme_uses(script, run_cli, capsys):
    text, command = README.replace("\\\n", " "), SCRIPTS[script]
    lines = re.findall(rf"^(?:tools/{script}\.py|detr-d2 {command}\b).*", text, re.M)
    used = set(re.findall(r"--[\w-]+", " ".join(lines)))
    for title in TABLES.get(command, ()):
        section = re.search(rf"^## {title}$.*?(?=^## )", text, re.M | re.S)[0]
        rows = " ".join(re.findall(r"^\|.*", section, re.M))
        used |= set(re.findall(r"`(--[\w-]+)", rows))
    assert used or command == "convert"
    helps = []
    for arguments in SUBCOMMANDS.get(command, [[]]):
        with pytest.raises(SystemExit, match="0"):
            run_cli(command, *arguments, "--help")
        helps.append(capsys.readouterr().out)
    known = set(re.findall(r"--[\w-]+", " ".join(helps)))
    assert used - known == set()


def test_extras_are_those_that_can_be_installed():
    table = re.search(r"^\| Extra \|.*?(?=\n\n)", README, re.M | re.S)[0]
    named = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| ([^|]*)", table, re.M))))
    declared = re.search(r"extras_require=\{(.*?)\n    \}", (ROOT / "setup.py").read_text(), re.S)[
        1
    ]
    assert named == set(re.findall(r'^        "(\w+)": ', declared, re.M)) - {"test"}


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
