"""Memory is measured in other processes, and of the run alone."""

import os
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from benchmarks.memory import MB, _probe, peak_memory


def prepare(folder: str, at_first: int, then: int):
    """What is built takes ``at_first`` MiB for a moment, and its run ``then``."""
    np.ones(at_first * MB, dtype=np.uint8)

    def run() -> None:
        np.ones(then * MB, dtype=np.uint8)
        Path(folder, "pid").write_text(str(os.getpid()))

    return run


def test_the_peak_is_that_of_a_run_in_another_process(tmp_path):
    peak = peak_memory(prepare, str(tmp_path), 0, 100, device="cpu", threads=1)
    assert int((tmp_path / "pid").read_text()) != os.getpid()
    assert 95 < peak.rise < 130
    assert peak.total > peak.rise


def test_what_building_took_does_not_count(tmp_path):
    peak = _probe(prepare, (str(tmp_path), 300, 100), "cpu", 1)
    assert 95 < peak.rise < 130


def test_a_killed_process_leaves_no_figure(monkeypatch):
    def get_killed(*args):
        raise BrokenProcessPool

    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor.submit", get_killed)
    assert peak_memory(prepare, device="cpu", threads=1) is None
