"""``python -m detr_d2 <command>`` does the same as ``detr-d2``, which may not be on the path."""

import sys

from detr_d2.cli import main

if __name__ == "__main__":
    sys.exit(main())
