"""The predictor: what it makes of an image, and which files it refuses."""

import json

import cv2
import numpy as np
import onnx
import pytest
from page_blocks import blocks
from PIL import Image

from detr_d2.data.panoptic_png import read_panoptic_png
from detr_d2.deploy import ModelError, OnnxPredictor
from detr_d2.deploy.prediction_files import predict_files

RED, BLUE = 1, 2


def segments_of(output: dict) -> list[tuple]:
    _, segments = output["panoptic_seg"]
    return [(s["id"], s["category_id"], s["isthing"], s["area"]) for s in segments]


def test_ids_and_segments(make_model, stripes):
    output = OnnxPredictor(make_model(), image_format="RGB")(stripes)
    ids, segments = output["panoptic_seg"]
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids[:32, :40], RED)
    np.testing.assert_array_equal(ids[:32, 40:], 0)
    np.testing.assert_array_equal(ids[32:], BLUE)
    assert segments_of(output) == [(1, 1, True, 32 * 40), (2, 2, False, 16 * 64)]
    assert segments[0]["score"] == pytest.approx(0.9) and segments[0]["box"] == [0, 0, 64, 48]
    json.dumps(segments)  # plain numbers


def test_nothing_found(make_model, stripes):
    ids, segments = OnnxPredictor(make_model())(np.zeros_like(stripes))["panoptic_seg"]
    assert ids.shape == (48, 64) and not ids.any() and segments == []


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("wanted", ["RGB", "BGR"])
def test_channels_reach_the_model_in_its_order(make_model, stripes, order, wanted):
    given = stripes if order == "RGB" else stripes[:, :, ::-1]
    output = OnnxPredictor(make_model(input_format=wanted), image_format=order)(given)
    # A graph that wants BGR calls its first channel by the class of red all the same.
    first, second = (40 * 32, 16 * 64) if wanted == "RGB" else (16 * 64, 40 * 32)
    assert [area for *_, area in segments_of(output)] == [first, second]


def test_arrays_of_other_kinds(make_model, stripes):
    predictor = OnnxPredictor(make_model(), image_format="RGB")
    expected, _ = predictor(stripes)["panoptic_seg"]
    for same in (stripes.astype(np.float32), np.dstack([stripes, stripes[:, :, 0]])):
        np.testing.assert_array_equal(predictor(same)["panoptic_seg"][0], expected)
    for wrong in (None, stripes.transpose(2, 0, 1), stripes[None], stripes / 255):
        with pytest.raises(ValueError):
            predictor(wrong)


def test_images_are_understood_as_in_training(make_model, stripes, tmp_path):
    """12 bits in 16, and turned by EXIF: files and arrays."""
    deep, tags = stripes.astype(np.uint16) << 4, Image.Exif()
    cv2.imwrite(str(tmp_path / "deep.png"), deep[..., ::-1])
    tags[0x112] = 6
    Image.fromarray(stripes).save(tmp_path / "turned.png", exif=tags)
    model = make_model(deep_range=4095, ignore_exif=True)
    predictor = OnnxPredictor(model, image_format="RGB")
    expected, _ = predictor(stripes)["panoptic_seg"]
    np.testing.assert_array_equal(predictor(deep)["panoptic_seg"][0], expected)
    names = [str(tmp_path / name) for name in ("deep.png", "turned.png")]
    assert predict_files(predictor, names, tmp_path / "out", save_panoptic=True) == 0
    for name in ("deep.png", "turned.png"):
        ids = read_panoptic_png(tmp_path / "out" / "predictions" / name)
        np.testing.assert_array_equal(ids, expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (31, 57), (48, 64)])
def test_any_size_comes_out_as_it_came_in(make_model, size):
    image = np.full((*size, 3), [0, 200, 0], np.uint8)
    ids, segments = OnnxPredictor(make_model(min_size=24, max_size=40))(image)["panoptic_seg"]
    assert ids.shape == size and (ids == 1).all()
    assert segments[0]["area"] == size[0] * size[1]


