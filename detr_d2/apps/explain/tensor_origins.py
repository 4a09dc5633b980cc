"""Where each tensor comes from: its name, its shape, and the code that made it.

Axes: as in ``explanation``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from detr_d2.apps.explain.explanation import Explanation
from detr_d2.apps.explain.query_rounds import margins
from detr_d2.apps.explain.recorded_attention import RecordedAttention
from detr_d2.modeling import DETR, AttentionMaskHead
from detr_d2.modeling.attention_mask_head import AttentionMap
from detr_d2.modeling.detector import BoxHead, Detector, grid_padding_mask
from detr_d2.modeling.inference import select_panoptic_queries
from detr_d2.modeling.merging import merge_panoptic
from detr_d2.modeling.raw_prediction import RawPrediction
from detr_d2.modeling.transformer import MultiHeadAttention, Transformer


@dataclass(frozen=True)
class Origin:
    """A tensor of one move.

    Attributes:
        name: as the code has it.
        axes: letters, e.g. "D×h×w"; without the batch of one image.
        shape: their sizes.
        code: file, line and function that made it.
        module: its name within the model; empty for functions.
    """

    name: str
    axes: str
    shape: tuple[int, ...]
    code: str
    module: str = ""


def origins(explanation: Explanation) -> dict[int, list[Origin]]:
    """The tensors of each move, 1 to 7; without masks, 1 to 3."""
    moves = {1: _backbone(explanation), 2: _encoder(explanation), 3: _decoder(explanation)}
    if explanation.masks is not None:
        moves |= {
            4: _attention_maps(explanation),
            5: _mask_head(explanation),
            6: _selection(explanation),
            7: _merging(explanation),
        }
    return moves


def place_of(code: Callable) -> str:
    """File, line and name of a function, a method or the forward method of a module's class."""
    function = code.forward if inspect.isclass(code) else code
    file = function.__module__.replace(".", "/") + ".py"
    try:
        line = f":{inspect.getsourcelines(inspect.unwrap(function))[1]}"
    except OSError:  # installed without sources
        line = ""
    return f"{file}{line}: {function.__qualname__}"


def _backbone(e: Explanation) -> list[Origin]:
    backbone = place_of(type(e.model.detector.backbone))
    return [
        Origin("image", "3×H×W", (3, *e.raw.sizes.padded), place_of(DETR.preprocess)),
        *(
            Origin(f'features["{name}"]', "C×H×W", tuple(feature.shape), backbone, _BACKBONE)
            for name, feature in e.features.items()
        ),
        Origin("padding_mask", "h×w", tuple(e.padding_mask.shape), place_of(grid_padding_mask)),
        Origin(
            "positions",
            "D×h×w",
            tuple(e.positions.shape),
            place_of(type(e.model.detector.position_encoding)),
            "detector.position_encoding",
        ),
    ]


def _encoder(e: Explanation) -> list[Origin]:
    points = e.padding_mask.numel()
    return [
        Origin(
            "projected",
            "D×h×w",
            tuple(e.projected.shape),
            place_of(Detector),
            "detector.input_proj",
        ),
        *(_weights(attention, "M×S×S", points, points) for attention in e.encoder_attention),
        Origin("memory", "D×h×w", tuple(e.memory.shape), place_of(Transformer), _ENCODED),
    ]


def _weights(attention: RecordedAttention, axes: str, targets: int, sources: int) -> Origin:
    shape = (attention.num_heads, targets, sources)
    return Origin("softmax(q·k)", axes, shape, place_of(MultiHeadAttention), attention.name)


def _decoder(e: Explanation) -> list[Origin]:
    points, queries = e.padding_mask.numel(), e.hidden.shape[1]
    return [
        *(_weights(attention, "M×Q×S", queries, points) for attention in e.decoder_attention),
        Origin("hidden", "L×Q×D", tuple(e.hidden.shape), place_of(Transformer), _DECODED),
        Origin("logits", "Q×(K+1)", tuple(e.raw.logits.shape), place_of(Detector), _CLASS_HEAD),
        Origin(
            "boxes_cxcywh", "Q×4", tuple(e.raw.boxes_cxcywh.shape), place_of(BoxHead), _BOX_HEAD
        ),
    ]


def _attention_maps(e: Explanation) -> list[Origin]:
    shape = tuple(e.masks.attention_maps.shape)
    module = "mask_head.attention_map"
    return [Origin("attention", "Q×M×h×w", shape, place_of(AttentionMap), module)]


def _mask_head(e: Explanation) -> list[Origin]:
    upsample = place_of(AttentionMaskHead.upsample)
    return [
        *(Origin("x", "n×C×H×W", stage.shape, upsample, stage.name) for stage in e.masks.stages),
        Origin(
            "mask_logits",
            "n×H/4×W/4",
            tuple(e.masks.logits.shape),
            place_of(RawPrediction.masks),
            "mask_head.output_conv",
        ),
    ]


def _selection(e: Explanation) -> list[Origin]:
    code = place_of(select_panoptic_queries)
    kept = tuple(e.masks.kept.shape)
    return [
        Origin("scores", "n", kept, code),
        Origin("classes", "n", kept, code),
        Origin("query_index", "n", kept, code),
    ]


def _merging(e: Explanation) -> list[Origin]:
    size, code = tuple(e.masks.ids.shape), place_of(merge_panoptic)
    return [
        Origin("winner", "H'×W'", size, code),
        Origin("margins", "H'×W'", size, place_of(margins)),
        Origin("ids", "H'×W'", size, code),
        Origin("segments_info", "segments", (len(e.masks.segments_info),), code),
    ]


_BACKBONE = "detector.backbone"
_ENCODED = "detector.transformer.encoder_norm"
_DECODED = "detector.transformer.decoder_norm"
_CLASS_HEAD = "detector.class_head"
_BOX_HEAD = "detector.box_head"
