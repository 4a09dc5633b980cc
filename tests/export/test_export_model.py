"""From a config and weights to files: what they hold, and what is refused."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detr_d2.export import ExportOptions, export_model

FIXED = ("--size", "64", "96")


@pytest.fixture
def run_tool(load_tool, monkeypatch, tiny_cfg_of, tiny_weights, tmp_path) -> Callable[..., None]:
    """Runs tools/export.py on the tiny model: arguments, then config keys and values."""

    def run(output: Path, *arguments: str, overrides: tuple = ()) -> None:
        config = tmp_path / "config.yaml"
        cfg = tiny_cfg_of("MODEL.WEIGHTS", str(tiny_weights), *overrides)
        config.write_text(cfg.dump())
        command = ["--config-file", str(config), "--output", str(output), *arguments]
        monkeypatch.setattr(sys, "argv", ["export.py", *command])
        load_tool("export").main()

    return run


def test_the_command_writes_onnx_with_metadata_and_for_triton(run_tool, tmp_path, small_shapes):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    output = tmp_path / "files" / "tiny.onnx"
    run_tool(output, *FIXED, "--top-k", "2", "--form", "raw", "--triton", str(tmp_path / "models"))
    model = onnx.load(output)
    (entry,) = model.metadata_props
    metadata = json.loads(entry.value)
    assert entry.key == "detr_d2"
    classes = metadata.pop("classes")
    assert len(classes) == 12 and sum(c["isthing"] for c in classes) == 6
    assert all(len(c["color"]) == 3 and c["name"] for c in classes)
    assert metadata.pop("version")
    assert metadata == {
        "format": 1,
        "form": "raw",
        "config_version": 2,
        "score_thresh": 0.6,
        "stuff_merging": "merged",
        "min_area": 40,
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
        "input_format": "RGB",
        "min_size": 0,
        "max_size": 1333,
        "fixed_size": [64, 96],
        "top_k": 2,
        "num_queries": 16,
    }
    folder = tmp_path / "models" / "tiny"
    assert (folder / "1" / "model.onnx").read_bytes() == output.read_bytes()
    config = (folder / "config.pbtxt").read_text()
    assert 'name: "tiny"' in config and "max_batch_size: 0" in config
    assert '{ name: "image", data_type: TYPE_UINT8, dims: [ 1, 3, 64, 96 ] }' in config
    assert '{ name: "query_index", data_type: TYPE_INT64, dims: [ 1, 2 ] }' in config
    assert '{ name: "mask_logits", data_type: TYPE_FP32, dims: [ 1, 2, 16, 24 ] }' in config
    assert sorted(p.name for p in output.parent.iterdir()) == ["tiny.onnx"]


def test_programs_of_torch_hold_the_same(
    run_tool, tiny_cfg_of, tiny_model, images, tmp_path, record_agreement
):
    output = tmp_path / "tiny.pt2"
    run_tool(output, "--format", "torch", *FIXED)
    files = {"detr_d2.json": ""}
    program = torch.export.load(output, extra_files=files)
    assert json.loads(files["detr_d2.json"])["fixed_size"] == [64, 96]
    model = tiny_model(tiny_cfg_of(), whole=True)
    (image,) = images((64, 96))
    with torch.no_grad():
        ids, classes, *_ = program.module()(image[None])
    expected, segments = model([{"image": image}])[0]["panoptic_seg"]
    record_agreement("torch.export", float((ids == expected).float().mean()))
    assert classes.tolist() == [s["category_id"] for s in segments]
    assert str(Path(__file__).parents[2]).encode() not in output.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "overrides", "message"),
    [
        (("--top-k", "21"), (), "--top-k 21: the model has 16 queries"),
        (("--size", "16", "64"), (), "--size 16 64: images need at least 33 pixels"),
        (("--format", "torch"), (), "files of format torch end in .pt2"),
        ((), ("MODEL.DETR.MASK_ON", False), "--form panoptic: it holds masks, and this model"),
        ((), ("MODEL.WEIGHTS", "nowhere.pth"), "MODEL.WEIGHTS: nowhere.pth doesn't exist"),
        ((), ("DATASETS.TEST", (), "DATASETS.TRAIN", ()), "no dataset tells the names"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(run_tool, tmp_path, arguments, overrides, message):
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        run_tool(tmp_path / "model.onnx", *arguments, overrides=overrides)
    assert not (tmp_path / "model.onnx").exists()


def test_missing_packages_are_named_with_their_extra(tiny_cfg_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"onnxscript, which .*pip install 'detr_d2\[export\]'"):
        ExportOptions().check(tiny_cfg_of())


def test_a_failure_leaves_the_file_that_was_there(tiny_cfg_of, tiny_weights, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise ValueError("not traceable")

    monkeypatch.setattr("detr_d2.export.export.trace", fail)
    output = tmp_path / "tiny.pt2"
    output.write_bytes(b"older")
    cfg = tiny_cfg_of("MODEL.WEIGHTS", str(tiny_weights))
    with pytest.raises(ValueError, match="not traceable"):
        export_model(cfg, output, ExportOptions(format="torch"))
    assert output.read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.pt2"]
