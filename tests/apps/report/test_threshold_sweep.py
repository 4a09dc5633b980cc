"""PQ at other thresholds needs no new forward pass, and equals that of a new one."""

import dataclasses
import math

import numpy as np
import torch
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluators
from detectron2.modeling import build_model

from detr_d2.apps.report import ReportCollector
from detr_d2.apps.report.report_figures import run_figures
from detr_d2.apps.report.threshold_sweep import SavedSweep, sweep_stats, thresholds_with
from detr_d2.data.dataset_mapper import DetrDatasetMapper
from detr_d2.data.panoptic_png import write_panoptic_png
from detr_d2.evaluation import PanopticEvaluator, Segments, match_segments
from detr_d2.modeling.inference_options import PanopticOptions

IDS = np.array([[1, 1, 2], [0, 3, 3]])
SEGMENTS = [{"id": 1, "score": 0.9}, {"id": 2, "score": 0.5}, {"id": 3, "score": 0.2}]


def test_saved_segments_are_dropped_at_their_score():
    sweep = SavedSweep(IDS, SEGMENTS)
    assert [sweep.count(t) for t in (0.1, 0.2, 0.5, 0.9)] == [3, 2, 1, 0]
    ids, kept = sweep.panoptic(0.2)
    assert ids.tolist() == [[1, 1, 2], [0, 0, 0]]
    assert [segment["id"] for segment in kept] == [1, 2]
    assert SavedSweep(IDS, [{"id": 1}, {"id": 2, "score": None}, SEGMENTS[2]]).count(0.9) == 2


def test_thresholds_between_which_nothing_changes_are_compared_once():
    asked = []

    def match(ids, segments):
        asked.append(len(segments))
        pred = Segments([segment["id"] for segment in segments], [0] * len(segments))
        return match_segments(ids, pred, IDS, Segments([1, 2, 3], [0, 0, 0]), 1)

    stats = sweep_stats(SavedSweep(IDS, SEGMENTS), thresholds_with(None), match)
    assert len(stats) == 19 and asked == [3, 2, 1, 0]
    assert [one.tp.item() for one in stats[::6]] == [3, 2, 1, 0]


def test_the_runs_own_threshold_is_one_of_them():
    assert thresholds_with(0.7) == thresholds_with(None)
    assert len(thresholds_with(0.72)) == 20 and 0.72 in thresholds_with(0.72)


def annotated_as_predicted(record, raw, folder):
    """A dataset dict whose ground truth is the prediction at 0.5; otherwise PQ would be 0."""
    ids, segments = raw.panoptic(PanopticOptions(0.5, "merged", 4))
    path = folder / f"{record['image_id']}.png"
    write_panoptic_png(ids.numpy(), path)
    return {**record, "pan_seg_file_name": str(path), "segments_info": segments}


def test_sweep_equals_running_the_model_again(make_tiny_cfg, tmp_path):
    """Figures are exactly equal at all thresholds, and masks compete for the same pixels.

    Masks are computed one by one, because convolutions round differently in other chunks.
    """
    torch.manual_seed(0)
    name = "small_shapes_val"
    records = DatasetCatalog.get(name)[:3]
    cfg = make_tiny_cfg(tmp_path, "MODEL.DETR.TEST.INSTANCES_ON", False)
    cfg.MODEL.DETR.TEST.RAW_ON, cfg.MODEL.DETR.MASK_HEAD.CHUNK_SIZE = True, 1
    model = build_model(cfg).eval()
    # All queries of an untrained model are alike, so each gets its own class and score here.
    own = 2 * torch.randn(cfg.MODEL.DETR.NUM_QUERIES, cfg.MODEL.DETR.NUM_CLASSES + 1)
    model.detector.class_head.register_forward_hook(lambda head, inputs, logits: logits + own)
    batches = [[DetrDatasetMapper(cfg, is_train=False)(record)] for record in records]
    records = [
        annotated_as_predicted(record, next(model.raw_predictions(batch)), tmp_path)
        for record, batch in zip(records, batches, strict=True)
    ]

    def evaluate(threshold, *more):
        panoptic = dataclasses.replace(model.options.panoptic, score_thresh=threshold)
        model.options = dataclasses.replace(model.options, panoptic=panoptic)
        pq = PanopticEvaluator(name, dataset_dicts=records)
        evaluators = DatasetEvaluators([pq, *more])
        with torch.no_grad():
            for batch in batches:
                evaluators.process(batch, model(batch))
        return pq.evaluate()["panoptic_seg"]

    collector = ReportCollector(cfg, name, str(tmp_path), dataset_dicts=records)
    results = evaluate(cfg.MODEL.DETR.TEST.SCORE_THRESH, collector)
    figures = run_figures(collector._run, records, collector._classes)
    assert figures["groups"]["all"]["PQ"] == results["PQ"]
    points = figures["sweep"]["points"]
    found = set()
    for point in points[::2]:
        again = evaluate(point["score_thresh"])
        for key in ("PQ", "PQ_th", "PQ_st"):
            assert point[key] == (None if math.isnan(again[key]) else again[key])
        found.add(point["PQ"])
    assert len(found) >= 3  # thresholds make a difference
