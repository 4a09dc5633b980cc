"""The command line: checkpoints converted, or refused in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from detr_d2.checkpoint import read_checkpoint

VAL = "small_shapes_val"
# Of the reference, with a class head by COCO's ids.
REFERENCE = {
    "transformer.encoder.layers.0.self_attn.in_proj_bias": torch.arange(6.0),
    "transformer.encoder.layers.0.linear1.weight": torch.eye(2),
    "class_embed.weight": torch.ones(92, 2),
    "class_embed.bias": torch.arange(92.0),
}


@pytest.fixture
def refused_in_one_line(run_cli) -> Callable[..., str]:
    """Runs a command that gives up; returns what it says."""

    def run(name: str, *arguments: object) -> str:
        with pytest.raises(SystemExit) as caught:
            run_cli(name, *arguments)
        # Python writes what isn't a number to stderr, and ends with status 1.
        assert isinstance(caught.value.code, str) and caught.value.code.startswith("error: ")
        return caught.value.code

    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.save({"model": REFERENCE}, tmp_path / "source.pth")
    return tmp_path / "source.pth"


# --- detr-d2 convert ---


def test_modules_are_shown(run_cli, source, tmp_path, capsys):
    run_cli("convert", source, tmp_path / "output.pth")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{source}: the reference DETR (detector)"
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in said[1:]]
    assert table[0] == ["what", "tensors", "in the file", "in the model"]
    assert ["renamed", "2", "class_embed.*", "detector.class_head.*"] in table
    assert [row[:2] for row in table[2:]] == [["split", "3"], ["renamed", "1"], ["renamed", "2"]]
    assert len(read_checkpoint(str(tmp_path / "output.pth")).named.weights) == 6


def test_every_tensor_is_shown(run_cli, source, tmp_path, capsys):
    run_cli("convert", source, tmp_path / "output.pth", "--tensors")
    said = capsys.readouterr().out
    for part in "qkv":
        own = f"detector.transformer.encoder_layers.0.self_attention.{part}_proj.bias"
        assert f"{own} 2 " in said
    assert "class_embed.weight" in said and "detector.class_head.weight 92×2" in said


def test_a_head_is_cut(run_cli, source, tmp_path, capsys):
    output = tmp_path / "output.pth"
    run_cli("convert", source, output, "--dataset", "coco_2017_val", "--tensors")
    said = capsys.readouterr().out
    assert "rows by the dataset's ids, of 92" in said
    assert "detector.class_head.weight 92×2 → 81×2" in said
    assert read_checkpoint(str(output)).class_head.num_rows == 81


def test_nothing_is_converted_twice(run_cli, refused_in_one_line, source, tmp_path):
    output = tmp_path / "output.pth"
    run_cli("convert", source, output)
    before = output.read_bytes()
    said = refused_in_one_line("convert", source, output)
    assert said == f"error: {output} is there already; it is left as it is."
    assert output.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone.pth", "output.pth"], "There is no checkpoint gone.pth."),
        (["empty.pth", "output.pth"], "empty.pth is empty."),
        (["folder", "output.pth"], "folder is a folder without config.json"),
        (["source.pth", "output.bin"], "output.bin: the name of a checkpoint has to end in .pth."),
        (["source.pth", "empty.pth/output.pth"], "[Errno 17] File exists: 'empty.pth'"),
        (["source.pth", "output.pth", "--dataset", "unknown"], "No classes are known for a"),
        (["source.pth", "output.pth", "--dataset", VAL], "source.pth: its classes don't fit the"),
        (["torchvision://resnet51", "output.pth"], "torchvision://resnet51: torchvision has no"),
        (["http://127.0.0.1:x/w.pth", "output.pth"], "http://127.0.0.1:x/w.pth could not be down"),
        (["R-50.pkl", "output.pth"], "R-50.pkl is of Detectron2's model zoo."),
    ],
)
def test_errors_are_one_line(
    arguments, said, refused_in_one_line, source, small_shapes, tmp_path, monkeypatch
):
    (tmp_path / "empty.pth").touch()
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    message = refused_in_one_line("convert", *arguments)
    assert message.startswith(f"error: {said}") and "\n" not in message
    assert sorted(tmp_path.iterdir()) in (before, [tmp_path / "cache", *before])


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("full")])
def test_a_full_disk_is_told(error, refused_in_one_line, source, tmp_path, monkeypatch):
    def save(content: object, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(torch, "save", save)
    message = refused_in_one_line("convert", source, tmp_path / "output.pth")
    assert str(error.args[-1]) in message
    assert [path.name for path in tmp_path.iterdir()] == ["source.pth"]


def test_arguments_are_needed(run_cli, capsys):
    with pytest.raises(SystemExit) as caught:
        run_cli("convert")
    assert caught.value.code == 2 and "SOURCE, OUTPUT" in capsys.readouterr().err


# --- detr-d2 train ---


@pytest.fixture
def config(tiny_cfg, tmp_path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(tiny_cfg.dump())
    return path


def misfit(tiny_cfg, path: Path) -> Path:
    """A checkpoint of a detector with one class more than the config's."""
    weights = build_model(tiny_cfg).state_dict()
    for name in ("detector.class_head.weight", "detector.class_head.bias"):
        weights[name] = torch.cat([weights[name], weights[name][:1]])
    torch.save({"model": weights}, path)
    return path


