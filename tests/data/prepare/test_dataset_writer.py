"""A dataset is there as a whole or not at all, and stays in its folder."""

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from detr_d2.data.prepare import PreparationError
from detr_d2.data.prepare import dataset_writer as dataset
from detr_d2.data.prepare.category_list import complete_categories
from detr_d2.data.prepare.dataset_writer import Source, write_panoptic
from detr_d2.data.prepare.prepared_segments import PreparedSegment, Segmentation


@dataclass(frozen=True)
class MadeUpImage:
    """One segment of stuff in the lower rows; or what goes wrong."""

    image: dict
    problems: tuple = ()
    error: Exception | None = field(default=None)

    def segmentation(self, is_thing):
        if self.error is not None:
            raise self.error
        labels = np.zeros((4, 6), np.int32)
        labels[self.image["id"] % 4 :] = 1
        return Segmentation(labels, (PreparedSegment(7),), problems=self.problems)


@dataclass(frozen=True)
class DyingImage:
    image: dict

    def segmentation(self, is_thing):
        os._exit(1)


@dataclass(frozen=True)
class SlowImage:
    image: dict

    def segmentation(self, is_thing):
        time.sleep(0.05)
        return Segmentation(np.zeros((2, 2), np.int32), ())


def made_up(image_id, file_name=None, **more) -> MadeUpImage:
    return MadeUpImage({"id": image_id, "file_name": file_name or f"{image_id}.jpg"}, **more)


@pytest.fixture
def write(tmp_path, categories):
    def run(images, output="out", problems=(), **options):
        source = Source(complete_categories(categories, "here"), images, problems)
        return write_panoptic(source, tmp_path / output, **options)

    return run


def files_of(folder: Path) -> dict[str, bytes]:
    """What is in a folder and below."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_processes_make_no_difference(write, read_back, tmp_path):
    images = [made_up(i, problems=("x",) if i == 11 else ()) for i in range(20)]
    reports = [
        write(images, name, workers=workers, skip_errors=True)
        for name, workers in (("one", 1), ("two", 2))
    ]
    assert str(reports[0]) == str(reports[1]) and reports[0].left_out == ["x"]
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert len(read_back(tmp_path / "two")) == 20


def test_sub_folders_and_endings_keep_names_apart(write, read_back, tmp_path):
    names = ["a/x.jpg", "b/x.jpg", "x.jpg", "x.png", "X.tif"]
    write([made_up(i, name) for i, name in enumerate(names)])
    segments = read_back(tmp_path / "out")
    assert list(segments) == names
    for number, name in enumerate(names):
        assert sum(map(sum, segments[name][0][2])) == 6 * (4 - number % 4)


@pytest.mark.parametrize(
    "name", ["../x.jpg", "a/../../x.jpg", "/x.jpg", "C:\\x.jpg", "a\\..\\x.jpg", "", ["x"], 3]
)
def test_nothing_leaves_the_folder(name, write, read_back, tmp_path):
    hostile = MadeUpImage({"id": 5, "file_name": name})
    with pytest.raises(PreparationError) as caught:
        write([made_up(1), hostile], "deep/out")
    assert "image 5: the file name" in str(caught.value)
    report = write([made_up(1), hostile], "deep/out", skip_errors=True)
    assert report.left_out == [str(caught.value)]
    assert list(files_of(tmp_path)) and list(read_back(tmp_path / "deep/out")) == ["1.jpg"]
    assert set(files_of(tmp_path)) == {"deep/out/panoptic.json", "deep/out/panoptic/1.png"}


@pytest.mark.parametrize("twin", [made_up(1, "b.jpg"), made_up(2, "1.jpg")])
def test_twins_are_refused(twin, write):
    with pytest.raises(PreparationError, match="another image has its name or id"):
        write([made_up(1), twin])
    assert len(write([made_up(1), twin], skip_errors=True).left_out) == 1


@pytest.mark.parametrize("image_id", [None, [1], 1.5])
def test_ids_are_numbers_or_texts(image_id, write):
    with pytest.raises(PreparationError, match="is no number or text"):
        write([MadeUpImage({"id": image_id, "file_name": "a.jpg"})])


@pytest.mark.parametrize(
    ("error", "workers"),
    [
        (PreparationError("x"), 1),
        (PreparationError("x"), 2),
        (OSError(28, "No space left"), 1),
        (OSError(28, "No space left"), 2),
        (KeyboardInterrupt(), 1),
    ],
)
def test_an_interruption_leaves_nothing(error, workers, write, tmp_path):
    with pytest.raises(type(error)):
        write([made_up(1), made_up(2, error=error), made_up(3)], workers=workers)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_at_the_end_leaves_nothing(write, tmp_path, monkeypatch):
    def fail(content, path):
        raise OSError(28, "No space left")

    monkeypatch.setattr(dataset, "write_json_atomically", fail)
    with pytest.raises(OSError, match="No space"):
        write([made_up(1)])
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_dies(write, tmp_path):
    with pytest.raises(ChildProcessError, match="--workers"):
        write([made_up(1), DyingImage({"id": 2, "file_name": "2.jpg"})], workers=2)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_no_dataset(write, tmp_path):
    """And the next one is not hindered."""
    endless = [SlowImage({"id": i, "file_name": f"{i}.jpg"}) for i in range(10_000)]
    process = multiprocessing.get_context("fork").Process(target=write, args=(endless,))
    process.start()
    while not list(tmp_path.glob(".out.*/panoptic/*.png")):
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL and not (tmp_path / "out").exists()
    assert write([made_up(1)]).images == 1
    assert set(files_of(tmp_path / "out")) == {"panoptic.json", "panoptic/1.png"}


def test_a_dataset_is_not_written_over(write, tmp_path):
    write([made_up(1)])
    before = files_of(tmp_path)
    with pytest.raises(FileExistsError, match="out is there already; it is left as it is"):
        write([made_up(2)])
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            write([made_up(2)], name)
    assert {**before, "file": b""} == files_of(tmp_path)


def test_an_empty_folder_is_used(write, tmp_path):
    (tmp_path / "out").mkdir()
    write([made_up(1)])
    assert set(files_of(tmp_path)) == {"out/panoptic.json", "out/panoptic/1.png"}


def test_what_was_wrong_before_any_image(write):
    with pytest.raises(PreparationError, match="^first$"):
        write([made_up(1)], problems=["first", "second"])
    report = write([made_up(1)], problems=["first", "second"], skip_errors=True)
    assert report.left_out == ["first", "second"]
    assert str(report).splitlines()[-3:] == [
        "2 left out because of errors:",
        "  first",
        "  second",
    ]


def test_nothing_left_is_no_dataset(write, tmp_path):
    with pytest.raises(PreparationError, match="No image is left to be written.\n  image 1: x"):
        write([made_up(1, error=PreparationError("x"))], skip_errors=True)
    with pytest.raises(PreparationError, match="No image is left"):
        write([])
    assert list(tmp_path.iterdir()) == []


def test_no_progress_bar_where_no_terminal_is(write, capsys):
    write([made_up(1)])
    assert capsys.readouterr() == ("", "")
