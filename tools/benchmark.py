#!/usr/bin/env python
"""Measures speed and memory beside peers: the same as ``detr-d2 benchmark``."""

import sys

from detr_d2.cli import tool_main

main = tool_main("benchmark")

if __name__ == "__main__":
    sys.exit(main())
