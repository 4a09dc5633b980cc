"""The images and segments that a page shows, grouped under headings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from detectron2.data import Metadata

from detr_d2.apps.report.mistakes import Mistake
from detr_d2.apps.report.ranking import ImageScore, places_that_differ
from detr_d2.apps.report.report_pictures import layers_of_image, picture_of_segment
from detr_d2.apps.report.report_tables import difference, number
from detr_d2.apps.report.run_record import RunRecord
from detr_d2.data.panoptic_png import read_panoptic_png

# The attributes of a ``Ranking`` that hold mistakes, and the keys of their figures.
MISTAKES = ("false_positives", "false_negatives")


def gallery(
    runs: Sequence[RunRecord], records: list[dict[str, Any]], metadata: Metadata
) -> tuple[list[dict[str, Any]], set[int]]:
    """Collects the images to show. An image that fits several groups is in the first of them.

    Args:
        runs: one or two.
        records: the dataset's dicts.
        metadata: the names and colours of the classes.

    Returns:
        The groups of images with their pictures, and the places of all these images.
    """
    scores = [{image.place: image for image in run.images} for run in runs]
    groups, shown = [], set()
    for title, places in _groups(runs):
        cards = []
        for place in places:
            if place in shown or not any(place in of_run for of_run in scores):
                continue
            shown.add(place)
            of_image = [of_run.get(place) for of_run in scores]
            predictions = [run.predictions.get(place) for run in runs]
            cards.append(
                {
                    "anchor": anchor(place),
                    "image_id": records[place]["image_id"],
                    "file_name": PurePath(records[place]["file_name"]).name,
                    "layers": layers_of_image(
                        records[place], predictions, metadata, runs[0].options.image_options
                    ),
                    "scores": [_caption(image) for image in of_image],
                    "gain": _gain(of_image),
                }
            )
        if cards:
            groups.append({"title": title, "cards": cards})
    return groups, shown


def anchor(place: int) -> str:
    """The HTML id of an image in the gallery."""
    return f"image-{place}"


def mistake_cards(
    runs: Sequence[RunRecord],
    figures: Sequence[dict[str, Any]],
    records: list[dict[str, Any]],
    shown: set[int],
) -> list[dict[str, Any]]:
    """The listed false positives and false negatives of each run, with pictures and links.

    Args:
        runs: one or two.
        figures: ``run_figures`` of each of them.
        records: the dataset's dicts.
        shown: the places of the images in the gallery.
    """
    return [
        {
            kind: [
                {
                    **figure,
                    "picture": _picture_of_mistake(kind, mistake, run, records[mistake.place]),
                    "anchor": anchor(mistake.place) if mistake.place in shown else None,
                }
                for mistake, figure in zip(
                    getattr(run.ranking, kind).items, of_run[kind], strict=True
                )
            ]
            for kind in MISTAKES
        }
        for run, of_run in zip(runs, figures, strict=True)
    ]


def _picture_of_mistake(kind: str, mistake: Mistake, run: RunRecord, record: dict[str, Any]) -> str:
    if kind == "false_positives":
        ids = run.predictions[mistake.place].ids
    else:
        ids = read_panoptic_png(record["pan_seg_file_name"])
    return picture_of_segment(record, ids == mistake.segment_id, run.options.image_options)


def _groups(runs: Sequence[RunRecord]) -> list[tuple[str, list[int]]]:
    """The headings with the places of their images."""
    if len(runs) == 1:
        ends = {"Worst": runs[0].ranking.worst, "Best": runs[0].ranking.best}
        groups = [(title, [image.place for image in top.items]) for title, top in ends.items()]
    else:
        gained, lost = places_that_differ(*(run.images for run in runs))
        groups = [("Better in B", gained), ("Worse in B", lost)]
    tops = [getattr(run.ranking, kind) for run in runs for kind in MISTAKES]
    of_mistakes = list(dict.fromkeys(mistake.place for top in tops for mistake in top.items))
    return [*groups, ("Random", runs[0].random), ("With segments listed above", of_mistakes)]


def _caption(image: ImageScore | None) -> str:
    if image is None:
        return "not predicted"
    pq = number(100 * image.pq if image.has_pq else None, 1).text
    return f"PQ {pq} · {image.tp} TP, {image.fp} FP, {image.fn} FN"


def _gain(of_runs: Sequence[ImageScore | None]) -> Any:
    """The difference of PQ between two runs, or None."""
    known = [image for image in of_runs if image is not None and image.has_pq]
    if len(known) < 2:
        return None
    return difference(*(100 * image.pq for image in known), more_is_better=True)
