"""Checks on a GPU: predictions against a CPU's, memory, speed, and torch.compile.

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

# Share of pixels that have to have the same id. bfloat16 rounds away much of what sets random
# queries apart, so that only a prediction which has gone wrong altogether is found.
NEEDED = {"float32": 0.99, "bfloat16": 0.2}


def check_ids(bench: Bench, precision: str) -> dict:
    """Predicts on the GPU, in a precision, what a CPU predicts in float32.

    Returns:
        ``equal_ids`` and ``equal_segments``, shares of pixels (see ``agreement``; the second
        doesn't mind other numbers), the ``needed`` share, and ``num_segments``.
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
        raise CheckFailed("nothing was predicted that could be compared", figures)
    if not figures[measure] >= NEEDED[precision]:
        raise CheckFailed("the pictures differ", figures)
    return figures


def predict(model: DETR, bench: Bench) -> Picture:
    """The panoptic picture of the image."""
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
    """Measures the images per second of our model, from pixels on the CPU to the picture."""
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
    """Compiles detector and mask head: the picture is the same.

    Returns:
        What ``check_ids`` returns, against the model that isn't compiled; the ``backend``; the
        seconds of the first, compiling run; and images per second of both.
    """
    # On a CPU, and a tiny model, tracing is tried out, and no compiler.
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
    """Runs per second, by the medians of runs in turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for name, seconds in interleaved(runs, bench.settings.repeats, bench.settings.device):
        times[name].append(seconds)
    return {name: 1 / (median(taken) or math.inf) for name, taken in times.items()}
