"""A tiny pair of models, saved once, and what describes it."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("transformers")
pytest.importorskip("matplotlib")

from benchmarks.benchmark_settings import BenchmarkSettings
from benchmarks.inference import make_workload
from benchmarks.subjects import Workload
from benchmarks.weights import save_random_weights


@pytest.fixture(scope="session")
def quick_settings() -> BenchmarkSettings:
    return replace(BenchmarkSettings(device="cpu", threads=1).quick(), evaluated_images=2)


@pytest.fixture(scope="session")
def workload(
    quick_settings: BenchmarkSettings, tmp_path_factory: pytest.TempPathFactory
) -> Workload:
    """Random weights in a folder, and an image of which five queries are kept."""
    folder = str(tmp_path_factory.mktemp("weights"))
    save_random_weights(
        folder, quick_settings.architecture, quick_settings.size, quick_settings.seed
    )
    return make_workload(folder, quick_settings)
