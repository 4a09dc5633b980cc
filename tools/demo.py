#!/usr/bin/env python
"""Shows what a model sees in images and videos: the same as ``detr-d2 demo``."""

import sys

from detr_d2.cli import tool_main

main = tool_main("demo")

if __name__ == "__main__":
    sys.exit(main())
