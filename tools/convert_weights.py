#!/usr/bin/env python
"""Converts a checkpoint of any kind: the same as ``detr-d2 convert``."""

from detr_d2.cli import run_tool

if __name__ == "__main__":
    run_tool("convert")
