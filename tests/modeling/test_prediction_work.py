"""The whole model's work: masks of the wanted queries alone, precision, and spans for profilers."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

SIZES = (64, 96), (50, 70)
NUM_QUERIES = 7
SPANS = ("preprocess", "backbone", "transformer", "attention_maps", "mask_head", "merge")


def sure_of_objects(model):
    """Makes every query's best class an object, with scores that differ."""
    model.detector.class_head.weight.data.mul_(5)
    model.detector.class_head.bias.data[-1] = -100
    return model.eval()


@torch.no_grad()
def scores_of(model, batch: list[dict]) -> torch.Tensor:
    """B×Q, the best class's probability."""
    detected = model.detector(model.preprocess(batch))
    return detected.logits[-1].softmax(-1)[..., :-1].amax(-1)


def threshold_that_keeps(scores: torch.Tensor, n: int) -> float:
    """Halfway between two neighbours of Q scores, so that rounding keeps nothing else."""
    ordered = torch.cat([torch.zeros(1), scores.sort().values, torch.ones(1)])
    return ordered[len(scores) - n : len(scores) - n + 2].mean().item()


class WatchedHead:
    """What reaches a model's mask head: the chosen queries, and rows of its convolutions."""

    def __init__(self, model) -> None:
        self.queries: list[list[int]] = []
        self.rows: list[int] = []
        model.mask_head.register_forward_pre_hook(
            lambda _module, _args, kwargs: self.queries.append(kwargs["query_index"].tolist()),
            with_kwargs=True,
        )
        model.mask_head.convs[0].register_forward_hook(
            lambda _module, _args, output: self.rows.append(len(output))
        )


@pytest.mark.parametrize("n", [0, 1, 3, NUM_QUERIES])
def test_masks_are_made_of_the_kept_queries_alone(tiny_model, make_batch, n):
    batch = make_batch(SIZES[0])
    scores = scores_of(sure_of_objects(tiny_model()), batch)[0]
    threshold = threshold_that_keeps(scores, n)
    overrides = {
        "MODEL.DETR.TEST.SCORE_THRESH": threshold,
        "MODEL.DETR.TEST.INSTANCES_ON": False,
    }
    model = sure_of_objects(tiny_model(overrides))
    watched = WatchedHead(model)
    (result,) = model(batch)
    kept = (scores > threshold).nonzero()[:, 0].tolist()
    assert len(kept) == n
    assert watched.queries == [kept]
    assert sum(watched.rows) == n
    assert bool(result["panoptic_seg"][1]) == (n > 0)


@pytest.mark.parametrize(("for_instances", "for_panoptic"), [(5, 2), (2, 5), (4, 4), (0, 3)])
def test_a_query_that_two_outputs_want_has_one_mask(
    tiny_model, make_batch, for_instances, for_panoptic
):
    batch = make_batch(SIZES[0])
    scores = scores_of(sure_of_objects(tiny_model()), batch)[0]
    overrides = {
        "MODEL.DETR.TEST.INSTANCE_SCORE_THRESH": threshold_that_keeps(scores, for_instances),
        "MODEL.DETR.TEST.SCORE_THRESH": threshold_that_keeps(scores, for_panoptic),
    }
    model = sure_of_objects(tiny_model(overrides))
    watched = WatchedHead(model)
    (result,) = model(batch)
    assert len(result["instances"]) == for_instances
    most = scores.topk(max(for_instances, for_panoptic)).indices
    assert watched.queries == [most.sort().values.tolist()]
    assert sum(watched.rows) == len(most)


@pytest.mark.parametrize("n", [0, 3, NUM_QUERIES])
def test_instances_are_by_default_the_things_of_the_panoptic_picture(tiny_model, make_batch, n):
    batch = make_batch(SIZES[0])
    scores = scores_of(sure_of_objects(tiny_model()), batch)[0]
    overrides = {
        "MODEL.DETR.TEST.SCORE_THRESH": threshold_that_keeps(scores, n),
        "MODEL.DETR.TEST.INSTANCE_SCORE_THRESH": -1.0,
        "MODEL.DETR.TEST.RAW_ON": True,
    }
    model = sure_of_objects(tiny_model(overrides))
    model.is_thing[::2] = False
    watched = WatchedHead(model)
    (result,) = model(batch)
    raw, instances = result["raw"], result["instances"]
    kept = raw.competing(overrides["MODEL.DETR.TEST.SCORE_THRESH"])
    assert watched.queries == [kept.query_index.tolist()] and len(kept) == n
    things = model.is_thing[kept.classes]
    assert instances.pred_classes.tolist() == kept.classes[things].tolist()
    assert instances.scores.tolist() == kept.scores[things].tolist()
    assert instances.pred_masks.shape == (things.sum(), *SIZES[0])
    assert len(raw.instances(0.0)) == model.is_thing[raw.logits[:, :-1].argmax(1)].sum()


