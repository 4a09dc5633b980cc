"""The meta-architecture: wires backbone, transformer, heads, criterion and inference together.

Axes: B images, Q queries, K classes, D width, M heads, L decoder layers, N (image, query) pairs;
h×w the res5 grid, H×W the padded batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.structures import ImageList
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import nn

from detr_d2.config import check_config, use_available_device
from detr_d2.data.categories import check_num_classes, thing_mask
from detr_d2.modeling.criterion import (
    LossWeights,
    SetCriterion,
    count_targets,
    detection_metrics,
)
from detr_d2.modeling.inference import (
    ImageSizes,
    InferenceOptions,
    QuerySelection,
    make_instances,
    merge_panoptic,
    select_instance_queries,
    select_panoptic_queries,
)
from detr_d2.modeling.mask_head import build_mask_head
from detr_d2.modeling.matcher import HungarianMatcher
from detr_d2.modeling.position_encoding import build_position_encoding
from detr_d2.modeling.targets import Target
from detr_d2.modeling.transformer import Transformer


@dataclass(frozen=True)
class DetectorOutput:
    """Everything the detector computes for a batch.

    Attributes:
        features: the backbone's outputs, finest first, each B×C×·×·.
        padding_mask: B×h×w bool, True = padding; None where no image is padded.
        projected: B×D×h×w, the coarsest feature at the transformer's width.
        memory: B×D×h×w, the encoded image.
        hidden: L×B×Q×D, the output of every decoder layer.
        logits: L'×B×Q×(K+1); L' is L where auxiliary losses want all layers, else 1 (the last).
        boxes_cxcywh: L'×B×Q×4, relative to each image's own size, in [0, 1].
    """

    features: list[torch.Tensor]
    padding_mask: torch.Tensor | None
    projected: torch.Tensor
    memory: torch.Tensor
    hidden: torch.Tensor
    logits: torch.Tensor
    boxes_cxcywh: torch.Tensor


class BoxHead(nn.Module):
    """Three linear layers from a query to its box (paper, section 3.2)."""

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        widths = [hidden_dim, hidden_dim, hidden_dim, 4]
        self.layers = nn.ModuleList(
            nn.Linear(i, o) for i, o in zip(widths, widths[1:], strict=False)
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Maps …×D to …×4 boxes (cx, cy, w, h) in [0, 1]."""
        *inner, last = self.layers
        for layer in inner:
            hidden = F.relu(layer(hidden))
        return last(hidden).sigmoid()


