"""The options of predictions: which outputs there are, and how they are made."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode

from detr_d2.config_checks import PART_CHECKS, require_one_of
from detr_d2.modeling.merging_rules import MERGING_RULES, MergingRule


def check_merging_rule(cfg: CfgNode) -> None:
    """Makes sure that there is the rule of merging that a config names.

    Raises:
        ValueError: there isn't; the message names those that there are.
    """
    rule = cfg.MODEL.DETR.TEST.STUFF_MERGING
    require_one_of(rule, "MODEL.DETR.TEST.STUFF_MERGING", tuple(MERGING_RULES))


PART_CHECKS.append(check_merging_rule)


@dataclass(frozen=True)
class PanopticOptions:
    """How a panoptic picture is made; the names are those of ``MODEL.DETR.TEST``.

    Attributes:
        score_thresh: queries compete with a score above it, in [0, 1].
        stuff_merging: the name of a rule in ``MERGING_RULES``.
        min_area: segments of at most so many pixels of the output are dropped.
    """

    score_thresh: float
    stuff_merging: str
    min_area: int

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: an option has a value that it can't have.
        """
        if not 0 <= self.score_thresh <= 1:
            raise ValueError(f"score_thresh is {self.score_thresh!r}, but must be in [0, 1].")
        if self.stuff_merging not in MERGING_RULES:
            rules = ", ".join(map(repr, MERGING_RULES))
            raise ValueError(
                f"stuff_merging is {self.stuff_merging!r}, but must be one of {rules}."
            )
        if self.min_area < 0:
            raise ValueError(f"min_area is {self.min_area!r}, but must be at least 0.")

    @property
    def rule(self) -> MergingRule:
        return MERGING_RULES[self.stuff_merging]


@dataclass(frozen=True)
class InferenceOptions:
    """``MODEL.DETR.TEST``: which outputs there are, and how they are made.

    Attributes:
        panoptic: how panoptic pictures are made.
        panoptic_on: whether there are any.
        instances_on: whether there are instances.
        instance_masks_on: whether instances have masks, or boxes alone.
        raw_on: whether the raw prediction is given as well.
        instance_score_thresh: instances have a score above it, in [0, 1]; None: they are the things
            that compete for the pixels of the panoptic picture.
        batch_invariant: whether the images of a batch are predicted one by one.
        precision: "float32" or "bfloat16".
    """

    panoptic: PanopticOptions
    panoptic_on: bool
    instances_on: bool
    instance_masks_on: bool
    raw_on: bool
    instance_score_thresh: float | None
    batch_invariant: bool
    precision: str

    @classmethod
    def from_config(cls, cfg: CfgNode) -> InferenceOptions:
        test = cfg.MODEL.DETR.TEST
        return cls(
            panoptic=PanopticOptions(
                score_thresh=test.SCORE_THRESH,
                stuff_merging=test.STUFF_MERGING,
                min_area=test.MIN_AREA,
            ),
            panoptic_on=test.PANOPTIC_ON,
            instances_on=test.INSTANCES_ON,
            instance_masks_on=test.INSTANCE_MASKS_ON,
            raw_on=test.RAW_ON,
            instance_score_thresh=(
                None if test.INSTANCE_SCORE_THRESH == -1 else test.INSTANCE_SCORE_THRESH
            ),
            batch_invariant=cfg.MODEL.DETR.BATCH_INVARIANT,
            precision=test.PRECISION,
        )

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """The context in which convolutions and matrix products have the wanted precision.

        For "float32" it is that of the caller, who may be in an autocast of his own.
        """
        dtype = getattr(torch, self.precision)
        return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
