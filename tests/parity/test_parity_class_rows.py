"""Class heads by COCO's category ids, cut to a dataset's classes, and what that does to scores.

Axes: R rows of the file's head, K classes of the dataset; the last row of both is "no object".
"""

from __future__ import annotations

import math

import pytest
import torch

from detr_d2.data.categories import classes_of
from detr_d2.modeling.inference import select_instance_queries, select_panoptic_queries

TOLERANCE = 1e-4
PANOPTIC, DETECTION = "coco_2017_val_panoptic", "coco_2017_val"
BOTH_HEADS = pytest.mark.parametrize(
    ("dataset", "num_labels", "num_classes"), [(PANOPTIC, 250, 133), (DETECTION, 91, 80)]
)


def kept_rows(dataset: str, num_labels: int) -> list[int]:
    return [*classes_of(dataset).dataset_ids, num_labels]


def dropped_rows(dataset: str, num_labels: int) -> list[int]:
    return sorted(set(range(num_labels + 1)) - set(kept_rows(dataset, num_labels)))


def random_logits(num_labels: int, largest_scale: float) -> torch.Tensor:
    """2000×R, in double precision, of unsure queries and of sure ones."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, num_labels + 1, generator=rng, dtype=torch.float64)
    return logits * torch.linspace(0.1, largest_scale, 2000, dtype=torch.float64)[:, None]


@BOTH_HEADS
def test_loading_keeps_the_datasets_rows(
    make_pair, make_images, record_parity, dataset, num_labels, num_classes
):
    overrides = {"MODEL.DETR.NUM_CLASSES": num_classes, "DATASETS.TEST": (dataset,)}
    masks = dataset == PANOPTIC
    pair, images = make_pair(overrides, masks=masks, num_labels=num_labels), make_images((75, 97))
    ours, theirs = pair.run_ours(images), pair.run_theirs(images)
    rows = kept_rows(dataset, num_labels)
    assert ours.logits.shape[-1] == len(rows) == num_classes + 1
    assert theirs.logits.std(dim=-1).min() > 100 * TOLERANCE  # rows differ
    difference = (ours.logits - theirs.logits[..., rows]).abs().max().item()
    record_parity(f"{num_labels} labels cut to {num_classes}: logits", difference, TOLERANCE)

    full = theirs.logits.softmax(-1)
    mass = full[..., dropped_rows(dataset, num_labels)].sum(-1, keepdim=True)
    difference = (ours.logits.softmax(-1) - full[..., rows] / (1 - mass)).abs().max().item()
    record_parity(f"{num_labels} labels cut to {num_classes}: scores", difference, 1e-5)


@BOTH_HEADS
def test_scores_are_divided_by_what_is_kept(record_parity, dataset, num_labels, num_classes):
    """By 1 - m, m being the mass of the dropped rows: none gets smaller, their order stays."""
    logits = random_logits(num_labels, largest_scale=8)
    rows, dropped = kept_rows(dataset, num_labels), dropped_rows(dataset, num_labels)
    full = logits.softmax(-1)
    mass = full[:, dropped].sum(-1, keepdim=True)
    assert mass.min() < 1e-3 and mass.max() > 0.9
    full, cut = full[:, rows], logits[:, rows]
    difference = (cut.softmax(-1) - full / (1 - mass)).abs().max().item()
    record_parity(f"random scores of {num_labels} labels, cut to {num_classes}", difference, 1e-6)
    assert (cut.softmax(-1) >= full).all()

    best = full.argmax(-1)
    kept = select_panoptic_queries(cut, 0.0)
    assert torch.equal(kept.query_index, (best != num_classes).nonzero()[:, 0])
    assert torch.equal(kept.classes, best[kept.query_index])
    instances = select_instance_queries(cut, torch.ones(num_classes, dtype=torch.bool), 0.0)
    expected = (full / (1 - mass))[:, :-1].max(-1)
    assert torch.equal(instances.classes, expected.indices)
    difference = (instances.scores - expected.values).abs().max().item()
    record_parity(f"random scores of {num_labels} labels, cut to {num_classes}", difference, 1e-6)


@pytest.mark.parametrize("below", [10, 20])
def test_scores_stay_where_dropped_rows_are_unlikely(record_parity, below):
    """A score p that becomes p / (1 - m) grows by p·m / (1 - m): at most m, since p ≤ 1 - m.

    Of n dropped rows, each at least ``below`` under the best logit, the mass has
    m / (1 - m) ≤ n·e^-below, which goes to 0 the less likely training makes them.
    """
    logits = random_logits(250, largest_scale=30)
    rows, dropped = kept_rows(PANOPTIC, 250), dropped_rows(PANOPTIC, 250)
    assert len(dropped) == 117
    logits[:, dropped] = logits[:, rows].amax(-1, keepdim=True) - below
    full, cut = logits.softmax(-1), logits[:, rows].softmax(-1)
    growth = cut - full[:, rows]
    mass = full[:, dropped].sum(-1, keepdim=True)
    assert (growth <= mass + 1e-14).all()
    what = f"growth of scores, 117 dropped rows {below} below the best"
    record_parity(what, growth.max().item(), len(dropped) * math.exp(-below))
