"""The work of merging: passes, transfers to the host, and logits at full size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from detr_d2.modeling import upsampling
from detr_d2.modeling.inference import QuerySelection
from detr_d2.modeling.inference_options import PanopticOptions
from detr_d2.modeling.merging import merge_panoptic
from detr_d2.modeling.upsampling import ImageSizes, UpsampledMasks

# One cell of the grid for each of up to forty queries.
GRID, SIZE = (2, 20), (16, 160)
SIZES = ImageSizes(SIZE, SIZE, SIZE)
CLASSES = torch.arange(60)
IS_THING = CLASSES < 45
BOTH_WAYS = pytest.mark.parametrize("stuff_merging", ["reference", "merged"])
# What makes the host wait for the device: a number that is read, or a size that must be known.
WAITS = {"_local_scalar_dense", "is_nonzero", "item", "nonzero", "masked_select", "unique2"}


def selection(classes: list[int]) -> QuerySelection:
    n = len(classes)
    return QuerySelection(torch.arange(n), torch.tensor(classes), torch.linspace(0.9, 1, n))


def cells(n: int) -> torch.Tensor:
    """Logits of n queries, each of which wins a cell of its own; the first also wins the rest."""
    logits = torch.full((n, *GRID), -5.0)
    logits[0] = -4
    logits.view(n, -1)[torch.arange(n), torch.arange(n)] = 9
    return logits


@pytest.fixture
def watch(monkeypatch, record_operations):
    """Runs a merge and tells what it did."""

    class Watched:
        def __init__(self, classes: list[int], logits: torch.Tensor, sizes=SIZES, **options):
            self.rows_of_passes: list[list[int]] = []
            self.transfers = 0
            strips, tolist, item = UpsampledMasks.strips, torch.Tensor.tolist, torch.Tensor.item

            def spy_strips(masks, rows):
                self.rows_of_passes.append(tolist(rows))
                return strips(masks, rows)

            def transfer(function):
                def spy(tensor):
                    self.transfers += 1
                    return function(tensor)

                return spy

            with monkeypatch.context() as patch, record_operations() as operations:
                patch.setattr(UpsampledMasks, "strips", spy_strips)
                for function in (tolist, item):
                    patch.setattr(torch.Tensor, function.__name__, transfer(function))
                options = replace(PanopticOptions(0.0, "reference", 4), **options)
                self.ids, self.segments = merge_panoptic(
                    selection(classes), logits, IS_THING, sizes, options
                )
            self.operations = operations

    return Watched


@BOTH_WAYS
def test_work_does_not_grow_with_the_number_of_segments(watch, stuff_merging):
    few, many = (watch(list(range(n)), cells(n), stuff_merging=stuff_merging) for n in (3, 40))
    assert len(few.segments) == 3
    assert len(many.segments) == 40
    assert many.operations.names() == few.operations.names()
    assert many.transfers == few.transfers == 1
    assert not WAITS & set(many.operations.names())


def test_stuff_costs_what_things_do(watch):
    things = watch(list(range(6)), cells(6), stuff_merging="merged")
    stuff = watch([45, 46, 47, 48, 49, 50], cells(6), stuff_merging="merged")
    repeated = watch([45, 46, 46, 45, 0, 0], cells(6), stuff_merging="merged")
    assert [len(x.segments) for x in (things, stuff, repeated)] == [6, 6, 4]
    assert things.operations.names() == stuff.operations.names() == repeated.operations.names()


@BOTH_WAYS
def test_without_a_drop_there_is_one_pass_over_every_row(watch, stuff_merging):
    watched = watch(list(range(5)), cells(5), stuff_merging=stuff_merging)
    assert watched.rows_of_passes == [list(range(SIZE[0]))]


def test_nothing_kept_costs_nothing(watch):
    watched = watch([], torch.zeros(0, *GRID))
    assert watched.rows_of_passes == []
    assert watched.transfers == 0
    assert watched.segments == [] and not watched.ids.any()


@BOTH_WAYS
def test_a_pass_after_a_drop_works_on_the_rows_that_lost_pixels_alone(watch, stuff_merging):
    """Two segments are too small; the rows between them are not looked at again."""
    sizes = ImageSizes((64, 40), (64, 40), (96, 40))
    logits = torch.full((4, 16, 10), -9.0)
    logits[0], logits[1, :, :5] = 0, 1
    logits[2, 1, 7], logits[3, 12, 2] = 20, 20
    everything = watch([0, 1, 2, 3], logits, sizes, stuff_merging=stuff_merging, min_area=0)
    assert len(everything.rows_of_passes) == 1
    small = (everything.ids == 3) | (everything.ids == 4)
    lost_rows = small.any(1).nonzero()[:, 0].tolist()
    min_area = small.sum().item()
    assert 0 < len(lost_rows) < 30
    watched = watch([0, 1, 2, 3], logits, sizes, stuff_merging=stuff_merging, min_area=min_area)
    assert len(watched.segments) == 2
    assert watched.rows_of_passes == [list(range(96)), lost_rows]
    assert watched.transfers == 2
    # The other rows stay as they were won.
    assert torch.equal(watched.ids[~small], everything.ids[~small])
    assert (watched.ids[small] <= 2).all()


def test_drops_of_queries_without_pixels_compute_no_row_again(watch):
    logits = cells(4)
    logits[2] = -20
    watched = watch([0, 1, 2, 3], logits)
    assert [s["category_id"] for s in watched.segments] == [0, 1, 3]
    assert watched.rows_of_passes == [list(range(SIZE[0])), []]


def test_each_drop_is_one_more_pass_and_transfer(watch):
    """The reference drops repeated stuff first, whose pixels then make nothing else too small."""
    watched = watch([45, 45, 45, 3], cells(4))
    assert [s["category_id"] for s in watched.segments] == [45, 3]
    assert len(watched.rows_of_passes) == watched.transfers == 2
    assert set(watched.rows_of_passes[1]) < set(watched.rows_of_passes[0])
    merged = watch([45, 45, 45, 3], cells(4), stuff_merging="merged")
    assert len(merged.rows_of_passes) == merged.transfers == 1


@pytest.mark.parametrize("min_area", [0, 10**6])
def test_the_last_drop_needs_no_further_pass(watch, min_area):
    watched = watch([0, 1], cells(2), min_area=min_area)
    assert len(watched.rows_of_passes) == watched.transfers == 1
    assert len(watched.segments) == (0 if min_area else 2)


@BOTH_WAYS
def test_logits_at_full_size_never_exceed_the_bound(monkeypatch, watch, stuff_merging):
    bound = 12 * 2 * 20 * 16
    sizes = ImageSizes((8, 80), (8, 80), (128, 160))
    logits = cells(12)
    logits[5] -= 12.5  # too small: a second pass
    expected = watch(list(range(12)), logits, sizes, stuff_merging=stuff_merging)
    monkeypatch.setattr(upsampling, "LOGITS_AT_ONCE", bound)
    watched = watch(list(range(12)), logits, sizes, stuff_merging=stuff_merging)
    assert torch.equal(watched.ids, expected.ids)
    assert watched.segments == expected.segments
    largest = {}
    for watched_one in (watched, expected):
        shapes = [
            shape
            for _, _, given in watched_one.operations.calls
            for shape, dtype in given
            if dtype == torch.float32
        ]
        largest[watched_one] = max(shape.numel() for shape in shapes)
    assert largest[watched] <= bound
    assert largest[expected] == 12 * 128 * 160
