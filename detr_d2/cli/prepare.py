"""Turns annotations of other kinds into COCO's panoptic format, and splits such a dataset.

detr-d2 prepare instances   JSON    OUTPUT [--semantic FOLDER]
detr-d2 prepare semantic    FOLDER  OUTPUT --images FOLDER --categories FILE
detr-d2 prepare cityscapes  FOLDER  OUTPUT --images FOLDER [--categories FILE]
detr-d2 prepare labelme     FOLDER  OUTPUT [--images FOLDER] [--stuff LABEL ...] [--ignore ...]
detr-d2 prepare split       JSON    OUTPUT [--val 0.1] [--seed 0]

OUTPUT is a new folder. The first four write panoptic.json and panoptic/*.png into it, completely or
not at all. The last one writes panoptic_train.json and panoptic_val.json. Images stay where they
are.

Where annotations overlap, things lie on crowds, and crowds on stuff. Of two annotations of one
kind, the smaller one lies on top; if both have the same size, the first one does. Segments without
a visible pixel are dropped and counted.

A file of categories is a JSON list as COCO has it, or a JSON with such a list as "categories":
[{"id": 1, "name": "person", "isthing": 1, "color": [220, 20, 60]}, ...]. Colours may be missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a sub-command for each source of annotations, and one that splits."""
    sources = parser.add_subparsers(dest="source", required=True)

    def add(name: str, first: str, about: str) -> argparse.ArgumentParser:
        source = sources.add_parser(name, help=about, description=about)
        kind = "JSON" if "json" in first else "FOLDER"
        source.add_argument(first, metavar=kind, help="the annotations")
        source.add_argument("output", metavar="OUTPUT", help="a new folder")
        return source

    instances = add("instances", "json_file", "COCO's instance JSON: polygons, RLEs, crowds")
    semantic = add("semantic", "folder", "semantic PNGs, whose pixels are classes")
    cityscapes = add("cityscapes", "folder", "PNGs with pixels of category·1000 + instance")
    labelme = add("labelme", "folder", "LabelMe's JSONs: polygons, rectangles, circles, masks")
    split = add("split", "panoptic_json", "splits a panoptic JSON for training and validation")

    instances.add_argument(
        "--semantic", metavar="FOLDER", help="semantic PNGs of the stuff, named like the images"
    )
    for source in (semantic, cityscapes):
        source.add_argument(
            "--images", required=True, metavar="FOLDER", help="folder of the images"
        )
    for source in (instances, labelme):
        source.add_argument(
            "--images", metavar="FOLDER", help="needed if the images are not beside the JSON"
        )
        source.add_argument(
            "--background",
            metavar="NAME",
            help="a new category of stuff for pixels without annotation; without it, they are void",
        )
    instances.add_argument(
        "--crowds-as-things",
        action="store_true",
        help="read crowds of things as single objects, such as brush masks that are marked iscrowd",
    )
    instances.add_argument("--categories", metavar="FILE", help="categories instead of the JSON's")
    semantic.add_argument(
        "--categories", required=True, metavar="FILE", help="the categories, see above"
    )
    cityscapes.add_argument(
        "--categories", metavar="FILE", help="categories instead of Cityscapes' 19"
    )
    labelme.add_argument(
        "--categories",
        metavar="FILE",
        help="categories named like the labels; without it, labels are numbered as they appear",
    )
    for source in (instances, semantic):
        source.add_argument(
            "--mapping",
            metavar="FILE",
            help='JSON {"pixel value": category id, or null for void}; without it, pixels are ids',
        )
    for source, what in (
        (instances, "values of semantic pixels"),
        (semantic, "pixel values"),
        (cityscapes, "category ids"),
    ):
        source.add_argument(
            "--ignore", type=int, nargs="+", default=[], metavar="N", help=f"{what} that are void"
        )
    semantic.add_argument(
        "--things",
        type=int,
        nargs="+",
        default=[],
        metavar="ID",
        help="categories whose connected components are instances",
    )
    semantic.add_argument(
        "--min-area",
        type=int,
        default=0,
        metavar="N",
        help="components of fewer pixels are crumbs, not instances",
    )
    semantic.add_argument(
        "--crumbs",
        choices=("void", "crowd"),
        default="void",
        help="what crumbs become: void (default), or a crowd of their category",
    )
    for option, what in (
        ("--stuff", "labels of stuff"),
        ("--ignore", "labels whose shapes are void, such as _background_ and __ignore__"),
    ):
        labelme.add_argument(option, nargs="+", default=[], metavar="LABEL", help=what)
    for source, png_suffix, image_suffix in (
        (semantic, "", ""),
        (cityscapes, "_gtFine_instanceIds", "_leftImg8bit"),
    ):
        source.add_argument(
            "--png-suffix",
            default=png_suffix,
            help="end of the PNGs' names, before .png, which the images' names lack (%(default)r)",
        )
        source.add_argument(
            "--image-suffix",
            default=image_suffix,
            help="end of the images' names which the PNGs' names lack (%(default)r)",
        )
    for source in (instances, semantic, cityscapes, labelme):
        source.add_argument(
            "--ignore-exif",
            action="store_true",
            help="take images as they are stored, not turned upright by their EXIF tags; training "
            "then needs INPUT.IGNORE_EXIF True",
        )
        source.add_argument(
            "--skip-errors",
            action="store_true",
            help="leave out what is wrong and list it; the exit status is then 1",
        )
        source.add_argument(
            "--workers", type=int, default=1, metavar="N", help="processes (default 1)"
        )
    split.add_argument("--val", type=float, default=0.1, help="share for validation (default 0.1)")
    split.add_argument("--seed", type=int, default=0, help="seed of the draw (default 0)")


def run(args: argparse.Namespace) -> int:
    """Prints what was made; the status is 1 if something was left out."""
    from detr_d2.data import prepare as preparation

    sources: dict[str, Callable[..., preparation.PreparationReport]] = {
        "instances": preparation.prepare_instances,
        "semantic": preparation.prepare_semantic,
        "cityscapes": preparation.prepare_cityscapes,
        "labelme": preparation.prepare_labelme,
        "split": preparation.split_panoptic,
    }
    options = vars(args).copy()
    report = sources[options.pop("source")](**options)
    print(report)
    return 1 if report.left_out else 0
