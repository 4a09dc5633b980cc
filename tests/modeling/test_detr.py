"""The meta-architecture: what it takes, gives, trains and leaves alone."""

from __future__ import annotations

import copy

import pytest
import torch

from detr_d2.modeling.criterion import count_targets
from detr_d2.modeling.targets import Target

SIZES = (64, 96), (50, 70)
FROZEN = {"MODEL.DETR.FREEZE_DETECTOR": True}
BOXES = {"MODEL.DETR.MASK_ON": False}
BATCH_NORM = {"MODEL.RESNETS.NORM": "BN", "MODEL.BACKBONE.FREEZE_AT": 0}
SURE_OF_OBJECTS = {"MODEL.DETR.TEST.SCORE_THRESH": 0.0}
# What cannot learn: a constant added to all keys, which softmax takes away again, and parts of the
# first decoder layer's self-attention, which sees zeros (and the same value in every query).
IDLE = (
    "k_proj.bias",
    "decoder_layers.0.self_attention.q_proj.weight",
    "decoder_layers.0.self_attention.q_proj.bias",
    "decoder_layers.0.self_attention.k_proj.weight",
    "decoder_layers.0.self_attention.v_proj.weight",
    "decoder_layers.0.self_attention_residual.norm.weight",
)


def sure_of_objects(model):
    """Makes every query's best class an object, so that all are kept."""
    model.detector.class_head.bias.data[-1] = -100
    return model.eval()


def largest_difference(results: list[dict], others: list[dict]) -> float:
    """Of scores, and of boxes as shares of the image's longest side."""
    differences = [0.0]
    for a, b in zip(results, others, strict=True):
        a, b = a["instances"], b["instances"]
        boxes = (a.pred_boxes.tensor - b.pred_boxes.tensor).abs() / max(a.image_size)
        scores = (a.scores - b.scores).abs()
        differences += [boxes.max().item(), scores.max().item()]
    return max(differences)


@pytest.mark.parametrize("kind", ["reference", "merged"])
def test_predicts_detectron2s_standard_output(tiny_model, make_batch, kind):
    overrides = {**SURE_OF_OBJECTS, "MODEL.DETR.TEST.STUFF_MERGING": kind}
    model = sure_of_objects(tiny_model(overrides))
    batch = make_batch(*SIZES)
    batch[0].update(height=128, width=48)
    results = model([{k: v for k, v in x.items() if k != "instances"} for x in batch])
    assert len(results) == 2
    for result, size in zip(results, [(128, 48), SIZES[1]], strict=True):
        instances = result["instances"]
        assert set(result) == {"instances", "panoptic_seg"}
        assert instances.image_size == size
        assert len(instances) == 7  # without a dataset, all classes are things
        assert instances.pred_boxes.tensor.shape == (7, 4)
        assert instances.pred_masks.shape == (7, *size)
        assert instances.scores.shape == instances.pred_classes.shape == (7,)
        assert instances.pred_classes.max() < 6
        ids, segments = result["panoptic_seg"]
        assert ids.shape == size
        assert ids.unique().tolist() == [segment["id"] for segment in segments]


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        ({"MODEL.DETR.TEST.PANOPTIC_ON": False}, {"instances"}),
        ({"MODEL.DETR.TEST.INSTANCES_ON": False}, {"panoptic_seg"}),
        (BOXES, {"instances"}),
    ],
)
def test_gives_only_what_is_asked_for(tiny_model, make_batch, overrides, keys):
    (result,) = tiny_model(overrides).eval()(make_batch((40, 50)))
    assert set(result) == keys
    if overrides is BOXES:
        assert not result["instances"].has("pred_masks")


def test_nothing_kept_is_an_empty_picture(tiny_model, make_batch):
    overrides = {
        "MODEL.DETR.TEST.SCORE_THRESH": 1.0,
        "MODEL.DETR.TEST.INSTANCE_SCORE_THRESH": 1.0,
    }
    (result,) = tiny_model(overrides).eval()(make_batch((40, 50)))
    ids, segments = result["panoptic_seg"]
    assert len(result["instances"]) == 0
    assert segments == []
    assert ids.shape == (40, 50)
    assert not ids.any()


def test_images_are_normalised_before_they_are_padded(tiny_model, make_batch):
    model, batch = tiny_model(), make_batch((20, 30), (31, 17))
    images = model.preprocess(batch)
    assert images.tensor.shape == (2, 3, 31, 30)
    assert images.image_sizes == [(20, 30), (31, 17)]
    mean = torch.tensor([123.675, 116.280, 103.530]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.120, 57.375]).view(3, 1, 1)
    for padded, x, (height, width) in zip(images.tensor, batch, images.image_sizes, strict=True):
        expected = (x["image"] - mean) / std
        torch.testing.assert_close(padded[:, :height, :width], expected, rtol=1e-6, atol=1e-6)
        assert not padded[:, height:].any()
        assert not padded[:, :, width:].any()


