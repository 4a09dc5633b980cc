"""A checkpoint of any kind: its tensors, under this project's names, and its description."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from detr_d2.checkpoint import formats
from detr_d2.checkpoint.checkpoint_errors import CheckpointError
from detr_d2.checkpoint.class_rows import ClassHead, named
from detr_d2.checkpoint.formats import NamedWeights, StateDict, to_own_names
from detr_d2.checkpoint.model_settings import OF_TORCHVISION, ModelSettings
from detr_d2.checkpoint.model_zoo import whole_model_in
from detr_d2.checkpoint.parameter_names import (
    BACKBONE,
    CLASS_HEAD,
    MASK_HEAD,
    PARTS_OF_MASK_HEADS,
)
from detr_d2.checkpoint.pretrained_backbone import PretrainedNames, read_timm
from detr_d2.checkpoint.sources import TIMM, fetch
from detr_d2.checkpoint.weight_files import read_file
from detr_d2.checkpoint.wrappers import plain_name
from detr_d2.data.categories import PanopticClasses

# The key under which this project's checkpoints hold their description.
DESCRIPTION = "detr_d2"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint.

    Attributes:
        origin: path or URL.
        named: its tensors.
        classes: all of its classes; None for files of other projects and of older versions, which
            don't describe all.
        class_names: one for each class of its head, None for a row without one; None if unknown.
        has_ids: whether the rows of its class head are category ids.
        settings: settings of the saved model.
        content: the whole content of the file, e.g. the state of the training.
    """

    origin: str
    named: NamedWeights
    class_names: tuple[str | None, ...] | None = None
    has_ids: bool = False
    classes: PanopticClasses | None = None
    settings: ModelSettings = field(default_factory=ModelSettings)
    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def class_head(self) -> ClassHead | None:
        """The class head; None if there is none, or its weight and bias don't match."""
        weight, bias = (self.named.weights.get(f"{CLASS_HEAD}{x}") for x in ("weight", "bias"))
        if weight is None or bias is None or weight.shape[:1] != bias.shape:
            return None
        names = self.class_names if len(self.class_names or ()) == len(bias) - 1 else None
        return ClassHead(len(bias), names, self.has_ids)

    @property
    def has_mask_head(self) -> bool:
        return any(name.startswith(MASK_HEAD) for name in self.named.weights)

    @property
    def mask_head(self) -> str | None:
        """The name of its mask head in ``DETR_MASK_HEAD_REGISTRY``; None if nothing tells it."""
        if self.settings.mask_head is not None or not self.has_mask_head:
            return self.settings.mask_head
        heads = (
            head
            for part, head in PARTS_OF_MASK_HEADS.items()
            if any(name.startswith(part) for name in self.named.weights)
        )
        return next(heads, None)

    @property
    def is_backbone(self) -> bool:
        """Whether it holds only a backbone."""
        return all(name.startswith(BACKBONE) for name in self.named.weights)

    @property
    def title(self) -> str:
        """A short description of the recognised format and parts."""
        if self.is_backbone:
            parts = "backbone"
        else:
            parts = "detector and mask head" if self.has_mask_head else "detector"
        prefixes = " and ".join(map(repr, self.named.taken_off))
        without = f", {prefixes} taken off its names" if prefixes else ""
        return f"{self.named.format.title} ({parts}){without}"


