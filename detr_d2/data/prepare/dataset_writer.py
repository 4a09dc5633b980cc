"""Writes a panoptic dataset: ``panoptic/`` and ``panoptic.json``, whole or not at all."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from detr_d2.data.panoptic_png import write_panoptic_png
from detr_d2.data.prepare.category_list import things_of
from detr_d2.data.prepare.class_counts import count_classes, near_twins
from detr_d2.data.prepare.prepared_segments import Segmentation, segment_ids, segments_info
from detr_d2.data.prepare.problems import PreparationError, PreparationReport
from detr_d2.data.prepare.source_files import check_file_name, png_name
from detr_d2.data.processes import map_in_processes
from detr_d2.file_io import folder_written_whole, quoted, write_json_atomically


class AnnotatedImage(Protocol):
    """An image and its annotation by a source. It can be sent to other processes."""

    @property
    def image(self) -> dict:
        """COCO's ``id`` and ``file_name``, unchecked, and whatever else is known."""

    def segmentation(self, is_thing: Mapping[int, bool]) -> Segmentation:
        """The segments. Wrong annotations are left out and listed as problems.

        Raises:
            PreparationError: the image can't be used at all.
        """


@dataclass(frozen=True)
class Source:
    """What is to be written.

    Attributes:
        categories: COCO's, complete.
        images: all of them.
        problems: those that were found before any image was read.
        notes: for the report.
        void_remedy: for datasets of things only: a sentence on how void pixels can count.
    """

    categories: list[dict]
    images: Sequence[AnnotatedImage]
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()
    void_remedy: str = "A stuff category for them, instead of void, would make them count."


@dataclass
class _Outcome:
    """The entries of an image for the JSON (None if it is left out), its counts and problems."""

    image: dict | None = None
    annotation: dict | None = None
    hidden: int = 0
    void: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def write_panoptic(
    source: Source, output: str | Path, *, skip_errors: bool = False, workers: int = 1
) -> PreparationReport:
    """Writes a dataset. Its folder gets its name when it is complete.

    Args:
        source: what is to be written.
        output: the folder to make.
        skip_errors: leave out what is wrong, and report it, instead of giving up.
        workers: number of processes that decode and write PNGs.

    Raises:
        FileExistsError: the folder is there, and not empty.
        PreparationError: an image or annotation is wrong (without ``skip_errors``), or no image
            is left.
        OSError: files can't be written, or a process has died.
    """
    report, void = PreparationReport(), 0
    content: dict[str, list] = {"images": [], "annotations": [], "categories": source.categories}
    _refuse_what_is_there(Path(output))
    with folder_written_whole(output) as folder:
        _note_problems(source.problems, report, skip_errors)
        (folder / "panoptic").mkdir()
        outcomes = _outcomes(source, folder / "panoptic", workers)
        progress = tqdm(outcomes, total=len(source.images), unit="image", disable=None)
        with closing(outcomes), progress:
            for outcome in progress:
                _note_problems(outcome.problems, report, skip_errors)
                if outcome.image is not None:
                    content["images"].append(outcome.image)
                    content["annotations"].append(outcome.annotation)
                    segments = outcome.annotation["segments_info"]
                    report.images += 1
                    report.segments += len(segments)
                    report.crowds += sum(segment["iscrowd"] for segment in segments)
                    report.hidden += outcome.hidden
                    report.counts.update(outcome.counts)
                    void += outcome.void
        if not report.images:
            raise PreparationError(
                "\n  ".join(["No image is left to be written.", *report.left_out])
            )
        report.classes = count_classes(source.categories, content["annotations"])
        twins = near_twins(category["name"] for category in source.categories)
        report.notes = [*source.notes, *twins, *_void_note(source, content["images"], void)]
        write_json_atomically(content, folder / "panoptic.json")
    return report


def _void_note(source: Source, images: Sequence[dict], void: int) -> list[str]:
    """A note on void pixels in datasets without stuff."""
    if not void or not all(category["isthing"] for category in source.categories):
        return []
    share = void / sum(image["height"] * image["width"] for image in images)
    return [
        f"All classes are things, and {share:.1%} of all pixels are void: training and PQ ignore "
        f"what is predicted there, so that objects invented there cost nothing. "
        f"{source.void_remedy}"
    ]


def _refuse_what_is_there(output: Path) -> None:
    is_empty = output.is_dir() and next(output.iterdir(), None) is None
    if output.is_symlink() or output.exists() and not is_empty:
        raise FileExistsError(f"{output} is there already; it is left as it is.")


def _note_problems(problems: Sequence[str], report: PreparationReport, skip_errors: bool) -> None:
    if problems and not skip_errors:
        raise PreparationError(problems[0])
    report.left_out.extend(problems)


def _outcomes(source: Source, folder: Path, workers: int) -> Generator[_Outcome]:
    """Writes the PNGs, and gives the outcomes in the order of the images."""
    write = partial(
        _write_image,
        folder=folder,
        is_thing=things_of(source.categories),
        colors={category["id"]: tuple(category["color"]) for category in source.categories},
    )
    named = _with_png_names(source.images)
    return map_in_processes(write, named, workers if workers > 1 else 0)


def _with_png_names(
    images: Iterable[AnnotatedImage],
) -> Iterator[tuple[AnnotatedImage, str | PreparationError]]:
    """Each image with the name of its PNG, or with the error that forbids to write it."""
    image_ids: set[int | str] = set()
    file_names: set[str] = set()
    png_names: set[str] = set()
    for annotated in images:
        try:
            image_id = annotated.image.get("id")
            if not isinstance(image_id, int | str):
                raise PreparationError(f"the image id {quoted(image_id)} is no number or text")
            file_name = check_file_name(annotated.image.get("file_name"))
            if image_id in image_ids or file_name in file_names:
                raise PreparationError(f"{quoted(file_name)}: another image has its name or id")
        except PreparationError as error:
            yield annotated, error
            continue
        image_ids.add(image_id)
        file_names.add(file_name)
        name = png_name(file_name, png_names)
        png_names.add(name.lower())
        yield annotated, name


def _write_image(
    named: tuple[AnnotatedImage, str | PreparationError],
    folder: Path,
    is_thing: Mapping[int, bool],
    colors: Mapping[int, tuple[int, int, int]],
) -> _Outcome:
    annotated, name = named
    try:
        if isinstance(name, PreparationError):
            raise name
        segmentation = annotated.segmentation(is_thing)
    except PreparationError as error:
        return _Outcome(problems=[f"image {quoted(annotated.image.get('id'))}: {error}"])
    ids = segment_ids(segmentation.segments, colors)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_panoptic_png(np.array([0, *ids])[segmentation.labels], path)
    height, width = segmentation.labels.shape
    return _Outcome(
        image={**annotated.image, "height": height, "width": width},
        annotation={
            "image_id": annotated.image["id"],
            "file_name": name,
            "segments_info": segments_info(segmentation, ids),
        },
        hidden=segmentation.hidden,
        void=int((segmentation.labels == 0).sum()),
        counts=segmentation.counts,
        problems=list(segmentation.problems),
    )
