"""Panoptic quality and speed of an exported model, on a dataset in COCO's panoptic format.

python -m detr_d2.deploy.graph_evaluation MODEL --json FILE --images FOLDER --panoptic FOLDER

Axes: K classes, N images.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from detr_d2.data.image_file import read_image
from detr_d2.data.panoptic_entries import PanopticEntries, read_panoptic_lists
from detr_d2.deploy.model_info import ModelError, ModelInfo, read_categories
from detr_d2.deploy.onnx_predictor import OnnxPredictor
from detr_d2.deploy.prediction_files import with_progress
from detr_d2.evaluation import GroundTruth, GroupQuality, PanopticStats, group_qualities


@dataclass(frozen=True)
class Evaluation:
    """Quality and speed of a model on a dataset.

    Attributes:
        groups: the quality of all classes, things and stuff, see ``group_qualities``.
        seconds: N times from an image in memory to its segments.
    """

    groups: dict[str, GroupQuality]
    seconds: list[float]


def evaluate(
    predictor: OnnxPredictor,
    panoptic_json: str | Path,
    image_root: str | Path,
    panoptic_root: str | Path,
) -> Evaluation:
    """Predicts on all annotated images and compares.

    Args:
        predictor: for images in RGB.
        panoptic_json, image_root, panoptic_root: the dataset.

    Raises:
        FileNotFoundError: a file is missing.
        ModelError: the dataset has other classes than the model.
        ValueError: a file is damaged, an entry of the JSON is wrong, or a name leaves its folder.
    """
    check_classes(predictor.info, panoptic_json)
    classes = predictor.info.classes
    stats, seconds = PanopticStats.zeros(len(classes)), []
    for image_path, png_path, annotated in with_progress(
        list(_annotated(panoptic_json, image_root, panoptic_root, predictor.info))
    ):
        image = read_image(image_path, "RGB", predictor.info.image_options)
        started = time.perf_counter()
        ids, found = predictor(image)["panoptic_seg"]
        seconds.append(time.perf_counter() - started)
        truth = GroundTruth.read(png_path, annotated, image=png_path)
        with truth.naming_image():
            stats += PanopticStats.of_matching(truth.match(ids, found, len(classes)))
    if not seconds:
        raise ValueError(f"{panoptic_json}: no image has an annotation.")
    groups = group_qualities(stats, [each.isthing for each in classes])
    return Evaluation(groups, seconds)


def check_classes(info: ModelInfo, panoptic_json: str | Path) -> None:
    """Checks that a dataset has the model's classes.

    Raises:
        ModelError: it has other classes.
    """
    categories = read_categories(panoptic_json)
    theirs = info.with_categories(categories, panoptic_json).classes
    differing = [
        f"{our.id} ({our.name}) and {their.id} ({their.name})"
        for our, their in zip(info.classes, theirs, strict=True)
        if our.id != their.id
    ]
    if differing:
        raise ModelError(
            f"{panoptic_json}: its classes are others than the model's, for example "
            f"{differing[-1]}. Evaluate on the data that the model was trained for."
        )


def _annotated(
    panoptic_json: str | Path, image_root: str | Path, panoptic_root: str | Path, info: ModelInfo
) -> Iterator[tuple[str, str, list[dict]]]:
    """Yields image, PNG and segments of each annotation, with contiguous classes."""
    contiguous = {each.id: k for k, each in enumerate(info.classes)}
    entries = PanopticEntries(read_panoptic_lists(panoptic_json), panoptic_json)
    images = entries.images(image_root)
    for image in entries.annotated_images(images, panoptic_root, contiguous):
        segments_info = [
            {**segment, "category_id": contiguous[segment["category_id"]]}
            for segment in image.segments
        ]
        yield image.file_name, image.png_name, segments_info


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m detr_d2.deploy.graph_evaluation",
        description=__doc__.rsplit("\n\n", 1)[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="an ONNX file of detr-d2 export")
    parser.add_argument("--json", required=True, metavar="FILE", help="panoptic annotation")
    parser.add_argument("--images", required=True, metavar="FOLDER")
    parser.add_argument("--panoptic", required=True, metavar="FOLDER", help="panoptic PNGs")
    return parser.parse_args()


def main() -> None:
    """Runs the command line."""
    args = _parse_args()
    try:
        predictor = OnnxPredictor(args.model, image_format="RGB")
        result = evaluate(predictor, args.json, args.images, args.panoptic)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{'':8}{'PQ':>8}{'SQ':>8}{'RQ':>8}{'#categories':>13}")
    for name, group in result.groups.items():
        figures = "".join(f"{100 * x:8.2f}" for x in (group.pq, group.sq, group.rq))
        print(f"{name:8}{figures}{group.num_classes:13}")
    print(
        f"{len(result.seconds)} images, {1000 * statistics.median(result.seconds):.1f} ms each "
        f"(median), file of {Path(args.model).stat().st_size / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