def read_checkpoint(path: str, pretrained: PretrainedNames | None = None) -> Checkpoint:
    """Reads a checkpoint of any known kind.

    Args:
        path: see ``fetch`` and ``read_timm``.
        pretrained: names in files of pretrained weights of the model's backbone.

    Raises:
        CheckpointNotFoundError: there is nothing at the path.
        CheckpointError: the file can't be downloaded or read, or is of no known kind.
    """
    if path.endswith(".pkl"):
        raise CheckpointError(
            whole_model_in(path)
            or f"{path} is of Detectron2's model zoo. Such backbones load as they are, by "
            "Detectron2's own rules."
        )
    if path.startswith(TIMM) and pretrained is None:
        raise CheckpointError(
            f"{path} is a backbone of timm. Such weights are for models with MODEL.BACKBONE.NAME "
            '"build_timm_backbone".'
        )
    content = read_timm(path) if path.startswith(TIMM) else read_file(fetch(path))
    try:
        return from_content(content, path, pretrained)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def from_content(
    content: Mapping[str, Any], origin: str, pretrained: PretrainedNames | None = None
) -> Checkpoint:
    """Makes a checkpoint of a file's content, which has a state dict under ``model``.

    Raises:
        CheckpointError: the state dict is of no known kind.
    """
    if pretrained is not None and pretrained.are_in(content["model"]):
        return Checkpoint(origin, pretrained.rename(content["model"]), content=content)
    weights = to_own_names(content["model"])
    class_names, has_ids, classes, settings = None, False, None, ModelSettings()
    if weights.format is formats.OWN:
        description = _mapping(content.get(DESCRIPTION))
        class_names = _own_names(description.get("class_names"))
        has_ids = description.get("has_ids") is True
        classes = _own_classes(description, weights.weights)
        settings = ModelSettings.from_dict(_mapping(description.get("settings")))
    elif weights.format is formats.REFERENCE:
        # The reference's Detectron2 wrapper is trained on contiguous classes.
        has_ids = not any(".backbone.0.backbone." in plain_name(key) for key in content["model"])
        args = content.get("args")
        settings = ModelSettings.from_reference(
            args if isinstance(args, argparse.Namespace) else None
        )
    elif weights.format is formats.HUGGING_FACE:
        config = content.get("config")  # None if the file was moved out of its folder
        settings = ModelSettings.from_hugging_face(config if isinstance(config, Mapping) else None)
        class_names = _hugging_face_names(config, weights.weights)
    elif weights.format is formats.TORCHVISION:
        settings = ModelSettings(**OF_TORCHVISION)
    return Checkpoint(origin, weights, class_names, has_ids, classes, settings, content)


def _own_names(names: object) -> tuple[str | None, ...] | None:
    """Reads the class names that ``describe`` wrote. Names that are digits may be real names."""
    if not isinstance(names, list) or not any(isinstance(name, str) for name in names):
        return None
    return tuple(name if isinstance(name, str) else None for name in names)


def _own_classes(description: Mapping, weights: StateDict) -> PanopticClasses | None:
    """Reads the classes that ``describe`` wrote; None if some are missing or don't fit the head.

    ``PanopticClasses`` replaces invalid colours by default ones.
    """
    parts: list[Any] = [description.get(key) for key in ("class_names", "dataset_ids", "is_thing")]
    num_classes = len(weights.get(f"{CLASS_HEAD}bias", ())) - 1
    for part, kind in zip(parts, (str, int, bool), strict=True):
        if not isinstance(part, list) or {type(value) for value in part} != {kind}:
            return None
        if len(part) != num_classes:
            return None
    if any(len(set(part)) < num_classes for part in parts[:2]):
        return None
    colors = description.get("colors")
    names, ids, is_thing = map(tuple, parts)
    return PanopticClasses(names, ids, is_thing, tuple(colors if isinstance(colors, list) else ()))


def _hugging_face_names(
    config: Mapping | None, weights: StateDict
) -> tuple[str | None, ...] | None:
    """Reads class names from ``id2label``, whose keys are the rows of the class head."""
    labels = _mapping(_mapping(config).get("id2label"))
    num_classes = len(weights.get(f"{CLASS_HEAD}bias", [0])) - 1
    return named([labels.get(str(row)) for row in range(num_classes)])


def _mapping(value: object) -> Mapping:
    """Returns a value of a file if it is a mapping, else an empty mapping."""
    return value if isinstance(value, Mapping) else {}


def describe(classes: PanopticClasses | None, settings: ModelSettings) -> dict[str, Any]:
    """Returns the description that this project's checkpoints hold, in plain containers."""
    keys = {"class_names": "name", "dataset_ids": "id", "is_thing": "isthing", "colors": "color"}
    categories = [] if classes is None else classes.categories()
    of_classes = {key: [category[entry] for category in categories] for key, entry in keys.items()}
    return {**of_classes, "settings": settings.to_dict()}
