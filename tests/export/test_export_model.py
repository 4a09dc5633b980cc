"""From a config and weights to files: what they hold, and what is refused."""

import json
import sys

import pytest
from detectron2.modeling import build_model

from detr_d2.deploy import OnnxPredictor
from detr_d2.export import ExportOptions, export_model
from detr_d2.export.traced_program import trace


def test_the_command_writes_onnx_with_metadata_and_for_triton(exported_folder):
    onnx = pytest.importorskip("onnx")
    output = exported_folder / "files" / "tiny.onnx"
    (entry,) = onnx.load(output).metadata_props
    metadata = json.loads(entry.value)
    assert entry.key == "detr_d2"
    classes = metadata.pop("classes")
    assert len(classes) == 12 and sum(c["isthing"] for c in classes) == 6
    assert all(len(c["color"]) == 3 and c["name"] for c in classes)
    assert metadata.pop("version")
    assert metadata == {
        "format": 1,
        "form": "panoptic",
        "config_version": 2,
        "score_thresh": 0.6,
        "stuff_merging": "reference",
        "min_area": 40,
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
        "input_format": "RGB",
        "deep_range": 65535,
        "ignore_exif": False,
        "min_size": 0,
        "max_size": 1333,
        "max_side": None,
        "fixed_size": None,
        "top_k": None,
        "num_queries": 16,
    }
    folder = exported_folder / "models" / "tiny"
    assert (folder / "1" / "model.onnx").read_bytes() == output.read_bytes()
    config = (folder / "config.pbtxt").read_text()
    assert 'name: "tiny"' in config and "max_batch_size: 0" in config
    assert '{ name: "image", data_type: TYPE_UINT8, dims: [ 1, 3, -1, -1 ] }' in config
    assert '{ name: "output_size", data_type: TYPE_INT64, dims: [ 2 ] }' in config
    assert '{ name: "scores", data_type: TYPE_FP32, dims: [ -1 ] }' in config
    assert [p.name for p in output.parent.iterdir()] == ["tiny.onnx"]


def test_the_predictor_without_pytorch_takes_the_file(
    exported_folder, tiny_model, images, record_agreement
):
    """At sizes down to one pixel, at which the network sees them here."""
    predictor = OnnxPredictor(exported_folder / "files" / "tiny.onnx", image_format="RGB")
    model = tiny_model("R50, reference")
    for image in images((97, 130), (33, 31), (1, 60), (1, 1)):
        expected, segments = model([{"image": image}])[0]["panoptic_seg"]
        ids, found = predictor(image.permute(1, 2, 0).numpy())["panoptic_seg"]
        record_agreement("deploy", float((ids == expected.numpy()).mean()))
        same = ("id", "category_id", "isthing")
        assert [[s[k] for k in same] for s in found] == [[s[k] for k in same] for s in segments]


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


def test_a_model_without_masks_is_refused(tiny_cfg_of):
    model = build_model(tiny_cfg_of("R50, reference", "MODEL.DETR.MASK_ON", False))
    with pytest.raises(ValueError, match="no masks: MODEL.DETR.MASK_ON is False"):
        trace(model, ExportOptions())


def test_missing_packages_are_named_with_their_extra(tiny_cfg_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"onnxscript, which .*pip install 'detr_d2\[export\]'"):
        ExportOptions().check(tiny_cfg_of("DC5, merged"))


def test_a_failure_leaves_the_file_that_was_there(tiny_cfg_of, tiny_weights, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise ValueError("no such model")

    monkeypatch.setattr("detr_d2.export.model_export.StrictCheckpointer", fail)
    output = tmp_path / "tiny.pt2"
    output.write_bytes(b"older")
    cfg = tiny_cfg_of("R50, reference", "MODEL.WEIGHTS", str(tiny_weights))
    with pytest.raises(ValueError, match="no such model"):
        export_model(cfg, output, ExportOptions(format="torch"))
    assert output.read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.pt2"]
