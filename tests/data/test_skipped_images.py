"""Training images that can't be used: left out, replaced, counted, and too many of them refused."""

import itertools
import logging
import traceback
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from detr_d2.data.loader import RepeatableDataset, RepeatableSampler, build_train_loader
from detr_d2.data.skipped_images import SkippedImages

DICTS = [{"file_name": f"{number}.jpg"} for number in range(10)]
LOGGER = "detr_d2.data.skipped_images"


def map_except(*bad, error=ValueError):
    def mapper(image):
        number = int(image["file_name"].split(".")[0])
        if number in bad:
            torch.rand(3)  # what failed has drawn, too
            raise error(f"{image['file_name']}: damaged")
        return number, torch.rand(1).item()

    return mapper


def draws(dataset, count=60):
    sampler = RepeatableSampler(len(dataset), seed=5)
    return [dataset[item] for item in itertools.islice(sampler, count)]


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, OSError])
def test_bad_images_are_replaced_by_good_ones(error, caplog):
    dataset = RepeatableDataset(DICTS, map_except(3, 7, error=error), 5, SkippedImages(10, 0.2))
    with caplog.at_level(logging.WARNING, LOGGER):
        drawn = draws(dataset)
    assert len(drawn) == 60 and {number for number, _ in drawn} == set(range(10)) - {3, 7}
    first, second = (record.getMessage() for record in caplog.records)  # once an image
    assert "1 of 10 images skipped so far (10.0%)" in first and "damaged" in first
    assert "2 of 10 images skipped so far (20.0%)" in second
    assert {text.split("another: ")[1].split(":")[0] for text in (first, second)} == {
        "3.jpg",
        "7.jpg",
    }


def test_good_images_are_drawn_as_without_bad_ones():
    usual = draws(RepeatableDataset(DICTS, map_except(), 5))
    skipping = draws(RepeatableDataset(DICTS, map_except(3), 5, SkippedImages(10, 0.1)))
    differ = [one[0] for one, other in zip(usual, skipping, strict=True) if one != other]
    assert differ == [3] * 6


def test_a_replacement_depends_on_the_draw_alone():
    def dataset():
        return RepeatableDataset(DICTS, map_except(3, 7), 5, SkippedImages(10, 0.2))

    whole = draws(dataset())
    assert draws(dataset()) == whole
    later = itertools.islice(RepeatableSampler(10, seed=5, start=23), 37)
    resumed = dataset()
    assert [resumed[item] for item in later] == whole[23:]
    replaced = [
        number
        for (number, _), (index, _) in zip(
            whole, itertools.islice(RepeatableSampler(10, seed=5), 60), strict=True
        )
        if index in (3, 7)
    ]
    assert len(replaced) == 12 and len(set(replaced)) > 3  # not always the same


def test_too_many_bad_images_stop_training():
    dataset = RepeatableDataset(DICTS, map_except(1, 3, 7), 5, SkippedImages(10, 0.2))
    with pytest.raises(ValueError, match=r"3 of 10 .*MAX_SKIPPED \(20\.0%\).*\d\.jpg: damaged"):
        draws(dataset)


@pytest.mark.parametrize("max_share", [0, 0.5, 0.99])
def test_nothing_but_bad_images_comes_to_an_end(max_share):
    dataset = RepeatableDataset(DICTS, map_except(*range(10)), 5, SkippedImages(10, max_share))
    with pytest.raises(ValueError, match="MAX_SKIPPED"):
        _ = dataset[0, 0]


def test_without_skipping_errors_come_through():
    with pytest.raises(OSError, match=r"^3\.jpg: damaged$"):
        draws(RepeatableDataset(DICTS, map_except(3, error=OSError), 5))


def test_other_errors_are_never_skipped():
    dataset = RepeatableDataset(DICTS, map_except(3, error=KeyError), 5, SkippedImages(10, 0.9))
    with pytest.raises(KeyError):
        draws(dataset)