def test_a_fixed_size_is_stretched_to_and_back(make_model, stripes):
    model = make_model(size=(24, 32), fixed_size=[24, 32])
    output = OnnxPredictor(model, image_format="RGB")(stripes)
    expected = OnnxPredictor(make_model("any.onnx"), image_format="RGB")(stripes)["panoptic_seg"][0]
    ids, segments = output["panoptic_seg"]
    assert (ids == expected).mean() > 0.97
    assert [s["area"] for s in segments] == [(ids == 1).sum(), (ids == 2).sum()]


def test_a_fixed_output_is_stretched_back(make_model, stripes, tmp_path):
    """Where ids come out at the fixed size, too, and segments may be lost on the way."""
    path = make_model(size=(24, 32), fixed_size=[24, 32])
    model = onnx.load(path)
    constant = onnx.numpy_helper.from_array(np.array([24, 32], np.int64), "output_size")
    model.graph.initializer.append(constant)
    del model.graph.input[1:]
    onnx.save(model, path)
    predictor = OnnxPredictor(path, image_format="RGB")
    ids, segments = predictor(stripes)["panoptic_seg"]
    assert ids.shape == (48, 64)
    assert [s["area"] for s in segments] == [(ids == 1).sum(), (ids == 2).sum()]
    assert segments[0]["box"] == [0, 0, 64, 48]
    tall = np.zeros((24, 32, 3), np.uint8)
    tall[:20, :, 2], tall[20, :, 0] = 200, 200
    ids, segments = predictor(tall[:, :1].repeat(2, 1)[::-1])["panoptic_seg"]
    assert sorted(np.unique(ids)) == [0, *(s["id"] for s in segments)]


def test_categories_rename_the_classes(make_model, stripes):
    ours = [
        {"id": 9, "name": "Himmel", "isthing": 0},
        {"id": 5, "name": "Drachen", "isthing": 1, "color": [1, 2, 3]},
        {"id": 4, "name": "Ballon", "isthing": 1},
    ]
    info = OnnxPredictor(make_model(), categories=ours).info
    assert [c.name for c in info.classes] == ["Ballon", "Drachen", "Himmel"]
    assert [c.id for c in info.classes] == [4, 5, 9]
    assert [c.color for c in info.classes] == [(220, 20, 60), (1, 2, 3), (90, 200, 120)]


def test_categories_of_the_same_ids_keep_the_order_of_the_model(make_model, info):
    """Not all datasets count things first."""
    ours = [info["classes"][k] for k in (2, 1, 0)]
    model = make_model(classes=ours)
    assert [c.id for c in OnnxPredictor(model, categories=info["classes"]).info.classes] == [
        40,
        7,
        3,
    ]
    swapped = [{**each, "isthing": each["id"] != 7} for each in ours]
    with pytest.raises(
        ModelError, match=r"categories: 40 \(sky\) is a thing, but not in the model"
    ):
        OnnxPredictor(model, categories=swapped)


@pytest.mark.parametrize("keep, isthing", [(2, 1), (3, 0)])
def test_other_classes_are_refused(make_model, info, keep, isthing):
    ours = info["classes"][:keep]
    ours[1] = {**ours[1], "isthing": isthing}
    with pytest.raises(ModelError, match=r"categories has .* exported for 3 classes \(2 of them"):
        OnnxPredictor(make_model(), categories=ours)