def test_instances_may_be_boxes_alone(tiny_model, make_batch):
    batch = make_batch(SIZES[0])
    scores = scores_of(sure_of_objects(tiny_model()), batch)[0]
    overrides = {
        "MODEL.DETR.TEST.SCORE_THRESH": threshold_that_keeps(scores, 2),
        "MODEL.DETR.TEST.INSTANCE_MASKS_ON": False,
    }
    model = sure_of_objects(tiny_model(overrides))
    watched = WatchedHead(model)
    (result,) = model(batch)
    assert set(result["instances"].get_fields()) == {"pred_boxes", "scores", "pred_classes"}
    assert len(result["instances"]) == NUM_QUERIES
    assert watched.queries == [scores.topk(2).indices.sort().values.tolist()]


@pytest.mark.parametrize(
    "overrides",
    [{"MODEL.DETR.MASK_ON": False}, {"MODEL.DETR.TEST.PANOPTIC_ON": False}],
    ids=["without masks", "without panoptic"],
)
def test_nothing_is_merged_that_nobody_wants(monkeypatch, tiny_model, make_batch, overrides):
    def unwanted(*args, **kwargs):
        raise AssertionError("merged")

    monkeypatch.setattr("detr_d2.modeling.raw_prediction.merge_panoptic", unwanted)
    (result,) = tiny_model(overrides).eval()(make_batch(SIZES[0]))
    assert set(result) == {"instances"}


@pytest.mark.parametrize("chunk_size", [2, 16])
def test_mask_training_works_on_matched_pairs_and_the_last_layer(
    tiny_model, make_batch, chunk_size
):
    overrides = {
        "MODEL.DETR.FREEZE_DETECTOR": True,
        "MODEL.DETR.DEC_LAYERS": 3,
        "MODEL.DETR.MASK_HEAD.CHUNK_SIZE": chunk_size,
    }
    model = tiny_model(overrides)
    watched, head_inputs, matched = WatchedHead(model), [], []
    for head in (model.detector.class_head, model.detector.box_head):
        head.register_forward_pre_hook(lambda _, args: head_inputs.append(args[0].shape))
    match = model.criterion.match
    model.criterion.match = lambda *args: matched.append(match(*args)) or matched[-1]
    batch = make_batch(SIZES[0], num_targets=3) + make_batch(SIZES[1], num_targets=2, seed=1)
    sum(model(batch).values()).backward()
    assert head_inputs == [(1, 2, NUM_QUERIES, 32)] * 2
    ((of_last_layer,),) = matched
    assert watched.queries == [of_last_layer.query_index.tolist()]
    assert sum(watched.rows) == len(of_last_layer) == 5


def test_joint_training_makes_masks_of_the_last_layers_pairs_alone(tiny_model, make_batch):
    """Of the six layers with losses, one has masks."""
    model = tiny_model({"MODEL.DETR.DEC_LAYERS": 6})
    watched = WatchedHead(model)
    losses = model(make_batch(*SIZES, num_targets=2))
    assert sum("loss_l1" in name for name in losses) == 6
    assert sum(watched.rows) == 4


def test_prediction_computes_the_heads_of_the_last_layer_alone(tiny_model, make_batch):
    model, head_inputs = tiny_model({"MODEL.DETR.DEC_LAYERS": 3}).eval(), []
    for head in (model.detector.class_head, model.detector.box_head):
        head.register_forward_pre_hook(lambda _, args: head_inputs.append(args[0].shape))
    model(make_batch(*SIZES))
    assert head_inputs == [(1, 2, NUM_QUERIES, 32)] * 2


@pytest.fixture
def predict_watched(tiny_model, make_batch, record_operations):
    """Predicts in a precision: the results, what the detector gave, mask logits and the work."""

    def predict(precision: str):
        model = sure_of_objects(
            tiny_model(
                {
                    "MODEL.DETR.TEST.PRECISION": precision,
                    "MODEL.DETR.TEST.SCORE_THRESH": 0.0,
                    "MODEL.DETR.TEST.STUFF_MERGING": "merged",
                }
            )
        )
        detected, masks = [], []
        model.detector.register_forward_hook(lambda _module, _args, out: detected.append(out))
        model.mask_head.register_forward_hook(lambda _module, _args, out: masks.append(out))
        before = copy.deepcopy(model.state_dict())
        with record_operations() as operations:
            results = model(make_batch(*SIZES))
        after = model.state_dict()
        assert all(
            torch.equal(v, after[k]) and v.dtype == after[k].dtype for k, v in before.items()
        )
        return results, detected[0], masks, operations

    return predict


