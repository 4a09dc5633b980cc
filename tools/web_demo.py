#!/usr/bin/env python
"""Shows what a model sees in a browser: the same as ``detr-d2 web``."""

import sys

from detr_d2.cli import tool_main

main = tool_main("web")

if __name__ == "__main__":
    sys.exit(main())
