"""One image followed through the model, in the seven moves of the walk-through.

Axes: Q queries, K classes, n kept queries, D width, M heads, L decoder layers; h×w the res5 grid,
S = h·w; H'×W' the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from detectron2.data import Metadata

from detr_d2.apps.explain.explained_pixels import ExplainedPixels
from detr_d2.apps.explain.hook_recording import evaluating, output_of, recording
from detr_d2.apps.explain.mask_head_stages import Stage
from detr_d2.apps.explain.query_rounds import ExplainedRound, margins
from detr_d2.apps.explain.recorded_attention import RecordedAttention
from detr_d2.modeling import DETR
from detr_d2.modeling.detector import DetectorOutput
from detr_d2.modeling.inference_options import PanopticOptions
from detr_d2.modeling.mask_head_base import ExplainedModules
from detr_d2.modeling.merging import MergeRound
from detr_d2.modeling.raw_prediction import RawPrediction
from detr_d2.modeling.upsampling import ImageSizes

# Modules of an attention module whose outputs give its weights.
_PROJECTIONS = ("q_proj", "k_proj")


@dataclass(frozen=True)
class Masks:
    """Moves 4 to 7, which only models with masks have.

    Attributes:
        named: the modules of the mask head that are shown.
        attention_maps: Q×M×h×w float32, of all queries; None where the mask head names none.
        kept: n int64, the queries whose best class is an object above the threshold.
        stages: of the mask head, in the order in which they run; empty where it names none.
        embedded: the embeddings of pixels and queries; None where the mask head names none.
        logits: n×H/4×W/4 mask logits of the padded image.
        rounds: of the pixel-wise argmax.
        margins: H'×W' float32, by how much the highest logit of the kept queries is above the
            second; infinite where there is no second.
        ids: H'×W' int32, the panoptic picture.
        segments_info: what each id stands for, see ``merge_panoptic``.
    """

    named: ExplainedModules
    attention_maps: torch.Tensor | None
    kept: torch.Tensor
    stages: list[Stage]
    embedded: ExplainedPixels | None
    logits: torch.Tensor
    rounds: list[ExplainedRound]
    margins: torch.Tensor
    ids: torch.Tensor
    segments_info: list[dict]


@dataclass(frozen=True)
class Explanation:
    """Every tensor on the way from one image to its panoptic picture, on the model's device.

    Attributes:
        model: the model that made them; it gives the names and places of its modules.
        picture: H×W×3 uint8 RGB, what the network saw, with its padding in black.
        raw: classes and boxes of the queries, and the sizes of the image.
        features: the backbone's outputs by their names, C×·×· each, finest first.
        padding_mask: h×w bool, True = padding.
        positions: D×h×w.
        projected: D×h×w, res5 at the transformer's width.
        encoder_attention: the self-attention of each encoder layer, where T is S; empty where the
            transformer names none.
        memory: D×h×w, the encoded image.
        decoder_attention: the cross-attention of each decoder layer, where T is Q; empty where the
            transformer names none.
        hidden: L×Q×D, the output of each decoder layer.
        metadata: names and colours of the K classes.
        masks: moves 4 to 7; None where the model has no masks.
    """

    model: DETR
    picture: np.ndarray
    raw: RawPrediction
    features: dict[str, torch.Tensor]
    padding_mask: torch.Tensor
    positions: torch.Tensor
    projected: torch.Tensor
    encoder_attention: list[RecordedAttention]
    memory: torch.Tensor
    decoder_attention: list[RecordedAttention]
    hidden: torch.Tensor
    metadata: Metadata
    masks: Masks | None

    @property
    def class_names(self) -> Sequence[str]:
        """K names."""
        return self.metadata.stuff_classes

    @property
    def options(self) -> PanopticOptions:
        """How the panoptic picture was made."""
        return self.raw.options.panoptic


@torch.no_grad()
def explain(
    model: DETR, image: dict, input_format: str = "RGB", metadata: Metadata | None = None
) -> Explanation:
    """Follows one image through a model.

    All tensors are those of one real forward pass. Forward hooks record them, and are removed
    afterwards. Only attention weights are computed again, see ``RecordedAttention``. The model is
    left as it was, also in its mode of training.

    The transformer and the mask head name the modules that are recorded, by their methods
    ``explained_attention`` and ``explained_modules``. What they don't name is left out.

    An explanation is about the panoptic picture. Its masks are those that the model makes when it
    is asked for that picture alone (``InferenceOptions.instances_on=False``). Masks that it makes
    together with those of instances may differ from them by rounding.

    Args:
        model: a DETR, with masks or without.
        image: as ``DETR.forward`` takes it to predict: ``image`` (3×H×W, 0 … 255), ``height`` and
            ``width`` of the output. ``explain_image`` takes an array as cv2 reads it.
        input_format: "RGB" or "BGR", the order of the image's channels, ``INPUT.FORMAT``.
        metadata: names and colours of the classes; without it, names are the model's.

    Raises:
        ValueError: it is not an image, or a part of the model doesn't call its hooks, as is the
            case for compiled parts.
        AttributeError: the model doesn't have a module that its transformer or mask head names.
    """
    attention = {
        kind: [f"detector.transformer.{name}" for name in names]
        for kind, names in model.detector.transformer.explained_attention().items()
    }
    projections = [
        f"{name}.{part}" for names in attention.values() for name in names for part in _PROJECTIONS
    ]
    of_detector = {
        "detector": output_of,
        "detector.position_encoding": lambda args, positions: (args[0], positions),
        **dict.fromkeys(projections, output_of),
    }
    head = model.mask_head
    named = ExplainedModules() if head is None else head.explained_modules()
    with evaluating(model), recording(model, of_detector | _mask_head_parts(named)) as calls:
        (raw,) = model.raw_predictions([image])
        _require_calls(calls, of_detector)
        masks = _masks(raw, named, calls) if raw.has_masks else None
    detected: DetectorOutput = calls["detector"][0]
    padding_mask, positions = calls["detector.position_encoding"][0]

    def attentions(kind: str) -> list[RecordedAttention]:
        return [_attention(model, name, calls, padding_mask[0]) for name in attention.get(kind, ())]

    return Explanation(
        model=model,
        picture=_picture(image, raw.sizes, input_format),
        raw=raw,
        features={
            name: feature[0]
            for name, feature in zip(model.detector.in_features, detected.features, strict=True)
        },
        padding_mask=padding_mask[0],
        positions=positions[0],
        projected=detected.projected[0],
        encoder_attention=attentions("encoder"),
        memory=detected.memory[0],
        decoder_attention=attentions("decoder"),
        hidden=detected.hidden[:, 0],
        metadata=_with_names(metadata, model, raw.logits.shape[1] - 1),
        masks=masks,
    )


def _attention(
    model: DETR, name: str, calls: dict[str, list], padding_mask: torch.Tensor
) -> RecordedAttention:
    """Gathers what was recorded of an attention module; the padding mask is h×w."""
    q, k = (calls[f"{name}.{part}"][0][0] for part in _PROJECTIONS)
    num_heads = cast(int, model.get_submodule(name).num_heads)
    return RecordedAttention(name, q, k, num_heads, padding_mask.flatten())


def _mask_head_parts(named: ExplainedModules) -> dict[str, Callable[[Any, Any], Any]]:
    """Says what is recorded of each module. Stages are summarised: a ReLU overwrites them."""

    def summary(name: str, _args: Any, output: torch.Tensor) -> Stage:
        return Stage.of_norm(name, output)

    whole = (named.attention_maps, named.pixel_embedding, named.query_embedding)
    whole_names = [_in_model(name) for name in whole if name is not None]
    stages = map(_in_model, (*named.stages, *named.image_stages))
    kept_whole: dict[str, Callable[[Any, Any], Any]] = dict.fromkeys(whole_names, output_of)
    return kept_whole | {name: partial(summary, name) for name in stages}


def _in_model(name: str) -> str:
    """The name within the model of a module of the mask head."""
    return f"mask_head.{name}"


def _masks(raw: RawPrediction, named: ExplainedModules, calls: dict[str, list]) -> Masks:
    """Chooses queries, makes their masks and merges them, all by the model's own functions."""
    kept = raw.competing(raw.options.panoptic.score_thresh)
    rounds: list[ExplainedRound] = []

    def on_round(merge_round: MergeRound) -> None:
        rounds.append(ExplainedRound.of(merge_round, kept, raw.options.panoptic.min_area))

    ids, segments_info = raw.panoptic(on_round=on_round)
    logits = raw.masks(kept.query_index)
    if len(kept):  # without queries, a mask head may do nothing
        _require_calls(calls, _mask_head_parts(named))
    maps = [] if named.attention_maps is None else calls[_in_model(named.attention_maps)]
    stages = [calls[name] for name in map(_in_model, named.stages)]
    return Masks(
        named=named,
        attention_maps=maps[0][0].float() if maps else None,
        kept=kept.query_index,
        stages=[Stage.joined(chunks) for chunks in stages if chunks],
        embedded=_embedded(named, calls),
        logits=logits,
        rounds=rounds,
        margins=margins(logits, raw.sizes),
        ids=ids,
        segments_info=segments_info,
    )


