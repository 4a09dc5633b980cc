"""This project beside its peers, measured in one run: see BENCHMARKS.md and tools/benchmark.py.

Nothing of the project imports this package. It is part of a checkout, not of what is installed, and
needs the extra ``detr_d2[benchmark]``.
"""

import sys
from pathlib import Path

# The plain path, with which results and times are compared, is the tests' oracle.
_TESTS = str(Path(__file__).resolve().parents[2] / "tests")
if _TESTS not in sys.path:
    sys.path.append(_TESTS)
