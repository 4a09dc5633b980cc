"""Names of a DETR's modules in files of other projects, and in this project.

In the tables ``#`` stands for a number, which both sides have in the same order.
"""

from __future__ import annotations

BACKBONE = "detector.backbone."
MASK_HEAD = "mask_head."
# Parts that only one mask head has → the head. They tell it where a file doesn't.
PARTS_OF_MASK_HEADS = {
    f"{MASK_HEAD}attention_map.": "AttentionMaskHead",
    f"{MASK_HEAD}pixel_embedding.": "PixelEmbeddingMaskHead",
}
CLASS_HEAD = "detector.class_head."
QUERIES = "detector.query_embed.weight"

Names = dict[str, str]


def _below(prefix: str, own_prefix: str, names: Names) -> Names:
    """Puts prefixes before the names of both sides."""
    return {prefix + theirs: own_prefix + own for theirs, own in names.items()}


# --- ResNets ---

DETECTRON2_RESNET: Names = {
    name + norm: name + norm
    for name in (
        "stem.conv1",
        *(
            f"res{n}.#.{conv}"
            for n in range(2, 6)
            for conv in ("conv1", "conv2", "conv3", "shortcut")
        ),
    )
    for norm in ("", ".norm")
}

# timm uses the same names.
TORCHVISION_RESNET: Names = {"conv1": "stem.conv1", "bn1": "stem.conv1.norm"}
for _n in range(1, 5):
    for _i in range(1, 4):
        TORCHVISION_RESNET[f"layer{_n}.#.conv{_i}"] = f"res{_n + 1}.#.conv{_i}"
        TORCHVISION_RESNET[f"layer{_n}.#.bn{_i}"] = f"res{_n + 1}.#.conv{_i}.norm"
    TORCHVISION_RESNET[f"layer{_n}.#.downsample.0"] = f"res{_n + 1}.#.shortcut"
    TORCHVISION_RESNET[f"layer{_n}.#.downsample.1"] = f"res{_n + 1}.#.shortcut.norm"

# transformers' own ResNet, in DETRs without timm.
HUGGING_FACE_RESNET: Names = {
    "embedder.embedder.convolution": "stem.conv1",
    "embedder.embedder.normalization": "stem.conv1.norm",
}
for _n in range(4):
    for _part, _suffix in (("convolution", ""), ("normalization", ".norm")):
        _block = f"encoder.stages.{_n}.layers.#"
        for _i in range(3):
            HUGGING_FACE_RESNET[f"{_block}.layer.{_i}.{_part}"] = (
                f"res{_n + 2}.#.conv{_i + 1}{_suffix}"
            )
        HUGGING_FACE_RESNET[f"{_block}.shortcut.{_part}"] = f"res{_n + 2}.#.shortcut{_suffix}"

# --- The reference's detector and panoptic head ---

_REFERENCE_ATTENTION: Names = {"": "", ".out_proj": ".out_proj"}
_REFERENCE_FEED_FORWARD: Names = {"linear1": "feed_forward.0", "linear2": "feed_forward.3"}
_REFERENCE_TRANSFORMER: Names = {
    **_below(
        "encoder.layers.#.",
        "encoder_layers.#.",
        {
            **_below("self_attn", "self_attention", _REFERENCE_ATTENTION),
            **_REFERENCE_FEED_FORWARD,
            "norm1": "self_attention_residual.norm",
            "norm2": "feed_forward_residual.norm",
        },
    ),
    "encoder.norm": "encoder_norm",
    **_below(
        "decoder.layers.#.",
        "decoder_layers.#.",
        {
            **_below("self_attn", "self_attention", _REFERENCE_ATTENTION),
            **_below("multihead_attn", "cross_attention", _REFERENCE_ATTENTION),
            **_REFERENCE_FEED_FORWARD,
            "norm1": "self_attention_residual.norm",
            "norm2": "cross_attention_residual.norm",
            "norm3": "feed_forward_residual.norm",
        },
    ),
    "decoder.norm": "decoder_norm",
}
REFERENCE_MASK_HEAD: Names = {
    "mask_head.lay1": "mask_head.input_conv",
    "mask_head.gn1": "mask_head.input_norm",
    **{f"mask_head.lay{n + 2}": f"mask_head.convs.{n}" for n in range(4)},
    **{f"mask_head.gn{n + 2}": f"mask_head.norms.{n}" for n in range(4)},
    **{f"mask_head.adapter{n + 1}": f"mask_head.laterals.{n}" for n in range(3)},
    "mask_head.out_lay": "mask_head.output_conv",
    "bbox_attention.q_linear": "mask_head.attention_map.q_proj",
    "bbox_attention.k_linear": "mask_head.attention_map.k_proj",
}
REFERENCE: Names = {
    "class_embed": "detector.class_head",
    "bbox_embed.layers.#": "detector.box_head.layers.#",
    "query_embed": "detector.query_embed",
    "input_proj": "detector.input_proj",
    "backbone.1.row_embed": "detector.position_encoding.row_embed",
    "backbone.1.col_embed": "detector.position_encoding.col_embed",
    **_below("backbone.0.body.", BACKBONE, TORCHVISION_RESNET),
    **_below("backbone.0.backbone.", BACKBONE, DETECTRON2_RESNET),  # its Detectron2 wrapper
    **_below("transformer.", "detector.transformer.", _REFERENCE_TRANSFORMER),
    **REFERENCE_MASK_HEAD,
}

