"""Training images that can't be used: what becomes of them, and how many may be left out."""

from __future__ import annotations

import logging

import torch

logger = logging.getLogger(__name__)


class SkippedImages:
    """Counts the images of a dataset that training skips, and stops it beyond a stated share.

    All worker processes of a loader count together, in memory that they share; each training
    process of a distributed run counts for itself the images that it has met.
    """

    def __init__(self, num_images: int, max_share: float) -> None:
        """Takes the size of the dataset, and the share of it that may be skipped, in [0, 1)."""
        self.max_share = max_share
        # One flag an image, and not a counter: two workers may set flags at the same time.
        self.flags = torch.zeros(num_images, dtype=torch.bool).share_memory_()

    def add(self, index: int, file_name: str, error: Exception) -> None:
        """Notes an image, and logs it with its file's name and the count, once per image.

        Raises:
            ValueError: more are skipped than may be.
        """
        if self.flags[index]:
            return
        self.flags[index] = True
        skipped, total = int(self.flags.sum()), len(self.flags)
        so_far = f"{skipped} of {total} images skipped so far ({skipped / total:.1%})"
        if skipped > self.max_share * total:
            raise ValueError(
                f"{so_far}, more than DATALOADER.MAX_SKIPPED ({self.max_share:.1%}) allows. The "
                f"last one: {file_name}: {error} detr-d2 check lists them all."
            ) from error
        logger.warning("%s; this one is replaced by another: %s: %s", so_far, file_name, error)
