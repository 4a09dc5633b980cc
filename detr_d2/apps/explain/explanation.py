"""One image followed through the model, in the seven moves of the walk-through.

Axes: Q queries, K classes, n kept queries, D width, M heads, L decoder layers; h×w the res5 grid,
S = h·w; H'×W' the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from detectron2.data import Metadata

from detr_d2.apps.explain.hook_recording import evaluating, output_of, recording
from detr_d2.apps.explain.mask_head_stages import Stage
from detr_d2.apps.explain.query_rounds import FightRound, margins
from detr_d2.apps.explain.recorded_attention import RecordedAttention
from detr_d2.modeling import DETR, AttentionMaskHead
from detr_d2.modeling.detector import DetectorOutput
from detr_d2.modeling.inference import InferenceOptions, select_panoptic_queries
from detr_d2.modeling.merging import MergingRound
from detr_d2.modeling.raw_prediction import RawPrediction
from detr_d2.modeling.upsampling import ImageSizes


@dataclass(frozen=True)
class Masks:
    """What there is only where the model has masks: moves 4 to 7.

    Attributes:
        attention_maps: Q×M×h×w float32, of all queries.
        kept: n int64, the queries whose best class is an object above the threshold.
        stages: of the mask head, the first at h×w, the last at stride 4.
        logits: n×H/4×W/4 mask logits of the padded image.
        rounds: of the fight for pixels.
        margins: H'×W' float32, by how much the highest logit of the kept queries is above the
            second; infinite where there is no second.
        ids: H'×W' int32, the panoptic picture.
        segments_info: what each id stands for, see ``merge_panoptic``.
    """

    attention_maps: torch.Tensor
    kept: torch.Tensor
    stages: list[Stage]
    logits: torch.Tensor
    rounds: list[FightRound]
    margins: torch.Tensor
    ids: torch.Tensor
    segments_info: list[dict]


@dataclass(frozen=True)
class Explanation:
    """Every tensor on the way from one image to its panoptic picture, on the model's device.

    Attributes:
        model: that made them; for the names and places of its modules.
        picture: H×W×3 uint8 RGB, what the network saw, with its padding in black.
        raw: classes and boxes of the queries, and the sizes of the image.
        features: for each name of the backbone's outputs C×·×·, finest first.
        padding_mask: h×w bool, True = padding.
        positions: D×h×w.
        projected: D×h×w, res5 at the transformer's width.
        encoder_attention: the self-attention of each encoder layer; T is S.
        memory: D×h×w, the encoded image.
        decoder_attention: the cross-attention of each decoder layer; T is Q.
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
    def options(self) -> InferenceOptions:
        return self.model.options


@torch.no_grad()
def explain(
    model: DETR, image: dict, input_format: str = "RGB", metadata: Metadata | None = None
) -> Explanation:
    """Follows one image through a model.

    All tensors are those of one real forward pass, taken by forward hooks, which are gone
    afterwards. Attention weights alone are computed anew, see ``RecordedAttention``. The model is
    left as it was, its mode of training included.

    An explanation is about the panoptic picture. Its masks are those that the model makes when it
    is asked for that picture alone (``InferenceOptions.instances_on=False``). Masks that it makes
    together with those of instances may differ from them by rounding.

    Args:
        model: a DETR, with masks or without; its mask head is an ``AttentionMaskHead``.
        image: as ``DETR.forward`` takes it to predict: ``image`` (3×H×W, 0 … 255), ``height`` and
            ``width`` of the output. ``explain_image`` takes an array as cv2 reads it.
        input_format: "RGB" or "BGR", the order of the image's channels, ``INPUT.FORMAT``.
        metadata: names and colours of the classes; without, names are the model's.

    Raises:
        ValueError: it is no image; the mask head is of another kind; a part of the model runs past
            its hooks, as compiled parts do.
    """
    head = model.mask_head
    if head is not None and not isinstance(head, AttentionMaskHead):
        raise ValueError(
            f"The stages of an AttentionMaskHead can be explained, not those of a "
            f"{type(head).__name__} (MODEL.DETR.MASK_HEAD.NAME)."
        )
    wanted = {
        "detector": output_of,
        "detector.position_encoding": lambda args, positions: (args[0], positions),
        **{name: output_of for name in _projections(model)},
        **(_mask_head_parts(head) if head is not None else {}),
    }
    with evaluating(model), recording(model, wanted) as calls:
        (raw,) = model.raw_predictions([image])
        masks_of_fight = None if head is None else _fight(raw, model.options)
    silent = [name for name, outputs in calls.items() if not outputs]
    if silent:
        raise ValueError(
            f"Nothing was recorded of {', '.join(silent)}. Parts that were compiled run past their "
            "hooks: explain a model that isn't compiled."
        )
    detected: DetectorOutput = calls["detector"][0]
    padding_mask, positions = calls["detector.position_encoding"][0]
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
        encoder_attention=_attentions(model, "encoder", calls, padding_mask[0]),
        memory=detected.memory[0],
        decoder_attention=_attentions(model, "decoder", calls, padding_mask[0]),
        hidden=detected.hidden[:, 0],
        metadata=_with_names(metadata, model, raw.logits.shape[1] - 1),
        masks=None if masks_of_fight is None else _masks(calls, masks_of_fight),
    )


