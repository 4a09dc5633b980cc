"""From raw predictions to selections and instances, against slow versions of the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from detr_d2.modeling import inference, upsampling
from detr_d2.modeling.inference import (
    QuerySelection,
    make_instances,
    select_instance_queries,
    select_panoptic_queries,
)
from detr_d2.modeling.upsampling import ImageSizes

NO_OBJECT = 3
# Probabilities of three classes and "no object" for five queries.
PROBABILITIES = torch.tensor(
    [
        [0.90, 0.05, 0.03, 0.02],
        [0.02, 0.03, 0.05, 0.90],
        [0.20, 0.50, 0.20, 0.10],
        [0.10, 0.02, 0.86, 0.02],
        [0.30, 0.05, 0.05, 0.60],
    ]
)
IS_THING = torch.tensor([True, False, True])


def selection(n: int) -> QuerySelection:
    return QuerySelection(torch.arange(n), torch.zeros(n, dtype=torch.int64), torch.ones(n))


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.85, [0, 3]), (0.88, [0]), (0.3, [0, 2, 3]), (0.95, [])]
)
def test_panoptic_queries_are_sure_of_an_object(threshold, expected):
    kept = select_panoptic_queries(PROBABILITIES.log(), threshold)
    assert kept.query_index.tolist() == expected
    assert kept.classes.tolist() == [[0, None, 1, 2, None][q] for q in expected]
    torch.testing.assert_close(kept.scores, PROBABILITIES.amax(1)[kept.query_index])
    assert len(kept) == len(expected)


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.0, [0, 1, 3, 4]), (0.1, [0, 3, 4]), (0.87, [0]), (0.95, [])]
)
def test_instance_queries_are_things_whatever_no_object_says(threshold, expected):
    kept = select_instance_queries(PROBABILITIES.log(), IS_THING, threshold)
    assert kept.query_index.tolist() == expected
    assert kept.classes.tolist() == [[0, 2, None, 2, 0][q] for q in expected]
    best_object = PROBABILITIES[:, :NO_OBJECT].amax(1)
    torch.testing.assert_close(kept.scores, best_object[kept.query_index])


def test_selections_are_made_in_single_precision():
    logits = PROBABILITIES.log().bfloat16()
    kept = select_panoptic_queries(logits, 0.3)
    assert kept.scores.dtype == torch.float32
    assert torch.equal(kept.scores, select_panoptic_queries(logits.float(), 0.3).scores)


def test_boxes_are_scaled_to_the_output_and_clipped():
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.1, 0.9, 0.4, 0.4]])
    sizes = ImageSizes(padded=(64, 64), network=(50, 40), output=(100, 200))
    instances = make_instances(selection(2), boxes, None, sizes)
    assert instances.image_size == (100, 200)
    expected = torch.tensor([[80.0, 30.0, 120.0, 70.0], [0.0, 70.0, 60.0, 100.0]])
    torch.testing.assert_close(instances.pred_boxes.tensor, expected, rtol=0, atol=1e-4)
    assert not instances.has("pred_masks")


def test_boxes_of_half_precision_reach_the_border():
    """bfloat16 has no 801 and no 1065: the image's size must not be rounded to it."""
    boxes = torch.tensor([[0.5, 0.5, 1.0, 1.0]], dtype=torch.bfloat16)
    sizes = ImageSizes(padded=(1, 1), network=(1, 1), output=(801, 1065))
    instances = make_instances(selection(1), boxes, None, sizes)
    assert instances.pred_boxes.tensor.tolist() == [[0.0, 0.0, 1065.0, 801.0]]


@pytest.mark.parametrize("output", [(17, 27), (34, 81), (11, 9)])
def test_instance_masks_are_above_one_half_at_the_nearest_pixels(output):
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 7)
    sizes = ImageSizes(padded=(20, 28), network=(17, 27), output=output)
    masks = make_instances(selection(3), torch.rand(3, 4), logits, sizes).pred_masks
    assert masks.dtype == torch.bool
    upsampled = F.interpolate(logits[None].double(), size=(20, 28), mode="bilinear")[0]
    for actual, inside in zip(masks, upsampled.sigmoid()[:, :17, :27] > 0.5, strict=True):
        picture = Image.fromarray(inside.numpy().astype(np.uint8))
        expected = np.asarray(picture.resize(output[::-1], Image.Resampling.NEAREST)) > 0
        assert np.array_equal(actual.numpy(), expected)


@pytest.mark.parametrize("masks_per_chunk", [1, 7, 100])
def test_chunks_do_not_show_in_instance_masks(monkeypatch, masks_per_chunk):
    torch.manual_seed(0)
    logits, boxes = torch.randn(20, 5, 7), torch.rand(20, 4)
    sizes = ImageSizes(padded=(20, 28), network=(17, 27), output=(40, 30))
    expected = make_instances(selection(20), boxes, logits, sizes).pred_masks
    monkeypatch.setattr(inference, "MASKS_PER_CHUNK", masks_per_chunk)
    actual = make_instances(selection(20), boxes, logits, sizes).pred_masks
    assert torch.equal(actual, expected)


def test_only_binary_masks_are_there_at_full_size(monkeypatch, record_operations):
    torch.manual_seed(0)
    logits, boxes = torch.randn(20, 5, 7), torch.rand(20, 4)
    sizes = ImageSizes(padded=(20, 28), network=(17, 27), output=(80, 60))
    expected = make_instances(selection(20), boxes, logits, sizes).pred_masks
    bound = inference.MASKS_PER_CHUNK * 60 * 6
    monkeypatch.setattr(upsampling, "LOGITS_AT_ONCE", bound)
    with record_operations() as operations:
        actual = make_instances(selection(20), boxes, logits, sizes).pred_masks
    assert torch.equal(actual, expected)
    largest = max(
        shape.numel()
        for _, _, given in operations.calls
        for shape, dtype in given
        if dtype.is_floating_point
    )
    assert largest == bound < expected.numel() / 10


def test_no_queries_make_empty_instances():
    sizes = ImageSizes(padded=(20, 28), network=(17, 27), output=(40, 30))
    instances = make_instances(selection(0), torch.zeros(0, 4), torch.zeros(0, 5, 7), sizes)
    assert len(instances) == 0
    assert instances.pred_masks.shape == (0, 40, 30)
    assert instances.pred_boxes.tensor.shape == (0, 4)
    assert instances.scores.shape == instances.pred_classes.shape == (0,)


@pytest.mark.parametrize("shape", [(3, 0, 5), (3, 5, 0), (1, 5, 5), (5, 5, 3), (5, 5)])
def test_images_without_pixels_or_channels_are_refused_by_name(shape):
    image_dict = {"image": torch.zeros(shape), "file_name": "a.png"}
    with pytest.raises(ValueError, match=f"a.png.*3×H×W.*has {'×'.join(map(str, shape))}"):
        inference.checked_image(image_dict)
    ordinary = {"image": torch.zeros(3, 1, 1)}
    assert inference.checked_image(ordinary) is ordinary["image"]
