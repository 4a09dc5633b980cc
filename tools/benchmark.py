#!/usr/bin/env python
"""Measures speed and memory beside peers: the same as ``detr-d2 benchmark``."""

from detr_d2.cli import run_tool

if __name__ == "__main__":
    run_tool("benchmark")
