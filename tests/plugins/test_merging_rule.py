"""A merging rule as a plug-in: queries of one stuff class stay apart, as things do.

Axes: n queries.
"""

import torch

from detr_d2.modeling import MERGING_RULES


class Apart:
    """Every query is a segment of its own."""

    def segments(self, classes, things, competing):
        return torch.arange(classes.shape[0], device=classes.device)

    def survives(self, areas, segment_of, min_area):
        return areas > min_area


MERGING_RULES["apart"] = Apart()


def test_it_predicts_exports_and_is_explained(travel):
    journey = travel("MODEL.DETR.TEST.STUFF_MERGING", "apart")
    assert journey.model.options.panoptic.rule is MERGING_RULES["apart"]
    assert journey.segments_info and journey.equal_ids > 0.999
    assert all(len(segment["queries"]) == 1 for segment in journey.segments_info)
