"""Draws the points of an image at which losses compare masks, if they don't compare every pixel.

Axes: N masks, P points; h×w mask logits, H×W the padded batch.
"""

from __future__ import annotations

import torch

# The values of PointRend and Mask2Former: how many candidates are drawn for each point, and the
# share of the P points that are the most uncertain candidates. The rest is drawn uniformly.
OVERSAMPLE_RATIO = 3
IMPORTANCE_RATIO = 0.75


def compare_at_points(
    mask_logits: torch.Tensor, target_masks: torch.Tensor, num_points: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws points, most of them where a mask is uncertain.

    This is the importance sampling of Kirillov et al. (2020, arXiv:1912.08193, section 3.1), which
    Mask2Former trains with. The draw is PyTorch's, from its global generator.

    Args:
        mask_logits: N×h×w.
        target_masks: N×H×W bool.
        num_points: P.

    Returns:
        N×P logits, by bilinear interpolation, and N×P bool, of the pixels in which the points lie.
    """
    # Imported here, since it registers models of its own and not everyone compares points.
    from detectron2.projects.point_rend.point_features import (
        get_uncertain_point_coords_with_randomness,
        point_sample,
    )

    logits = mask_logits[:, None]  # N×1×h×w
    with torch.no_grad():
        points = get_uncertain_point_coords_with_randomness(
            logits, lambda some: -some.abs(), num_points, OVERSAMPLE_RATIO, IMPORTANCE_RATIO
        )  # N×P×2, (x, y) in [0, 1)
        height, width = target_masks.shape[1:]
        x, y = (points * points.new_tensor([width, height])).long().unbind(2)
        masks = torch.arange(len(points), device=points.device)[:, None]
        targets = target_masks[masks, y.clamp(max=height - 1), x.clamp(max=width - 1)]
    # At the border, as where whole masks are upsampled.
    sampled = point_sample(logits, points, align_corners=False, padding_mode="border")
    return sampled[:, 0], targets
