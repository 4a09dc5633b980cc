"""Videos and webcams, read and written by OpenCV frame by frame.

Axes: H×W a frame. Frames are BGR, as OpenCV has them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

# The module that sets OpenCV's log level: cv2.utils.logging, or cv2 itself.
opencv_logging = getattr(cv2.utils, "logging", cv2)

# Container and codec, the best first: H.264 plays in browsers, MPEG-4 in players, and OpenCV can
# always write the last.
CODECS = ((".mp4", "avc1"), (".mp4", "mp4v"), (".avi", "MJPG"))
# Frames per second of sources that don't tell them.
DEFAULT_FPS = 25.0
# Number of damaged frames in a row after which reading ends.
MAX_UNREAD = 500


class VideoReader:
    """The frames of a video file, one in memory at a time.

    Attributes:
        fps: frames per second.
        num_frames: how many there should be; None where the file doesn't tell.
        num_damaged: frames that could not be read, as far as it was read.
    """

    def __init__(self, path: Path) -> None:
        """Opens a file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: OpenCV can't read it as a video.
        """
        if not path.exists():
            raise FileNotFoundError(f"{path}: there is no such file.")
        self.path = path
        capture = cv2.VideoCapture(str(path)) if path.is_file() else None
        if capture is None or not capture.isOpened():
            raise ValueError(
                f"{path}: cannot be read as a video: it is damaged or cut off, or of a kind that "
                "this OpenCV doesn't know. ffmpeg may be able to convert it: ffmpeg -i FILE new.mp4"
            )
        self._capture = capture
        self.fps = _sane_fps(capture)
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.num_frames = int(count) if math.isfinite(count) and count >= 1 else None
        self.num_damaged = 0
        self._first_damaged = 0

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._capture.release()

    def __str__(self) -> str:
        return str(self.path)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the places of frames, from 0 on, and the frames, H×W×3 uint8.

        Damaged frames are left out.

        Raises:
            ValueError: none of the frames can be read.
        """
        place = unread = 0  # frames so far, and how many are damaged since the last good one
        expected = self.num_frames or 0
        # Frames may be damaged in the middle: the number of frames says whether to go on.
        while unread == 0 or (place < expected and unread < MAX_UNREAD):
            frame = _read(self._capture)
            if frame is not None:
                self._count_damaged(place, unread)
                unread = 0
                yield place, frame
            else:
                unread += 1
            place += 1
        if unread == place:
            raise ValueError(f"{self.path}: no frame of this video can be read.")
        # Some files estimate the number from their duration, and tell a few frames too many.
        missing = expected - (place - unread)
        if missing > max(1, self.fps):
            self._count_damaged(expected, missing)

    def problem(self) -> str | None:
        """Says what was wrong with the frames that were read so far; None if nothing was."""
        if self.num_damaged == 0:
            return None
        first = f"frame {self._first_damaged}, at {self._first_damaged / self.fps:.2f} s"
        return (
            f"{self.path}: {self.num_damaged} of {self.num_frames} frames cannot be read and are "
            f"left out, the first of them {first}: the video is damaged or cut off there."
        )

    def _count_damaged(self, end: int, number: int) -> None:
        """Counts damaged frames, the last of which is before a place."""
        if number and self.num_damaged == 0:
            self._first_damaged = end - number
        self.num_damaged += number


class Webcam:
    """The frames of a camera, one in memory at a time, until it gives no more.

    Attributes:
        fps: frames per second, as the camera says.
    """

    def __init__(self, index: int) -> None:
        """Opens the camera of a number, from 0 on.

        Raises:
            OSError: the camera can't be opened.
        """
        with _quiet_opencv():
            self._capture = cv2.VideoCapture(index)
        if not self._capture.isOpened():
            raise OSError(
                f"Webcam {index} can't be opened: is there one, is it free, and may you use it (on "
                "Linux: /dev/video*)? --webcam takes another number than 0, too."
            )
        # Frames that wait in a longer buffer would be shown late.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self._index = index
        self.fps = _sane_fps(self._capture)

    def __enter__(self) -> Webcam:
        return self

    def __exit__(self, *error: object) -> None:
        self._capture.release()

    def __str__(self) -> str:
        return f"webcam {self._index}"

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the places of frames, from 0 on, and the frames, H×W×3 uint8.

        Raises:
            OSError: the camera gives no frame at all.
        """
        place = 0
        while True:
            frame = _read(self._capture)
            if frame is None:
                break
            yield place, frame
            place += 1
        if place == 0:
            raise OSError(f"Webcam {self._index} gives no frames: is another program using it?")


class VideoWriter:
    """Writes a video; as a context, it closes the file so that what was written can be played.

    Attributes:
        path: of the file, None before the first frame. Its suffix is that of the first of
            ``CODECS`` that OpenCV can write.
        num_frames: number of frames that were written.
    """

    def __init__(self, folder: Path, name: str, fps: float) -> None:
        """Takes the folder, the name without suffix, and the frames per second."""
        self._base = folder / name
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._size: tuple[int, ...] = ()  # of the first frame
        self.path: Path | None = None
        self.num_frames = 0

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if self._writer is None:
            return
        self._writer.release()
        # If an error is on its way, it says more than this check.
        if kind is None:
            self._check_playable()

    def write(self, frame: np.ndarray) -> None:
        """Adds a frame, H×W×3 uint8 BGR. All frames have the size of the first.

        Raises:
            OSError: the file can't be written.
            ValueError: the frame has another size.
        """
        if self._writer is None:
            self._size = frame.shape
            self._writer, self.path = self._open(frame.shape[:2])
        if frame.shape != self._size:
            raise ValueError(
                f"{self.path}: frame {self.num_frames} is {frame.shape[1]}×{frame.shape[0]}, and "
                f"those before are {self._size[1]}×{self._size[0]}."
            )
        self._writer.write(frame)
        self.num_frames += 1

    def _open(self, size: tuple[int, int]) -> tuple[cv2.VideoWriter, Path]:
        for suffix, codec in CODECS:
            path = self._base.with_name(self._base.name + suffix)
            with _quiet_opencv():
                fourcc = cv2.VideoWriter.fourcc(*codec)
                writer = cv2.VideoWriter(str(path), fourcc, self._fps, size[::-1])
            if writer.isOpened():
                return writer, path
            writer.release()
        raise OSError(
            f"{self._base}: the video cannot be written, of {size[1]}×{size[0]} pixels and with "
            f"any of the codecs {', '.join(codec for _, codec in CODECS)}. Is there room on the "
            "disk, and may you write there? If so, install an OpenCV with FFmpeg: "
            "pip install opencv-python"
        )

    def _check_playable(self) -> None:
        """Reads the first frame back, since OpenCV doesn't tell when the disk is full."""
        capture = cv2.VideoCapture(str(self.path))
        playable = capture.isOpened() and _read(capture) is not None
        capture.release()
        if not playable:
            raise OSError(f"{self.path}: what was written can't be played. Is the disk full?")


def _read(capture: cv2.VideoCapture) -> np.ndarray | None:
    """Returns the next frame, or None if there is none or it is damaged."""
    try:
        ok, frame = capture.read()
    except cv2.error:  # for some kinds of damage
        return None
    return frame if ok else None


def _sane_fps(capture: cv2.VideoCapture) -> float:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if math.isfinite(fps) and 0 < fps <= 1000 else DEFAULT_FPS


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Hides OpenCV's messages about attempts that may fail."""
    level = opencv_logging.getLogLevel()
    opencv_logging.setLogLevel(0)  # silent
    try:
        yield
    finally:
        opencv_logging.setLogLevel(level)
