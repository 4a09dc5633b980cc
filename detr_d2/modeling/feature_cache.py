"""Keeps features of a frozen backbone in training, which then sees each view of an image once."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

import torch
from detectron2.structures import ImageList

from detr_d2.modeling.detector import Detector, pixel_padding_mask

logger = logging.getLogger(__name__)

BYTES_PER_GB = 2**30


class FeatureCache:
    """The features of images that came before, found by their pixels.

    The pixels of a view (an image as it is, flipped, or of another size) and the size to which it
    is padded decide its features, whichever augmentation made it. So a hit is exact, and views that
    never come again, such as random crops, only fill the memory. Images go through the backbone one
    by one, so that the others of their batch don't matter for rounding.
    """

    def __init__(self, gigabytes: float) -> None:
        """
        Args:
            gigabytes: of main memory that the features may take. Those of further views are
                computed each time.
        """
        self.limit = int(gigabytes * BYTES_PER_GB)
        self.size = 0  # in bytes
        self.kept: dict[bytes, list[torch.Tensor]] = {}
        self.hits = 0
        self.misses = 0

    @torch.no_grad()
    def features(
        self, detector: Detector, images: ImageList, pixels: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """The backbone's features of B images, finest first.

        Args:
            detector: with a frozen backbone.
            images: B×3×H×W, normalised and padded.
            pixels: the B images as they were, 3×·×· uint8.
        """
        rows = [self._row(detector, images, i, image) for i, image in enumerate(pixels)]
        device = images.tensor.device
        return [torch.cat(maps).to(device) for maps in zip(*rows, strict=True)]

    def _row(
        self, detector: Detector, images: ImageList, i: int, image: torch.Tensor
    ) -> list[torch.Tensor]:
        key = hashlib.blake2b(image.cpu().contiguous().numpy().data, digest_size=16)
        key.update(str((tuple(image.shape), tuple(images.tensor.shape[-2:]))).encode())
        row = self.kept.get(key.digest())
        if row is not None:
            self.hits += 1
            return row
        self.misses += 1
        one = ImageList(images.tensor[i : i + 1], images.image_sizes[i : i + 1])
        row = [x.cpu() for x in detector.features(one.tensor, pixel_padding_mask(one))]
        self._keep(key.digest(), row, image)
        return row

    def _keep(self, key: bytes, row: list[torch.Tensor], image: torch.Tensor) -> None:
        size = sum(feature.numel() * feature.element_size() for feature in row)
        if not self.kept:
            logger.info(
                "Features of the frozen backbone are kept: %.2f MB for a view of %d×%d pixels, so "
                "that %.3g GB hold %d of this size.",
                *(size / 1e6, *image.shape[-2:], self.limit / BYTES_PER_GB, self.limit // size),
            )
        if self.size + size > self.limit:
            if self.limit:
                logger.warning(
                    "MODEL.DETR.FEATURE_CACHE_GB is used up by %d views: features of others are "
                    "computed each time.",
                    len(self.kept),
                )
            self.limit = 0
            return
        self.size += size
        self.kept[key] = row
