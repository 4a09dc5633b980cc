"""Videos read and written, whole and damaged; cameras."""

import re

import cv2
import numpy as np
import pytest

from detr_d2.apps.demo import video
from detr_d2.apps.demo.video import VideoReader, VideoWriter, Webcam


def test_all_frames_are_read(make_video):
    with VideoReader(make_video(num_frames=30)) as reader:
        assert (reader.fps, reader.num_frames) == (10.0, 30)
        frames = list(reader)
    assert [place for place, _ in frames] == list(range(30))
    assert all(frame.shape == (64, 480, 3) for _, frame in frames)
    assert reader.problem() is None


def test_a_video_that_is_cut_off_says_where(make_video):
    path = make_video(num_frames=40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with VideoReader(path) as reader:
        read = len(list(reader))
    assert 5 < read < 30
    assert reader.num_damaged == 40 - read
    assert reader.problem().startswith(
        f"{path}: {40 - read} of 40 frames cannot be read and are left out, the first of them "
        f"frame {read}, at {read / 10:.2f} s"
    )


class Damaged:
    """A capture whose frames of given places can't be read, and that tells a number of frames.

    OpenCV returns False for most kinds of damage, and raises for some.
    """

    def __init__(self, num_frames, damaged, told):
        self.frames = [place not in damaged for place in range(num_frames)]
        self.told = told

    def isOpened(self):
        return True

    def get(self, key):
        return {cv2.CAP_PROP_FRAME_COUNT: self.told, cv2.CAP_PROP_FPS: float("nan")}[key]

    def read(self):
        ok = bool(self.frames) and self.frames.pop(0)
        if not ok and len(self.frames) % 2:
            raise cv2.error("Assertion failed: chunk.m_size <= 67108864")
        return ok, np.zeros((2, 2, 3), np.uint8) if ok else None

    def release(self):
        pass


@pytest.mark.parametrize(
    ("num_frames", "damaged", "told", "num_read", "problem"),
    [
        (50, (), 50, 50, None),
        (50, (10, 11, 40), 50, 47, r"3 of 50 .* frame 10, at 0\.40 s"),
        (50, (), 45, 50, None),  # more than it tells
        (50, (), 60, 50, None),  # by its duration, not by counting
        (50, (), 1000, 50, r"950 of 1000 .* frame 50"),
        (50, (), -1, 50, None),
        (50, (), float("nan"), 50, None),
        (50, (), 1e12, 50, "frame 50"),
    ],
)
def test_what_is_missing(monkeypatch, tmp_path, num_frames, damaged, told, num_read, problem):
    capture = Damaged(num_frames, damaged, told)
    monkeypatch.setattr(cv2, "VideoCapture", lambda path: capture)
    (tmp_path / "clip.mp4").touch()
    with VideoReader(tmp_path / "clip.mp4") as reader:
        assert reader.fps == video.DEFAULT_FPS
        assert len(list(reader)) == num_read
    assert re.search(problem or "^None$", str(reader.problem()))


def test_what_is_no_video_is_refused(tmp_path, capfd):
    path = tmp_path / "clip.mp4"
    with pytest.raises(FileNotFoundError, match=r"clip\.mp4: there is no such file"):
        VideoReader(path)
    path.write_bytes(b"no video" * 100)
    with pytest.raises(ValueError, match=r"clip\.mp4: cannot be read as a video"):
        VideoReader(path)
    with pytest.raises(ValueError, match="cannot be read as a video"):
        VideoReader(tmp_path)
    capfd.readouterr()


def test_no_frame_at_all_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(cv2, "VideoCapture", lambda path: Damaged(5, range(5), 5))
    (tmp_path / "clip.mp4").touch()
    with VideoReader(tmp_path / "clip.mp4") as reader, pytest.raises(ValueError, match="no frame"):
        list(reader)


@pytest.mark.parametrize("size", [(64, 96), (63, 95)])
def test_what_is_written_can_be_read(tmp_path, read_video, size):
    with VideoWriter(tmp_path, "clip", 12.5) as writer:
        for brightness in (0, 100, 200):
            writer.write(np.full((*size, 3), brightness, np.uint8))
    assert writer.num_frames == 3
    assert [path.name for path in tmp_path.iterdir()] == [writer.path.name]
    frames = read_video(writer.path)
    assert [round(frame.mean(), -1) for frame in frames] == [0, 100, 200]
    # Codecs that halve the colours leave out the last row and column of an odd size.
    assert frames[0].shape[:2] in (size, tuple(length // 2 * 2 for length in size))
    with VideoReader(writer.path) as reader:
        assert reader.fps == 12.5


def test_codecs_are_tried_in_turn(tmp_path, monkeypatch, read_video, capfd):
    monkeypatch.setattr(video, "CODECS", ((".mp4", "none"), (".avi", "MJPG")))
    with VideoWriter(tmp_path, "clip.1", 10) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8))
    assert writer.path == tmp_path / "clip.1.avi" and len(read_video(writer.path)) == 1
    monkeypatch.setattr(video, "CODECS", ((".mp4", "none"),))
    with pytest.raises(OSError, match="codecs none.* pip install opencv-python"):
        with VideoWriter(tmp_path, "other", 10) as writer:
            writer.write(np.zeros((16, 16, 3), np.uint8))
    capfd.readouterr()  # OpenCV's own words


def test_frames_have_one_size(tmp_path):
    with VideoWriter(tmp_path, "clip", 10) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8))
        with pytest.raises(ValueError, match="frame 1 is 20×16, and those before are 16×16"):
            writer.write(np.zeros((16, 20, 3), np.uint8))


def test_a_video_that_cannot_be_played_is_an_error(tmp_path):
    with pytest.raises(OSError, match=r"can't be played\. Is the disk full"):
        with VideoWriter(tmp_path, "clip", 10) as writer:
            writer.write(np.zeros((16, 16, 3), np.uint8))
            # What is left of it where the disk was full; nothing of the rest is ever written.
            writer._writer.release()
            writer.path.write_bytes(writer.path.read_bytes()[:40])


def test_cameras(make_video, capfd, monkeypatch):
    with pytest.raises(OSError, match=r"Webcam 98 can't be opened"):
        Webcam(98)
    assert capfd.readouterr().err == ""
    # OpenCV opens a file as it opens a camera.
    with Webcam(str(make_video(num_frames=7))) as webcam:
        assert webcam.fps == 10
        assert [place for place, _ in webcam] == list(range(7))
    capture = Damaged(3, range(3), 0)
    capture.set = lambda key, value: True
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: capture)
    with Webcam(2) as webcam, pytest.raises(OSError, match="Webcam 2 gives no frames"):
        list(webcam)


def test_damage_of_all_kinds_is_answered(make_video):
    """Decoders of damaged files raise all sorts of errors, or none."""
    path, rng = make_video(num_frames=12, size=(64, 48)), np.random.default_rng(0)
    whole = path.read_bytes()
    answers = set()
    for _ in range(40):
        content = bytearray(whole)
        for start in rng.integers(0, len(content), 3):
            content[start : start + 50] = rng.bytes(50)
        path.write_bytes(content[: rng.integers(1, 2 * len(content))])
        try:
            with VideoReader(path) as reader:
                assert len(list(reader)) <= 12
                answers.add("damaged" if reader.problem() else "read")
        except ValueError as error:
            assert str(path) in str(error)
            answers.add("refused")
    assert answers >= {"read", "refused"}
