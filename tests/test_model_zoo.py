"""What the model zoo says is true as far as files of this project tell."""

import re
from pathlib import Path

import pytest

from detr_d2 import load_config

ROOT = Path(__file__).resolve().parents[1]
ZOO = (ROOT / "MODEL_ZOO.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| \[([\w.]+)\]\(([^)]+)\).*?\| \[([\w.-]+)\]\(([^)]+)\) \|", ZOO, re.MULTILINE
)


def test_every_config_for_coco_is_there():
    linked = set(re.findall(r"\]\((configs/[^)/]+)\)", ZOO))
    configs = {f"configs/{path.name}" for path in (ROOT / "configs").glob("detr_*.yaml")}
    assert linked == configs
    assert len(ROWS) == 7


def test_configs_that_were_trained_here_are_there():
    linked = re.findall(r"\]\((configs/[^)/]+/[^)]+)\)", ZOO)
    assert len(linked) == 2
    for link in linked:
        load_config(str(ROOT / link))


@pytest.mark.parametrize("name,link,weights,url", ROWS, ids=[row[0] for row in ROWS])
def test_rows_name_the_weights_of_their_config(name, link, weights, url):
    assert link.endswith(name) and url.endswith(weights)
    cfg = load_config(str(ROOT / link))
    assert ("panoptic" in weights) == cfg.MODEL.DETR.MASK_ON
    assert ("dc5" in weights) == (cfg.MODEL.RESNETS.RES5_DILATION == 2)
    assert f"r{cfg.MODEL.RESNETS.DEPTH}" in weights.split("-")


def test_commands_name_the_weights_and_config_of_one_row():
    commands = re.findall(r"--config-file (\S+) --eval-only \\\n\s+MODEL\.WEIGHTS (\S+)", ZOO)
    assert len(commands) == 2
    assert set(commands) <= {(link, url) for _, link, _, url in ROWS}
    assert commands[0] in re.findall(
        r"--config-file (\S+) --eval-only \\\n\s+MODEL\.WEIGHTS (\S+)",
        (ROOT / "README.md").read_text(encoding="utf-8"),
    )
