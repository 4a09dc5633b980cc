"""Prediction on files: which are found, what is written, what happens to damaged ones."""

import logging
import re
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


def test_images_of_all_kinds_get_a_picture(trained_cfg, tmp_path):
    from PIL import Image

    from detr_d2.prediction import predict_files

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

    from detr_d2.prediction import predict_files

    trained_cfg.MODEL.DETR.POSITION_EMBEDDING = "learned"
    torch.save({"model": build_model(trained_cfg).state_dict()}, trained_cfg.MODEL.WEIGHTS)
    cv2.imwrite(str(images / "long.png"), np.zeros((9, 3000, 3), np.uint8))
    inputs = [str(images / "long.png"), str(images / "a.jpg")]
    with caplog.at_level(logging.ERROR, logger="detr_d2"):
        assert predict_files(trained_cfg, inputs, str(tmp_path / "pictures")) == 1
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["a.png"]
    assert re.search(r"long\.png: Learned positions reach 50", caplog.text)


def test_a_picture_that_cannot_be_written_is_an_error(trained_cfg, images, tmp_path):
    from detr_d2.prediction import predict_files

    (tmp_path / "pictures" / "a.png").mkdir(parents=True)
    with pytest.raises(OSError, match=r"a\.png: the picture cannot be written"):
        predict_files(trained_cfg, [str(images / "a.jpg")], str(tmp_path / "pictures"))


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


# --- The predictor for weights of every kind ---


@pytest.fixture
def released_cfg(make_tiny_cfg, tmp_path):
    """A tiny model with the settings of released ones; its dataset has 12 classes."""
    settings = {
        "MODEL.RESNETS.NORM": "FrozenBN",
        "MODEL.RESNETS.RES5_DILATION": 1,
        "MODEL.DETR.NUM_HEADS": 8,
        "MODEL.DETR.PRE_NORM": False,
        "MODEL.DETR.POSITION_TEMPERATURE": 10000.0,
        "MODEL.DETR.MASK_HEAD.ATTENTION_SOFTMAX": "joint",
        "MODEL.DETR.TEST.SCORE_THRESH": 0.0,
    }
    flat = [part for setting in settings.items() for part in setting]
    return make_tiny_cfg(tmp_path / "output", *flat)


@pytest.fixture
def hugging_face(tmp_path):
    """A folder with a random model of transformers', and the model: ``hugging_face(masks)``."""
    transformers = pytest.importorskip("transformers")

    def make(masks: bool = True):
        resnet = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [32, 64, 128, 256]}
        resnet["out_features"] = ["stage1", "stage2", "stage3", "stage4"]
        sizes = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_labels": 12}
        sizes |= {"encoder_layers": 1, "decoder_layers": 2, "num_queries": 8}
        config = transformers.DetrConfig(**sizes, backbone_config=resnet, use_timm_backbone=False)
        kind = transformers.DetrForSegmentation if masks else transformers.DetrForObjectDetection
        model = kind(config)
        model.save_pretrained(tmp_path / "detr")
        return tmp_path / "detr", model

    return make


@pytest.mark.parametrize("path", [".", "model.safetensors"], ids=["folder", "file"])
def test_predictor_takes_models_of_hugging_face(released_cfg, hugging_face, path):
    from detr_d2.prediction import Predictor

    folder, theirs = hugging_face()
    released_cfg.MODEL.WEIGHTS = str(folder / path)
    predictor = Predictor(released_cfg)
    model = predictor.model
    for ours, expected in [
        (model.detector.query_embed, theirs.detr.model.query_position_embeddings),
        (model.detector.class_head, theirs.detr.class_labels_classifier),
        (model.mask_head.output_conv, theirs.mask_head.output_conv),
    ]:
        assert torch.equal(ours.weight, expected.weight)
    assert not model.training
    assert predictor.cfg.MODEL.WEIGHTS == released_cfg.MODEL.WEIGHTS
    output = predictor(np.full((50, 70, 3), 128, np.uint8))
    assert output["panoptic_seg"][0].shape == output["instances"].image_size == (50, 70)


