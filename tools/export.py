#!/usr/bin/env python
"""Writes a model as one file for other runtimes: the same as ``detr-d2 export``."""

from detr_d2.cli import run_tool

if __name__ == "__main__":
    run_tool("export")