@pytest.mark.parametrize(
    ("overrides", "suffixes", "masks"),
    [
        ({"MODEL.DETR.DEC_LAYERS": 3}, ["", "_0", "_1"], True),
        ({"MODEL.DETR.AUX_LOSS": False}, [""], True),
        (BOXES, ["", "_0"], False),
        (FROZEN, [], True),
    ],
    ids=["joint", "without auxiliary losses", "boxes", "frozen"],
)
def test_losses_of_each_stage(tiny_model, make_batch, overrides, suffixes, masks):
    losses = tiny_model(overrides)(make_batch(*SIZES))
    expected = {f"loss_{k}{suffix}" for k in ("class", "l1", "giou") for suffix in suffixes}
    assert set(losses) == expected | ({"loss_mask", "loss_dice"} if masks else set())
    assert all(loss.ndim == 0 and loss.isfinite() and loss > 0 for loss in losses.values())


def test_auxiliary_losses_are_those_of_their_layer(tiny_model, make_batch):
    model = tiny_model({"MODEL.DETR.DROPOUT": 0.0, "MODEL.DETR.DEC_LAYERS": 3})
    batch = make_batch(*SIZES)
    losses = model(batch)
    detected = model.detector(model.preprocess(batch), all_layers=True)
    targets = [Target.from_instances(x["instances"], False) for x in batch]
    for layer, suffix in enumerate(["_0", "_1", ""]):
        logits, boxes = detected.logits[layer], detected.boxes_cxcywh[layer]
        (matches,) = model.criterion.match(logits[None], boxes[None], targets)
        for key, loss in model.criterion.detection_losses(
            logits, boxes, targets, matches, count_targets(targets, model.device)
        ).items():
            torch.testing.assert_close(losses[key + suffix], loss, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("overrides", [{}, BOXES, {"MODEL.DETR.PRE_NORM": True}])
def test_gradients_reach_all_that_is_trained(tiny_model, make_batch, overrides):
    model = tiny_model(overrides)
    for parameter in model.parameters():
        if parameter.ndim == 1:  # biases start as zeros, which stop gradients
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    sum(model(make_batch(*SIZES)).values()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad and not name.endswith(IDLE):
            assert parameter.grad.any(), name
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen
    assert all(
        name.startswith(("detector.backbone.stem", "detector.backbone.res2")) for name in frozen
    )


def test_frozen_detector_gets_no_gradients_and_keeps_its_statistics(tiny_model, make_batch):
    model = tiny_model({**FROZEN, **BATCH_NORM}).train()
    before = copy.deepcopy(model.state_dict())
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name in before if name.startswith("mask_head.")}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    sum(model(make_batch(*SIZES)).values()).backward()
    optimizer.step()
    assert all(p.grad is None for p in model.detector.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("detector."), name


def test_frozen_detector_is_in_evaluation_mode_whatever_is_asked(tiny_model):
    model = tiny_model({**FROZEN, **BATCH_NORM})
    for put in (lambda: model, model.train, lambda: model.eval().train()):
        put()
        assert model.training
        assert model.mask_head.training
        assert not any(module.training for module in model.detector.modules())


def test_trained_batch_norms_do_move(tiny_model, make_batch):
    """What the test of the frozen ones would miss if statistics never moved."""
    model = tiny_model(BATCH_NORM)
    before = model.detector.backbone.stem.conv1.norm.running_mean.clone()
    model(make_batch(*SIZES))
    assert not torch.equal(model.detector.backbone.stem.conv1.norm.running_mean, before)


def test_same_sized_batch_gives_what_each_image_gives_alone(tiny_model, make_batch):
    model = tiny_model().eval()
    batch = make_batch((50, 70), (50, 70), (50, 70))
    alone = [model([x])[0] for x in batch]
    assert largest_difference(model(batch), alone) < 1e-5
    for a, b in zip(model(batch), alone, strict=True):
        differing = a["instances"].pred_masks != b["instances"].pred_masks
        assert differing.sum() <= 1e-3 * differing.numel()


def test_padding_moves_results_unless_batches_are_taken_apart(tiny_model, make_batch):
    batch = make_batch(*SIZES, (33, 90))
    default = tiny_model().eval()
    alone = [default([x])[0] for x in batch]
    # The convolutions see the padding beyond the border, and grids round up differently. With
    # these random weights that moves one score by 0.045.
    assert 1e-5 < largest_difference(default(batch), alone) < 0.1
    invariant = tiny_model({"MODEL.DETR.BATCH_INVARIANT": True}).eval()
    for a, b in zip(invariant(batch), alone, strict=True):
        assert torch.equal(a["instances"].pred_boxes.tensor, b["instances"].pred_boxes.tensor)
        assert torch.equal(a["instances"].scores, b["instances"].scores)
        assert torch.equal(a["instances"].pred_masks, b["instances"].pred_masks)
        assert torch.equal(a["panoptic_seg"][0], b["panoptic_seg"][0])
        assert a["panoptic_seg"][1] == b["panoptic_seg"][1]


@pytest.mark.parametrize("overrides", [{}, FROZEN, BOXES], ids=["joint", "frozen", "boxes"])
def test_images_without_targets_train(tiny_model, make_batch, overrides):
    model = tiny_model(overrides)
    losses = model(make_batch(*SIZES, num_targets=0))
    for key, loss in losses.items():
        assert loss.isfinite()
        assert (loss == 0) == ("class" not in key)
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_one_image_without_targets_among_others_trains(tiny_model, make_batch):
    losses = tiny_model()(make_batch(SIZES[0], num_targets=0) + make_batch(SIZES[1]))
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())


@pytest.mark.parametrize("overrides", [{}, FROZEN], ids=["joint", "frozen"])
def test_autocast_computes_losses_in_single_precision(tiny_model, make_batch, overrides):
    model, batch = tiny_model({"MODEL.DETR.DROPOUT": 0.0, **overrides}), make_batch(*SIZES)
    expected = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(batch)
    for key, loss in losses.items():
        assert loss.dtype == torch.float32
        # bfloat16 has 8 bits.
        assert loss.item() == pytest.approx(expected[key].item(), rel=0.02), key
    sum(losses.values()).backward()
    with torch.autocast("cpu", torch.bfloat16):
        assert model.eval()(batch)[0]["instances"].scores.dtype == torch.float32


def test_no_mask_is_computed_twice(tiny_model, make_batch):
    model = sure_of_objects(tiny_model(SURE_OF_OBJECTS))
    computed = []
    model.mask_head.convs[0].register_forward_hook(lambda _, args, out: computed.append(len(out)))
    results = model(make_batch(*SIZES))
    assert all(len(r["instances"]) == 7 and r["panoptic_seg"][1] for r in results)
    assert computed == [7, 7]


@torch.no_grad()
def test_each_instance_has_the_mask_of_its_query(tiny_model, make_batch):
    batch = make_batch(*SIZES)  # padded to that of the first
    model = tiny_model().eval()
    detected = model.detector(model.preprocess(batch))
    scores = detected.logits[-1].softmax(-1)[..., :-1].amax(-1)
    # Between two scores, so that rounding keeps no other query.
    threshold = scores[1].sort().values[3:5].mean().item()
    assert (scores - threshold).abs().min() > 1e-5
    kept = scores > threshold
    image_index, query_index = kept.nonzero(as_tuple=True)
    logits = model.masks_of(detected, image_index, query_index)
    masks = torch.nn.functional.interpolate(logits[:, None], SIZES[0], mode="bilinear")[:, 0] > 0
    results = tiny_model({"MODEL.DETR.TEST.INSTANCE_SCORE_THRESH": threshold}).eval()(batch)
    assert 0 < kept[1].sum() < 7
    for i, result in enumerate(results):
        # Rounding may move a pixel whose logit is zero.
        height, width = SIZES[i]
        expected = masks[image_index == i, :height, :width]
        differing = result["instances"].pred_masks != expected
        assert differing.sum() <= 1e-3 * differing.numel()
        torch.testing.assert_close(result["instances"].scores, scores[i][kept[i]])
    assert masks.flatten(1).unique(dim=0).shape[0] > 1


@pytest.mark.parametrize("training", [False, True])
def test_what_is_given_is_not_changed(tiny_model, make_batch, training):
    batch = make_batch(*SIZES)
    before = copy.deepcopy(batch)
    tiny_model().train(training)(batch)
    for x, y in zip(batch, before, strict=True):
        assert set(x) == set(y)
        assert torch.equal(x["image"], y["image"])
        assert torch.equal(x["instances"].gt_boxes.tensor, y["instances"].gt_boxes.tensor)
        assert torch.equal(x["instances"].gt_masks.tensor, y["instances"].gt_masks.tensor)
