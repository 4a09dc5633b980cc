"""Stages are found in the model, and their arithmetic is counted."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from benchmarks.stage_times import STAGES, matrix_rate, plain_flops, stage_flops, stage_seconds
from benchmarks.subjects import SUBJECTS
from oracles.plain_panoptic import PlainPanoptic
from torch.profiler import record_function


def test_every_stage_of_the_model_takes_time(workload):
    seconds = stage_seconds(SUBJECTS["panoptic"](workload).run, "cpu")
    assert list(seconds) == list(STAGES)
    assert all(taken > 0 for taken in seconds.values())


def test_arithmetic_is_in_the_stages_that_multiply(workload):
    flops = stage_flops(SUBJECTS["panoptic"](workload).run)
    assert flops["preprocess"] == 0
    assert all(flops[stage] > 0 for stage in ("backbone", "transformer", "mask_head"))


def test_operators_count_two_for_each_multiply_add():
    x = torch.rand(1, 4, 8, 8)
    q = torch.rand(1, 2, 5, 3)
    operators = {
        "backbone": lambda: F.conv2d(x, torch.rand(6, 4, 3, 3)),
        "transformer": lambda: F.scaled_dot_product_attention(q, q, q),
        "attention_maps": lambda: torch.einsum("qmc,smc->qms", q[0], q[0]),
        "mask_head": lambda: F.conv_transpose2d(x, torch.rand(4, 6, 2, 2), stride=2),
        "merge": lambda: F.linear(x, torch.rand(7, 8)),
    }

    def run() -> None:
        torch.rand(9, 9) @ torch.rand(9, 9)  # outside of all stages
        for stage, operator in operators.items():
            with record_function(stage), record_function("something within"), torch.no_grad():
                operator()

    flops = stage_flops(run)
    assert flops == {
        "preprocess": 0,
        "backbone": 2 * 6 * 6 * 6 * 4 * 9,
        "transformer": 2 * (2 * 5 * 5 * 3) * 2,
        "attention_maps": 2 * 5 * 2 * 2 * 3,
        "mask_head": 2 * 8 * 8 * 4 * 6 * 4,
        "merge": 2 * 4 * 8 * 8 * 7,
    }


def test_both_ways_of_counting_agree_on_the_plain_path(workload):
    """fvcore's by tracing, and ours by what PyTorch dispatches."""
    plain = PlainPanoptic(workload.load_ours().requires_grad_(False))
    by_fvcore = plain_flops(plain, workload.image())

    def run() -> None:
        with record_function("mask_head"):
            plain(workload.image())

    assert sum(by_fvcore.values()) == pytest.approx(stage_flops(run)["mask_head"], rel=1e-6)


def test_matrix_rate_is_of_one_product(monkeypatch):
    monkeypatch.setattr("benchmarks.stage_times.seconds_of", lambda run, device: 0.5)
    assert matrix_rate(torch.float32, "cpu", side=8, repeats=2) == 2 * 8**3 / 0.5


@pytest.mark.parametrize(("seconds", "products"), [(0.5, 6), (4.0, 3), (60.0, 1)])
def test_slow_matrix_products_are_few(monkeypatch, seconds, products):
    taken = []
    monkeypatch.setattr(
        "benchmarks.stage_times.seconds_of", lambda run, device: taken.append(seconds) or seconds
    )
    assert matrix_rate(torch.bfloat16, "cpu", side=8) == 2 * 8**3 / seconds
    assert len(taken) == products
