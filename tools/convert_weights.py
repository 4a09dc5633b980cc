#!/usr/bin/env python
"""Converts a checkpoint of any kind: the same as ``detr-d2 convert``."""

import sys

from detr_d2.cli import tool_main

main = tool_main("convert")

if __name__ == "__main__":
    sys.exit(main())