def _embedded(named: ExplainedModules, calls: dict[str, list]) -> ExplainedPixels | None:
    """The embeddings of pixels and of the kept queries, if the mask head names and made them."""
    if named.pixel_embedding is None or named.query_embedding is None:
        return None
    pixels, queries = (
        calls[_in_model(name)] for name in (named.pixel_embedding, named.query_embedding)
    )
    if not pixels or not queries:
        return None
    stages = [calls[name] for name in map(_in_model, named.image_stages)]
    return ExplainedPixels(
        pixels=pixels[0][0].float(),
        queries=torch.cat(queries).float(),
        stages=[Stage.joined(chunks) for chunks in stages],
    )


def _require_calls(calls: dict[str, list], names: Iterable[str]) -> None:
    """Makes sure that each of the named modules was called.

    Raises:
        ValueError: one was not.
    """
    silent = [name for name in names if not calls[name]]
    if silent:
        raise ValueError(
            f"Nothing was recorded of {', '.join(silent)}. Compiled parts don't call their hooks: "
            "explain a model that isn't compiled."
        )


def _with_names(metadata: Metadata | None, model: DETR, num_classes: int) -> Metadata:
    """Gives the metadata if it names the K classes, else the model's names, or else numbers."""
    if metadata is not None and len(metadata.get("stuff_classes") or []) == num_classes:
        return metadata
    classes = model.classes
    if classes is not None:
        return classes.metadata("explained")
    names = [f"class {k}" for k in range(num_classes)]
    return Metadata(name="explained", thing_classes=names, stuff_classes=names)


def _picture(image: dict, sizes: ImageSizes, input_format: str) -> np.ndarray:
    """The image as the network saw it, H×W×3 uint8 RGB, with its padding in black."""
    pixels = image["image"].float().round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    padded = np.zeros((*sizes.padded, 3), np.uint8)
    height, width = sizes.network
    padded[:height, :width] = pixels if input_format == "RGB" else pixels[:, :, ::-1]
    return padded
