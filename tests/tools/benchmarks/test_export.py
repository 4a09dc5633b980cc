"""The part "export" from its settings to its table; the export itself is tested in tests/export."""

from dataclasses import replace

import pytest
from benchmarks import export
from benchmarks.benchmark_report import BenchmarkReport, to_markdown
from benchmarks.subjects import build_ours


def test_what_is_measured(quick_settings, tmp_path, monkeypatch):
    def exported(workload, settings, found):
        found["megabytes"] = 12.0
        return build_ours(workload)

    monkeypatch.setattr(export, "_exported", exported)
    report = BenchmarkReport(tmp_path, quick_settings, ["benchmark"])
    export.run_export(quick_settings, report)
    report.write()
    found = report.content["export"]
    assert found["equal_ids"] == 1.0 and found["export_seconds"] > 0
    assert {name: len(times) for name, times in found["seconds"].items()} == {
        "panoptic": quick_settings.repeats,
        "onnxruntime": quick_settings.repeats,
    }
    table = to_markdown(report.content)
    assert "| onnxruntime " in table and "100.000 % of pixels" in table and "12 MB" in table


def test_a_gpu_is_refused(quick_settings, tmp_path):
    with pytest.raises(ValueError, match="--device: exported graphs are measured on a CPU"):
        settings = replace(quick_settings, device="cuda")
        export.run_export(settings, BenchmarkReport(tmp_path, quick_settings, ["benchmark"]))
