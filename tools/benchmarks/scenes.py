"""Random panoptic scenes: images that are cut into blobs of different sizes and outlines.

Axes: n segments, H×W pixels.
"""

from __future__ import annotations

import numpy as np


def blob_labels(
    size: tuple[int, int], num_segments: int, rng: np.random.Generator, jitters: tuple[float, ...]
) -> list[np.ndarray]:
    """Cuts one scene into blobs several times.

    Args:
        size: (H, W).
        num_segments: n; small ones may be hidden.
        rng: the source of random numbers.
        jitters: for each cut, by how many pixels centres are moved at random. Two cuts of the same
            scene are like a ground truth and a good prediction.

    Returns:
        An H×W int64 array of labels in 0 … n-1 for each cut.
    """
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for waves in (3, 7):  # to bend the outlines
        phase = rng.uniform(0, 2 * np.pi, 2)
        y = y + height / (waves * 8) * np.sin(waves * 2 * np.pi * x / width + phase[0])
        x = x + width / (waves * 8) * np.sin(waves * 2 * np.pi * y / height + phase[1])
    centres = rng.uniform(0, 1, (num_segments, 2)) * size  # n×2
    growth = rng.uniform(0.4, 1.6, num_segments)  # n
    cuts = []
    for jitter in jitters:
        moved = (centres + rng.normal(0, 1, centres.shape) * jitter).astype(np.float32)
        nearest = np.full(size, np.inf, dtype=np.float32)
        labels = np.zeros(size, dtype=np.int64)
        for label, ((centre_y, centre_x), factor) in enumerate(zip(moved, growth, strict=True)):
            distance = ((y - centre_y) ** 2 + (x - centre_x) ** 2) * np.float32(factor)
            closer = distance < nearest
            nearest[closer] = distance[closer]
            labels[closer] = label
        cuts.append(labels)
    return cuts
