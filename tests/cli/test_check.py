"""detr-d2 check: what it prints and writes, and its exit status."""

import json
from pathlib import Path

import pytest

from detr_d2.data.shapes.shapes_files import write_shapes


@pytest.fixture
def run(run_cli, capsys):
    """Gives the exit status and what was printed, of both kinds."""

    def run_check(*arguments: object) -> tuple[int, str]:
        status = run_cli("check", *arguments)
        return status, capsys.readouterr().out

    return run_check


@pytest.fixture
def paths(tmp_path) -> list[object]:
    root = tmp_path / "shapes"
    write_shapes(root, "val", 8)
    options = {"--image-root": "images", "--panoptic-root": "panoptic"}
    options["--panoptic-json"] = "panoptic.json"
    return [part for option, name in options.items() for part in (option, root / name)]


def test_a_sound_dataset_and_a_broken_one(run, paths, tmp_path):
    status, printed = run(*paths, "--workers", 0)
    assert status == 0 and "8 images" in printed
    image = next((tmp_path / "shapes" / "images").iterdir())
    image.write_bytes(b"")
    output = tmp_path / "report.json"
    status, printed = run(*paths, "--workers", 2, "--output", output)
    assert status == 1 and f"{image}: cannot be read" in printed
    (report,) = json.loads(output.read_text())["datasets"]
    assert report["breaks"] is True


def test_what_only_biases_is_no_failure(run, paths, tmp_path):
    panoptic_json = Path(paths[-1])
    content = json.loads(panoptic_json.read_text())
    content["annotations"][0]["segments_info"][0]["area"] += 1
    panoptic_json.write_text(json.dumps(content))
    status, printed = run(*paths, "--workers", 0)
    assert status == 0 and "another area than the JSON says" in printed


@pytest.mark.parametrize("as_things", [False, True])
def test_keys_of_the_config_count_without_a_config(run, paths, as_things):
    panoptic_json = Path(paths[-1])
    content = json.loads(panoptic_json.read_text())
    for annotation in content["annotations"]:
        for segment in annotation["segments_info"]:
            segment["iscrowd"] = 1
    panoptic_json.write_text(json.dumps(content))
    _, printed = run(*paths, "--workers", 0, "DATASETS.CROWDS_AS_THINGS", str(as_things))
    assert ("set DATASETS.CROWDS_AS_THINGS True" in printed) != as_things


def test_the_datasets_of_a_config(run, tiny_cfg, tmp_path):
    (tmp_path / "config.yaml").write_text(tiny_cfg.dump())
    options = ["--config-file", tmp_path / "config.yaml", "--workers", 0]
    status, printed = run(*options, "MODEL.DETR.NUM_QUERIES", "100")
    assert status == 0
    assert "small_shapes_train" in printed and "small_shapes_val" in printed


def test_keys_count_without_a_config_as_well(run, paths):
    status, printed = run(*paths, "--workers", 0, "MODEL.DETR.NUM_QUERIES", "2")
    assert status == 0 and "more segments than queries" in printed
    with pytest.raises(SystemExit, match="INPUT.DEEP_RANGE is 70000, but must be in 255 … 65535"):
        run(*paths, "INPUT.DEEP_RANGE", "70000")
    with pytest.raises(SystemExit, match="^error: INPUT.DEEP 5: "):
        run(*paths, "INPUT.DEEP", "5")


@pytest.mark.parametrize(
    "arguments",
    [[], ["--image-root", "x"], ["--config-file", "x", "--panoptic-json", "y"], ["--workers", -1]],
)
def test_half_a_dataset_is_refused(run, arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    assert "--panoptic-json" in capsys.readouterr().err


def test_a_missing_json_is_one_line(run, paths):
    Path(paths[-1]).unlink()
    with pytest.raises(SystemExit, match=r"^error: .*panoptic\.json"):
        run(*paths)
