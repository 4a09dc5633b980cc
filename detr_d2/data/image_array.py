"""Images that callers give as arrays: which are accepted, and which are refused.

Axes: H×W pixels.
"""

from __future__ import annotations

import numpy as np

from detr_d2.data.deep_pixels import FULL_RANGE, scale_to_8_bits


def to_uint8_colors(image: np.ndarray, deep_range: int = FULL_RANGE) -> np.ndarray:
    """Converts an image to three channels of 8 bits.

    An image has one channel (grey), three or four. The fourth one (transparency) is ignored. Values
    are in 0 … 255, of any type, or uint16 in 0 … ``deep_range``. Images that would be nearly black
    are refused: floating-point numbers in 0 … 1, and uint16 in 0 … 255.

    Args:
        image: H×W, H×W×1, H×W×3 or H×W×4.
        deep_range: of uint16, see ``scale_to_8_bits``. By default, 16 bits keep the upper 8.

    Returns:
        H×W×3 uint8; the image itself if it is that already.

    Raises:
        ValueError: it is no image of this kind; the message says what to change.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"An image is an H×W×3 array of NumPy, uint8 and BGR, not {type(image).__name__}."
            + (" cv2.imread returns None for files that it can't read." if image is None else "")
        )
    return _to_uint8(_to_three_channels(image), deep_range)


def _to_three_channels(image: np.ndarray) -> np.ndarray:
    if image.size == 0:
        raise ValueError(f"The image has no pixels: its shape is {image.shape}.")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        first_are_channels = image.ndim == 3 and image.shape[0] in (1, 3, 4)
        raise ValueError(
            f"An image is H×W×3, not {'×'.join(map(str, image.shape))}."
            + (" Channels come last: image.transpose(1, 2, 0)." if first_are_channels else "")
            + (" Give one image at a time." if image.ndim == 4 else "")
        )
    return image.repeat(3, axis=2) if image.shape[2] == 1 else image[:, :, :3]


def _to_uint8(image: np.ndarray, deep_range: int) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind not in "iuf":
        raise ValueError(f"An image has pixels in 0 … 255, uint8 for example, not {image.dtype}.")
    lowest, highest = image.min(), image.max()
    if image.dtype == np.uint16:
        if 0 < highest <= 255 < deep_range:
            raise ValueError(
                f"The image is uint16, but none of its values is above {highest}: if they are of 8 "
                "bits, give image.astype(np.uint8)."
            )
        return scale_to_8_bits(image, deep_range)
    if not (0 <= lowest and highest <= 255):  # so that NaN is refused, too
        raise ValueError(
            f"An image has pixels in 0 … 255; these are {image.dtype} in {lowest} … {highest}."
        )
    if image.dtype.kind == "f" and 0 < highest <= 1:
        raise ValueError(
            f"The image is {image.dtype} in {lowest} … {highest}, which is black in 0 … 255: if "
            "its values are in 0 … 1, give 255 * image."
        )
    return image.round().astype(np.uint8)
