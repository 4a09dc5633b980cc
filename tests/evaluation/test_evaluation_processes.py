"""PanopticEvaluator over several processes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from torch.multiprocessing import start_processes

from detr_d2.evaluation import PanopticEvaluator

NAME = "blocks"


def _worker(rank: int, root: Path, run: Callable[..., dict]) -> None:
    store = f"file://{root / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, world_size=2, rank=rank)
    results = run(PanopticEvaluator(NAME), DatasetCatalog.get(NAME)[rank::2])
    (root / f"rank{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("num_processes", [2, 3, 7])
def test_figures_do_not_depend_on_the_number_of_processes(
    make_dataset, run, tmp_path, monkeypatch, num_processes
):
    images = make_dataset(range(20))
    whole = run(PanopticEvaluator(NAME, str(tmp_path / "one"), save_predictions=True))

    gathered = []
    monkeypatch.setattr(comm, "gather", lambda data: gathered.append(data) or gathered)
    for rank in reversed(range(num_processes)):  # the main process comes last
        monkeypatch.setattr(comm, "is_main_process", lambda rank=rank: rank == 0)
        evaluator = PanopticEvaluator(NAME, str(tmp_path / "many"), save_predictions=True)
        results = run(evaluator, images[rank::num_processes])
        assert rank == 0 or results == {}
    assert results == whole  # to the last digit
    one, many = ((tmp_path / name / "predictions.json") for name in ("one", "many"))
    assert one.read_text() == many.read_text()


def test_two_real_processes(make_dataset, run, tmp_path):
    make_dataset(range(9))
    expected = run(PanopticEvaluator(NAME))
    # Forked, as fresh processes would spend 20 s on imports.
    start_processes(_worker, args=(tmp_path, run), nprocs=2, start_method="fork")
    assert json.loads((tmp_path / "rank0.json").read_text()) == expected
    assert json.loads((tmp_path / "rank1.json").read_text()) == {}
