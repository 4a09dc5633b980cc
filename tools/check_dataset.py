#!/usr/bin/env python
"""Looks for what is wrong with a dataset: the same as ``detr-d2 check``."""

from detr_d2.cli import run_tool

if __name__ == "__main__":
    run_tool("check")
