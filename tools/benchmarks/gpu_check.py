"""Checks the project on a GPU: training, DDP, inference, torch.compile, memory and speed.

python -m benchmarks.gpu_check --output FOLDER

Writes gpu_check.json and gpu_check.md (a table) into FOLDER, and needs no network. The exit status
is 0 if no check failed, 1 if a check failed, and 2 if the checks could not be run.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

# With imports and the start of a GPU, this stays below 4 minutes in total.
SECONDS = 210.0


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output",
        default="output/gpu_check",
        metavar="FOLDER",
        help="folder of the files (output/gpu_check)",
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--quick", action="store_true", help="a tiny model; with --device cpu, to try this tool out"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, metavar="N", help=f"time limit ({SECONDS:g})"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    args = parse_args(arguments)
    try:
        from detr_d2 import load_config  # noqa: F401  (its error names what is missing)
    except ImportError as error:
        return _refuse(str(error))
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        return _refuse(
            "PyTorch finds no GPU. --device cpu --quick tries this tool out on a tiny model."
        )
    from benchmarks.benchmark_settings import BenchmarkSettings
    from benchmarks.gpu_report import GPUReport, run_checks
    from benchmarks.gpu_setup import Bench

    logging.basicConfig(format="%(message)s")
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    settings = BenchmarkSettings(device=args.device, threads=torch.get_num_threads(), repeats=3)
    bench = Bench(settings.quick() if args.quick else settings, args.quick)
    command = sys.argv if arguments is None else ["gpu_check", *arguments]
    try:
        report = GPUReport(args.output, bench, command)
        run_checks(bench, report, args.seconds)
    except OSError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print(f"interrupted; what was checked is in {args.output}", file=sys.stderr)
        return 130
    print(f"{report.content['verdict']} (see {args.output}/gpu_check.md)")
    return 1 if report.failed else 0


def _refuse(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
