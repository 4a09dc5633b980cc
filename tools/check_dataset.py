#!/usr/bin/env python
"""Looks for what is wrong with a dataset: the same as ``detr-d2 check``."""

import sys

from detr_d2.cli import tool_main

main = tool_main("check")

if __name__ == "__main__":
    sys.exit(main())
