"""Findings of a check and figures of the dataset: tables for people, JSON for programs."""

from __future__ import annotations

from collections import Counter, defaultdict
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
class CheckReport:
    """What is wrong with a dataset, and what it consists of.

    Attributes:
        name: of the dataset, or its JSON.
        findings: what is wrong.
        categories: the JSON's, by id.
        areas: in pixels, of the segments of each category id; crowds don't count.
        num_images: with such segments, by category id.
        heights, widths, segments_per_image: of the images.
        pixels, void_pixels: of all PNGs that could be read.
    """

    name: str
    findings: Findings = field(default_factory=Findings)
    categories: dict[int, dict] = field(default_factory=dict)
    areas: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    num_images: Counter[int] = field(default_factory=Counter)
    heights: list[int] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    segments_per_image: list[int] = field(default_factory=list)
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
        self.heights.append(task.height)
        self.widths.append(task.width)
        self.segments_per_image.append(len(task.segments))
        self.pixels += result.pixels
        self.void_pixels += result.void_pixels
        for category_id, area in result.areas:
            self.areas[category_id].append(area)
        self.num_images.update({category_id for category_id, _ in result.areas})

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
                "count": len(self.heights),
                "height": _spread(self.heights),
                "width": _spread(self.widths),
                "segments": _spread(self.segments_per_image),
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
        areas = self.areas.get(category_id, [])
        num_tiny = sum(area <= TINY_AREA for area in areas)
        return {
            "images": self.num_images[category_id],
            "segments": len(areas),
            "pixel_share": sum(areas) / self.pixels if self.pixels else None,
            "area": _spread(areas),
            "tiny_share": num_tiny / len(areas) if areas else None,
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


def _spread(values: Sequence[int]) -> dict[str, float | None]:
    if not values:
        return {"lowest": None, "mean": None, "highest": None}
    mean = round(sum(values) / len(values), 1)
    return {"lowest": min(values), "mean": mean, "highest": max(values)}


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