def products(operations) -> Counter:
    """Convolutions and matrix products by what they multiply."""
    names = {"convolution", "addmm", "mm", "bmm", "baddbmm"}
    return Counter(
        (name == "convolution", *{dtype for _, dtype in taken})
        for name, taken, _ in operations.calls
        if name in names
    )


def test_half_precision_predicts_nearly_the_same(predict_watched):
    results, detected, masks, _ = predict_watched("bfloat16")
    expected_results, expected, expected_masks, _ = predict_watched("float32")
    # bfloat16 has 8 bits: a step is 0.4 %, and dozens of layers add up.
    probabilities = detected.logits.softmax(-1)
    torch.testing.assert_close(probabilities, expected.logits.softmax(-1), rtol=0, atol=0.03)
    torch.testing.assert_close(detected.boxes_cxcywh, expected.boxes_cxcywh, rtol=0, atol=0.005)
    assert not torch.equal(detected.logits, expected.logits)
    for some, others in zip(masks, expected_masks, strict=True):
        assert (some - others).norm() < 0.05 * others.norm()
    for result, other in zip(results, expected_results, strict=True):
        assert len(result["instances"]) == len(other["instances"]) == NUM_QUERIES
        ids, segments = result["panoptic_seg"]
        assert ids.dtype == torch.int32 and ids.shape == other["panoptic_seg"][0].shape
        assert ids.unique().tolist() == [segment["id"] for segment in segments]


def test_half_precision_keeps_classes_boxes_and_results_in_single(predict_watched):
    results, detected, masks, _ = predict_watched("bfloat16")
    assert detected.logits.dtype == detected.boxes_cxcywh.dtype == torch.float32
    # A class's probabilities and a box's coordinates have more than 8 bits.
    for tensor in (detected.logits, detected.boxes_cxcywh):
        assert not torch.equal(tensor, tensor.bfloat16().float())
    assert {mask.dtype for mask in masks} == {torch.bfloat16}
    for result in results:
        assert result["instances"].scores.dtype == torch.float32
        assert result["instances"].pred_boxes.tensor.dtype == torch.float32


def test_half_precision_really_multiplies_in_half_precision(predict_watched):
    half = products(predict_watched("bfloat16")[-1])
    single = products(predict_watched("float32")[-1])
    assert {kind[1:] for kind in single} == {(torch.float32,)}
    assert half[True, torch.bfloat16] == single[True, torch.float32] > 50
    # The class head and the box head's three layers.
    assert half[False, torch.float32] == 4
    assert half[False, torch.bfloat16] == single[False, torch.float32] - 4 > 20


def test_precision_is_of_predictions_alone(tiny_model, make_batch, record_operations):
    model = tiny_model({"MODEL.DETR.TEST.PRECISION": "bfloat16"})
    with record_operations() as operations:
        model(make_batch(*SIZES))
    assert {kind[1:] for kind in products(operations)} == {(torch.float32,)}
    # Nor does it last: autocast is off after a prediction.
    model.eval()(make_batch(SIZES[0]))
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("overrides", [{}, {"MODEL.DETR.BATCH_INVARIANT": True}])
def test_profilers_see_the_parts_of_a_prediction(tiny_model, make_batch, overrides):
    model = sure_of_objects(tiny_model({"MODEL.DETR.TEST.SCORE_THRESH": 0.0, **overrides}))
    batch = make_batch(*SIZES)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        model(batch)
    seen = Counter(event.name for event in profiler.events() if event.name in SPANS)
    of_the_batch = 2 if overrides else 1
    # The mask head has two for each image: its part of the image, and the masks.
    assert [seen[name] for name in SPANS] == [of_the_batch] * 3 + [2, 4, 2]


def test_every_convolution_is_inside_a_span(tiny_model, make_batch):
    """But the projection to the transformer's width, between two of them."""
    model = sure_of_objects(tiny_model({"MODEL.DETR.TEST.SCORE_THRESH": 0.0}))
    batch = make_batch(SIZES[0])
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        model(batch)
    outside, inside = Counter(), Counter()
    for event in profiler.events():
        if event.name in ("aten::conv2d", "aten::conv_transpose2d"):
            parent = event.cpu_parent
            while parent is not None and parent.name not in SPANS:
                parent = parent.cpu_parent
            if parent is None:
                outside[event.name] += 1
            else:
                inside[parent.name] += 1
    assert outside == {"aten::conv2d": 1}
    assert inside["backbone"] == 53
    assert set(inside) == {"backbone", "mask_head"}
