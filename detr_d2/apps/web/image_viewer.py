"""One image in a model's view, whose masks can be merged again with other options.

Axes: Q queries, M heads; H×W an image, h×w the res5 grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata

from detr_d2.apps.explain.hook_recording import output_of, recording
from detr_d2.data.image_file import DEFAULT_OPTIONS, ImageOptions, read_image
from detr_d2.engine.training_stages import evaluation_config
from detr_d2.modeling.inference_options import PanopticOptions
from detr_d2.modeling.raw_prediction import RawPrediction
from detr_d2.predictor import Predictor, require_names
from detr_d2.visualization import PanopticScene, draw_view, enlarge
from detr_d2.visualization.inner_points import inner_points

# Longest side of what is predicted and shown, in pixels. Networks see about as much, and names in
# the picture stay legible on a screen.
LONGEST_SIDE = 1280


@dataclass(frozen=True, eq=False)
class Shown:
    """An image, the network's raw prediction for it, and its panoptic picture.

    Attributes:
        image: H×W×3 uint8 RGB.
        raw: the prediction from which panoptic pictures are merged.
        attention_maps: Q×M×h×w float32; None where the mask head names none.
        metadata: names and colours of the classes.
        ids: H×W int32, 0 where there is nothing.
        segments_info: what each id stands for, see ``merge_panoptic``.
        point: x and y of the pixel whose segment is explained, if any.
    """

    image: np.ndarray
    raw: RawPrediction
    attention_maps: torch.Tensor | None
    metadata: Metadata
    ids: np.ndarray
    segments_info: list[dict]
    point: tuple[int, int] | None = None

    @cached_property
    def scene(self) -> PanopticScene:
        return PanopticScene.from_panoptic(self.ids, self.segments_info)

    def merged(self, merging: PanopticOptions) -> Shown:
        """Merges the masks with other options, without another forward pass."""
        ids, segments_info = _merge(self.raw, merging)
        return replace(self, ids=ids, segments_info=segments_info)

    def pointed(self, x: int, y: int) -> Shown:
        """Returns the same image with another point, given in pixels of ``picture()``."""
        height, width = self.image.shape[:2]
        factor = self.picture_size[0] / height
        inside = [
            min(max(int(place / factor), 0), length - 1)
            for place, length in ((x, width), (y, height))
        ]
        return replace(self, point=tuple(inside))

    def pointed_at(self, segment_id: int | None) -> Shown:
        """Returns the same image with a point inside a segment; without, if there is no such id."""
        segments = self.scene.segments
        points = inner_points(self.scene.places, len(segments))
        of_id = {segment.id: point for segment, point in zip(segments, points, strict=True)}
        return replace(self, point=None if segment_id is None else of_id.get(segment_id))

    @property
    def chosen(self) -> dict | None:
        """The dict of the segment at the point; None without a point or a segment."""
        if self.point is None:
            return None
        x, y = self.point
        return next((s for s in self.segments_info if s["id"] == self.ids[y, x]), None)

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width of ``picture()``."""
        return enlarge(self.image).shape[:2]

    def picture(self) -> np.ndarray:
        """Draws the panoptic picture, RGB uint8, with ids. Small images are enlarged."""
        return draw_view(enlarge(self.image), self.scene, self.metadata, "panoptic")


class Viewer:
    """A model and its options, for the images of the page.

    Attributes:
        predictor: of the model; its outputs have ``raw`` alone.
        merging: the options of the config, with which the page begins.
    """

    def __init__(
        self,
        predictor: Predictor,
        merging: PanopticOptions,
        image_options: ImageOptions = DEFAULT_OPTIONS,
    ) -> None:
        """Makes a viewer; ``from_config`` is the usual way.

        Args:
            predictor: its outputs have ``raw``.
            merging: how masks are merged at first.
            image_options: how image files are read.
        """
        self.predictor = predictor
        self.merging = merging
        self._image_options = image_options

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Viewer:
        """Builds the model.

        Args:
            cfg: the whole config; ``MODEL.WEIGHTS`` is used as for evaluation.

        Raises:
            FileNotFoundError: there are no weights.
            ValueError: the weights don't fit, the model has no masks, or neither a dataset nor the
                weights tell the names of classes.
        """
        if not cfg.MODEL.DETR.MASK_ON:
            raise ValueError(
                "The model has no masks (MODEL.DETR.MASK_ON is False), and so no segments."
            )
        predictor = Predictor(_raw_config(evaluation_config(cfg)))
        require_names(predictor)
        merging = predictor.model.options.panoptic
        return cls(predictor, merging, ImageOptions.from_config(cfg))

    def look_at_file(self, path: str | Path, merging: PanopticOptions) -> Shown:
        """Predicts on an image file, which is shrunk if it is longer than ``LONGEST_SIDE``.

        Raises:
            FileNotFoundError, ValueError: see ``read_image``.
        """
        image = read_image(path, "RGB", self._image_options)
        factor = LONGEST_SIDE / max(image.shape[:2])
        if factor < 1:
            width, height = (max(1, round(factor * n)) for n in image.shape[1::-1])
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return self.look_at(image, merging)

    def look_at(self, image: np.ndarray, merging: PanopticOptions) -> Shown:
        """Runs the network on an image, H×W×3 uint8 RGB."""
        model = self.predictor.model
        name = model.mask_head.explained_modules().attention_maps
        with recording(model.mask_head, {} if name is None else {name: output_of}) as calls:
            raw = self.predictor(image[:, :, ::-1])["raw"]
            ids, segments_info = _merge(raw, merging)  # the mask head makes its maps here
        maps = calls[name][0][0].float() if calls.get(name) else None
        return Shown(image, raw, maps, self.predictor.metadata, ids, segments_info)


def _merge(raw: RawPrediction, merging: PanopticOptions) -> tuple[np.ndarray, list[dict]]:
    ids, segments_info = raw.panoptic(merging)
    return ids.cpu().numpy(), segments_info


def _raw_config(cfg: CfgNode) -> CfgNode:
    """Returns the config of a model that gives only raw predictions."""
    cfg = cfg.clone()
    cfg.defrost()
    test = cfg.MODEL.DETR.TEST
    test.RAW_ON, test.INSTANCES_ON, test.PANOPTIC_ON = True, False, False
    cfg.freeze()
    return cfg
