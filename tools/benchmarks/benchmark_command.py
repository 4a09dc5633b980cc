"""Compares this project with its peers: the same weights and images, in one run and in turns.

tools/benchmark.py [PART ...] --output FOLDER

Each PART is one of: startup (commands and imports), inference, training (ways to take a step of the
mask stage), boxes and masks (a step of each stage beside transformers), loading (images for a
training), evaluation (PQ), ap, files (a JSON read, PNGs written), export, all.

Writes benchmark.json (all figures), benchmark.md (tables) and benchmark.png into FOLDER, and prints
the tables. BENCHMARKS.md explains the figures. After an interruption, the files hold what was
measured before it. The benchmark needs pip install 'detr_d2[benchmark]'.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options: what is measured, on what, and how often."""
    parser.add_argument(
        "parts",
        nargs="*",
        default="all",  # which argparse compares with the choices as it is
        choices=(
            *("startup", "inference", "training", "boxes", "masks", "loading", "evaluation", "ap"),
            *("files", "export", "all"),
        ),
        metavar="PART",
        help="what is measured (default: all, without export)",
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder of the files")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="timed rounds (5)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, metavar="N", help="PyTorch's threads (its default)")
    parser.add_argument(
        "--kept", type=int, default=15, metavar="N", help="queries that compete for pixels (15)"
    )
    parser.add_argument(
        "--size", type=int, nargs=2, default=(800, 1066), metavar=("H", "W"), help="(800 1066)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--sweeps", action="store_true", help="vary queries, sizes, batches, too")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile, too")
    parser.add_argument("--quick", action="store_true", help="a tiny model, to try this tool out")


def run(args: argparse.Namespace) -> int | None:
    """Measures, and prints the tables."""
    # Otherwise PyTorch's profiler prints when it starts and stops.
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")
    from benchmarks.benchmark_extras import require_extras

    require_extras()
    import torch

    from benchmarks.benchmark_run import run_benchmark
    from benchmarks.benchmark_settings import BenchmarkSettings, SweepValues

    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no GPU.")
    settings = BenchmarkSettings(
        device=args.device,
        threads=args.threads or torch.get_num_threads(),
        repeats=args.repeats,
        seed=args.seed,
        size=tuple(args.size),
        kept=args.kept,
        compiled=args.compile,
        sweeps=SweepValues() if args.sweeps else None,
    )
    settings = settings.quick() if args.quick else settings
    parts = [args.parts] if isinstance(args.parts, str) else args.parts
    try:
        print(run_benchmark(parts, settings, args.output, sys.argv))
    except KeyboardInterrupt:
        sys.exit(f"interrupted; what was measured is in {args.output}")