# --- Through the config, with files ---


@pytest.fixture
def damaged(make_tiny_cfg, tmp_path, registry):
    """Makes a config whose training images are, of ten scenes, damaged in the given places."""
    from detr_d2.data.shapes.shapes_dataset import register_shapes_split

    register_shapes_split("damaged_shapes", tmp_path / "shapes", "train", 10)
    dicts = DatasetCatalog.get("damaged_shapes")
    metadata = MetadataCatalog.get("damaged_shapes")
    assert metadata.image_root.startswith(str(tmp_path))

    def make(*places, **options):
        for place in places:
            Path(dicts[place]["file_name"]).write_bytes(b"no picture")
        settings = {"DATASETS.TRAIN": ("damaged_shapes",), "SOLVER.IMS_PER_BATCH": 2}
        settings |= {f"DATALOADER.{key}": value for key, value in options.items()}
        flat = [part for setting in settings.items() for part in setting]
        return make_tiny_cfg(tmp_path / "output", *flat), [dicts[p]["file_name"] for p in places]

    return make


def names(loader, count=20):
    batches = itertools.islice(loader, count)
    return [image["file_name"] for batch in batches for image in batch]


def refusal(loader) -> str:
    """What loading is refused with."""
    with pytest.raises(ValueError) as caught:
        names(loader)
    # PyTorch's error refers to itself. Workers whose loader is left to the garbage collector are
    # waited for in vain, for seconds.
    traceback.clear_frames(caught.tb)
    return str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_stops_training_by_default(damaged, workers):
    cfg, (bad,) = damaged(4, NUM_WORKERS=workers)
    assert f"{bad}: cannot be read as an image" in refusal(build_train_loader(cfg))


def test_workers_skip_the_same_images_and_name_them(damaged, tmp_path):
    log = tmp_path / "log.txt"
    handler = logging.FileHandler(log)
    logger = logging.getLogger(LOGGER)
    drawn = []
    for workers in (0, 2):
        cfg, bad = damaged(4, 6, ON_ERROR="skip", MAX_SKIPPED=0.2, NUM_WORKERS=workers)
        logger.addHandler(handler)
        try:
            drawn.append(names(build_train_loader(cfg)))
        finally:
            logger.removeHandler(handler)
        lines = log.read_text().splitlines()
        assert [sum(name in line for line in lines) for name in bad] == [1, 1]
        assert any("2 of 10 images skipped so far (20.0%)" in line for line in lines)
        log.write_text("")
    handler.close()
    assert drawn[0] == drawn[1] and len(drawn[0]) == 40
    assert not set(bad) & set(drawn[0])


def test_processes_count_together():
    skipped = SkippedImages(10, 0.3)
    error = ValueError("damaged")
    for number in (1, 2, 2, 5):
        worker = get_context("fork").Process(target=skipped.add, args=(number, "x.jpg", error))
        worker.start()
        worker.join()
        assert worker.exitcode == 0
    with pytest.raises(ValueError, match=r"4 of 10 images skipped .*x\.jpg: damaged"):
        skipped.add(7, "x.jpg", error)


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_damaged_files_stop_training(damaged, workers):
    cfg, _ = damaged(1, 2, 5, 7, ON_ERROR="skip", MAX_SKIPPED=0.3, NUM_WORKERS=workers)
    assert "4 of 10 images skipped" in refusal(build_train_loader(cfg))


def test_annotation_at_odds_is_skipped_too(damaged, caplog):
    from PIL import Image

    cfg, (bad,) = damaged(4, ON_ERROR="skip", MAX_SKIPPED=0.1)
    Image.new("RGB", (3, 4)).save(bad)
    with caplog.at_level(logging.WARNING, LOGGER):
        assert bad not in names(build_train_loader(cfg))
    assert bad in caplog.text and "Mismatched image shape" in caplog.text
