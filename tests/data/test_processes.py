"""Worker processes start alike on every Python, and share work in a bounded queue."""

import multiprocessing
import sys

import pytest

from detr_d2.data.loader import build_test_loader, build_train_loader
from detr_d2.data.processes import map_in_processes, worker_context

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="is about Linux")


@on_linux
@pytest.mark.parametrize("default", [None, "fork", "forkserver"])
def test_workers_are_forked(default, monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: default)
    assert worker_context().get_start_method() == "fork"


def test_who_has_chosen_spawn_gets_it(monkeypatch):
    chosen = multiprocessing.get_context("spawn")
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "spawn")
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: method or chosen)
    assert worker_context() is chosen


def test_asking_leaves_the_choice_open(monkeypatch):
    asked = []
    monkeypatch.setattr(
        multiprocessing, "get_start_method", lambda allow_none=False: asked.append(allow_none)
    )
    worker_context()
    assert asked == [True]  # else a later set_start_method would be refused


@on_linux
@pytest.mark.parametrize("kind", ["train", "test"])
def test_loaders_start_their_workers_so(kind, make_tiny_cfg, small_shapes, tmp_path):
    cfg = make_tiny_cfg(tmp_path / "output", "DATALOADER.NUM_WORKERS", 1)
    if kind == "train":
        loader = build_train_loader(cfg)
    else:
        loader = build_test_loader(cfg, cfg.DATASETS.TEST[0])
    assert loader.multiprocessing_context.get_start_method() == "fork"
    assert len(next(iter(loader))) > 0


def test_few_items_wait(monkeypatch):
    """Memory doesn't grow with the dataset."""
    started = []

    class Pool:
        def __init__(self, workers, context):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def submit(self, work, task):
            started.append(task)
            return Result(task)

    class Result:
        def __init__(self, task):
            self.task = task

        def result(self):
            return self.task

    monkeypatch.setattr("detr_d2.data.processes.ProcessPoolExecutor", Pool)
    most = 0
    for done, result in enumerate(map_in_processes(abs, iter(range(1000)), 2)):
        assert result == done
        most = max(most, len(started) - done)
    assert len(started) == 1000 and most <= 16
