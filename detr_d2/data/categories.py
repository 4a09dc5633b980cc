"""The classes of a dataset, as Detectron2's metadata describes them.

Axes: K classes, n of them things.
"""

from __future__ import annotations

import colorsys
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog

from detr_d2.data.lent_classes import is_on_loan
from detr_d2.data.panoptic_json import class_metadata
from detr_d2.data.register import register_from_config

logger = logging.getLogger(__name__)

Color: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True)
class PanopticClasses:
    """The K classes of a panoptic dataset, things and stuff in one numbering.

    Attributes:
        names: K names.
        dataset_ids: K category ids as the dataset's files have them.
        is_thing: K flags.
        colors: K colours, each red, green, blue in 0 … 255. A class whose colour is missing or
            wrong gets a default one. Comparisons ignore colours.
    """

    names: tuple[str, ...]
    dataset_ids: tuple[int, ...]
    is_thing: tuple[bool, ...]
    colors: tuple[Color, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        colors = (
            _color_of(_entry(self.colors, k)) or default_color(k, is_thing)
            for k, is_thing in enumerate(self.is_thing)
        )
        object.__setattr__(self, "colors", tuple(colors))

    @cached_property
    def things(self) -> tuple[int, ...]:
        """The n thing classes, sorted by dataset id: COCO's API scores them in this order."""
        things = (k for k, is_thing in enumerate(self.is_thing) if is_thing)
        return tuple(sorted(things, key=lambda k: self.dataset_ids[k]))

    @classmethod
    def from_metadata(cls, metadata: Metadata) -> PanopticClasses:
        """Reads ``{thing,stuff}_dataset_id_to_contiguous_id`` and ``{thing,stuff}_classes``.

        The stuff map may repeat things, as some datasets do, as long as both agree.

        Raises:
            ValueError: things and stuff use the same class numbers (as in Detectron2's
                ``*_separated`` datasets), numbers have gaps, or names are missing.
        """
        thing_map = metadata.get("thing_dataset_id_to_contiguous_id") or {}
        stuff_map = metadata.get("stuff_dataset_id_to_contiguous_id") or {}
        where = f"dataset {metadata.name!r}"
        dataset_ids: dict[int, int] = {}
        for dataset_id, class_id in [*thing_map.items(), *stuff_map.items()]:
            other = dataset_ids.setdefault(class_id, dataset_id)
            if other != dataset_id or thing_map.get(dataset_id, class_id) != class_id:
                raise ValueError(
                    f"{where}: things and stuff are numbered separately (class {class_id} of "
                    f"category {dataset_id}), as in Detectron2's '*_separated' datasets. Panoptic "
                    "DETR needs one numbering of all classes, as 'coco_2017_val_panoptic' has."
                )
        count = len(dataset_ids)
        if count == 0 or sorted(dataset_ids) != list(range(count)):
            raise ValueError(
                f"{where}: thing_ and stuff_dataset_id_to_contiguous_id together must number the "
                f"classes 0 … K-1 without gaps, got {sorted(dataset_ids)}"
            )
        lists = [metadata.get("thing_classes") or [], metadata.get("stuff_classes") or []]
        names = next((names for names in lists if len(names) == count), None)
        if names is None:
            raise ValueError(
                f"{where}: thing_classes or stuff_classes must name all {count} classes, "
                f"they have {len(lists[0])} and {len(lists[1])} names"
            )
        things = set(thing_map.values())
        is_thing = tuple(k in things for k in range(count))
        colors = {False: metadata.get("stuff_colors"), True: metadata.get("thing_colors")}
        return cls(
            names=tuple(names),
            dataset_ids=tuple(dataset_ids[k] for k in range(count)),
            is_thing=is_thing,
            colors=tuple(_entry(colors[thing], k) for k, thing in enumerate(is_thing)),
        )

    def categories(self) -> list[dict[str, Any]]:
        """COCO's ``categories`` in JSON's types: ``id``, ``name``, ``isthing`` (a bool), ``color``.

        The order is that of contiguous ids.
        """
        return [
            {"id": int(id_), "name": str(name), "isthing": bool(thing), "color": list(color)}
            for id_, name, thing, color in zip(
                self.dataset_ids, self.names, self.is_thing, self.colors, strict=True
            )
        ]

    def metadata(self, name: str = "classes") -> Metadata:
        """Detectron2's metadata of these classes, for a dataset that isn't in the catalog."""
        return Metadata(name=name, **class_metadata(self.categories()))


def default_color(class_id: int, is_thing: bool) -> Color:
    """A colour for a class that has none: always the same, and far from its neighbours'."""
    hue = (class_id + (0 if is_thing else 0.5)) * 0.618034 % 1  # spread evenly, however many
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(hue, 0.55, 0.65))
    return red, green, blue


