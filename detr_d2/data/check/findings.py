"""What can be wrong with a dataset, how bad that is, and what was found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

BREAKS, BIASES = "breaks", "biases"
# How many findings of a kind are kept. All are counted.
MAX_EXAMPLES = 100

# Kinds of faults. Each either stops training or evaluation ("breaks") or makes results worse
# without notice ("biases"), and has a short description.
KINDS = {
    "malformed_entry": (BREAKS, "entries of the JSON that lack something, or make no sense"),
    "isthing_not_boolean": (BREAKS, "categories whose isthing is neither 0, 1, false nor true"),
    "duplicate_category": (BREAKS, "categories with the id or name of another"),
    "duplicate_image_id": (BREAKS, "images with the id of another"),
    "duplicate_annotation": (BREAKS, "images that are annotated twice"),
    "no_target": (BREAKS, "datasets with nothing to learn from: training refuses to begin"),
    "no_annotated_image": (BREAKS, "datasets without any annotated image"),
    "annotation_without_image": (BREAKS, "annotations of images that the JSON lacks"),
    "duplicate_segment_id": (BREAKS, "segments with the id of another in their image"),
    "unknown_category": (BREAKS, "segments of a category that the dataset lacks"),
    "unreadable_image": (BREAKS, "images that can't be read"),
    "unreadable_png": (BREAKS, "panoptic PNGs that can't be read"),
    "dark_image": (BIASES, "images of 16 bits that use few of them"),
    "too_bright_image": (BIASES, "images of 16 bits with values above INPUT.DEEP_RANGE"),
    "image_size": (BREAKS, "images of another size than the JSON says"),
    "png_size": (BREAKS, "panoptic PNGs of another size than the JSON says"),
    "ids_not_in_json": (BREAKS, "panoptic PNGs with segment ids that the JSON lacks"),
    "ids_not_in_png": (BIASES, "segments without any pixel in the PNG"),
    "wrong_area": (BIASES, "segments of another area than the JSON says"),
    "wrong_box": (BIASES, "segments of another box than the JSON says"),
    "duplicate_file_name": (BIASES, "images or PNGs that are listed twice"),
    "image_without_annotation": (BIASES, "images without annotation: they are left out"),
    "empty_image": (BIASES, "images without any segment"),
    "all_void": (BIASES, "panoptic PNGs that are void all over"),
    "unused_namesake": (BIASES, "categories left out: another has the name, no segment uses them"),
    "class_without_examples": (BIASES, "classes without any segment to learn from"),
    "class_of_crowds_alone": (BIASES, "classes whose segments are all crowds"),
    "stuff_in_parts": (BIASES, "datasets with several segments of a stuff class in an image"),
    "void_background": (BIASES, "datasets of things only, with a void background"),
    "too_many_segments": (BIASES, "images with more segments than queries, which can't find all"),
    "tiny_segment": (BIASES, "segments of so few pixels that none is predicted"),
}


@dataclass(frozen=True)
class Finding:
    """A fault of a dataset.

    Attributes:
        kind: a key of ``KINDS``.
        where: the file.
        what: details, for people.
    """

    kind: str
    where: str
    what: str


@dataclass
class Findings:
    """All findings of a check, in bounded memory.

    Attributes:
        counts: of each kind.
        examples: the first of each kind.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Finding]] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        self.counts[finding.kind] += 1
        examples = self.examples.setdefault(finding.kind, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(finding)

    def of_severity(self, severity: str) -> list[str]:
        """The kinds that were found, in the order of ``KINDS``."""
        return [kind for kind in KINDS if self.counts[kind] and KINDS[kind][0] == severity]
