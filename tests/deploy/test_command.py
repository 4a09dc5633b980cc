"""The command line, where neither PyTorch nor Detectron2 is installed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detr_d2.data.input_files import find_images
from detr_d2.data.panoptic_png import read_panoptic_png
from detr_d2.deploy import OnnxPredictor
from detr_d2.deploy.prediction_files import predict_files

MODULE = "detr_d2.deploy"


def test_pictures_and_panoptic_files(make_model, photos, tmp_path, run_without_torch, stripes):
    out = tmp_path / "out"
    result = run_without_torch(MODULE, make_model(), photos, "--output", out, "--save-panoptic")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    names = ["a.png", "a_2.png", "small.png"]
    assert {p.name for p in out.iterdir()} == {*names, "predictions", "predictions.json"}
    assert Image.open(out / "a.png").size == (512, 384)
    content = json.loads((out / "predictions.json").read_text())
    assert [each["file_name"] for each in content["annotations"]] == names
    assert [each["image_id"] for each in content["annotations"]] == ["a", "a_2", "small"]
    assert content["categories"][2] == {
        "id": 40,
        "name": "sky",
        "isthing": 0,
        "color": [90, 200, 120],
    }
    # As the model gives it, and as panopticapi reads it.
    ids, segments = OnnxPredictor(make_model(), image_format="RGB")(stripes)["panoptic_seg"]
    annotation = content["annotations"][0]
    read = read_panoptic_png(out / "predictions" / annotation["file_name"])
    np.testing.assert_array_equal(read, ids)
    for saved, segment, category in zip(
        annotation["segments_info"], segments, (7, 40), strict=True
    ):
        expected = {key: segment[key] for key in ("id", "area", "score")}
        assert saved == {**expected, "category_id": category}


def test_panopticapi_scores_them(make_model, photos, tmp_path, capfd):
    """Against themselves, as ground truth: all there is must match."""
    from panopticapi.evaluation import pq_compute

    predictor, out = OnnxPredictor(make_model(), image_format="RGB"), tmp_path / "out"
    assert predict_files(predictor, [str(photos)], out, save_panoptic=True) == 0
    path = out / "predictions.json"
    truth = json.loads(path.read_text())
    for annotation in truth["annotations"]:
        for segment in annotation["segments_info"]:
            segment["iscrowd"] = 0
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    folder = str(out / "predictions")
    result = pq_compute(str(tmp_path / "truth.json"), str(path), folder, folder)
    capfd.readouterr()
    assert result["All"]["pq"] == 1.0 and result["Stuff"]["n"] == result["Things"]["n"] == 1


def test_unreadable_images_are_named_and_skipped(make_model, photos, tmp_path, run_without_torch):
    (photos / "broken.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    result = run_without_torch(
        MODULE, make_model(), photos, photos / "none.png", "--output", out, "--save-panoptic"
    )
    assert result.returncode == 1 and result.stdout == ""
    first, second = result.stderr.splitlines()
    assert "broken.jpg: cannot be read" in first and "none.png" in second
    assert sorted(p.name for p in out.glob("*.png")) == ["a.png", "a_2.png", "small.png"]
    assert len(json.loads((out / "predictions.json").read_text())["annotations"]) == 3


def test_what_is_left_out_of_a_folder_is_said_and_no_error(
    make_model, photos, tmp_path, run_without_torch
):
    for name in ("a.cr2", "film.mp4", "._a.png", "notes.txt"):
        (photos / name).write_bytes(b"no picture")
    result = run_without_torch(MODULE, make_model(), photos, "--output", tmp_path / "out")
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == f"{photos}: 2 files left out: 1 .cr2 (a.cr2); 1 .mp4 (film.mp4).\n"


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"form": "raw"}, "form 'raw'"),
        ({"class_table": (1, 1, 9)}, "exported for another number of classes"),
    ],
)
def test_a_model_that_is_no_good_is_one_error(
    make_model, photos, tmp_path, run_without_torch, changed, message
):
    result = run_without_torch(MODULE, make_model(**changed), photos, "--output", tmp_path / "out")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and message in line
    assert not list((tmp_path / "out").glob("*.png"))


def test_categories_of_a_file(make_model, photos, tmp_path, run_without_torch, info):
    path, out = tmp_path / "panoptic.json", tmp_path / "out"
    ours = [{**each, "id": each["id"] + 100} for each in info["classes"]]
    path.write_text(json.dumps({"categories": ours}))
    arguments = [MODULE, make_model(), photos, "--output", out, "--save-panoptic", "--categories"]
    assert run_without_torch(*arguments, path).returncode == 0
    content = json.loads((out / "predictions.json").read_text())
    assert [each["id"] for each in content["categories"]] == [103, 107, 140]
    path.write_text(json.dumps(ours[:2]))
    result = run_without_torch(*arguments, path)
    assert result.returncode == 1
    assert "has 2 classes (2 of them things), but the model was exported for 3" in result.stderr
    path.write_text("{}")
    assert "neither a list of categories nor" in run_without_torch(*arguments, path).stderr


def test_an_interruption_leaves_what_is_done(make_model, photos, tmp_path):
    predictor, out = OnnxPredictor(make_model(), image_format="RGB"), tmp_path / "out"

    class Interrupted:
        info = predictor.info
        left = 2

        def __call__(self, image):
            # A killed process would leave these files, too.
            content = json.loads((out / "predictions.json").read_text())
            assert len(content["annotations"]) == 2 - self.left
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            return predictor(image)

    with pytest.raises(KeyboardInterrupt):
        predict_files(Interrupted(), [str(photos)], out, save_panoptic=True)
    content = json.loads((out / "predictions.json").read_text())
    assert [each["file_name"] for each in content["annotations"]] == ["a.png", "a_2.png"]
    assert sorted(p.name for p in out.glob("*.png")) == ["a.png", "a_2.png"]
    assert not list(out.rglob("*.tmp"))


def test_a_picture_never_replaces_an_image(make_model, photos):
    before = (photos / "a.png").read_bytes()
    predictor = OnnxPredictor(make_model(), image_format="RGB")
    with pytest.raises(ValueError, match=r"a\.png is one of the images"):
        predict_files(predictor, [str(photos)], photos, save_panoptic=False)
    assert (photos / "a.png").read_bytes() == before
    assert sorted(p.name for p in photos.iterdir()) == ["a.png", "more", "small.bmp"]
    # Nor do ids in colours, where those of an earlier run are the images.
    (photos / "more").rename(photos / "predictions")
    with pytest.raises(ValueError, match=r"predictions/a\.png is one of the images"):
        predict_files(predictor, [str(photos / "predictions")], photos, save_panoptic=True)


def test_finding_images(photos, tmp_path):
    found = find_images([str(photos), "named.xyz"])
    assert [p.name for p in found] == ["a.png", "a.png", "small.bmp", "named.xyz"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="No images in .*empty"):
        find_images([str(tmp_path / "empty")])


def test_without_onnxruntime_the_error_says_what_is_missing():
    hide = "import sys; sys.modules.update(dict.fromkeys(['torch', 'detectron2', 'onnxruntime']))"
    result = subprocess.run(
        [sys.executable, "-c", f"{hide}; from detr_d2.deploy import OnnxPredictor"],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert (
        "onnxruntime, which this environment lacks: pip install 'detr_d2[deploy]'" in result.stderr
    )
