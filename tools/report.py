#!/usr/bin/env python
"""Shows where saved predictions are wrong: the same as ``detr-d2 report``."""

from detr_d2.cli import run_tool

if __name__ == "__main__":
    run_tool("report")
