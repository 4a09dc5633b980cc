"""What a batch does to its images: nothing, or with padding just what it does in transformers."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import boxes as box_ops

TOLERANCE = 1e-4
SIZES = [(97, 75), (64, 110), (50, 40)]
R50 = {"backbone": "resnet50", "d_model": 64}
DC5 = {**R50, "dilation": True}
BACKBONES = pytest.mark.parametrize(
    ("name", "changes"), [("R50", R50), ("R50-DC5", DC5)], ids=["R50", "R50-DC5"]
)


def scores_of(outputs) -> torch.Tensor:
    """Of the best class, "no object" aside: B×Q."""
    return outputs.logits.softmax(-1)[..., :-1].amax(-1)


def tensors_of(prediction: dict) -> list[torch.Tensor]:
    """What is predicted of one image, but for the list of its segments."""
    instances, (ids, _) = prediction["instances"], prediction["panoptic_seg"]
    boxes, masks = instances.pred_boxes.tensor, instances.pred_masks
    return [instances.scores, instances.pred_classes, boxes, masks, ids]


@BACKBONES
def test_batch_invariant_predictions_are_transformers_of_single_images(
    make_pair, make_images, record_parity, name, changes
):
    """Without a dataset all classes are things: each query is an instance."""
    from transformers import DetrImageProcessor

    overrides = {"MODEL.DETR.BATCH_INVARIANT": True, "MODEL.DETR.TEST.SCORE_THRESH": 0.0}
    pair, images = make_pair(overrides, **changes), make_images(*SIZES)
    for result, image, size in zip(
        pair.ours([{"image": image} for image in images]), images, SIZES, strict=True
    ):
        (alone,) = pair.ours([{"image": image}])
        for in_batch, single in zip(tensors_of(result), tensors_of(alone), strict=True):
            assert torch.equal(in_batch, single)
        assert result["panoptic_seg"][1] == alone["panoptic_seg"][1] != []

        (expected,) = DetrImageProcessor().post_process_object_detection(
            pair.run_theirs([image]), threshold=0.0, target_sizes=[size]
        )
        instances = result["instances"]
        assert torch.equal(instances.pred_classes, expected["labels"])
        what = f"{name}, batch-invariant, padded batch"
        difference = (instances.scores - expected["scores"]).abs().max().item()
        record_parity(f"{what}: scores", difference, TOLERANCE)
        boxes = box_ops.clip_boxes_to_image(expected["boxes"], size) / max(size)
        difference = (instances.pred_boxes.tensor / max(size) - boxes).abs().max().item()
        record_parity(f"{what}: boxes", difference, TOLERANCE)


@BACKBONES
def test_images_of_one_size_do_not_mind_each_other(
    make_pair, make_images, record_parity, name, changes
):
    pair, images = make_pair(**changes), make_images(*SIZES[:1] * 3)
    batch = pair.run_ours(images)
    what = f"{name}, batch of one size or alone"
    for i, image in enumerate(images):
        alone, in_batch = pair.run_ours([image]), batch.of_image(i)
        differences = in_batch.differences(alone)
        moved = (scores_of(in_batch) - scores_of(alone)).abs().max().item()
        record_parity(f"{what}: scores, boxes", max(moved, differences["boxes"]), 1e-5)
        record_parity(f"{what}: logits, masks", max(differences.values()), TOLERANCE)


@BACKBONES
def test_padding_moves_results_just_as_in_transformers(
    make_pair, make_images, record_parity, name, changes
):
    """The convolutions see zeros beyond the border, where there was nothing: DETR's own doing."""
    pair, images = make_pair(**changes), make_images(*SIZES)
    moves = []
    for run in (pair.run_ours, pair.run_theirs):
        batch, moved = run(images), []
        for i, image in enumerate(images):
            alone, in_batch = run([image]), batch.of_image(i)
            moved.append((scores_of(in_batch) - scores_of(alone)).flatten())
            moved.append((in_batch.pred_boxes - alone.pred_boxes).flatten())
        moves.append(torch.cat(moved))
    ours, theirs = moves
    what = f"{name}, padded batch or alone: scores, boxes"
    record_parity(f"{what}, ours", ours.abs().max().item())
    record_parity(f"{what}, theirs", theirs.abs().max().item())
    difference = (ours - theirs).abs().max().item()
    record_parity(f"{what}, ours or theirs", difference, TOLERANCE)
    assert ours.abs().max() > 100 * difference
