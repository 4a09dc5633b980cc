"""The metadata of an exported file. With them, the file can be used without its config."""

from __future__ import annotations

from detectron2.config import CfgNode

from detr_d2 import __version__
from detr_d2.data.categories import PanopticClasses
from detr_d2.export.export_options import ExportOptions

# Name of the entry in ONNX's metadata, and, with ".json", of the extra file of torch.export.
METADATA_KEY = "detr_d2"
METADATA_FORMAT = 1


def describe(cfg: CfgNode, options: ExportOptions, classes: PanopticClasses | None) -> dict:
    """Returns the metadata of a file, in JSON's types.

    Args:
        cfg: the config of the model.
        options: options of the export.
        classes: classes of the model.

    Raises:
        ValueError: the classes aren't known.
    """
    if classes is None:
        raise ValueError(
            "DATASETS.TEST: no dataset tells the names and colours of the classes, which the file "
            "has to hold, and MODEL.WEIGHTS doesn't either. Name a dataset whose files exist."
        )
    detr = cfg.MODEL.DETR
    return {
        "format": METADATA_FORMAT,
        "form": options.form,
        "version": __version__,
        "config_version": cfg.VERSION,
        "classes": classes.categories(),
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
