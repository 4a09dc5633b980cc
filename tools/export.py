#!/usr/bin/env python
"""Writes a model as one file for other runtimes: the same as ``detr-d2 export``."""

import sys

from detr_d2.cli import tool_main

main = tool_main("export")

if __name__ == "__main__":
    sys.exit(main())