@META_ARCH_REGISTRY.register()
class DETR(nn.Module):
    """DETR (Carion et al., 2020, arXiv:2005.12872), with its panoptic head where masks are on.

    The parameters under ``mask_head`` are the mask head's; all others are the detector's.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        in_features: Sequence[str],
        position_encoding: nn.Module,
        transformer: Transformer,
        hidden_dim: int,
        num_classes: int,
        num_queries: int,
        mask_head: nn.Module | None,
        criterion: SetCriterion,
        aux_loss: bool,
        freeze_detector: bool,
        is_thing: torch.Tensor,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        options: InferenceOptions,
    ) -> None:
        """Wires the parts.

        Args:
            backbone: gives the features named in ``in_features``, finest first.
            in_features: four names, the last being the transformer's input.
            position_encoding: B×h×w padding mask → B×D×h×w.
            transformer: encoder and decoder of width D.
            hidden_dim: D.
            num_classes: K, without "no object".
            num_queries: Q.
            mask_head: see ``DETR_MASK_HEAD_REGISTRY``; None for the bare detector.
            criterion: matching and losses.
            aux_loss: whether every decoder layer is trained, or the last alone.
            freeze_detector: whether only the mask head is trained.
            is_thing: K bool.
            pixel_mean: per channel, in 0 … 255, in the channel order of the input.
            pixel_std: likewise.
            options: thresholds and kinds of output.
        """
        super().__init__()
        self.backbone = backbone
        self.in_features = list(in_features)
        self.input_proj = nn.Conv2d(
            backbone.output_shape()[self.in_features[-1]].channels, hidden_dim, kernel_size=1
        )
        self.position_encoding = position_encoding
        self.transformer = transformer
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.class_head = nn.Linear(hidden_dim, num_classes + 1)
        self.box_head = BoxHead(hidden_dim)
        self.mask_head = mask_head
        self.criterion = criterion
        self.aux_loss = aux_loss
        self.freeze_detector = freeze_detector
        self.options = options
        self.register_buffer("is_thing", is_thing, persistent=False)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        if freeze_detector:
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(name.startswith("mask_head."))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        use_available_device(cfg)
        check_config(cfg)
        for dataset_name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
            check_num_classes(cfg, dataset_name)
        detr = cfg.MODEL.DETR
        backbone = build_backbone(cfg)
        channels = _feature_channels(backbone, detr.IN_FEATURES)
        dataset_names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST, "__unused")
        return {
            "backbone": backbone,
            "in_features": detr.IN_FEATURES,
            "position_encoding": build_position_encoding(
                detr.POSITION_EMBEDDING, detr.HIDDEN_DIM
            ),
            "transformer": Transformer(
                hidden_dim=detr.HIDDEN_DIM,
                num_heads=detr.NUM_HEADS,
                enc_layers=detr.ENC_LAYERS,
                dec_layers=detr.DEC_LAYERS,
                dim_feedforward=detr.DIM_FEEDFORWARD,
                dropout=detr.DROPOUT,
                pre_norm=detr.PRE_NORM,
            ),
            "hidden_dim": detr.HIDDEN_DIM,
            "num_classes": detr.NUM_CLASSES,
            "num_queries": detr.NUM_QUERIES,
            "mask_head": build_mask_head(cfg, channels[-2::-1]) if detr.MASK_ON else None,
            "criterion": SetCriterion(
                HungarianMatcher(
                    cost_class=detr.MATCHER.COST_CLASS,
                    cost_l1=detr.MATCHER.COST_L1,
                    cost_giou=detr.MATCHER.COST_GIOU,
                ),
                LossWeights(**{key.lower(): value for key, value in detr.LOSS.items()}),
            ),
            "aux_loss": detr.AUX_LOSS,
            "freeze_detector": detr.FREEZE_DETECTOR,
            "is_thing": thing_mask(MetadataCatalog.get(dataset_names[0]), detr.NUM_CLASSES),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "options": InferenceOptions(
                score_thresh=detr.TEST.SCORE_THRESH,
                stuff_merging=detr.TEST.STUFF_MERGING,
                min_area=detr.TEST.MIN_AREA,
                panoptic_on=detr.TEST.PANOPTIC_ON,
                instances_on=detr.TEST.INSTANCES_ON,
                instance_score_thresh=detr.TEST.INSTANCE_SCORE_THRESH,
                batch_invariant=detr.TEST.BATCH_INVARIANT,
            ),
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def train(self, mode: bool = True) -> DETR:
        """As every module; a frozen detector stays in evaluation mode, statistics and all."""
        super().train(mode)
        if self.freeze_detector:
            for name, module in self.named_children():
                if name != "mask_head":
                    module.eval()
        return self

    def forward(self, batched_inputs: list[dict]) -> dict[str, torch.Tensor] | list[dict]:
        """Trains or predicts on Detectron2's standard input.

        Args:
            batched_inputs: for each image ``image`` (3×H×W, 0 … 255, in the order of
                ``INPUT.FORMAT``); to predict, ``height`` and ``width`` of the output (default: the
                image's); to train, ``instances`` with ``gt_classes``, ``gt_boxes`` and, where masks
                are on, ``gt_masks`` (``BitMasks``), for things and stuff alike.

        Returns:
            When training, the weighted losses. Else, for each image, ``instances`` (things; boxes,
            scores, classes, masks) and ``panoptic_seg``: (H'×W' int32 ids, segments_info).
        """
        if self.training:
            return self.losses(batched_inputs)
        if self.options.batch_invariant:
            return [self.predict([one])[0] for one in batched_inputs]
        return self.predict(batched_inputs)

    def preprocess(self, batched_inputs: list[dict]) -> ImageList:
        """Normalises the images and pads them with zeros, right and bottom, to one size."""
        images = [
            (x["image"].to(self.device, torch.float32) - self.pixel_mean) / self.pixel_std
            for x in batched_inputs
        ]
        return ImageList.from_tensors(
            images,
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )

    def detect(self, images: ImageList, all_layers: bool = False) -> DetectorOutput:
        """Runs backbone, transformer, class and box heads.

        Args:
            images: B×3×H×W, normalised and padded.
            all_layers: whether to predict from every decoder layer, or from the last alone.
        """
        feature_maps = self.backbone(images.tensor)
        features = [feature_maps[name] for name in self.in_features]
        projected = self.input_proj(features[-1])  # B×D×h×w
        padding_mask = self.padding_mask(images, projected.shape[-2:])  # B×h×w
        positions = self.position_encoding(padding_mask)  # B×D×h×w
        if not _is_padded(images):
            padding_mask = None
        hidden, memory = self.transformer(
            projected, padding_mask, self.query_embed.weight, positions
        )
        heads_input = hidden if all_layers else hidden[-1:]
        return DetectorOutput(
            features=features,
            padding_mask=padding_mask,
            projected=projected,
            memory=memory,
            hidden=hidden,
            logits=self.class_head(heads_input),
            boxes_cxcywh=self.box_head(heads_input),
        )

    def padding_mask(self, images: ImageList, grid: Sequence[int]) -> torch.Tensor:
        """B×h×w bool, True = padding: the mask of the full batch at the nearest pixels."""
        mask = torch.ones((len(images), *images.tensor.shape[-2:]), device=images.tensor.device)
        for image_mask, (height, width) in zip(mask, images.image_sizes, strict=True):
            image_mask[:height, :width] = 0
        return F.interpolate(mask[None], size=tuple(grid), mode="nearest")[0].bool()

    def masks_of(
        self, detected: DetectorOutput, image_index: torch.Tensor, query_index: torch.Tensor
    ) -> torch.Tensor:
        """Mask logits of N chosen queries.

        Args:
            detected: what ``detect`` gave.
            image_index: N int64.
            query_index: N int64.

        Returns:
            N×H/4×W/4.
        """
        return self.mask_head(
            queries=detected.hidden[-1],
            memory=detected.memory,
            projected=detected.projected,
            laterals=detected.features[-2::-1],
            padding_mask=detected.padding_mask,
            image_index=image_index,
            query_index=query_index,
        )

    def losses(self, batched_inputs: list[dict]) -> dict[str, torch.Tensor]:
        """Weighted losses of a batch; metrics go to the event storage, if one is open."""
        images = self.preprocess(batched_inputs)
        with_masks = self.mask_head is not None
        targets = [
            Target.from_instances(x["instances"].to(self.device), with_masks)
            for x in batched_inputs
        ]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_detector):
            detected = self.detect(images, all_layers=self.aux_loss and not self.freeze_detector)
        num_targets = count_targets(targets, self.device)

        losses = {}
        last_layer = len(detected.logits) - 1
        for layer, (logits, boxes) in enumerate(
            zip(detected.logits.float(), detected.boxes_cxcywh.float(), strict=True)
        ):
            matches = self.criterion.match(logits, boxes, targets)
            if not self.freeze_detector:
                suffix = "" if layer == last_layer else f"_{layer}"
                layer_losses = self.criterion.detection_losses(
                    logits, boxes, targets, matches, num_targets
                )
                losses.update({key + suffix: loss for key, loss in layer_losses.items()})

        # From here on, logits and matches are those of the last layer.
        if with_masks:
            mask_logits = self.masks_of(detected, matches.image_index, matches.query_index)
            losses.update(
                self.criterion.mask_losses(
                    mask_logits, targets, matches, num_targets, tuple(images.tensor.shape[-2:])
                )
            )
        if has_event_storage():
            for name, value in detection_metrics(logits, targets, matches).items():
                get_event_storage().put_scalar(f"metrics/{name}", value)
        return losses

    @torch.no_grad()
    def predict(self, batched_inputs: list[dict]) -> list[dict]:
        """Predicts on a batch; see ``forward``."""
        images = self.preprocess(batched_inputs)
        detected = self.detect(images)
        results = []
        for i, x in enumerate(batched_inputs):
            network_size = tuple(images.image_sizes[i])
            sizes = ImageSizes(
                padded=tuple(images.tensor.shape[-2:]),
                network=network_size,
                output=(x.get("height", network_size[0]), x.get("width", network_size[1])),
            )
            results.append(self._predict_image(detected, i, sizes))
        return results

    def _predict_image(self, detected: DetectorOutput, i: int, sizes: ImageSizes) -> dict:
        logits, boxes_cxcywh = detected.logits[-1, i], detected.boxes_cxcywh[-1, i]
        options, has_masks = self.options, self.mask_head is not None
        things = kept = None
        if options.instances_on:
            things = select_instance_queries(logits, self.is_thing, options.instance_score_thresh)
        if options.panoptic_on and has_masks:
            kept = select_panoptic_queries(logits, options.score_thresh)
        masks = self._masks_of_selections(detected, i, things, kept) if has_masks else None

        result = {}
        if things is not None:
            result["instances"] = make_instances(
                things,
                boxes_cxcywh[things.query_index],
                masks(things) if has_masks else None,
                sizes,
            )
        if kept is not None:
            result["panoptic_seg"] = merge_panoptic(
                kept,
                masks(kept),
                self.is_thing,
                sizes,
                stuff_merging=options.stuff_merging,
                min_area=options.min_area,
            )
        return result

    def _masks_of_selections(
        self, detected: DetectorOutput, i: int, *selections: QuerySelection | None
    ) -> Callable[[QuerySelection], torch.Tensor]:
        """Computes each wanted mask of an image once; the result looks up those of a selection."""
        num_queries = detected.hidden.shape[2]
        wanted = torch.zeros(num_queries, dtype=torch.bool, device=self.device)
        for selection in selections:
            if selection is not None:
                wanted[selection.query_index] = True
        query_index = wanted.nonzero()[:, 0]
        mask_logits = self.masks_of(detected, torch.full_like(query_index, i), query_index)
        row_of_query = wanted.cumsum(0) - 1
        return lambda selection: mask_logits[row_of_query[selection.query_index]]


def _is_padded(images: ImageList) -> bool:
    padded_size = tuple(images.tensor.shape[-2:])
    return any(tuple(size) != padded_size for size in images.image_sizes)


def _feature_channels(backbone: Backbone, in_features: Sequence[str]) -> list[int]:
    """Channels of the named features.

    Raises:
        ValueError: the backbone doesn't give one of them.
    """
    shapes = backbone.output_shape()
    missing = [name for name in in_features if name not in shapes]
    if missing:
        raise ValueError(
            f"MODEL.DETR.IN_FEATURES names {', '.join(missing)}, which the backbone doesn't give: "
            f"it gives {', '.join(shapes)}. For a ResNet, MODEL.RESNETS.OUT_FEATURES must have "
            "res2, res3, res4 and res5."
        )
    return [shapes[name].channels for name in in_features]
