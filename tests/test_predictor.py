"""The predictor: weights of every kind, arrays of every kind, batches and streams."""

import re

import numpy as np
import pytest
import torch

from detr_d2.predictor import Predictor, picture_config, predict_stream


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

    trained_cfg.INPUT.MIN_SIZE_TEST = 96  # both resize
    image = np.random.default_rng(1).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    ours, theirs = Predictor(trained_cfg)(image), DefaultPredictor(trained_cfg)(image)
    assert torch.equal(ours["panoptic_seg"][0], theirs["panoptic_seg"][0])
    assert ours["panoptic_seg"][1] == theirs["panoptic_seg"][1]
    assert torch.equal(ours["instances"].scores, theirs["instances"].scores)


def test_predictor_takes_arrays_of_other_types_and_refuses_what_is_no_image(trained_cfg):
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


def test_arrays_of_16_bits_have_the_range_of_the_config(trained_cfg):
    from detr_d2.predictor import Predictor

    deep = np.random.default_rng(0).integers(0, 4096, (30, 40, 3), dtype=np.uint16)
    expected = Predictor(trained_cfg)((deep >> 4).astype(np.uint8))["instances"].scores
    trained_cfg.merge_from_list(["INPUT.DEEP_RANGE", 4095])
    predictor = Predictor(trained_cfg)
    assert torch.equal(predictor(deep)["instances"].scores, expected)
    assert torch.equal(predictor.predict_batch([deep])[0]["instances"].scores, expected)


def test_predictor_refuses_what_does_not_fit(trained_cfg, released_cfg, hugging_face, tmp_path):
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


def test_boxes_are_had_where_they_are_shown(tiny_cfg):
    assert not picture_config(tiny_cfg).MODEL.DETR.TEST.RAW_ON
    assert picture_config(tiny_cfg, "boxes").MODEL.DETR.TEST.RAW_ON


def test_a_batch_predicts_as_one_by_one(trained_cfg):
    predictor = Predictor(trained_cfg)
    rng = np.random.default_rng(1)
    images = list(rng.integers(0, 255, (2, 60, 80, 3), dtype=np.uint8))
    for image, together in zip(images, predictor.predict_batch(images), strict=True):
        alone = predictor(image)
        assert torch.equal(together["panoptic_seg"][0], alone["panoptic_seg"][0])
        boxes = [output["instances"].pred_boxes.tensor for output in (together, alone)]
        torch.testing.assert_close(*boxes, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="(?i)image"):
        predictor.predict_batch([images[0], None])


class Refusing:
    """Takes even numbers, and keeps the batches that it was given."""

    def __init__(self):
        self.batches = []

    def predict_batch(self, images):
        self.batches.append(list(images))
        if any(image % 2 for image in images):
            raise ValueError("odd")
        return [{"image": image} for image in images]


def test_a_stream_goes_on_after_images_that_the_model_refuses():
    predictor, drawn, refused = Refusing(), 0, []

    def numbers():
        nonlocal drawn
        for number in (0, 2, 3, 4, 6, 8, 9):
            drawn += 1
            yield f"n{number}", number

    stream = predict_stream(predictor, numbers(), 3, lambda name, error: refused.append(name))
    assert next(stream)[0] == "n0"
    assert drawn == 3  # no more than a batch is read ahead
    assert [name for name, _, _ in stream] == ["n2", "n4", "n6", "n8"]
    assert refused == ["n3", "n9"]
    assert predictor.batches == [[0, 2, 3], [0], [2], [3], [4, 6, 8], [9]]
    assert list(predict_stream(predictor, [], 3, pytest.fail)) == []
