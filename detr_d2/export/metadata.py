"""What travels in an exported file beside the graph, so that it can be used without its config."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from detr_d2 import __version__
from detr_d2.data.categories import PanopticClasses, classes_of, resolve_classes
from detr_d2.export.options import ExportOptions
from detr_d2.visualization.colors import class_color

# The entry's name in the metadata of ONNX, and, with ".json", among the files of torch.export.
METADATA_KEY = "detr_d2"
METADATA_FORMAT = 1


def describe(cfg: CfgNode, options: ExportOptions) -> dict:
    """The metadata of a file, of types that JSON has.

    Args:
        cfg: of the model.
        options: what is exported.

    Raises:
        ValueError: no dataset of the config tells the classes.
    """
    detr = cfg.MODEL.DETR
    return {
        "format": METADATA_FORMAT,
        "form": options.form,
        "version": __version__,
        "config_version": cfg.VERSION,
        "classes": _classes(cfg),
        "score_thresh": detr.TEST.SCORE_THRESH,
        "stuff_merging": detr.TEST.STUFF_MERGING,
        "min_area": detr.TEST.MIN_AREA,
        "pixel_mean": list(cfg.MODEL.PIXEL_MEAN),
        "pixel_std": list(cfg.MODEL.PIXEL_STD),
        "input_format": cfg.INPUT.FORMAT,
        "deep_range": cfg.INPUT.DEEP_RANGE,
        "ignore_exif": cfg.INPUT.IGNORE_EXIF,
        "min_size": cfg.INPUT.MIN_SIZE_TEST,
        "max_size": cfg.INPUT.MAX_SIZE_TEST,
        "fixed_size": list(options.size) if options.size else None,
        "top_k": options.top_k,
        "num_queries": detr.NUM_QUERIES,
    }


def _classes(cfg: CfgNode) -> list[dict]:
    classes = resolve_classes(cfg)
    if classes is None:
        raise ValueError(
            "DATASETS.TEST: no dataset tells the names and colours of the classes, which the file "
            "has to hold. Name one whose files are there."
        )
    metadata = MetadataCatalog.get(_dataset_of(classes, cfg))
    colors = (class_color(metadata, k, thing) for k, thing in enumerate(classes.is_thing))
    return [
        {"id": int(id_), "name": name, "isthing": bool(thing), "color": [int(c) for c in color]}
        for id_, name, thing, color in zip(
            classes.dataset_ids, classes.names, classes.is_thing, colors, strict=True
        )
    ]


def _dataset_of(classes: PanopticClasses, cfg: CfgNode) -> str:
    names = [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN]
    return next(name for name in names if classes_of(name) is not None)
