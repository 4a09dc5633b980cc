#!/usr/bin/env python
"""Trains and evaluates a model: the same as ``detr-d2 train``."""

from detr_d2.cli import run_tool

if __name__ == "__main__":
    run_tool("train")
