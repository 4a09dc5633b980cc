"""A whole check: processes, bounded memory, registered datasets, and what can't be checked."""

import os
import signal

import pytest
from PIL import Image

from detr_d2.data.check import check_datasets
from detr_d2.data.check import image_checks as files
from detr_d2.data.check.findings import MAX_EXAMPLES, Finding, Findings
from detr_d2.file_io import quoted


def test_processes_find_what_one_finds(dataset):
    dataset.image(0).unlink()
    dataset.segments(2)[0]["area"] = 3
    alone, together = dataset.check(), dataset.check(workers=2)
    assert set(alone.findings.counts) == {"unreadable_image", "wrong_area"}
    assert alone.to_dict() == together.to_dict()


def die(task, options):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_is_an_error(dataset, monkeypatch):
    monkeypatch.setattr("detr_d2.data.check.dataset_check.check_files", die)
    with pytest.raises(ChildProcessError, match="died.*--workers"):
        dataset.check(workers=1)


def test_findings_are_counted_beyond_those_that_are_kept():
    findings = Findings()
    for number in range(10 * MAX_EXAMPLES):
        findings.add(Finding("wrong_area", f"{number}.png", ""))
    assert findings.counts["wrong_area"] == 10 * MAX_EXAMPLES
    assert len(findings.examples["wrong_area"]) == MAX_EXAMPLES


def test_what_files_say_is_shown_short_and_without_control_characters():
    assert len(quoted({"id": "\x1b[31m" * 10_000, "name": ["x" * 500] * 500})) < 1000
    assert "\x1b" not in quoted("\x1b[31m")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "no list 'categories'"),
        ('{"categories": [], "images": [], "annotations": {}}', "no list 'annotations'"),
        (
            '{"categories": [], "images": [], "annotations": [{"category_id": 1}]}',
            "detr-d2 prepare",
        ),
    ],
)
def test_a_json_that_is_none_of_a_panoptic_dataset_is_refused(dataset, text, message):
    from detr_d2.data.check import check_dataset

    (dataset.folder / "panoptic.json").write_text(text)
    with pytest.raises(ValueError, match=rf"panoptic\.json.*{message}"):
        check_dataset(*dataset.paths)


def test_missing_folders_and_files_are_named(dataset):
    from detr_d2.data.check import check_dataset

    dataset.write()
    images, pngs, panoptic_json = dataset.paths
    for paths in [("none", pngs, panoptic_json), (images, "none", panoptic_json)]:
        with pytest.raises(FileNotFoundError, match="no folder none"):
            check_dataset(*paths)
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        check_dataset(images, pngs, "none.json")


def test_registered_datasets_are_checked_against_what_is_registered(tiny_cfg):
    train, val = check_datasets(tiny_cfg)
    assert (train.name, val.name) == ("small_shapes_train", "small_shapes_val")
    assert (len(train.heights), len(val.heights)) == (12, 6)
    assert not train.breaks and not val.breaks
    # Five segments a scene; two of the tiny model's queries are not enough.
    tiny_cfg.MODEL.DETR.NUM_QUERIES = 2
    assert next(check_datasets(tiny_cfg)).findings.counts["too_many_segments"] == 12


def test_categories_of_the_json_that_are_not_registered_are_unknown(dataset):
    report = dataset.check(known_ids=(5, 7))
    assert report.findings.counts == {"unknown_category": 3}


def test_only_panoptic_datasets_can_be_checked(tiny_cfg, registry):
    from detectron2.data import DatasetCatalog

    DatasetCatalog.register("instances_alone", lambda: [{"file_name": "x.png"}])
    tiny_cfg.DATASETS.TRAIN = ("instances_alone",)
    with pytest.raises(ValueError, match="'instances_alone' has no panoptic annotation"):
        list(check_datasets(tiny_cfg))


@pytest.mark.parametrize("off", [-1, 1])
def test_boxes_may_be_off_by_a_pixel(dataset, off):
    dataset.segments(0)[0]["bbox"][2] += files.BOX_TOLERANCE * off
    assert not dataset.check().findings.counts


def test_all_faults_of_an_image_are_found_at_once(dataset):
    Image.new("RGB", (3, 4)).save(dataset.image(1))
    first, crowd, sky, dog = dataset.segments(1)
    first["area"], crowd["bbox"], sky["category_id"], dog["id"] = 0, [0] * 4, 6, 5
    assert dict(dataset.check().findings.counts) == {
        "unknown_category": 1,
        "image_size": 1,
        "ids_not_in_json": 1,
        "ids_not_in_png": 1,
        "wrong_area": 1,
        "wrong_box": 1,
    }
