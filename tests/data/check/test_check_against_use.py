"""What the check says of a panoptic JSON, against what training and evaluation make of it.

One field at a time holds what some tool may write there. The check finds that something breaks
where, and only where, one of the uses raises; else all of them count the same segments.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from detr_d2.data import DetrDatasetMapper
from detr_d2.data.categories import PanopticClasses
from detr_d2.data.panoptic_dataset import get_dataset_dicts
from detr_d2.data.register import register_panoptic
from detr_d2.data.required_targets import require_targets
from detr_d2.evaluation import PanopticEvaluator, write_thing_instances

pytestmark = pytest.mark.usefixtures("registry")

NAME = "check_against_use"
MISSING = object()
VALUES = [
    *(None, "", "0", "1", "x", "7", " 1", "1.0", 0, 1, -1, 2, 5, 7, 0.0, 1.0, 1.5, -0.0),
    *(True, False, [], {}, [0], [None] * 3, "#2080c0", "#x", "sub\\0.png", "..\\0.png", "0.png"),
    *(2**24 - 1, 2**24, 2**31, 2**63, 2**70, 1e300, float("nan"), float("inf"), MISSING),
]
CATEGORY = ("categories", 0)
ANNOTATION = ("annotations", 0)
SEGMENT = (*ANNOTATION, "segments_info", 0)
PATHS = [
    *((*CATEGORY, key) for key in ("id", "name", "isthing", "color", "supercategory")),
    *(("images", 0, key) for key in ("id", "file_name", "height", "width", "license")),
    *((*ANNOTATION, key) for key in ("image_id", "file_name", "segments_info")),
    *((*SEGMENT, key) for key in ("id", "category_id", "iscrowd", "area", "bbox", "isthing")),
    *(CATEGORY, ("images", 0), ANNOTATION, SEGMENT),
    *(("categories",), ("images",), ("annotations",)),
]
# Fields that say the same, and are changed together.
PAIRS = [
    (("images", 0, "id"), (*ANNOTATION, "image_id")),
    ((*CATEGORY, "id"), (*SEGMENT, "category_id")),
    ((*SEGMENT, "iscrowd"), (*ANNOTATION, "segments_info", 1, "iscrowd")),
]


def changed(content: dict, paths: tuple, value: object) -> dict:
    content = copy.deepcopy(content)
    for *parents, key in paths:
        entry = content
        for parent in parents:
            entry = entry[parent]
        if value is not MISSING:
            entry[key] = value
        elif isinstance(entry, list):
            del entry[key]
        else:
            entry.pop(key, None)
    return content


@pytest.fixture
def use(dataset) -> Iterator[Callable[[], dict[str, dict]]]:
    """Trains and evaluates on what is written, but for the model: the targets that each counts."""
    instances = dataset.folder / "instances.json"

    def count() -> dict[str, dict]:
        DatasetCatalog.pop(NAME, None)
        MetadataCatalog.pop(NAME, None)
        classes = PanopticClasses.from_metadata(register_panoptic(NAME, *dataset.paths))
        dicts = get_dataset_dicts([NAME])
        require_targets(dicts, [NAME])
        mapper = DetrDatasetMapper(
            is_train=True,
            augmentations=[],
            image_format="RGB",
            num_classes=len(classes.names),
            with_masks=True,
        )
        evaluator = PanopticEvaluator(NAME, dataset_dicts=dicts)
        targets: Counter[int] = Counter()
        for record in dicts:
            found = mapper(copy.deepcopy(record))
            targets.update(classes.dataset_ids[k] for k in found["instances"].gt_classes.tolist())
            void = torch.zeros(found["image"].shape[1:], dtype=torch.int32)
            evaluator.process([record], [{"panoptic_seg": (void, [])}])
        write_thing_instances(NAME, instances, dataset_dicts=dicts)
        written = json.loads(instances.read_text())["annotations"]
        missed = zip(classes.dataset_ids, evaluator._stats.fn.tolist(), strict=True)
        things = {classes.dataset_ids[k] for k in classes.things}
        return {
            "training": dict(targets),
            "PQ": {class_id: number for class_id, number in missed if number},
            "AP": dict(Counter(a["category_id"] for a in written if not a["iscrowd"])),
            "things": {
                class_id: number for class_id, number in targets.items() if class_id in things
            },
        }

    yield count
    DatasetCatalog.pop(NAME, None)
    MetadataCatalog.pop(NAME, None)


def tried(action: Callable) -> tuple[object, str]:
    """What it returns; or else what it refuses. Other errors come through: they are no answer."""
    try:
        return action(), ""
    except (OSError, ValueError) as error:
        return None, f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(
    "paths", [*((path,) for path in PATHS), *PAIRS], ids=lambda p: "+".join(map(str, p[-1]))
)
def test_the_check_breaks_where_a_use_does(dataset, use, paths):
    content = dataset.content
    for name in ("images", "annotations"):
        del content[name][1:]
    for value in VALUES:
        dataset.content = changed(content, paths, value)
        report, refused = tried(dataset.check)
        breaks = bool(refused) or report.breaks
        counts, error = tried(use)
        what = f"{value!r}: {error or 'used'}, {refused or dict(report.findings.counts)}"
        assert breaks == bool(error), what
        if breaks:
            assert refused or report.findings.examples, what
            assert str(dataset.folder) in error or NAME in error, what
            continue
        figures = {c["id"]: c["segments"] for c in report.to_dict()["classes"] if c["segments"]}
        assert figures == counts["training"] == counts["PQ"], what
        assert counts["AP"] == counts["things"], what


def test_a_png_written_as_bgr_is_named_so_by_all(dataset, use):
    colors = np.asarray(Image.open(dataset.png(1)))
    Image.fromarray(np.ascontiguousarray(colors[..., ::-1])).save(dataset.png(1))
    report = dataset.check()
    (example,) = report.findings.examples["ids_not_in_json"]
    assert "written as BGR" in example.what
    with pytest.raises(ValueError, match=r"1\.png has segment ids .*written as BGR"):
        use()
    dicts = get_dataset_dicts([NAME])
    void = torch.zeros(dicts[1]["height"], dicts[1]["width"], dtype=torch.int32)
    with pytest.raises(ValueError, match=r"1\.png\): ground truth: .*written as BGR"):
        PanopticEvaluator(NAME).process([dicts[1]], [{"panoptic_seg": (void, [])}])
    with pytest.raises(ValueError, match=r"1\.png\): segments_info lacks .*written as BGR"):
        write_thing_instances(NAME, dataset.folder / "instances.json")
