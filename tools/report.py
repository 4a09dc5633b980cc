#!/usr/bin/env python
"""Shows where saved predictions are wrong: the same as ``detr-d2 report``."""

import sys

from detr_d2.cli import tool_main

main = tool_main("report")

if __name__ == "__main__":
    sys.exit(main())
