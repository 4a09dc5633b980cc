#!/usr/bin/env python
"""Turns other annotations into COCO's panoptic format: the same as ``detr-d2 prepare``."""

from detr_d2.cli import run_tool

if __name__ == "__main__":
    run_tool("prepare")
