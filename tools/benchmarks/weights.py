"""Makes random weights whose queries differ clearly, in transformers' format, for both models.

Axes: H×W an image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from torch import nn

from detr_d2 import config_file, load_config
from detr_d2.engine.checkpointer import StrictCheckpointer
from detr_d2.modeling import DETR

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from transformers import PreTrainedModel

RESNET50 = {
    "model_type": "resnet",
    "embedding_size": 64,
    "hidden_sizes": [256, 512, 1024, 2048],
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
# The layout of a ResNet-50 at an eighth of its width.
TINY_RESNET = {**RESNET50, "embedding_size": 8, "hidden_sizes": [32, 64, 128, 256]}
# Changes to transformers' ``DetrConfig``, which by default is the released R50 model.
FULL = {"use_timm_backbone": False, "backbone_config": RESNET50, "num_labels": 133}
TINY = {
    **FULL,
    "backbone_config": TINY_RESNET,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
}

# Parts of self-attention that get small weights, in transformers' names and in ours.
SMALL = (
    *("self_attn.v_proj", "self_attn.o_proj"),
    *("self_attention.v_proj", "self_attention.out_proj"),
)


def save_random_weights(
    folder: str | Path, changes: Mapping[str, Any], size: tuple[int, int], seed: int
) -> None:
    """Saves a random panoptic model of transformers': ``config.json`` and ``model.safetensors``.

    Args:
        folder: the folder of the files.
        changes: to the default ``DetrConfig``.
        size: (H, W) of the model's images.
        seed: seed of the weights.
    """
    from transformers import DetrConfig, DetrForSegmentation

    generator = torch.manual_seed(seed)
    model = DetrForSegmentation(DetrConfig(**changes)).eval()
    # Attention maps sum to one over the grid, so that larger grids have smaller values.
    randomise(model, attention_weight=0.6 * (size[0] // 32) * (size[1] // 32))
    _spread_queries(model, random_image(size, generator))
    model.save_pretrained(folder)


@torch.no_grad()
def _spread_queries(model: PreTrainedModel, image: torch.Tensor) -> None:
    """Changes the heads such that queries differ as those of trained models do.

    All queries predict an object with confidence, and together many classes. Random queries are
    much alike. Therefore the class head's bias removes what they share, and the rest is scaled up.
    Otherwise nearly all would have one class, and merging would make one segment of them. Most
    pixels belong to no mask, so that masks have different probabilities.
    """
    pixels = (image[None] - 128.0) / 58  # roughly normalised
    hidden = model.detr.model(pixels).last_hidden_state[0]  # Q×D
    spread_classes(model.detr.class_labels_classifier, hidden)
    model.mask_head.output_conv.bias -= 4


@torch.no_grad()
def spread_classes(head: nn.Linear, hidden: torch.Tensor) -> None:
    """Changes a class head such that queries, Q×D, have many classes, but not "no object"."""
    head.bias.zero_()
    head.weight *= 4 / head(hidden).std(0).mean()
    head.bias.copy_(-head(hidden).mean(0))
    head.bias[-1] -= 30  # "no object"


def load_ours(folder: str | Path, overrides: Mapping[str, Any]) -> DETR:
    """Loads the weights of ``save_random_weights`` into our model, in evaluation mode.

    With ``MODEL.DETR.RESIZE_ON_LOAD`` a mask head of another kind has weights of its own, the same
    each time.

    Args:
        folder: the folder of the weights.
        overrides: config keys, besides those that follow from the weights.
    """
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    torch.manual_seed(0)
    model = build_model(matching_config(config, overrides)).eval()
    StrictCheckpointer(model, to_train=model.loading_rules.resize).load(str(folder))
    return model


def matching_config(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> CfgNode:
    """Returns our config for a model of transformers.

    Args:
        config: the result of ``DetrConfig.to_dict``.
        overrides: config keys, besides those that follow from ``config``.
    """
    backbone = config["backbone_config"]
    settings = {
        "MODEL.DEVICE": "cpu",
        "MODEL.WEIGHTS": "",
        "MODEL.RESNETS.RES5_DILATION": 2 if config["dilation"] else 1,
        "MODEL.DETR.NUM_CLASSES": len(config["id2label"]),
        "MODEL.DETR.NUM_QUERIES": config["num_queries"],
        "MODEL.DETR.HIDDEN_DIM": config["d_model"],
        "MODEL.DETR.NUM_HEADS": config["encoder_attention_heads"],
        "MODEL.DETR.ENC_LAYERS": config["encoder_layers"],
        "MODEL.DETR.DEC_LAYERS": config["decoder_layers"],
        "MODEL.DETR.DIM_FEEDFORWARD": config["encoder_ffn_dim"],
        "MODEL.DETR.POSITION_EMBEDDING": config["position_embedding_type"],
    }
    if backbone["model_type"] == "resnet":
        settings["MODEL.RESNETS.STEM_OUT_CHANNELS"] = backbone["embedding_size"]
        settings["MODEL.RESNETS.RES2_OUT_CHANNELS"] = backbone["hidden_sizes"][0]
        settings["MODEL.RESNETS.WIDTH_PER_GROUP"] = backbone["hidden_sizes"][0] // 4
    else:
        settings["MODEL.RESNETS.DEPTH"] = int(backbone["backbone"].removeprefix("resnet"))
    flat = [item for pair in {**settings, **overrides}.items() for item in pair]
    return load_config(config_file("detr_panoptic.yaml"), flat)


@torch.no_grad()
def randomise(model: PreTrainedModel | DETR, attention_weight: float) -> None:
    """Gives each tensor of a DETR random values, such that comparisons find any mistake.

    With initial values, queries would hardly differ: attention would be the same mean everywhere.

    Args:
        model: transformers' model, with masks or without, or ours.
        attention_weight: standard deviation of the mask head's weights for attention maps, whose
            values are the smaller, the larger the grid is.
    """
    for name, module in model.named_modules():
        if hasattr(module, "running_var"):  # batch norm
            module.weight.uniform_(0.4, 1.0)
            module.bias.uniform_(-0.2, 0.2)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
        elif isinstance(module, nn.LayerNorm | nn.GroupNorm):
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.2, 0.2)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            gain = 2.0 if isinstance(module, nn.Conv2d) else 1.0
            if name.endswith(("q_proj", "k_proj")):
                gain = 4.0
            elif name.endswith(SMALL):
                gain = 0.25
            module.weight.normal_(std=math.sqrt(gain / module.weight[0].numel()))
            if module.bias is not None:
                module.bias.uniform_(-0.2, 0.2)
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(std=3)
    if isinstance(model, DETR):
        width = model.detector.input_proj.out_channels
        model.mask_head.input_conv.weight[:, width:].normal_(std=attention_weight)
    elif hasattr(model, "mask_head"):
        model.mask_head.conv1.conv.weight[:, model.config.d_model :].normal_(std=attention_weight)


def random_image(size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """A 3×H×W uint8 image with structure at all scales."""
    grids = [[-(-side // step) for side in size] for step in (128, 32, 8, 2)]
    layers = [torch.randn(1, 3, *grid, generator=generator) for grid in grids]
    image = sum(F.interpolate(layer, size=size, mode="bilinear")[0] for layer in layers)
    return (128 + 45 * image).clamp(0, 255).to(torch.uint8)
