#!/usr/bin/env python
"""Trains and evaluates a model: the same as ``detr-d2 train``."""

import sys

from detr_d2.cli import tool_main

main = tool_main("train")

if __name__ == "__main__":
    sys.exit(main())
