#!/usr/bin/env python
"""Submits a training to a SLURM cluster: the same as ``detr-d2 submit``."""

import sys

from detr_d2.cli import tool_main

main = tool_main("submit")

if __name__ == "__main__":
    sys.exit(main())
