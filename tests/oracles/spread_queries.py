"""Makes the queries of random models differ as those of trained models do."""

from __future__ import annotations

import torch
from benchmarks.weights import random_image
from torch import nn

from detr_d2.modeling import DETR


@torch.no_grad()
def spread_queries(model: DETR) -> None:
    """Changes weights such that queries predict many classes with confidence, and masks differ."""
    for module in model.modules():
        if hasattr(module, "running_var"):
            module.weight.uniform_(0.4, 1)
            module.bias.uniform_(-0.2, 0.2)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2)
    detector, head = model.detector, model.detector.class_head
    detector.query_embed.weight.normal_(std=3)
    for part in (detector.transformer, model.mask_head):
        for name, parameter in part.named_parameters():
            if "q_proj." in name or "k_proj." in name:
                parameter.mul_(2 if parameter.ndim > 1 else 1)
    rng = torch.Generator().manual_seed(0)
    batches = [[{"image": random_image((97, 130), rng)}] for _ in range(4)]
    hidden = torch.cat([detector(model.preprocess(batch)).hidden[-1] for batch in batches])
    head.bias.zero_()
    head.weight *= 4 / head(hidden).std((0, 1)).mean()
    head.bias.copy_(-head(hidden).mean((0, 1)))
    if model.mask_head.explained_modules().attention_maps is not None:
        hidden_dim = hidden.shape[-1]
        nn.init.normal_(model.mask_head.input_conv.weight[:, hidden_dim:], std=20)
