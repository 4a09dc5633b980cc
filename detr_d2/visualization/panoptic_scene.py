"""The segments of one image, in the form in which they are drawn and tracked.

Axes: H×W the image, n its segments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from detectron2.structures import Instances

# Segments that a scene can hold, since places are 16-bit integers.
MAX_SEGMENTS = 2**16 - 1


@dataclass(frozen=True)
class SceneSegment:
    """One thing, or all stuff of one class.

    Attributes:
        id: as ``panoptic_seg`` has it, or the number of its track.
        class_id: contiguous.
        is_thing: whether it can be counted.
        score: in [0, 1]; None for annotations.
        box: its left, upper, right and lower edge in pixels, as predicted; None where unknown.
    """

    id: int
    class_id: int
    is_thing: bool
    score: float | None = None
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class PanopticScene:
    """The segments of an image.

    Attributes:
        places: H×W uint16: 0 where there is nothing, k where ``segments[k - 1]`` is. None for a
            model that has boxes alone.
        segments: n.
        size: H, W.
    """

    places: np.ndarray | None
    segments: tuple[SceneSegment, ...]
    size: tuple[int, int]

    @classmethod
    def from_output(cls, output: dict, min_score: float) -> PanopticScene:
        """Makes a scene of what the model returned for one image.

        The scene has the panoptic segments, or the instances if there are none.

        Args:
            output: with ``panoptic_seg`` or ``instances``. Segments get boxes if it has ``raw``.
            min_score: instances below it are left out.
        """
        if "panoptic_seg" not in output:
            return cls._from_instances(output["instances"].to("cpu"), min_score)
        ids, segments_info = output["panoptic_seg"]
        scene = cls.from_panoptic(as_array(ids), segments_info)
        if "raw" not in output:
            return scene
        height, width = scene.size
        centers, sides = np.split(as_array(output["raw"].boxes_cxcywh), 2, axis=1)
        boxes = np.concatenate([centers - sides / 2, centers + sides / 2], axis=1).clip(0, 1)
        boxes = (boxes * np.array([width, height] * 2, boxes.dtype)).tolist()
        # A thing has one query; stuff, whose boxes aren't drawn, may have several.
        segments = [
            replace(segment, box=tuple(boxes[info["queries"][0]]))
            for segment, info in zip(scene.segments, segments_info, strict=True)
        ]
        return replace(scene, segments=tuple(segments))

    @classmethod
    def from_panoptic(cls, ids: np.ndarray, segments_info: Sequence[dict]) -> PanopticScene:
        """Makes a scene of a predicted or annotated panoptic picture.

        Args:
            ids: H×W integers. Ids that no segment has show nothing.
            segments_info: Detectron2's dicts, with ``isthing``.

        Raises:
            ValueError: more than ``MAX_SEGMENTS`` segments.
        """
        if len(segments_info) > MAX_SEGMENTS:
            raise ValueError(f"{len(segments_info)} segments; at most {MAX_SEGMENTS} can be drawn.")
        known = [int(info["id"]) for info in segments_info]
        if known == list(range(1, len(known) + 1)) and ids.size and 0 <= ids.min():
            # The ids of our models are places already.
            places = np.where(ids <= len(known), ids, 0) if ids.max() > len(known) else ids
        else:
            order = np.argsort(known)
            found = np.searchsorted(np.asarray(known)[order], ids).clip(max=max(len(known) - 1, 0))
            places = np.zeros(ids.shape, np.uint16)
            if known:
                places = np.where(np.asarray(known)[order][found] == ids, order[found] + 1, 0)
        segments = tuple(
            SceneSegment(
                id=int(info["id"]),
                class_id=int(info["category_id"]),
                is_thing=bool(info["isthing"]),
                score=float(info["score"]) if "score" in info else None,
            )
            for info in segments_info
        )
        return cls(places.astype(np.uint16), segments, places.shape)

    @classmethod
    def _from_instances(cls, instances: Instances, min_score: float) -> PanopticScene:
        instances = instances[instances.scores >= min_score]
        rows = zip(
            instances.pred_boxes.tensor.tolist(),
            instances.pred_classes.tolist(),
            instances.scores.tolist(),
            strict=True,
        )
        segments = tuple(
            SceneSegment(id, class_id, True, score, tuple(box))
            for id, (box, class_id, score) in enumerate(rows, start=1)
        )
        return cls(None, segments, instances.image_size)

    @property
    def ids(self) -> np.ndarray:
        """The id of each pixel's segment: H×W int32, 0 where there is nothing."""
        return np.array([0, *(segment.id for segment in self.segments)], np.int32)[self.places]

    @property
    def segments_info(self) -> list[dict]:
        """Detectron2's dicts of the segments of ``ids``."""
        return [
            {
                "id": segment.id,
                "category_id": segment.class_id,
                "isthing": segment.is_thing,
                **({} if segment.score is None else {"score": segment.score}),
            }
            for segment in self.segments
        ]

    def numbered(self, numbers: Sequence[int]) -> PanopticScene:
        """Returns the same scene with n other ids."""
        pairs = zip(self.segments, numbers, strict=True)
        return replace(self, segments=tuple(replace(segment, id=id) for segment, id in pairs))

    def resized(self, size: tuple[int, int]) -> PanopticScene:
        """Returns the same scene at another H, W: each pixel shows the nearest one."""
        if tuple(size) == tuple(self.size):
            return self
        down, right = size[0] / self.size[0], size[1] / self.size[1]
        places = None if self.places is None else nearest(self.places, size)
        segments = [
            s if s.box is None else replace(s, box=_scaled(s.box, right, down))
            for s in self.segments
        ]
        return PanopticScene(places, tuple(segments), (size[0], size[1]))

    def regrouped(
        self, group_of: Mapping[int, int], segments: Sequence[SceneSegment]
    ) -> PanopticScene:
        """Returns a scene of other segments, which have pixels of the segments of this scene.

        Args:
            group_of: maps the index of a segment of this scene to an index of ``segments``. The
                pixels of segments that it doesn't name show nothing.
            segments: m segments.
        """
        table = np.zeros(len(self.segments) + 1, np.uint16)
        for place, group in group_of.items():
            table[place + 1] = group + 1
        places = None if self.places is None else table[self.places]
        return PanopticScene(places, tuple(segments), self.size)


def as_array(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """Returns an array as it is, and a tensor of any device as an array."""
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()


def nearest(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Brings H×W ids or a mask to another size: each pixel takes the one under its centre."""
    if ids.shape == tuple(size):
        return ids
    rows, columns = (
        ((np.arange(length) + 0.5) * (of_image / length)).astype(np.intp)
        for length, of_image in zip(size, ids.shape, strict=True)
    )
    return ids[np.ix_(rows, columns)]


def _scaled(
    box: tuple[float, float, float, float], right: float, down: float
) -> tuple[float, float, float, float]:
    left, upper, right_edge, lower = box
    return left * right, upper * down, right_edge * right, lower * down
