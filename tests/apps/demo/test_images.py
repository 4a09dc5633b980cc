"""Prediction on image files: which get a picture, and what happens to damaged ones."""

import json
import logging
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch


def test_every_readable_image_gets_a_picture(trained_cfg, images, tmp_path, caplog):
    from detr_d2.apps.demo import predict_files

    output = tmp_path / "pictures"
    with caplog.at_level(logging.ERROR, logger="detr_d2"):
        failed = predict_files(trained_cfg, [str(images), str(images / "gone.jpg")], str(output))
    assert failed == 2
    assert sorted(path.name for path in output.iterdir()) == ["a.png", "a_2.png"]
    assert cv2.imread(str(output / "a.png")).shape == (6 * 60, 6 * 80, 3)
    messages = [record.getMessage() for record in caplog.records]
    assert ["broken.jpg" in messages[0], "gone.jpg" in messages[1]] == [True, True]


def test_images_of_all_kinds_get_a_picture(trained_cfg, tmp_path):
    from PIL import Image

    from detr_d2.apps.demo import predict_files

    folder, output = tmp_path / "images", tmp_path / "pictures"
    folder.mkdir()
    trained_cfg.merge_from_list(["INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 96])
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"):
        Image.new(mode, (40, 30)).save(folder / f"{mode}.png")
    Image.new("CMYK", (40, 30)).save(folder / "CMYK.jpg")
    for size in [(1, 1), (1, 3000), (3000, 1)]:
        Image.new("RGB", size).save(folder / f"{size[0]}x{size[1]}.png")
    assert predict_files(trained_cfg, [str(folder)], str(output)) == 0
    assert len(list(output.iterdir())) == 11
    assert cv2.imread(str(output / "3000x1.png")).shape == (1, 3000, 3)


def test_images_that_the_model_cannot_take_are_named(trained_cfg, images, tmp_path, caplog):
    from detectron2.modeling import build_model

    from detr_d2.apps.demo import predict_files

    trained_cfg.MODEL.DETR.POSITION_EMBEDDING = "learned"
    torch.save({"model": build_model(trained_cfg).state_dict()}, trained_cfg.MODEL.WEIGHTS)
    cv2.imwrite(str(images / "long.png"), np.zeros((9, 3000, 3), np.uint8))
    inputs = [str(images / "long.png"), str(images / "a.jpg")]
    with caplog.at_level(logging.ERROR, logger="detr_d2"):
        assert predict_files(trained_cfg, inputs, str(tmp_path / "pictures")) == 1
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["a.png"]
    assert re.search(r"long\.png: Learned positions reach 50", caplog.text)


def test_a_picture_that_cannot_be_written_is_an_error(trained_cfg, images, tmp_path):
    from detr_d2.apps.demo import predict_files

    (tmp_path / "pictures" / "a.png").mkdir(parents=True)
    with pytest.raises(OSError, match=r"can't be written: Is a directory: .*a\.png"):
        predict_files(trained_cfg, [str(images / "a.jpg")], str(tmp_path / "pictures"))


def test_demo_ends_with_status_1_if_any_image_failed(trained_cfg, images, tmp_path, run_cli):
    config = tmp_path / "config.yaml"
    config.write_text(trained_cfg.dump())

    def run(*inputs: Path) -> int:
        options = ["--config-file", config, "--output", tmp_path / "out", "--input", *inputs]
        return run_cli("demo", *options)

    assert run(images) == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "a_2.png"}
    assert run(images / "a.jpg") == 0
    with pytest.raises(SystemExit, match="error: No images or videos in"):
        run(images / "*.gif")
    trained_cfg.MODEL.WEIGHTS = str(tmp_path / "gone.pth")
    config.write_text(trained_cfg.dump())
    with pytest.raises(SystemExit, match=r"error: .*gone\.pth"):
        run(images)


def test_predictions_are_saved_with_the_ids_of_the_picture(trained_cfg, images, tmp_path):
    from panopticapi.utils import rgb2id
    from PIL import Image

    from detr_d2.apps.demo import DemoOptions, predict_files
    from detr_d2.predictor import Predictor

    (images / "broken.jpg").unlink()
    (images / "a.jpg").rename(images / "000000000139.jpg")
    output = tmp_path / "pictures"
    options = DemoOptions(save_panoptic=True, batch_size=2)
    assert predict_files(trained_cfg, [str(images)], str(output), options) == 0
    content = json.loads((output / "predictions.json").read_text())
    entries = {entry["image_id"]: entry for entry in content["annotations"]}
    assert list(entries) == [139, "a"]  # COCO's images have their ids as names
    predicted = Predictor(trained_cfg)(cv2.imread(str(images / "000000000139.jpg")))
    ids, segments_info = predicted["panoptic_seg"]
    saved = rgb2id(np.asarray(Image.open(output / "predictions" / entries[139]["file_name"])))
    assert np.array_equal(saved, ids.numpy()) and len(segments_info) > 0
    for entry, info in zip(entries[139]["segments_info"], segments_info, strict=True):
        assert (entry["id"], entry["area"]) == (info["id"], info["area"])
        assert entry["category_id"] == content["categories"][info["category_id"]]["id"]


@pytest.mark.parametrize("view", ["instance", "semantic", "boxes", "masks"])
def test_all_views_are_drawn(trained_cfg, images, tmp_path, view):
    from detr_d2.apps.demo import DemoOptions, predict_files
    from detr_d2.visualization import enlarge

    inputs = [str(images / "a.jpg")]
    assert predict_files(trained_cfg, inputs, str(tmp_path / "out"), DemoOptions(view)) == 0
    picture = cv2.imread(str(tmp_path / "out" / "a.png"))
    image = enlarge(cv2.imread(inputs[0]))
    if view == "masks":  # a grid, of pictures at least as large
        assert picture.size > image.size
    else:
        assert (picture != image).any()


def test_a_segment_that_is_not_there_is_said(trained_cfg, images, tmp_path, caplog):
    from detr_d2.apps.demo import DemoOptions, predict_files

    inputs = [str(images / "a.jpg")]
    with caplog.at_level(logging.WARNING, logger="detr_d2"):
        predict_files(trained_cfg, inputs, str(tmp_path / "out"), DemoOptions(segment_id=70))
        assert "a.jpg: there is no segment 70, only [1" in caplog.text
        caplog.clear()
        predict_files(trained_cfg, inputs, str(tmp_path / "out"), DemoOptions(segment_id=1))
    assert not caplog.records


def test_a_model_without_masks_shows_boxes(trained_cfg, images, tmp_path):
    from detectron2.modeling import build_model

    from detr_d2.apps.demo import predict_files

    trained_cfg.MODEL.DETR.MASK_ON = False
    model = build_model(trained_cfg)
    torch.nn.init.zeros_(model.detector.class_head.weight)
    model.detector.class_head.bias.data = 20.0 * torch.eye(13)[0]
    torch.save({"model": model.state_dict()}, trained_cfg.MODEL.WEIGHTS)
    assert predict_files(trained_cfg, [str(images / "a.jpg")], str(tmp_path / "out")) == 0
    assert cv2.imread(str(tmp_path / "out" / "a.png")).shape == (360, 480, 3)
