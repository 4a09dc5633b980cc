"""Panoptic DETR step by step at full size, from image to panoptic picture: every shape on the way.

The batch is the one of the walk-through this project started from: two images padded to 873×1060,
250 classes. Its "512 × 110 × 113" at stride 8 is a slip of the pen for 512 × 110 × 133.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from detectron2.modeling import build_model

from detr_d2 import config_file, load_config
from detr_d2.modeling import DETR
from detr_d2.modeling.detector import DetectorOutput, pixel_padding_mask, to_grid
from detr_d2.modeling.inference import select_panoptic_queries
from detr_d2.modeling.inference_options import PanopticOptions
from detr_d2.modeling.merging import merge_panoptic
from detr_d2.modeling.upsampling import ImageSizes

PADDED, SMALLER = (873, 1060), (640, 820)
QUERIES_PER_CHUNK = 16  # the default
LEVELS = {0: (256, 219, 265), 1: (512, 110, 133), 2: (1024, 55, 67), 3: (2048, 28, 34)}
STAGES = {
    "input_norm": (264, 28, 34),
    "convs.0": (128, 28, 34),
    "norms.0": (128, 28, 34),
    "convs.1": (64, 55, 67),
    "norms.1": (64, 55, 67),
    "convs.2": (32, 110, 133),
    "norms.2": (32, 110, 133),
    "convs.3": (16, 219, 265),
    "norms.3": (16, 219, 265),
    "output_conv": (1, 219, 265),
}


@dataclass
class Walk:
    model: DETR
    images: object
    detected: DetectorOutput
    attention: torch.Tensor
    stage_shapes: dict[str, list[tuple[int, ...]]]
    pred_masks: torch.Tensor


@pytest.fixture(scope="module")
def walk() -> Walk:
    overrides = ["MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "MODEL.DETR.NUM_CLASSES", 250]
    overrides += ["DATASETS.TRAIN", (), "DATASETS.TEST", ()]
    torch.manual_seed(0)
    model = build_model(load_config(config_file("detr_panoptic.yaml"), overrides)).eval()
    head = model.mask_head
    stage_shapes = {name: [] for name in STAGES}
    for name, shapes in stage_shapes.items():
        head.get_submodule(name).register_forward_hook(
            lambda _module, _args, output, shapes=shapes: shapes.append(tuple(output.shape))
        )
    with torch.no_grad():
        images = model.preprocess([{"image": torch.rand(3, *s) * 255} for s in (PADDED, SMALLER)])
        detected = model.detector(images)
        attention = head.attention_map(detected.hidden[-1], detected.memory, detected.padding_mask)
        # All 200 masks, which the head makes in chunks: at once they would need many gigabytes.
        pred_masks = head.upsample(
            detected.projected,
            attention.flatten(0, 1),
            detected.features[-2::-1],
            torch.arange(2).repeat_interleave(100),
        ).unflatten(0, (2, 100))
    return Walk(model, images, detected, attention, stage_shapes, pred_masks)


@pytest.mark.parametrize("level", LEVELS)
def test_move_1_backbone_gives_features_padding_masks_and_positions(walk, level):
    channels, height, width = LEVELS[level]
    mask = to_grid(pixel_padding_mask(walk.images), (height, width))
    positions = walk.model.detector.position_encoding(mask)
    assert walk.detected.features[level].shape == (2, channels, height, width)
    assert mask.shape == (2, height, width)
    assert mask.dtype == torch.bool
    assert positions.shape == (2, 256, height, width)
    assert not mask[0].any()
    valid_rows, valid_columns = (~mask[1]).sum(0).max(), (~mask[1]).sum(1).max()
    assert abs(valid_rows - SMALLER[0] * height / PADDED[0]) < 1
    assert abs(valid_columns - SMALLER[1] * width / PADDED[1]) < 1


def test_batch_is_padded_to_its_largest_image_and_no_further(walk):
    assert walk.images.tensor.shape == (2, 3, *PADDED)
    assert not walk.images.tensor[1, :, SMALLER[0] :].any()
    assert not walk.images.tensor[1, :, :, SMALLER[1] :].any()


def test_move_2_encoder_makes_the_memory_of_the_projected_res5(walk):
    assert walk.detected.projected.shape == (2, 256, 28, 34)
    assert walk.detected.memory.shape == (2, 256, 28, 34)


def test_move_3_decoder_makes_a_hundred_embeddings(walk):
    assert walk.detected.hidden.shape == (6, 2, 100, 256)
    assert walk.detected.hidden[-1].shape == (2, 100, 256)


def test_move_4_attention_maps_per_query_and_head(walk):
    assert walk.attention.shape == (2, 100, 8, 28, 34)
    padding = walk.detected.padding_mask
    assert padding.shape == (2, 28, 34)
    assert not walk.attention.masked_select(padding[:, None, None]).any()
    # Over heads and pixels together; 1e-4 for the sum of 7616 single-precision numbers.
    assert torch.allclose(walk.attention.flatten(2).sum(2), torch.ones(2, 100), atol=1e-4)


@pytest.mark.parametrize("stage", STAGES)
def test_move_5_convolution_head_goes_up_to_stride_4(walk, stage):
    shapes = walk.stage_shapes[stage]
    assert {shape[1:] for shape in shapes} == {STAGES[stage]}
    # What convolutions make of the two images' laterals; all else is of queries.
    of_images = stage in ("convs.1", "convs.2", "convs.3")
    assert sum(shape[0] for shape in shapes) == (2 if of_images else 200)
    assert max(shape[0] for shape in shapes) == (2 if of_images else QUERIES_PER_CHUNK)


def test_move_6_classes_boxes_and_masks(walk):
    assert walk.detected.logits[-1].shape == (2, 100, 251)
    assert walk.detected.boxes_cxcywh[-1].shape == (2, 100, 4)
    assert walk.pred_masks.shape == (2, 100, 219, 265)
    assert walk.pred_masks.isfinite().all()
    assert walk.detected.boxes_cxcywh.min() >= 0
    assert walk.detected.boxes_cxcywh.max() <= 1


@pytest.mark.parametrize(
    ("image", "size", "output"), [(0, PADDED, PADDED), (1, SMALLER, (480, 615))]
)
def test_move_7_kept_masks_are_merged_by_a_pixelwise_argmax(walk, image, size, output):
    logits = walk.detected.logits[-1, image]
    # The weights are random: the threshold that keeps the ten surest queries.
    threshold = logits.softmax(-1)[:, :-1].amax(-1).sort().values[-11].item()
    kept = select_panoptic_queries(logits, threshold)
    assert 0 < len(kept) <= 10
    ids, segments = merge_panoptic(
        kept,
        walk.pred_masks[image, kept.query_index],
        torch.arange(250) <= 90,  # COCO's category ids: things up to 90
        ImageSizes(padded=PADDED, network=size, output=output),
        PanopticOptions(threshold, "reference", 4),
    )
    assert ids.shape == output
    assert 1 <= len(segments) <= len(kept)
    assert ids.unique().tolist() == [segment["id"] for segment in segments]
    assert {s["category_id"] for s in segments} <= set(kept.classes.tolist())
    assert all(s["score"] > threshold for s in segments)
