"""Checks the JSON alone, before any picture is read.

The JSON is read as in training and evaluation, but these stop at the first problem. A check finds
all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from detr_d2.data.check.findings import Finding
from detr_d2.data.check.label_checks import label_findings
from detr_d2.data.panoptic_entries import (
    AnnotatedImage,
    PanopticEntries,
    Problem,
    read_crowds_as_things,
)
from detr_d2.file_io import quoted


@dataclass
class AnnotationCheck:
    """Goes through the lists of a panoptic JSON.

    Attributes:
        panoptic_json: the file, for messages.
        image_root, panoptic_root: where file names start.
        num_queries: of the model.
        known_ids: category ids of the registered dataset; None: those of the JSON.
        categories: the valid ones, by id.
        crowds_as_things: see ``read_crowds_as_things``.
    """

    panoptic_json: str
    image_root: str
    panoptic_root: str
    num_queries: int
    known_ids: Collection[int] | None = None
    categories: dict[int, dict] = field(default_factory=dict)
    crowds_as_things: bool = False

    def check(self, content: dict, add: Callable[[Finding], None]) -> list[AnnotatedImage]:
        """Calls ``add`` with each finding, and returns the images whose files can be checked."""

        def tell(problem: Problem) -> None:
            message = problem.message.removeprefix(f"{self.panoptic_json}: ")
            add(Finding(problem.kind, self.panoptic_json, message))

        entries = PanopticEntries(content, self.panoptic_json, tell)
        for category in entries.categories():
            self.categories.setdefault(category["id"], category)
        known_ids = self.categories.keys() if self.known_ids is None else self.known_ids
        images = entries.images(self.image_root)
        tasks = list(entries.annotated_images(images, self.panoptic_root, known_ids))
        if self.crowds_as_things:
            things = {i for i, category in self.categories.items() if category["isthing"]}
            tasks = [
                replace(task, segments=read_crowds_as_things(task.segments, things))
                for task in tasks
            ]
        for finding in self._check_read(entries, images, tasks, known_ids):
            add(finding)
        return tasks

    def _check_read(
        self,
        entries: PanopticEntries,
        images: dict[int | str, dict],
        tasks: Sequence[AnnotatedImage],
        known_ids: Collection[int],
    ) -> Iterator[Finding]:
        for category in entries.unused_namesakes():
            yield self._finding("unused_namesake", category)
        yield from self._repeated(image["path"] for image in images.values())
        yield from self._repeated(task.png_name for task in tasks)
        for image_id in images.keys() - {task.image_id for task in tasks}:
            yield self._finding("image_without_annotation", images[image_id])
        if not tasks:
            what = f"{len(images)} images, none of them with an annotation"
            yield Finding("no_annotated_image", self.panoptic_json, what)
            return
        for task in tasks:
            yield from self._check_segments(task)
        segments = (segment for task in tasks for segment in task.segments)
        for category_id in set(known_ids) - {segment["category_id"] for segment in segments}:
            name = self.categories.get(category_id, {}).get("name")
            yield self._finding("class_without_examples", name)
        yield from label_findings(self.panoptic_json, self.categories, tasks)

    def _check_segments(self, task: AnnotatedImage) -> Iterator[Finding]:
        if not task.segments:
            yield Finding("empty_image", task.png_name, "no segments")
        targets = sum(not segment["iscrowd"] for segment in task.segments)
        if targets > self.num_queries:
            what = f"{targets}, above {self.num_queries}"
            yield Finding("too_many_segments", task.png_name, what)

    def _repeated(self, paths: Iterator[str]) -> Iterator[Finding]:
        for path, times in Counter(paths).items():
            if times > 1:
                yield Finding("duplicate_file_name", path, f"listed {times} times")

    def _finding(self, kind: str, entry: object) -> Finding:
        return Finding(kind, self.panoptic_json, quoted(entry))
