#!/usr/bin/env python
"""Measures speed and memory beside peers; ``--help`` tells more."""

import sys

from detr_d2.cli.program import run_module


def main() -> int:
    return run_module("benchmarks.benchmark_command", sys.argv[1:], "tools/benchmark.py")


if __name__ == "__main__":
    sys.exit(main())
