"""Findings of a check and figures of the dataset: tables for people, JSON for programs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tabulate import tabulate

from detr_d2.data.check.findings import BIASES, BREAKS, KINDS, Findings
from detr_d2.data.check.image_checks import TINY_AREA, FilesResult
from detr_d2.data.panoptic_entries import AnnotatedImage
from detr_d2.file_io import write_json_atomically

# How many findings of a kind the table shows; the JSON has more.
SHOWN_EXAMPLES = 3


@dataclass
class Spread:
    """Number, sum and extremes of values."""

    count: int = 0
    total: int = 0
    lowest: float = math.inf
    highest: float = -math.inf

    def add(self, value: int) -> None:
        self.count += 1
        self.total += value
        self.lowest, self.highest = min(self.lowest, value), max(self.highest, value)

    def figures(self) -> dict[str, float | None]:
        if self.count == 0:
            return {"lowest": None, "mean": None, "highest": None}
        mean = round(self.total / self.count, 1)
        return {"lowest": self.lowest, "mean": mean, "highest": self.highest}


@dataclass
class ClassFigures:
    """Figures of a class: areas of its segments, number of tiny ones, and number of its images."""

    areas: Spread = field(default_factory=Spread)
    num_tiny: int = 0
    num_images: int = 0


@dataclass
class CheckReport:
    """What is wrong with a dataset, and what it consists of.

    Attributes:
        name: of the dataset, or its JSON.
        findings: what is wrong.
        categories: the JSON's, by id.
        classes: figures by category id; crowds don't count.
        heights, widths, segments_per_image: of the images.
        pixels, void_pixels: of all PNGs that could be read.
    """

    name: str
    findings: Findings = field(default_factory=Findings)
    categories: dict[int, dict] = field(default_factory=dict)
    classes: dict[int, ClassFigures] = field(default_factory=dict)
    heights: Spread = field(default_factory=Spread)
    widths: Spread = field(default_factory=Spread)
    segments_per_image: Spread = field(default_factory=Spread)
    pixels: int = 0
    void_pixels: int = 0

    @property
    def breaks(self) -> bool:
        """Whether something would stop training or evaluation."""
        return bool(self.findings.of_severity(BREAKS))

    def add(self, task: AnnotatedImage, result: FilesResult) -> None:
        """Adds an image and the result of checking its files."""
        for finding in result.findings:
            self.findings.add(finding)
        self.heights.add(task.height)
        self.widths.add(task.width)
        self.segments_per_image.add(len(task.segments))
        self.pixels += result.pixels
        self.void_pixels += result.void_pixels
        for category_id, area in result.areas:
            figures = self.classes.setdefault(category_id, ClassFigures())
            figures.areas.add(area)
            figures.num_tiny += area <= TINY_AREA
        for category_id in Counter(category_id for category_id, _ in result.areas):
            self.classes[category_id].num_images += 1

    def to_dict(self) -> dict:
        """The whole report in types of JSON."""
        return {
            "dataset": self.name,
            "breaks": self.breaks,
            "findings": [
                {
                    "kind": kind,
                    "severity": KINDS[kind][0],
                    "meaning": KINDS[kind][1],
                    "count": self.findings.counts[kind],
                    "examples": [
                        {"where": finding.where, "what": finding.what}
                        for finding in self.findings.examples[kind]
                    ],
                }
                for severity in (BREAKS, BIASES)
                for kind in self.findings.of_severity(severity)
            ],
            "images": {
                "count": self.heights.count,
                "height": self.heights.figures(),
                "width": self.widths.figures(),
                "segments": self.segments_per_image.figures(),
                "void_share": self.void_pixels / self.pixels if self.pixels else None,
            },
            "classes": [
                {
                    "id": category_id,
                    "name": category["name"],
                    "isthing": bool(category["isthing"]),
                    **self._class_figures(category_id),
                }
                for category_id, category in sorted(self.categories.items())
            ],
        }

    def _class_figures(self, category_id: int) -> dict:
        figures = self.classes.get(category_id, ClassFigures())
        areas = figures.areas
        return {
            "images": figures.num_images,
            "segments": areas.count,
            "pixel_share": areas.total / self.pixels if self.pixels else None,
            "area": areas.figures(),
            "tiny_share": figures.num_tiny / areas.count if areas.count else None,
        }

    def __str__(self) -> str:
        content = self.to_dict()
        parts = [
            f"Dataset {self.name}",
            _table_of_classes(content["classes"]),
            _line_of_images(content["images"]),
            _table_of_findings(content["findings"]),
            self._verdict(),
        ]
        return "\n\n".join(part for part in parts if part)

    def _verdict(self) -> str:
        if self.breaks:
            return "This dataset would break training or evaluation."
        if self.findings.of_severity(BIASES):
            return "Nothing would break; look at what biases results."
        return "Nothing is wrong."


def write_reports(reports: Sequence[CheckReport], path: str) -> None:
    """Writes reports as JSON: ``{"datasets": [...]}``."""
    write_json_atomically({"datasets": [report.to_dict() for report in reports]}, path)


def _table_of_classes(classes: list[dict]) -> str:
    rows = [
        [
            c["id"],
            c["name"],
            "thing" if c["isthing"] else "stuff",
            c["images"],
            c["segments"],
            _percent(c["pixel_share"]),
            *c["area"].values(),
            _percent(c["tiny_share"]),
        ]
        for c in classes
    ]
    headers = ["id", "class", "", "images", "segments", "pixels"]
    headers += ["least area", "mean", "largest", f"≤ {TINY_AREA} pixels"]
    return tabulate(rows, headers, floatfmt=".1f", disable_numparse=[1]) if rows else ""


def _line_of_images(images: dict) -> str:
    parts = [f"{images['count']} images"]
    for what in ("height", "width", "segments"):
        lowest, mean, highest = images[what].values()
        if mean is not None:
            parts.append(f"{what} {lowest} … {highest} (mean {mean})")
    return ", ".join([*parts, f"void {_percent(images['void_share'])}"])


def _table_of_findings(findings: list[dict]) -> str:
    rows = []
    for finding in findings:
        rows.append([finding["severity"], finding["count"], finding["meaning"]])
        shown = finding["examples"][:SHOWN_EXAMPLES]
        rows.extend(["", "", f"  {example['where']}: {example['what']}"] for example in shown)
        if finding["count"] > len(shown):
            rows.append(["", "", f"  and {finding['count'] - len(shown)} more"])
    headers = ["severity", "number", "what"]
    return tabulate(rows, headers, disable_numparse=True) if rows else ""


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"