def test_predictor_predicts_as_detectron2s_where_both_can_load(trained_cfg):
    from detectron2.engine import DefaultPredictor

    from detr_d2.prediction import Predictor

    trained_cfg.INPUT.MIN_SIZE_TEST = 96  # both resize
    image = np.random.default_rng(1).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    ours, theirs = Predictor(trained_cfg)(image), DefaultPredictor(trained_cfg)(image)
    assert torch.equal(ours["panoptic_seg"][0], theirs["panoptic_seg"][0])
    assert ours["panoptic_seg"][1] == theirs["panoptic_seg"][1]
    assert torch.equal(ours["instances"].scores, theirs["instances"].scores)


def test_predictor_takes_arrays_of_other_types_and_refuses_what_is_no_image(trained_cfg):
    from detr_d2.prediction import Predictor

    predictor = Predictor(trained_cfg)
    image = np.random.default_rng(1).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    expected = predictor(image)["instances"].pred_boxes.tensor
    for other in (image.astype(float), image.astype(np.uint16) * 256, np.dstack([image, image])):
        other = other[..., :4]
        assert torch.equal(predictor(other)["instances"].pred_boxes.tensor, expected)
    grey = np.stack([image[..., 0]] * 3, axis=2)
    boxes = [predictor(picture)["instances"].pred_boxes.tensor for picture in (image[..., 0], grey)]
    assert torch.equal(*boxes)
    for wrong in (None, image[:0], image.transpose(2, 0, 1), image / 255):
        with pytest.raises(ValueError, match="(?i)image"):
            predictor(wrong)


def test_predictor_refuses_what_does_not_fit(trained_cfg, released_cfg, hugging_face, tmp_path):
    from detr_d2.prediction import Predictor

    folder, _ = hugging_face(masks=False)
    for cfg, changes, message in [
        (released_cfg, {}, r"missing in the file: mask_head\."),
        (released_cfg, {"MODEL.DETR.NUM_QUERIES": 9}, "it has 8 queries, MODEL.DETR.NUM_QUERIES"),
        (trained_cfg, {}, r"made with other settings: (.|\n)*MODEL\.DETR\.PRE_NORM is True"),
    ]:
        cfg = cfg.clone()
        cfg.merge_from_list([part for pair in changes.items() for part in pair])
        cfg.MODEL.WEIGHTS = str(folder)
        with pytest.raises(
            ValueError, match=rf"{re.escape(str(folder))} doesn't fit the model (.|\n)*{message}"
        ):
            Predictor(cfg)
    released_cfg.MODEL.WEIGHTS = str(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"There is no checkpoint .*gone"):
        Predictor(released_cfg)


def test_predictor_works_without_the_gpu_of_the_config(trained_cfg, monkeypatch):
    from detr_d2.prediction import Predictor

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    trained_cfg.MODEL.DEVICE = "cuda"
    predictor = Predictor(trained_cfg)
    assert predictor.cfg.MODEL.DEVICE == "cpu"
    assert predictor(np.zeros((50, 70, 3), np.uint8))["panoptic_seg"][0].shape == (50, 70)


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


def test_pictures_cost_no_instances_that_they_do_not_show(tiny_cfg):
    from detr_d2.prediction import picture_config

    tiny_cfg.MODEL.DETR.TEST.INSTANCES_ON = True
    assert not picture_config(tiny_cfg).MODEL.DETR.TEST.INSTANCES_ON
    assert tiny_cfg.MODEL.DETR.TEST.INSTANCES_ON
    for key in ("MODEL.DETR.MASK_ON", "MODEL.DETR.TEST.PANOPTIC_ON"):
        without = tiny_cfg.clone()
        without.merge_from_list([key, False])
        shown = picture_config(without).MODEL.DETR.TEST
        assert (shown.INSTANCES_ON, shown.INSTANCE_SCORE_THRESH) == (True, 0.5)
        without.MODEL.DETR.TEST.INSTANCE_SCORE_THRESH = 0.7
        assert picture_config(without).MODEL.DETR.TEST.INSTANCE_SCORE_THRESH == 0.7
