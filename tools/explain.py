#!/usr/bin/env python
"""Follows one image through a model: the same as ``detr-d2 explain``."""

from detr_d2.cli import run_tool

if __name__ == "__main__":
    run_tool("explain")
