"""This project beside its peers, measured in one run: see BENCHMARKS.md and ``detr-d2 benchmark``.

Nothing of the project imports this package. It needs the extra ``detr_d2[benchmark]``.
"""
