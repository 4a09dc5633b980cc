"""This project beside its peers, measured in one run: see BENCHMARKS.md and ``tools/benchmark.py``.

Nothing of the project imports this package. It needs the extra ``detr_d2[benchmark]``.
"""
