"""Measures times and FLOPs of our model's stages, and the speed of the machine.

A FLOP here is one multiplication or one addition, so that a multiply-add counts two. All matrix
products and convolutions are counted; norms, activations, softmax, resizing and merging are not.

Axes: H×W the image, Q queries.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from oracles.plain_panoptic import PlainPanoptic
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop

from benchmarks.timing import seconds_of

# The spans of ``torch.profiler.record_function`` in detr_d2.modeling, in their order.
STAGES = ("preprocess", "backbone", "transformer", "attention_maps", "mask_head", "merge")
ATTENTION = "scaled_dot_product_attention"
# The operators of fvcore that are counted; it has norms and resizing, too.
PRODUCTS = ("conv", "linear", "matmul", "mm", "addmm", "bmm", "einsum", ATTENTION)


def stage_seconds(run: Callable[[], object], device: str) -> dict[str, float]:
    """Measures the seconds of each stage in one run under PyTorch's profiler."""
    on_gpu = device.startswith("cuda")
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    with profile(activities=activities) as profiler:
        run()
    seconds = dict.fromkeys(STAGES, 0.0)
    for event in profiler.key_averages():
        if event.key in seconds:
            microseconds = event.device_time_total if on_gpu else event.cpu_time_total
            seconds[event.key] = max(seconds[event.key], microseconds / 1e6)
    return seconds


def stage_flops(run: Callable[[], object]) -> dict[str, float]:
    """Counts the FLOPs of each stage in one run, from the operators that PyTorch dispatches.

    The formulas are PyTorch's own, and one more for attention on a CPU, which PyTorch lacks.
    """
    with _CountByStage() as count:
        run()
    return {stage: float(count.flops[stage]) for stage in STAGES}


class _CountByStage(TorchDispatchMode):
    """Counts FLOPs by the innermost open stage."""

    def __init__(self) -> None:
        super().__init__()
        self.flops: Counter[str | None] = Counter()
        self.open_spans: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet is torch.ops.profiler._record_function_enter_new:
            self.open_spans.append(args[0])
        elif packet is torch.ops.profiler._record_function_exit:
            self.open_spans.pop()
        elif packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
            self._add(sdpa_flop(*(x.shape for x in args[:3])))
        elif packet in flop_registry:
            self._add(flop_registry[packet](*args, **(kwargs or {}), out_val=out))
        return out

    def _add(self, flops: int) -> None:
        stage = next((span for span in reversed(self.open_spans) if span in STAGES), None)
        self.flops[stage] += flops


def plain_flops(plain: PlainPanoptic, image: torch.Tensor) -> dict[str, float]:
    """Counts the FLOPs of the plain path, with the masks of all Q queries, by fvcore.

    fvcore counts a multiply-add once, which is doubled here. It knows convolutions, linear layers,
    matrix products and einsum; a formula for attention is added. Everything between backbone and
    mask head, such as the class head, counts as transformer.

    Args:
        plain: the plain path, whose parameters need no gradient.
        image: 3×H×W.
    """
    with torch.no_grad():
        pixels = plain.normalise(image)
        detection = plain.detect(pixels)
        attention = plain.attention_maps(detection)
        flops = {
            "backbone": _fvcore_flops(lambda x: tuple(plain.backbone(x).values()), pixels),
            "attention_maps": _fvcore_flops(
                lambda hidden: plain.attention_maps(replace(detection, hidden=hidden)),
                detection.hidden,
            ),
            "mask_head": _fvcore_flops(lambda x: plain.masks_from(detection, x), attention),
        }
        detected = _fvcore_flops(lambda x: plain.detect(x).logits, pixels)
    flops["transformer"] = detected - flops["backbone"]
    return {stage: flops.get(stage, 0.0) for stage in STAGES}


def _fvcore_flops(function: Callable[[torch.Tensor], Any], x: torch.Tensor) -> float:
    """Counts twice the multiply-adds of a function of one tensor."""

    class Traced(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return function(x)

    analysis = FlopCountAnalysis(Traced(), x)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    analysis.set_op_handle(f"aten::{ATTENTION}", _attention_macs)
    by_operator = analysis.by_operator()
    return 2.0 * sum(by_operator[name] for name in PRODUCTS)


def _attention_macs(inputs: list, outputs: list) -> Counter[str]:
    """Counts the multiply-adds of attention: M×T×C by S, and back."""
    query, key, value = (x.type().sizes() for x in inputs[:3])
    *batch, targets, channels = query
    macs = math.prod(batch) * targets * key[-2] * (channels + value[-1])
    return Counter({ATTENTION: macs})


def matrix_rate(
    dtype: torch.dtype, device: str, side: int, repeats: int = 6, enough: float = 10.0
) -> float:
    """Measures FLOPs per second in the fastest of several products of side × side matrices.

    No product begins after ``enough`` seconds: a CPU without instructions for bfloat16 takes a
    minute for one.
    """
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    seconds: list[float] = []
    while len(seconds) < repeats and sum(seconds) < enough:
        seconds.append(seconds_of(lambda: torch.mm(a, b), device))
    return 2 * side**3 / min(seconds)
