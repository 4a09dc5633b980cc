"""The meta-architecture: wires detector, mask head, criterion and inference together.

Axes: B images, Q queries, K classes, N (image, query) pairs whose masks are wanted; H×W an image,
H'×W' its output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import ImageList
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import nn
from torch.profiler import record_function

from detr_d2.data.categories import PanopticClasses, thing_mask
from detr_d2.modeling.criterion import Divisors, LossWeights, SetCriterion, detection_metrics
from detr_d2.modeling.detector import Detector, DetectorOutput
from detr_d2.modeling.feature_cache import FeatureCache
from detr_d2.modeling.inference import checked_image, output_size
from detr_d2.modeling.inference_options import InferenceOptions
from detr_d2.modeling.mask_head_base import MaskHead, build_mask_head, required_mask_head
from detr_d2.modeling.matcher import HungarianMatcher
from detr_d2.modeling.raw_prediction import RawPrediction
from detr_d2.modeling.targets import Target
from detr_d2.modeling.upsampling import ImageSizes


class DETR(nn.Module):
    """DETR (Carion et al., 2020, arXiv:2005.12872), with its panoptic head where masks are on.

    All parameters are under ``detector`` or ``mask_head``.
    """

    # Buffers:
    is_thing: torch.Tensor
    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    @configurable
    def __init__(
        self,
        *,
        detector: Detector,
        mask_head: MaskHead | None,
        criterion: SetCriterion,
        aux_loss: bool,
        freeze_detector: bool,
        feature_cache: FeatureCache | None,
        is_thing: torch.Tensor,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        options: InferenceOptions,
        classes: PanopticClasses | None,
    ) -> None:
        """Wires the parts.

        Args:
            detector: backbone, transformer, class and box heads.
            mask_head: see ``DETR_MASK_HEAD_REGISTRY``; None for the bare detector.
            criterion: matching and losses.
            aux_loss: whether every decoder layer is trained, or the last alone.
            freeze_detector: whether only the mask head is trained.
            feature_cache: keeps the features of the backbone while the model is trained; None:
                they are computed each time.
            is_thing: K bool.
            pixel_mean: per channel, in 0 … 255, in the channel order of the input.
            pixel_std: likewise.
            options: thresholds and kinds of output.
            classes: names and colours of the K classes, for people; None where nothing tells them.
        """
        super().__init__()
        self.detector = detector
        self.mask_head = mask_head
        self.criterion = criterion
        self.aux_loss = aux_loss
        self.freeze_detector = freeze_detector
        self.feature_cache = feature_cache
        self.options = options
        self.classes = classes
        self.register_buffer("is_thing", is_thing, persistent=False)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        if freeze_detector:
            detector.requires_grad_(False).eval()
        if feature_cache and not (freeze_detector or _is_fixed(detector.backbone)):
            raise ValueError(
                "MODEL.DETR.FEATURE_CACHE_GB needs a backbone that isn't trained, with fixed "
                "statistics of batch norm: MODEL.BACKBONE.FREEZE_AT 5. The pyramid behind a "
                "vision transformer is always trained."
            )

    @classmethod
    def from_config(cls, cfg: CfgNode, classes: PanopticClasses | None) -> dict:
        """Takes a resolved config and its classes, see ``resolve_config`` and ``run_classes``."""
        detr = cfg.MODEL.DETR
        gigabytes = detr.FEATURE_CACHE_GB
        detector = Detector(cfg)
        lateral_channels = detector.feature_channels[-2::-1]
        return {
            "detector": detector,
            "mask_head": build_mask_head(cfg, lateral_channels) if detr.MASK_ON else None,
            "criterion": SetCriterion(
                HungarianMatcher(
                    cost_class=detr.MATCHER.COST_CLASS,
                    cost_l1=detr.MATCHER.COST_L1,
                    cost_giou=detr.MATCHER.COST_GIOU,
                ),
                LossWeights(
                    class_weight=detr.LOSS.CLASS_WEIGHT,
                    l1_weight=detr.LOSS.L1_WEIGHT,
                    giou_weight=detr.LOSS.GIOU_WEIGHT,
                    mask_weight=detr.LOSS.MASK_WEIGHT,
                    dice_weight=detr.LOSS.DICE_WEIGHT,
                    no_object_weight=detr.LOSS.NO_OBJECT_WEIGHT,
                    focal_alpha=detr.LOSS.FOCAL_ALPHA,
                    focal_gamma=detr.LOSS.FOCAL_GAMMA,
                    num_points=detr.LOSS.NUM_POINTS,
                ),
            ),
            "aux_loss": detr.AUX_LOSS,
            "freeze_detector": detr.FREEZE_DETECTOR,
            "feature_cache": FeatureCache(gigabytes) if gigabytes else None,
            "is_thing": thing_mask(classes, detr.NUM_CLASSES),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "options": InferenceOptions.from_config(cfg),
            "classes": classes,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def train(self, mode: bool = True) -> DETR:
        """Sets the mode; a frozen detector always stays in evaluation mode, with its statistics."""
        super().train(mode)
        if self.freeze_detector:
            self.detector.eval()
        return self

    def forward(
        self, batched_inputs: list[dict], divisors: Divisors | None = None
    ) -> dict[str, torch.Tensor] | list[dict]:
        """Trains or predicts on Detectron2's standard input.

        Args:
            batched_inputs: for each image ``image`` (3×H×W, 0 … 255, in the order of
                ``INPUT.FORMAT``); to predict, ``height`` and ``width`` of the output (default: the
                image's); to train, ``instances`` with ``gt_classes``, ``gt_boxes`` and, where masks
                are on, ``gt_masks`` (``BitMasks``), for things and stuff alike.
            divisors: to train on a part of a batch: those of the whole, see ``divisors``.

        Returns:
            When training, the weighted losses. Else, for each image, ``instances`` (things; boxes,
            scores, classes, masks), ``panoptic_seg``: (H'×W' int32 ids, segments_info), and ``raw``
            (its ``RawPrediction``), each where it is wanted.
        """
        if self.training:
            return self.losses(batched_inputs, divisors)
        return self.predict(batched_inputs)

    def preprocess(self, batched_inputs: list[dict]) -> ImageList:
        """Normalises the images and pads them with zeros, right and bottom, to one size."""
        images = [
            (checked_image(x).to(self.device, torch.float32) - self.pixel_mean) / self.pixel_std
            for x in batched_inputs
        ]
        return ImageList.from_tensors(
            images,
            self.detector.size_divisibility,
            padding_constraints=self.detector.backbone.padding_constraints,
        )

    def masks_of(
        self, detected: DetectorOutput, image_index: torch.Tensor, query_index: torch.Tensor
    ) -> torch.Tensor:
        """Mask logits of N chosen queries.

        Args:
            detected: what the detector gave.
            image_index: N int64.
            query_index: N int64.

        Returns:
            N×H/4×W/4.

        Raises:
            ValueError: the model has no masks.
        """
        return required_mask_head(self.mask_head)(
            **detected.mask_inputs(), image_index=image_index, query_index=query_index
        )

    def divisors(self, batched_inputs: list[dict]) -> Divisors:
        """Computes the divisors of the losses of a batch; all processes have to call it."""
        instances = [x["instances"] for x in batched_inputs]
        num_queries = self.detector.query_embed.num_embeddings
        return self.criterion.divisors(instances, num_queries, self.device)

    def losses(
        self, batched_inputs: list[dict], divisors: Divisors | None = None
    ) -> dict[str, torch.Tensor]:
        """Weighted losses of a batch; metrics go to the event storage, if one is open."""
        images = self.preprocess(batched_inputs)
        with_masks = self.mask_head is not None
        targets = [
            Target.from_instances(x["instances"].to(self.device), with_masks)
            for x in batched_inputs
        ]
        features = None
        if self.feature_cache is not None:
            pixels = [x["image"] for x in batched_inputs]
            features = self.feature_cache.features(self.detector, images, pixels)
        learns, transformer = not self.freeze_detector, self.detector.transformer
        with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
            detected = self.detector(
                images,
                all_layers=self.aux_loss and learns,
                targets=targets if transformer.needs_targets and learns else None,
                features=features,
            )
        divisors = divisors or self.divisors(batched_inputs)
        num_targets, last_layer = divisors.num_targets, len(detected.logits) - 1

        losses = dict(detected.losses) if learns else {}
        of_layers = (detected.logits.float(), detected.boxes_cxcywh.float())
        matches_of_layers = self.criterion.match(*of_layers, targets)
        for layer, (logits, boxes, matches) in enumerate(
            zip(*of_layers, matches_of_layers, strict=True)
        ):
            if learns:
                suffix = "" if layer == last_layer else f"_{layer}"
                layer_losses = self.criterion.detection_losses(
                    logits, boxes, targets, matches, num_targets, divisors.class_weight
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
        return [raw.result() for raw in self.raw_predictions(batched_inputs)]

    @torch.no_grad()
    def raw_predictions(self, batched_inputs: list[dict]) -> Iterator[RawPrediction]:
        """Gives what the network makes of each image, see ``RawPrediction``.

        Args:
            batched_inputs: as ``forward`` takes them to predict.
        """
        if self.options.batch_invariant:
            batches = [[one] for one in batched_inputs]
        else:
            batches = [batched_inputs]
        for batch in batches:
            with record_function("preprocess"):
                images = self.preprocess(batch)
            with self.options.autocast(self.device):
                detected = self.detector(images)
            padded = tuple(images.tensor.shape[-2:])
            for i, (x, network) in enumerate(zip(batch, images.image_sizes, strict=True)):
                sizes = ImageSizes(padded, tuple(network), output_size(x, network))
                yield RawPrediction(
                    detected.of_image(i), self.mask_head, self.is_thing, sizes, self.options
                )


def _is_fixed(backbone: nn.Module) -> bool:
    """Whether training leaves all weights and statistics of a backbone as they are."""
    mode = backbone.training
    backbone.train()
    norms = [m for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    has_changing_statistics = any(norm.training for norm in norms)
    backbone.train(mode)
    return not has_changing_statistics and not any(p.requires_grad for p in backbone.parameters())
