"""Long videos need no more memory than short ones."""

import os
from pathlib import Path

import pytest

from detr_d2.apps.demo import DemoOptions, predict_files
from detr_d2.predictor import Predictor

STATM = Path("/proc/self/statm")
needs_statm = pytest.mark.skipif(
    not STATM.exists(), reason="the system doesn't tell the memory used"
)
# By how many MB memory may rise, once everything is loaded.
MAX_RISE = 50


def resident_mb() -> float:
    """What of the process is in memory."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@needs_statm
def test_2000_frames_need_no_more_memory_than_200(make_demo, make_video, tmp_path, record_figure):
    """Read, tracked, drawn, and written as a video and as panoptic predictions."""
    used = {}
    clip = make_video(num_frames=2000, size=(480, 48))
    with make_demo(lambda place: used.update({place: resident_mb()}), save_panoptic=True) as demo:
        demo.show_video(clip, "clip")
    assert demo.failed == 0 and len(used) == 2000
    assert len(list((tmp_path / "out" / "predictions" / "clip").iterdir())) == 2000
    risen = max(used[place] for place in range(200, 2000)) - used[200]
    record_figure("memory over 2000 frames, a cheap model", risen, "{:+.1f} MB")
    assert risen < MAX_RISE


@needs_statm
def test_frames_through_the_model_need_no_more_memory(
    trained_cfg, make_video, tmp_path, record_figure, monkeypatch
):
    used, predict = [], Predictor.predict_batch

    def measured(self, images):
        used.append(resident_mb())
        return predict(self, images)

    monkeypatch.setattr(Predictor, "predict_batch", measured)
    trained_cfg.merge_from_list(["INPUT.MIN_SIZE_TEST", 32, "INPUT.MAX_SIZE_TEST", 64])
    clip = make_video(num_frames=120, size=(480, 48))
    options = DemoOptions("boxes", batch_size=2)  # which keep the raw predictions for a while
    assert predict_files(trained_cfg, [str(clip)], str(tmp_path / "out"), options) == 0
    risen = max(used[10:]) - used[10]
    record_figure("memory over 120 frames, a tiny DETR", risen, "{:+.1f} MB")
    assert len(used) == 60 and risen < MAX_RISE
