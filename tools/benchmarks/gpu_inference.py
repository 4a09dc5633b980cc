"""Checks on a GPU: predictions compared with a CPU's, memory, speed, and torch.compile.

Axes: H×W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from tempfile import TemporaryDirectory

import torch

from benchmarks.agreement import Picture, equal_ids, equal_segments
from benchmarks.gpu_setup import (
    Bench,
    CheckFailed,
    CheckSkipped,
    exact_float32,
    forget_peak,
    peak_mib,
)
from benchmarks.inference import make_workload
from benchmarks.subjects import build_ours, build_transformers
from benchmarks.timing import interleaved, median, seconds_of
from benchmarks.weights import save_random_weights
from detr_d2.modeling import DETR

# Share of pixels that need the same id. bfloat16 rounds away much of the difference between random
# queries, so that this check finds only completely wrong predictions.
NEEDED = {"float32": 0.99, "bfloat16": 0.2}


def check_ids(bench: Bench, precision: str) -> dict:
    """Compares a prediction on the GPU, in a precision, with a CPU's in float32.

    Returns:
        ``equal_ids`` and ``equal_segments``, shares of pixels (see ``agreement``), the ``needed``
        share, and ``num_segments``.
    """
    with exact_float32():
        reference = predict(bench.predictor("cpu"), bench)
        picture = predict(bench.predictor(TEST__PRECISION=precision), bench)
    return _compare(picture, reference, precision)


def _compare(picture: Picture, reference: Picture, precision: str) -> dict:
    figures = {
        "equal_ids": equal_ids(picture, reference),
        "equal_segments": equal_segments(picture, reference),
        "needed": NEEDED[precision],
        "num_segments": len(reference.class_of),
    }
    measure = "equal_ids" if precision == "float32" else "equal_segments"
    if not figures["num_segments"]:
        raise CheckFailed("the model predicted nothing to compare", figures)
    if not figures[measure] >= NEEDED[precision]:
        raise CheckFailed("the pictures differ", figures)
    return figures


def predict(model: DETR, bench: Bench) -> Picture:
    """Predicts the panoptic picture of the image."""
    return Picture.from_output(*model([{"image": bench.image}])[0]["panoptic_seg"])


def check_memory(bench: Bench, precision: str) -> dict:
    """Measures the ``peak_mib`` of a prediction, weights included, and its ``rise_mib``."""
    bench.require_gpu("measuring its memory")
    model = bench.predictor(TEST__PRECISION=precision)
    forget_peak(bench)
    before = torch.cuda.memory_allocated() / 2**20
    predict(model, bench)
    peak = peak_mib(bench)
    return {"peak_mib": peak, "rise_mib": peak - before}


def check_speed(bench: Bench) -> dict:
    """Measures our model's images per second, from pixels on the CPU to the picture."""
    models = {name: bench.predictor(TEST__PRECISION=name) for name in NEEDED}
    runs = {name: lambda model=model: predict(model, bench) for name, model in models.items()}
    return {f"{name}_per_second": value for name, value in _rates(runs, bench).items()}


def check_beside_transformers(bench: Bench) -> dict:
    """Measures images per second of ours and of transformers' DETR, on the same weights.

    Returns:
        ``ours_per_second``, ``transformers_per_second`` and their ``ratio``.
    """
    if find_spec("transformers") is None:
        raise CheckSkipped("transformers isn't installed: pip install 'transformers>=5.0'")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    settings = bench.settings
    with TemporaryDirectory(prefix="detr_d2_gpu_check_") as folder:
        save_random_weights(folder, settings.architecture, settings.size, settings.seed)
        workload = make_workload(folder, settings)
        subjects = {"ours": build_ours(workload), "transformers": build_transformers(workload)}
        try:
            rates = _rates({name: subject.run for name, subject in subjects.items()}, bench)
        except torch.OutOfMemoryError as error:
            raise CheckSkipped("transformers needs more memory than the GPU has") from error
    figures = {f"{name}_per_second": value for name, value in rates.items()}
    return {**figures, "ratio": rates["ours"] / rates["transformers"]}


def check_compile(bench: Bench) -> dict:
    """Checks that compiling detector and mask head leaves the picture the same.

    Returns:
        The result of ``check_ids`` for the compiled and the other model, the ``backend``, the
        seconds of the first run, which compiles, and images per second of both.
    """
    # For a tiny model, only tracing is tried out, without a compiler.
    backend = "eager" if bench.quick else "inductor"
    models = {name: bench.predictor() for name in ("eager", "compiled")}
    try:
        models["compiled"].detector.compile(backend=backend)
        models["compiled"].mask_head.compile(backend=backend)
        runs = {name: lambda model=model: predict(model, bench) for name, model in models.items()}
        with exact_float32():
            first = seconds_of(runs["compiled"], bench.settings.device)
            figures = _compare(runs["compiled"](), runs["eager"](), "float32")
            rates = _rates(runs, bench)
    finally:
        torch._dynamo.reset()
    figures |= {f"{name}_per_second": value for name, value in rates.items()}
    return {"backend": backend, "first_run_seconds": first, **figures}


def _rates(runs: Mapping[str, Callable[[], object]], bench: Bench) -> dict[str, float]:
    """Runs per second, from the medians of runs in turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for name, seconds in interleaved(runs, bench.settings.repeats, bench.settings.device):
        times[name].append(seconds)
    return {name: 1 / (median(taken) or math.inf) for name, taken in times.items()}