def _attention_modules(model: DETR, kind: str) -> list[str]:
    """Names of the modules of encoder self-attention, or of decoder cross-attention."""
    module = {"encoder": "self_attention", "decoder": "cross_attention"}[kind]
    layers = getattr(model.detector.transformer, f"{kind}_layers")
    return [f"detector.transformer.{kind}_layers.{i}.{module}" for i in range(len(layers))]


def _projections(model: DETR) -> list[str]:
    modules = [name for kind in ("encoder", "decoder") for name in _attention_modules(model, kind)]
    return [f"{name}.{projection}" for name in modules for projection in ("q_proj", "k_proj")]


def _attentions(
    model: DETR, kind: str, calls: dict[str, list], padding_mask: torch.Tensor
) -> list[RecordedAttention]:
    """Of each layer; the padding mask is h×w."""
    return [
        RecordedAttention(
            name,
            q=calls[f"{name}.q_proj"][0][0],
            k=calls[f"{name}.k_proj"][0][0],
            num_heads=model.get_submodule(name).num_heads,
            padding=padding_mask.flatten(),
        )
        for name in _attention_modules(model, kind)
    ]


def _mask_head_parts(head: AttentionMaskHead) -> dict:
    """What is kept of the mask head: summaries, as its norms' outputs are overwritten in place."""
    norms = ["input_norm", *(f"norms.{i}" for i in range(len(head.norms)))]
    names = [f"mask_head.{norm}" for norm in norms]

    def summary(name, _args, output) -> Stage:
        return Stage.of_norm(name, output)

    stages = {name: partial(summary, name) for name in names}
    return {"mask_head.attention_map": output_of, **stages}


def _fight(raw: RawPrediction, options: InferenceOptions) -> dict:
    """Chooses queries, makes their masks and merges them, all by the model's own functions."""
    kept = select_panoptic_queries(raw.logits, options.score_thresh)
    rounds: list[FightRound] = []

    def on_round(merging_round: MergingRound) -> None:
        rounds.append(FightRound.of(merging_round, kept, raw.is_thing, options))

    ids, segments_info = raw.panoptic(
        score_thresh=options.score_thresh,
        stuff_merging=options.stuff_merging,
        min_area=options.min_area,
        on_round=on_round,
    )
    logits = raw.masks(kept.query_index)
    return {
        "kept": kept.query_index,
        "logits": logits,
        "rounds": rounds,
        "margins": margins(logits, raw.sizes),
        "ids": ids,
        "segments_info": segments_info,
    }


def _masks(calls: dict[str, list], fight: dict) -> Masks:
    stages = [Stage.joined(chunks) for chunks in calls.values() if isinstance(chunks[0], Stage)]
    return Masks(attention_maps=calls["mask_head.attention_map"][0][0], stages=stages, **fight)


def _with_names(metadata: Metadata | None, model: DETR, num_classes: int) -> Metadata:
    """The metadata if it names the K classes in one list, else the model's names, or numbers."""
    if metadata is not None and len(metadata.get("stuff_classes") or []) == num_classes:
        return metadata
    classes = model.classes
    if classes is not None:
        return classes.metadata("explained")
    names = [f"class {k}" for k in range(num_classes)]
    return Metadata(name="explained", thing_classes=names, stuff_classes=names)


def _picture(image: dict, sizes: ImageSizes, input_format: str) -> np.ndarray:
    """The image as the network saw it, H×W×3 uint8 RGB, its padding black."""
    pixels = image["image"].float().round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    padded = np.zeros((*sizes.padded, 3), np.uint8)
    height, width = sizes.network
    padded[:height, :width] = pixels if input_format == "RGB" else pixels[:, :, ::-1]
    return padded
