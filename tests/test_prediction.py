"""Prediction on files: which are found, what is written, what happens to damaged ones."""

import logging
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch


@pytest.fixture
def trained_cfg(tiny_cfg, tmp_path):
    """A tiny model on disk that is sure of seeing a ball in every query."""
    from detectron2.modeling import build_model

    model = build_model(tiny_cfg)
    torch.nn.init.zeros_(model.detector.class_head.weight)
    torch.nn.init.zeros_(model.mask_head.output_conv.weight)  # whole, quick to draw
    model.detector.class_head.bias.data = 20.0 * torch.eye(13)[0]
    tiny_cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    torch.save({"model": model.state_dict()}, tiny_cfg.MODEL.WEIGHTS)
    return tiny_cfg


@pytest.fixture
def images(tmp_path):
    """A folder with a colour image, a grey one in a sub-folder, a truncated one and a text."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "a.jpg"), pixels)
    cv2.imwrite(str(folder / "sub" / "a.png"), pixels[..., 0])
    (folder / "broken.jpg").write_bytes((folder / "a.jpg").read_bytes()[:200])
    (folder / "notes.txt").write_text("no image")
    return folder


def test_finds_files_folders_and_globs(images):
    from detr_d2.prediction import find_images

    everything = [images / "a.jpg", images / "broken.jpg", images / "sub" / "a.png"]
    assert find_images([str(images)]) == everything
    assert find_images([str(images / "*.jpg")]) == everything[:2]
    assert find_images([str(images / "**" / "*.png")]) == everything[2:]
    assert find_images([str(images / "missing.jpg")]) == [images / "missing.jpg"]
    for empty in (images / "*.gif", images / "sub" / "*.jpg"):
        with pytest.raises(FileNotFoundError, match="No images in"):
            find_images([str(empty)])


def test_every_readable_image_gets_a_picture(trained_cfg, images, tmp_path, caplog):
    from detr_d2.prediction import predict_files

    output = tmp_path / "pictures"
    with caplog.at_level(logging.ERROR, logger="detr_d2"):
        failed = predict_files(trained_cfg, [str(images), str(images / "gone.jpg")], str(output))
    assert failed == 2
    assert sorted(path.name for path in output.iterdir()) == ["a.png", "a_2.png"]
    assert cv2.imread(str(output / "a.png")).shape == (6 * 60, 6 * 80, 3)
    messages = [record.getMessage() for record in caplog.records]
    assert ["broken.jpg" in messages[0], "gone.jpg" in messages[1]] == [True, True]


def test_demo_ends_with_status_1_if_any_image_failed(
    trained_cfg, images, tmp_path, load_tool, monkeypatch
):
    config = tmp_path / "config.yaml"
    config.write_text(trained_cfg.dump())

    def run(*inputs: Path) -> int:
        options = ["--config-file", config, "--output", tmp_path / "out", "--input", *inputs]
        monkeypatch.setattr(sys, "argv", ["demo.py", *map(str, options)])
        return load_tool("demo").main()

    assert run(images) == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "a_2.png"}
    assert run(images / "a.jpg") == 0
    with pytest.raises(SystemExit, match="error: No images in"):
        run(images / "*.gif")
    trained_cfg.MODEL.WEIGHTS = str(tmp_path / "gone.pth")
    config.write_text(trained_cfg.dump())
    with pytest.raises(SystemExit, match=r"error: .*gone\.pth"):
        run(images)


def test_default_predictor_gives_what_the_visualizer_draws(trained_cfg):
    from detectron2.data import MetadataCatalog
    from detectron2.engine import DefaultPredictor
    from detectron2.utils.visualizer import Visualizer

    image = np.full((50, 70, 3), 128, np.uint8)
    output = DefaultPredictor(trained_cfg)(image)
    ids, segments_info = output["panoptic_seg"]
    assert ids.shape == (50, 70)
    assert ids.dtype == torch.int32
    assert [segment["id"] for segment in segments_info] == list(range(1, len(segments_info) + 1))
    assert all(type(segment["isthing"]) is bool for segment in segments_info)
    instances = output["instances"]
    assert instances.image_size == (50, 70)
    assert instances.pred_masks.shape == (8, 50, 70)
    assert len(instances.pred_boxes) == len(instances.scores) == len(instances.pred_classes) == 8
    metadata = MetadataCatalog.get(trained_cfg.DATASETS.TEST[0])
    drawn = Visualizer(image, metadata).draw_panoptic_seg(ids, segments_info).get_image()
    assert drawn.shape == (50, 70, 3)
    assert (drawn != image).any()