def test_a_class_that_the_metadata_lack_is_refused(make_model, stripes):
    predictor = OnnxPredictor(make_model(class_table=(1, 1, 5)), image_format="RGB")
    with pytest.raises(ModelError, match=r"class 5, but its metadata list 3 classes"):
        predictor(stripes)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"metadata": None}, "not one of detr_d2"),
        ({"metadata": "{"}, "no JSON"),
        ({"metadata": "[]"}, "format"),
        ({"format": 2}, r"of format 2; this detr_d2 reads format 1.*'0\.1\.0'"),
        ({"form": "raw"}, "form 'raw'"),
        ({"classes": []}, "no list of classes"),
        ({"classes": [{"id": 1, "name": "x", "isthing": "no", "color": [1, 2, 3]}]}, "'isthing'"),
        ({"classes": [{"id": 1, "name": "x", "isthing": 1, "color": [1, 2]}]}, "'color'"),
        ({"classes": [{"id": 1, "name": "x", "isthing": 1, "color": [1, 2, 3]}] * 2}, "same id"),
        ({"input_format": "L"}, "'input_format': 'L'"),
        ({"min_size": -1}, "'min_size': -1"),
        ({"max_size": None}, "'max_size': None"),
        ({"fixed_size": [0, 5]}, "'fixed_size'"),
        ({"max_side": 0}, "'max_side': 0"),
        ({"deep_range": 70_000}, "'deep_range': 70000"),
        ({"ignore_exif": "no"}, "'ignore_exif': 'no'"),
        ({"fixed_size": [24, 32]}, r"takes images of .*, not \[24, 32\]"),
        ({"size": (24, 32)}, r"takes images of \[24, 32\] alone"),
    ],
)
def test_files_that_say_something_else_are_refused(make_model, changed, message):
    path = make_model(**changed)
    with pytest.raises(ModelError, match=rf"model\.onnx: .*{message}"):
        OnnxPredictor(path)


def test_graphs_of_other_outputs_or_inputs_are_refused(make_model, tmp_path):
    path = make_model()
    for old, new, message in (
        ("ids", "mask", "gives .*mask.* and not ids"),
        ("image", "picture", "takes output_size, picture and not image"),
    ):
        model = onnx.load(path)
        for node in model.graph.node:
            node.output[:] = [new if name == old else name for name in node.output]
            node.input[:] = [new if name == old else name for name in node.input]
        for value in [*model.graph.output, *model.graph.input]:
            value.name = new if value.name == old else value.name
        onnx.save(model, tmp_path / "other.onnx")
        with pytest.raises(ModelError, match=message):
            OnnxPredictor(tmp_path / "other.onnx")


def test_files_that_are_no_models_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.onnx"):
        OnnxPredictor(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ModelError, match=r"text\.onnx: onnxruntime cannot load"):
        OnnxPredictor(tmp_path / "text.onnx")


def test_a_wrong_order_of_channels_is_refused(make_model):
    with pytest.raises(ValueError, match="'BGR' or 'RGB', not 'GRB'"):
        OnnxPredictor(make_model(), image_format="GRB")


def test_images_beyond_learned_positions_are_refused(make_model, stripes):
    """Before the graph fails in words of its own."""
    predictor = OnnxPredictor(make_model(max_side=64), image_format="RGB")
    assert segments_of(predictor(stripes))
    with pytest.raises(ValueError, match=r"96×65 .*sees at 96×65: its .* reach 64 pixels a side"):
        predictor(np.zeros((96, 65, 3), np.uint8))
    # Counted is what the network sees.
    smaller = OnnxPredictor(make_model(max_side=64, min_size=32, max_size=64), image_format="RGB")
    assert smaller(np.zeros((960, 650, 3), np.uint8))["panoptic_seg"][0].shape == (960, 650)


def test_failures_inside_the_model_are_told(make_model, stripes, monkeypatch):
    predictor = OnnxPredictor(make_model())

    def run(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(predictor._session, "run", run)
    with pytest.raises(ValueError, match="48×64 pixels, which it sees at 48×64: out of memory"):
        predictor(stripes)


def test_weights_in_8_bits_are_brought_back_once(make_model):
    """Which onnxruntime does in no other case."""
    options = OnnxPredictor(make_model())._session.get_session_options()
    assert options.get_session_config_entry("session.disable_quant_qdq") == "1"


def test_the_snippet_of_the_page_runs(make_model, stripes, tmp_path, monkeypatch, capsys):
    (snippet,) = (each for each in blocks("docs/export.md", "python") if "detr.onnx" in each)
    make_model("detr.onnx")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(stripes).save("image.jpg", quality=100)
    exec(compile(snippet, "export.md", "exec"), {})
    names = [line.split(",")[0] for line in capsys.readouterr().out.splitlines()]
    assert len(names) == 2 and names[0].startswith("1: ") and names[1].startswith("2: ")
    assert Image.open("picture.png").size[0] >= 64
