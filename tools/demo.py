#!/usr/bin/env python
"""Shows what a model sees in images and videos: the same as ``detr-d2 demo``."""

from detr_d2.cli import run_tool

if __name__ == "__main__":
    run_tool("demo")
