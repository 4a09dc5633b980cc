"""Average precision sees all instances, whatever the model gives, and makes nothing unasked."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from oracles.spread_queries import spread_queries

from detr_d2.engine import train
from detr_d2.engine.model_evaluation import evaluate, predicting_for_ap
from detr_d2.modeling import DETR

TEST = "MODEL.DETR.TEST"


@pytest.fixture
def make_model(make_tiny_cfg, tmp_path) -> Callable[..., tuple]:
    """A config and its model, the same each time, whose queries differ."""

    def make(*overrides: object):
        cfg = make_tiny_cfg(tmp_path, f"{TEST}.SCORE_THRESH", 0.6, *overrides)
        torch.manual_seed(0)
        model = build_model(cfg).eval()
        spread_queries(model)
        return cfg, model

    return make


def masks_made(model: DETR) -> list[int]:
    """Gets the number of masks of each call of the mask head."""
    made: list[int] = []
    model.mask_head.register_forward_hook(lambda _m, _args, masks: made.append(len(masks)))
    return made


@pytest.mark.parametrize("threshold", [-1.0, 0.9])
def test_figures_are_those_of_all_instances(make_model, threshold):
    results = [
        evaluate(*make_model(f"{TEST}.INSTANCE_SCORE_THRESH", value)) for value in (0.0, threshold)
    ]
    assert results[0].keys() == {"panoptic_seg", "bbox", "segm"}
    for task, figures in results[0].items():
        np.testing.assert_equal(results[1][task], figures)


def test_the_models_own_options_come_back(make_model):
    cfg, model = make_model()
    options = model.options
    evaluate(cfg, model)
    assert model.options is options
    with pytest.raises(KeyError), predicting_for_ap(model, ["bbox"]):
        assert not model.options.instance_masks_on
        raise KeyError
    assert model.options is options


def test_while_training_ap_is_of_boxes_and_costs_no_mask(make_model):
    cfg, model = make_model()
    full = evaluate(cfg, model)
    made = masks_made(model)
    some = evaluate(cfg, model, while_training=True)
    boxes_alone = list(made)
    assert some.keys() == {"panoptic_seg", "bbox"}
    np.testing.assert_equal(some["bbox"], full["bbox"])
    np.testing.assert_equal(some["panoptic_seg"], full["panoptic_seg"])
    made.clear()
    cfg.MODEL.DETR.TEST.AP = []
    assert evaluate(cfg, model).keys() == {"panoptic_seg"}
    assert made == boxes_alone


@pytest.mark.parametrize(
    ("overrides", "tasks"),
    [
        ((f"{TEST}.AP", ["segm"]), {"segm"}),
        ((f"{TEST}.AP", []), set()),
        ((f"{TEST}.INSTANCES_ON", False), set()),
        ((f"{TEST}.PANOPTIC_ON", False, f"{TEST}.AP", ["bbox"]), {"bbox"}),
    ],
    ids=["masks", "none", "no instances", "no panoptic picture"],
)
def test_what_is_wanted_is_evaluated(make_model, overrides, tasks):
    cfg, model = make_model(*overrides)
    expected = tasks | ({"panoptic_seg"} if cfg.MODEL.DETR.TEST.PANOPTIC_ON else set())
    assert evaluate(cfg, model).keys() == expected


def test_only_the_last_evaluation_of_a_training_is_complete(make_tiny_cfg, tmp_path):
    steps = ("SOLVER.STAGES", ["joint"], "SOLVER.MAX_ITER", 4, "TEST.EVAL_PERIOD", 2)
    results = train(make_tiny_cfg(tmp_path, *steps))
    assert results.keys() == {"panoptic_seg", "bbox", "segm"}
    lines = (tmp_path / "joint" / "metrics.json").read_text(encoding="utf-8").splitlines()
    seen = {}
    for line in map(json.loads, lines):
        seen[line["iteration"]] = {name.split("/")[0] for name in line} & results.keys()
    assert {frozenset(tasks) for tasks in seen.values() if tasks} == {
        frozenset({"panoptic_seg", "bbox"}),
        frozenset({"panoptic_seg", "bbox", "segm"}),
    }
