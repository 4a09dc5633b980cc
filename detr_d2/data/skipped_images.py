"""Training images that can't be used and are skipped, up to a share of the dataset."""

from __future__ import annotations

import logging

import torch

logger = logging.getLogger(__name__)


class SkippedImages:
    """Counts the images of a dataset that training skips, and stops it beyond a stated share.

    All worker processes of a loader count together, in shared memory. Each training process of a
    distributed run counts only the images that it has met.
    """

    def __init__(self, num_images: int, max_share: float) -> None:
        """
        Args:
            num_images: size of the dataset.
            max_share: the share of it that may be skipped, in [0, 1).
        """
        self.max_share = max_share
        # One flag per image, and no counter: two workers may write at the same time.
        self.flags = torch.zeros(num_images, dtype=torch.bool).share_memory_()

    def add(self, index: int, file_name: str, error: Exception) -> None:
        """Counts an image and logs its file name, only once for each image.

        Raises:
            ValueError: more images are skipped than allowed.
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
