"""Finds labels that are valid but make training or evaluation worse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from detr_d2.data.check.check_report import CheckReport
from detr_d2.data.check.findings import Finding
from detr_d2.data.panoptic_entries import AnnotatedImage
from detr_d2.file_io import quoted


def label_findings(
    where: str, categories: Mapping[int, dict], tasks: Sequence[AnnotatedImage]
) -> Iterator[Finding]:
    """Finds such labels in the JSON.

    Args:
        where: the JSON, for messages.
        categories: the valid ones, by id.
        tasks: the annotated images.
    """
    crowds: Counter[int] = Counter()
    targets: Counter[int] = Counter()
    in_parts: Counter[int] = Counter()
    num_in_parts = 0
    for task in tasks:
        found = Counter(s["category_id"] for s in task.segments if not s["iscrowd"])
        targets.update(found)
        crowds.update(s["category_id"] for s in task.segments if s["iscrowd"])
        repeated = [
            class_id
            for class_id, number in found.items()
            if number > 1 and class_id in categories and not categories[class_id]["isthing"]
        ]
        in_parts.update(repeated)
        num_in_parts += bool(repeated)
    for class_id, number in crowds.items():
        if class_id in categories and not targets[class_id]:
            category = categories[class_id]
            what = (
                f"{quoted(category['name'])}: its {number} segments are crowds, which training "
                "leaves out and evaluation ignores"
            )
            if category["isthing"]:
                what += ". If each is one object, set DATASETS.CROWDS_AS_THINGS True"
            yield Finding("class_of_crowds_alone", where, what)
    if num_in_parts:
        names = [categories[class_id]["name"] for class_id, _ in in_parts.most_common(3)]
        what = (
            f"{num_in_parts} of {len(tasks)} images, most often of {quoted(names)}: predictions "
            "have one segment of a stuff class, so that in evaluation at most one of these is found"
        )
        if not any(category["isthing"] for category in categories.values()):
            what += (
                ". No category is a thing; if classes have objects that can be counted, give them "
                "isthing: 1"
            )
        yield Finding("stuff_in_parts", where, what)


def pixel_findings(where: str, report: CheckReport) -> Iterator[Finding]:
    """Finds such labels by the pixels of all images.

    Args:
        where: the JSON, for messages.
        report: with all images.
    """
    if not report.pixels:
        return
    # Other findings that break may be the reason, and must be corrected first.
    if not report.breaks and not report.areas:
        what = f"{len(report.heights)} images, all of them without segments, of crowds or void"
        yield Finding("no_target", where, what)
    has_stuff = any(not category["isthing"] for category in report.categories.values())
    if not has_stuff and report.categories and report.void_pixels:
        what = (
            f"{report.void_pixels / report.pixels:.1%} of the pixels are void, and no category is "
            "stuff: objects that a model invents there cost nothing in PQ. A stuff class for the "
            "background makes them count"
        )
        yield Finding("void_background", where, what)
