"""Where each tensor comes from: its name, its shape, and the code that made it.

Axes: as in ``explanation``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from detr_d2.apps.explain.explanation import Explanation, Masks
from detr_d2.apps.explain.query_rounds import margins
from detr_d2.apps.explain.recorded_attention import RecordedAttention
from detr_d2.modeling import DETR
from detr_d2.modeling.detector import to_grid
from detr_d2.modeling.inference import select_panoptic_queries
from detr_d2.modeling.merging import merge_panoptic
from detr_d2.modeling.raw_prediction import RawPrediction


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
    """Lists the tensors of each move: of moves 1 to 7, or of 1 to 3 for a model without masks."""
    moves = {1: _backbone(explanation), 2: _encoder(explanation), 3: _decoder(explanation)}
    if explanation.masks is not None:
        moves |= {
            4: _attention_maps(explanation, explanation.masks),
            5: _mask_head(explanation, explanation.masks),
            6: _selection(explanation.masks),
            7: _merging(explanation.masks),
        }
    return moves


def place_of(code: Callable) -> str:
    """File, line and name of a function, a method or the forward method of a module's class."""
    function = code.forward if isinstance(code, type) and issubclass(code, nn.Module) else code
    file = function.__module__.replace(".", "/") + ".py"
    try:
        line = f":{inspect.getsourcelines(inspect.unwrap(function))[1]}"
    except OSError:  # installed without sources
        line = ""
    return f"{file}{line}: {function.__qualname__}"


def _of_module(e: Explanation, name: str, axes: str, shape: tuple[int, ...], module: str) -> Origin:
    code = place_of(type(e.model.get_submodule(module)))
    return Origin(name, axes, tuple(shape), code, module)


def _backbone(e: Explanation) -> list[Origin]:
    return [
        Origin("image", "3×H×W", (3, *e.raw.sizes.padded), place_of(DETR.preprocess)),
        *(
            _of_module(e, f'features["{name}"]', "C×H×W", feature.shape, "detector.backbone")
            for name, feature in e.features.items()
        ),
        Origin("padding_mask", "h×w", tuple(e.padding_mask.shape), place_of(to_grid)),
        _of_module(e, "positions", "D×h×w", e.positions.shape, "detector.position_encoding"),
    ]


def _encoder(e: Explanation) -> list[Origin]:
    points, encode = e.padding_mask.numel(), place_of(e.model.detector.encode)
    return [
        Origin("projected", "D×h×w", tuple(e.projected.shape), encode, "detector.input_proj"),
        *(_weights(e, attention, "M×S×S", points) for attention in e.encoder_attention),
        _of_module(e, "memory", "D×h×w", e.memory.shape, "detector.transformer"),
    ]


def _weights(e: Explanation, attention: RecordedAttention, axes: str, targets: int) -> Origin:
    shape = (attention.num_heads, targets, e.padding_mask.numel())
    return _of_module(e, "softmax(q·k)", axes, shape, attention.name)


def _decoder(e: Explanation) -> list[Origin]:
    queries, predict = e.hidden.shape[1], place_of(e.model.detector.predict)
    logits, boxes = tuple(e.raw.logits.shape), tuple(e.raw.boxes_cxcywh.shape)
    return [
        *(_weights(e, attention, "M×Q×S", queries) for attention in e.decoder_attention),
        _of_module(e, "hidden", "L×Q×D", e.hidden.shape, "detector.transformer"),
        Origin("logits", "Q×(K+1)", logits, predict, "detector.class_head"),
        Origin("boxes_cxcywh", "Q×4", boxes, predict, "detector.box_head"),
    ]


def _attention_maps(e: Explanation, masks: Masks) -> list[Origin]:
    if masks.embedded is not None:
        stages, pixels = masks.embedded.stages, masks.embedded.pixels
        name = f"mask_head.{masks.named.pixel_embedding}"
        made = _of_module(e, "pixels", "C×H/4×W/4", pixels.shape, name)
        return [
            *(Origin("x", "C×H×W", stage.shape[1:], made.code, stage.name) for stage in stages),
            made,
        ]
    if masks.attention_maps is None:
        return []
    name = f"mask_head.{masks.named.attention_maps}"
    return [_of_module(e, "attention", "Q×M×h×w", masks.attention_maps.shape, name)]


def _mask_head(e: Explanation, masks: Masks) -> list[Origin]:
    head = place_of(type(e.model.get_submodule("mask_head")))
    logits, code = tuple(masks.logits.shape), place_of(RawPrediction.masks)
    embedded = []
    if masks.embedded is not None:
        name = f"mask_head.{masks.named.query_embedding}"
        embedded = [_of_module(e, "embedded", "n×C", masks.embedded.queries.shape, name)]
    return [
        *embedded,
        *(Origin("x", "n×C×H×W", stage.shape, head, stage.name) for stage in masks.stages),
        Origin("mask_logits", "n×H/4×W/4", logits, code, "mask_head"),
    ]


def _selection(masks: Masks) -> list[Origin]:
    code, kept = place_of(select_panoptic_queries), tuple(masks.kept.shape)
    return [Origin(name, "n", kept, code) for name in ("scores", "classes", "query_index")]


def _merging(masks: Masks) -> list[Origin]:
    size, code = tuple(masks.ids.shape), place_of(merge_panoptic)
    return [
        Origin("winner", "H'×W'", size, code),
        Origin("margins", "H'×W'", size, place_of(margins)),
        Origin("ids", "H'×W'", size, code),
        Origin("segments_info", "segments", (len(masks.segments_info),), code),
    ]
