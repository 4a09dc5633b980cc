"""A model like the quickstart's that is sure without having been trained."""

from __future__ import annotations

from pathlib import Path


def save_sure_model(weights: Path, *, whole_masks: bool = False) -> None:
    """Saves random weights, whose queries are all sure of class 3, everywhere if so asked."""
    import torch
    from detectron2.modeling import build_model

    from detr_d2 import config_file, load_config

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(load_config(config_file("shapes/detr_panoptic.yaml")))
    torch.nn.init.zeros_(model.detector.class_head.weight)
    model.detector.class_head.bias.data = 20.0 * torch.eye(13)[3]
    if whole_masks:  # which are quick to draw
        torch.nn.init.zeros_(model.mask_head.pixel_embedding.output_conv.weight)
    weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict()}, weights)
