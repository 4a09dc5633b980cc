"""What is compared does the same work on the same image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from benchmarks.agreement import equal_ids, equal_segments
from benchmarks.inference import class_logits
from benchmarks.subjects import (
    SUBJECTS,
    score_threshold,
    their_masks_merged_plainly,
)

from detr_d2.modeling.inference import select_panoptic_queries


@pytest.mark.parametrize("kept", [1, 5, 42, 100])
def test_the_threshold_keeps_as_many_as_wanted(workload, kept):
    logits = class_logits(workload.load_ours(), workload.image())
    assert len(select_panoptic_queries(logits, score_threshold(logits, kept))) == kept


def test_queries_of_no_object_are_never_counted():
    logits = torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 9.0]])
    threshold = score_threshold(logits, 1)
    scores = logits.softmax(-1)
    assert scores[1, 1] < threshold < scores[0, 0]
    with pytest.raises(ValueError, match="3 queries can't be kept: only 2 predict an object"):
        score_threshold(logits, 3)


def test_equal_scores_leave_no_threshold_between_them():
    with pytest.raises(ValueError, match="the next one has the same score"):
        score_threshold(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), 1)


def test_the_image_is_the_same_each_time(workload):
    assert torch.equal(workload.image(), workload.image())
    assert not torch.equal(workload.image(), replace(workload, seed=1).image())


@pytest.fixture(scope="module")
def pictures(workload):
    names = ["panoptic", "panoptic bf16", "plain", "transformers"]
    subjects = {name: SUBJECTS[name](workload) for name in names}
    return {name: subject.picture(subject.run()) for name, subject in subjects.items()}


def test_pictures_agree(workload, pictures):
    plain = pictures["plain"]
    assert len(plain.class_of) > 2
    assert equal_ids(pictures["panoptic"], plain) > 0.999
    # Random weights are touchy; pictures that have nothing in common agree in a fifth.
    assert equal_segments(pictures["panoptic bf16"], plain) > 0.4
    assert equal_ids(their_masks_merged_plainly(workload), plain) > 0.999


def test_transformers_keeps_the_same_queries(workload, pictures):
    """By its own rules of merging, which leave more to small segments."""
    classes = pictures["transformers"].class_of.values()
    assert set(pictures["plain"].class_of.values()) <= set(classes)
    assert len(classes) <= 5


def test_detectors_find_the_same_boxes(workload):
    ours = SUBJECTS["detector"](workload).run()
    theirs = SUBJECTS["transformers detector"](workload).run()
    is_thing = workload.load_ours().is_thing[theirs["labels"]]
    assert 0 < is_thing.sum() < 100
    torch.testing.assert_close(theirs["scores"][is_thing], ours.scores, rtol=0, atol=1e-4)
    assert torch.equal(theirs["labels"][is_thing], ours.pred_classes)
    boxes = theirs["boxes"][is_thing].clamp(min=0)
    boxes = torch.minimum(boxes, torch.tensor([128, 96, 128, 96]))
    torch.testing.assert_close(boxes, ours.pred_boxes.tensor, rtol=0, atol=1e-2)
