"""Masks of segments that do not overlap, such as those of a panoptic PNG, as one label map.

Axes: T segments; H×W pixels, H'×W' those of a padded picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import BitMasks, Boxes
from scipy.ndimage import find_objects


class SegmentMasks(BitMasks):
    """T masks in H·W numbers, where ``BitMasks`` has T·H·W.

    It can be used in place of ``BitMasks``: ``tensor`` is made when it is read. Everything else
    works on the label map, which selections share.

    Attributes:
        label_map: H×W uint8, or another type of integers; 0 where there is no segment.
        labels: T numbers of the same type: the pixels of segment i have the label ``labels[i]``.
            The map may have more labels than these.
        image_size: (H, W).
    """

    def __init__(self, label_map: torch.Tensor, labels: torch.Tensor) -> None:
        """
        Args:
            label_map: H×W integers.
            labels: T integers from 1 on, which fit the type of the map.
        """
        self.label_map = label_map
        self.labels = labels.to(label_map)
        self.image_size = label_map.shape

    @property
    def tensor(self) -> torch.Tensor:
        """T×H×W bool, made anew each time."""
        masks = self.label_map.new_empty(len(self), *self.image_size, dtype=torch.bool)
        self.write_to(masks)
        return masks

    def write_to(self, masks: torch.Tensor) -> None:
        """Writes the masks into T×H'×W' bools. The padding right of the picture and below it keeps
        its values.
        """
        height, width = self.image_size
        torch.eq(self.label_map, self.labels[:, None, None], out=masks[:, :height, :width])

    @property
    def device(self) -> torch.device:
        return self.label_map.device

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SegmentMasks:
        return SegmentMasks(
            self.label_map.to(device, non_blocking=non_blocking),
            self.labels.to(device, non_blocking=non_blocking),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"SegmentMasks(num_instances={len(self)})"

    def __getitem__(self, item: int | slice | torch.Tensor) -> SegmentMasks:
        """One segment, or those of a slice, of T bools or of indices."""
        labels = self.labels[item]
        return SegmentMasks(self.label_map, labels[None] if isinstance(item, int) else labels)

    def area(self) -> torch.Tensor:
        """T int64: pixels of each segment."""
        highest = max(self.labels.tolist(), default=0)
        pixels = self.label_map.flatten().bincount(minlength=highest + 1)
        return pixels[self.labels.long()]

    def nonempty(self) -> torch.Tensor:
        """T bool: whether a segment has any pixel."""
        return self.area() > 0

    def get_bounding_boxes(self) -> Boxes:
        """T boxes on the CPU, zeros for a segment without pixels; all in one pass."""
        labels = self.labels.tolist()
        found = find_objects(self.label_map.cpu().numpy(), max(labels, default=0))
        nothing = (slice(0, 0), slice(0, 0))
        places = [found[label - 1] or nothing for label in labels]
        corners = [[x.start, y.start, x.stop, y.stop] for y, x in places]
        return Boxes(torch.tensor(corners, dtype=torch.float32).reshape(-1, 4))

    @staticmethod
    def cat(bitmasks_list: Sequence[BitMasks]) -> BitMasks:
        """Masks of several pictures may overlap, so that the result has T·H·W numbers."""
        return BitMasks(torch.cat([masks.tensor for masks in bitmasks_list]))
