"""Where each tensor comes from: its name, its shape, and the code that made it.

Axes: as in ``explanation``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from detr_d2.apps.explain.explanation import Explanation
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


def _place_of_module(module: nn.Module) -> str:
    return place_of(type(module))


def _backbone(e: Explanation) -> list[Origin]:
    detector = e.model.detector
    backbone = _place_of_module(detector.backbone)
    return [
        Origin("image", "3×H×W", (3, *e.raw.sizes.padded), place_of(DETR.preprocess)),
        *(
            Origin(f'features["{name}"]', "C×H×W", tuple(feature.shape), backbone, _BACKBONE)
            for name, feature in e.features.items()
        ),
        Origin("padding_mask", "h×w", tuple(e.padding_mask.shape), place_of(to_grid)),
        Origin(
            "positions",
            "D×h×w",
            tuple(e.positions.shape),
            _place_of_module(detector.position_encoding),
            "detector.position_encoding",
        ),
    ]


def _encoder(e: Explanation) -> list[Origin]:
    points, transformer = e.padding_mask.numel(), _place_of_module(e.model.detector.transformer)
    return [
        Origin(
            "projected",
            "D×h×w",
            tuple(e.projected.shape),
            place_of(e.model.detector.encode),
            "detector.input_proj",
        ),
        *(_weights(e, attention, "M×S×S", points) for attention in e.encoder_attention),
        Origin("memory", "D×h×w", tuple(e.memory.shape), transformer, _TRANSFORMER),
    ]


def _weights(e: Explanation, attention: RecordedAttention, axes: str, targets: int) -> Origin:
    shape = (attention.num_heads, targets, e.padding_mask.numel())
    place = _place_of_module(e.model.get_submodule(attention.name))
    return Origin("softmax(q·k)", axes, shape, place, attention.name)


def _decoder(e: Explanation) -> list[Origin]:
    detector, queries = e.model.detector, e.hidden.shape[1]
    transformer, predict = _place_of_module(detector.transformer), place_of(detector.predict)
    boxes = tuple(e.raw.boxes_cxcywh.shape)
    return [
        *(_weights(e, attention, "M×Q×S", queries) for attention in e.decoder_attention),
        Origin("hidden", "L×Q×D", tuple(e.hidden.shape), transformer, _TRANSFORMER),
        Origin("logits", "Q×(K+1)", tuple(e.raw.logits.shape), predict, _CLASS_HEAD),
        Origin("boxes_cxcywh", "Q×4", boxes, predict, _BOX_HEAD),
    ]


def _attention_maps(e: Explanation) -> list[Origin]:
    if e.masks.attention_maps is None:
        return []
    head, shape = e.model.mask_head, tuple(e.masks.attention_maps.shape)
    name = head.explained_modules().attention_maps
    place = _place_of_module(head.get_submodule(name))
    return [Origin("attention", "Q×M×h×w", shape, place, f"{_MASK_HEAD}.{name}")]


def _mask_head(e: Explanation) -> list[Origin]:
    head = _place_of_module(e.model.mask_head)
    logits, masks = tuple(e.masks.logits.shape), place_of(RawPrediction.masks)
    return [
        *(Origin("x", "n×C×H×W", stage.shape, head, stage.name) for stage in e.masks.stages),
        Origin("mask_logits", "n×H/4×W/4", logits, masks, _MASK_HEAD),
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
_TRANSFORMER = "detector.transformer"
_CLASS_HEAD = "detector.class_head"
_BOX_HEAD = "detector.box_head"
_MASK_HEAD = "mask_head"