@pytest.mark.parametrize("options", [[], ["--eval-only"], ["--stage", "joint"]])
def test_a_checkpoint_that_does_not_fit(options, refused_in_one_line, tiny_cfg, config, tmp_path):
    path = misfit(tiny_cfg, tmp_path / "misfit.pth")
    arguments = ["--config-file", config, *options, "MODEL.WEIGHTS", path]
    message = refused_in_one_line("train", *arguments)
    assert message.startswith(f"error: {path} doesn't fit the model that the config describes.")
    assert "its classes don't fit the dataset: the file has 13 classes" in message
    assert not list(Path(tiny_cfg.OUTPUT_DIR).rglob("*.pth"))


def test_a_frozen_detector_that_does_not_fit(refused_in_one_line, tiny_cfg, config, tmp_path):
    path = misfit(tiny_cfg, tmp_path / "misfit.pth")
    arguments = ["--config-file", config, "--stage", "masks", "MODEL.DETR.FROZEN_WEIGHTS", path]
    assert f"error: {path} doesn't fit" in refused_in_one_line("train", *arguments)


@pytest.mark.parametrize("options", [[], ["--eval-only"]])
@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("page.pth", b"<html>", "is a web page"),
        ("cut_off.pth", b"PK\x03\x04", "cannot be read as a checkpoint of PyTorch"),
        ("attack.bin", b"cposix\nsystem\n(S'true'\ntR.", "wants posix.system to be unpickled"),
        ("unknown.pth", None, ": it is no known kind of checkpoint"),
    ],
)
def test_files_that_are_no_checkpoint(
    name, data, said, options, refused_in_one_line, config, tmp_path
):
    path = tmp_path / name
    if data is None:
        torch.save({"w": torch.ones(1)}, path)
    else:
        path.write_bytes(data)
    arguments = ["--config-file", config, *options, "MODEL.WEIGHTS", path]
    message = refused_in_one_line("train", *arguments)
    assert message.replace(f"{path} ", f"{path}").startswith(f"error: {path}{said}")
    assert "\n" not in message


@pytest.mark.parametrize("options", [[], ["--eval-only"]])
def test_weights_that_are_not_there(options, refused_in_one_line, config, tmp_path):
    path = tmp_path / "gone.pth"
    message = refused_in_one_line("train", "--config-file", config, *options, "MODEL.WEIGHTS", path)
    assert "gone.pth" in message and "\n" not in message