# --- Hugging Face's transformers: files of all its versions, which renamed some modules ---

_HUGGING_FACE_ATTENTION: Names = {
    **{f".{part}_proj": f".{part}_proj" for part in "qkv"},
    ".out_proj": ".out_proj",
    ".o_proj": ".out_proj",
}
_HUGGING_FACE_LAYER: Names = {
    **_below("self_attn", "self_attention", _HUGGING_FACE_ATTENTION),
    "self_attn_layer_norm": "self_attention_residual.norm",
    **{f"{mlp}fc1": "feed_forward.0" for mlp in ("", "mlp.")},
    **{f"{mlp}fc2": "feed_forward.3" for mlp in ("", "mlp.")},
    "final_layer_norm": "feed_forward_residual.norm",
}
_HUGGING_FACE_TRANSFORMER: Names = {
    **_below("encoder.layers.#.", "encoder_layers.#.", _HUGGING_FACE_LAYER),
    **_below("decoder.layers.#.", "decoder_layers.#.", _HUGGING_FACE_LAYER),
    **_below(
        "decoder.layers.#.",
        "decoder_layers.#.",
        {
            **_below("encoder_attn", "cross_attention", _HUGGING_FACE_ATTENTION),
            "encoder_attn_layer_norm": "cross_attention_residual.norm",
        },
    ),
    "decoder.layernorm": "decoder_norm",
}
_HUGGING_FACE_MASK_HEAD: Names = {
    "mask_head.conv1.conv": "mask_head.input_conv",
    "mask_head.conv1.norm": "mask_head.input_norm",
    "mask_head.conv2.conv": "mask_head.convs.0",
    "mask_head.conv2.norm": "mask_head.norms.0",
    **{f"mask_head.fpn_stages.{n}.fpn_adapter": f"mask_head.laterals.{n}" for n in range(3)},
    **{f"mask_head.fpn_stages.{n}.refine.conv": f"mask_head.convs.{n + 1}" for n in range(3)},
    **{f"mask_head.fpn_stages.{n}.refine.norm": f"mask_head.norms.{n + 1}" for n in range(3)},
    "mask_head.output_conv": "mask_head.output_conv",
    "bbox_attention.q_proj": "mask_head.attention_map.q_proj",
    "bbox_attention.k_proj": "mask_head.attention_map.k_proj",
}
HUGGING_FACE: Names = {
    "class_labels_classifier": "detector.class_head",
    "bbox_predictor.layers.#": "detector.box_head.layers.#",
    "model.query_position_embeddings": "detector.query_embed",
    "model.input_projection": "detector.input_proj",
    **{
        f"model.{backbone}position_embedding.{kind}_embeddings": f"detector.position_encoding.{own}"
        for backbone in ("", "backbone.")
        for kind, own in (("row", "row_embed"), ("column", "col_embed"))
    },
    **{
        f"model.backbone.{encoder}model.{theirs}": BACKBONE + own
        for encoder in ("", "conv_encoder.")
        for theirs, own in {**TORCHVISION_RESNET, **HUGGING_FACE_RESNET}.items()
    },
    **_below("model.", "detector.transformer.", _HUGGING_FACE_TRANSFORMER),
    **_HUGGING_FACE_MASK_HEAD,
    **REFERENCE_MASK_HEAD,
}
