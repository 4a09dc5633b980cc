"""A window that shows the frames of a video while the model predicts them."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from contextlib import suppress

import cv2
import numpy as np

from detr_d2.visualization.labels import Label, draw_labels

KEYS_TO_CLOSE = {ord("q"), 27}  # q and Esc
# Frames over which the speed is averaged.
SPEED_FRAMES = 30
_NO_WINDOW = (
    "no window can be opened ({}). With --output FOLDER and without --window, a video is written "
    "instead."
)


class Window:
    """Shows frames, and how many of them are shown in a second."""

    def __init__(self, title: str) -> None:
        """Opens the window.

        Raises:
            OSError: there is no screen, or OpenCV was built without windows.
        """
        # OpenCV's Qt would end the process instead of raising an error.
        if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
            raise OSError(_NO_WINDOW.format("there is no screen: DISPLAY is not set"))
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            reason = (
                "this OpenCV is headless; pip uninstall opencv-python-headless and pip install "
                "opencv-python"
            )
            raise OSError(_NO_WINDOW.format(reason)) from error
        self._title = title
        self._times: deque[float] = deque(maxlen=SPEED_FRAMES + 1)

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *error: object) -> None:
        # Some of OpenCV's windows raise an error if people have closed them.
        with suppress(cv2.error):
            cv2.destroyWindow(self._title)

    def show(self, picture: np.ndarray) -> bool:
        """Shows a picture, H×W×3 uint8 RGB, until the next.

        Returns:
            Whether to go on: False after q, Esc, or the window's own button.
        """
        self._times.append(time.monotonic())
        elapsed = self._times[-1] - self._times[0]
        if elapsed > 0:
            picture = picture.copy()
            text = f"{(len(self._times) - 1) / elapsed:.1f} frames/s"
            corner = (0, picture.shape[0])
            draw_labels(picture, [Label(text, corner, np.zeros(3), centered=False)])
        cv2.imshow(self._title, picture[:, :, ::-1])
        if cv2.waitKey(1) & 0xFF in KEYS_TO_CLOSE:
            return False
        try:
            return cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # some of OpenCV's windows raise it when they are closed
            return False
