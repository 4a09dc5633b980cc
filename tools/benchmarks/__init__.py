"""Compares this project with its peers in one run: see BENCHMARKS.md and tools/benchmark.py.

Nothing in the project imports this package. It is in the repository but is not installed, and needs
the extra ``detr_d2[benchmark]``.
"""

import sys
from pathlib import Path

# Results and times are compared with the plain path, which is the tests' oracle.
_TESTS = str(Path(__file__).resolve().parents[2] / "tests")
if _TESTS not in sys.path:
    sys.path.append(_TESTS)
