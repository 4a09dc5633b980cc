#!/usr/bin/env python
"""Follows one image through a model: the same as ``detr-d2 explain``."""

import sys

from detr_d2.cli import tool_main

main = tool_main("explain")

if __name__ == "__main__":
    sys.exit(main())
