#!/usr/bin/env python
"""Turns other annotations into COCO's panoptic format: the same as ``detr-d2 prepare``."""

import sys

from detr_d2.cli import tool_main

main = tool_main("prepare")

if __name__ == "__main__":
    sys.exit(main())
