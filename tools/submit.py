#!/usr/bin/env python
"""Submits a training to a SLURM cluster: the same as ``detr-d2 submit``."""

from detr_d2.cli import run_tool

if __name__ == "__main__":
    run_tool("submit")
