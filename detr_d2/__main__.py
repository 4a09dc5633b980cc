"""``python -m detr_d2 <command>``: ``detr-d2`` where its folder is not on the path."""

import sys

from detr_d2.cli import main

if __name__ == "__main__":
    sys.exit(main())