def _entry(values: Any, place: int) -> Any:
    """The entry of a list at a place; None if the list is too short, or no list."""
    try:
        return values[place]
    except (TypeError, LookupError):
        return None


def _color_of(value: Any) -> Color | None:
    """The colour that three numbers give; None for anything else."""
    try:
        red, green, blue = (min(max(round(float(part)), 0), 255) for part in value)
    except (TypeError, ValueError, OverflowError):
        return None
    return red, green, blue


def classes_of(dataset_name: str) -> PanopticClasses | None:
    """The classes of a dataset; None if its metadata has none or the name isn't registered.

    Lent classes don't count, see ``lent_classes``.

    Raises:
        ValueError: the classes can't be resolved, see ``PanopticClasses.from_metadata``.
    """
    metadata = MetadataCatalog.get(dataset_name)
    maps = ("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id")
    if is_on_loan(dataset_name) or not any(metadata.get(name) for name in maps):
        return None
    return PanopticClasses.from_metadata(metadata)


def resolve_classes(cfg: CfgNode) -> PanopticClasses | None:
    """The classes that all datasets of a config have.

    Datasets of ``DATASETS.PANOPTIC`` are registered first.

    Returns:
        None if no dataset has classes, for example because none is named.

    Raises:
        ValueError: datasets disagree with ``NUM_CLASSES`` or with each other, or ``NUM_CLASSES`` is
            0 and no dataset has classes.
    """
    register_from_config(cfg)
    dataset_names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    classes = first_classes(dataset_names)
    num_classes = cfg.MODEL.DETR.NUM_CLASSES or (len(classes.names) if classes else 0)
    if num_classes == 0:
        raise ValueError(
            "MODEL.DETR.NUM_CLASSES is 0, which means as many as the dataset has, but "
            + _why_unknown(dataset_names)
        )
    for name in dataset_names:
        _compare_number(num_classes, name)
    for name in dataset_names:
        others = classes_of(name)
        if classes and others and not _are_same(classes, others):
            raise ValueError(
                f"Dataset {name!r} of DATASETS has other classes than those before it, or in "
                f"another order, or other things: {', '.join(others.names)}; before it: "
                f"{', '.join(classes.names)}."
            )
    return classes


def _are_same(classes: PanopticClasses, others: PanopticClasses) -> bool:
    """Whether names, their order and things agree; dataset ids may differ."""
    return (classes.names, classes.is_thing) == (others.names, others.is_thing)


def _why_unknown(dataset_names: Sequence[str]) -> str:
    if not dataset_names:
        return "DATASETS.TRAIN and DATASETS.TEST name no dataset. Name one, or give the number."
    looked_for = [MetadataCatalog.get(name).get("panoptic_json") for name in dataset_names]
    missing = ", ".join(path for path in looked_for if path)
    return (
        f"no dataset tells its classes: {', '.join(dataset_names)}"
        + (f" ({missing} cannot be found)" if missing else "")
        + ". Give the number."
    )


def check_num_classes(cfg: CfgNode, dataset_name: str) -> None:
    """Compares ``MODEL.DETR.NUM_CLASSES`` with a dataset's classes, where both are known.

    Datasets of ``DATASETS.PANOPTIC`` are registered first.

    Raises:
        ValueError: they disagree.
    """
    register_from_config(cfg)
    if cfg.MODEL.DETR.NUM_CLASSES != 0:
        _compare_number(cfg.MODEL.DETR.NUM_CLASSES, dataset_name)


def _compare_number(num_classes: int, dataset_name: str) -> None:
    classes = classes_of(dataset_name)
    if classes is not None and len(classes.names) != num_classes:
        raise ValueError(
            f"MODEL.DETR.NUM_CLASSES is {num_classes}, but dataset {dataset_name!r} has "
            f"{len(classes.names)} classes ({len(classes.things)} of them things). "
            f"Set MODEL.DETR.NUM_CLASSES to {len(classes.names)}."
        )


def first_classes(dataset_names: Sequence[str]) -> PanopticClasses | None:
    """The classes of the first of several datasets that has any."""
    return next((c for c in map(classes_of, dataset_names) if c is not None), None)


def thing_mask(classes: PanopticClasses | None, num_classes: int) -> torch.Tensor:
    """Which classes are things. If no dataset tells the classes, all are.

    Returns:
        K bool.
    """
    if classes is not None:
        return torch.tensor(classes.is_thing)
    logger.warning(
        "No dataset in DATASETS says which classes are things and which stuff: all count as things."
    )
    return torch.ones(num_classes, dtype=torch.bool)
