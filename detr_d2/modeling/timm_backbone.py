"""What all backbones of timm share: names of weights, freezing, and folded batch norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import nn

from detr_d2.modeling.folded_siblings import BatchNorm, fold_pairs, following_norms

FEATURES = ("res2", "res3", "res4", "res5")
# What ``MODEL.TIMM.NORM`` may be.
NORMS = ("FrozenBN", "BN", "SyncBN")
# The size of an image with which a model is tried. No stride divides its sides.
TRIAL_SIZE = (97, 131)


class TimmBackbone(Backbone):
    """A model of timm that gives res2 to res5, each B×C×⌈H/stride⌉×⌈W/stride⌉.

    Parameters have timm's names below ``model``, apart from batch norms that are folded into
    convolutions.

    Attributes:
        architecture: the model's name in timm, without the tag of its weights.
        names_in_timm: names in timm's own state dicts → names here.
        names_of_whole: names of all tensors of timm's whole model, in its order.
        layer_depths: names of the model's parameters → how many layers come after theirs.
        without_weight_decay: last parts of names of parameters that timm exempts from it.
    """

    def __init__(self, architecture: str, model: Any, shapes: Mapping[str, ShapeSpec]) -> None:
        """Takes a model with random weights; see ``set_up``.

        Args:
            architecture: its name in timm.
            model: without its classifier.
            shapes: of the features.
        """
        super().__init__()
        self.architecture = architecture
        self.model = model
        self.shapes = dict(shapes)
        self.names_of_whole: list[str] = []
        self.names_in_timm: dict[str, str] = {}
        self.layer_depths: dict[str, int] = {}
        exempt: set[str] = getattr(model, "no_weight_decay", set)()
        names = {name.rpartition(".")[2] for name in exempt or ()}
        self.without_weight_decay = names - {"weight", "bias"}  # modules of all kinds have these
        self._fixed: set[nn.Module] = set()

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self.shapes)

    @torch.no_grad()
    def takes_any_size(self) -> bool:
        """Whether features cover all of an image whose sides no stride divides."""
        image = torch.zeros(1, 3, *TRIAL_SIZE)
        try:
            features = self.eval()(image)
        except (AssertionError, RuntimeError, ValueError):  # timm's models raise all of these
            return False
        return all(
            features[name].shape[-2:] == grid_size(image, shape.stride)
            for name, shape in self.shapes.items()
        )

    def require_any_size(self) -> None:
        """Raises a ``ValueError`` unless the model takes images of any size."""
        if not self.takes_any_size():
            raise ValueError(
                f"MODEL.TIMM.NAME: {self.architecture} takes only images of one size, and a DETR "
                "needs features of any. Choose another model."
            )

    def set_up(self, stage_ends: Sequence[str], freeze_at: int, norm: str) -> None:
        """Freezes the first stages, and folds batch norms; to be called once.

        Args:
            stage_ends: names of the five modules of the model in which stem and stages end.
            freeze_at: 0: nothing is frozen, 1: the stem, 2 to 5: also the stages to res2 … res5,
                as Detectron2's ``MODEL.BACKBONE.FREEZE_AT`` means it.
            norm: "FrozenBN" keeps statistics and weights of all batch norms; "BN" and "SyncBN"
                train those of the other stages.
        """
        from timm.layers import convert_sync_batchnorm

        layers = self._layers()
        timm_names = {id(x): name for name, x in self.model.state_dict(keep_vars=True).items()}
        self.replace_parts()
        pairs = []
        if any(isinstance(module, BatchNorm) for module in self.model.modules()):
            self.eval()
            pairs = following_norms(self.model, lambda: self(torch.zeros(1, 3, *TRIAL_SIZE)))
        self._leave_out_unused()
        self.train()
        for module in self._to_freeze(stage_ends, freeze_at, norm == "FrozenBN"):
            module.training = False
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
        fold_pairs(self.model, pairs)
        if norm == "SyncBN":
            self.model = convert_sync_batchnorm(self.model)
        self._fixed = {module for module in self.model.modules() if not module.training}
        self.names_in_timm = {
            timm_names[id(x)]: name
            for name, x in self.state_dict(keep_vars=True).items()
            if id(x) in timm_names
        }
        self.layer_depths = {
            self.names_in_timm[name]: max(layers.values()) - layer for name, layer in layers.items()
        }

    def end_of_stem(self, first_stage: str) -> str:
        """The name of the last module with weights of its own before the first stage's module."""
        names = [name for name, part in self.model.named_modules() if [*part.parameters(False)]]
        inside = [name for name in names if f"{name}.".startswith(f"{first_stage}.")]
        return names[max(names.index(inside[0]) - 1, 0)]

    def replace_parts(self) -> None:
        """Replaces parts of the model, if it has any to replace, but none of its weights."""

    def _layers(self) -> dict[str, int]:
        """Timm's names of parameters → the numbers of their layers, in the order of computation."""
        from timm.models import group_parameters

        if not hasattr(self.model, "group_matcher"):
            return {}
        matcher = self.model.group_matcher(coarse=False)
        return group_parameters(self.model, matcher, reverse=True)

    def _leave_out_unused(self) -> None:
        """Fixes weights that no feature depends on; distributed training would stop at them."""
        features = self.eval()(torch.zeros(1, 3, *TRIAL_SIZE)).values()
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        total = torch.stack([feature.sum() for feature in features]).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)

    def _to_freeze(
        self, stage_ends: Sequence[str], freeze_at: int, all_norms: bool
    ) -> list[nn.Module]:
        # The order of modules is that of computation.
        modules = list(self.model.modules())
        frozen = []
        if freeze_at:
            *_, last = self.model.get_submodule(stage_ends[freeze_at - 1]).modules()
            frozen = modules[: modules.index(last) + 1]
        return frozen + [m for m in modules if all_norms and isinstance(m, BatchNorm)]

    def train(self, mode: bool = True) -> TimmBackbone:
        """Sets the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self._fixed:
            module.training = False
        return self


def pad_to_multiple(x: torch.Tensor, divisor: int) -> torch.Tensor:
    """Pads B×C×H×W with zeros, right and bottom, until a number divides both sides."""
    # No negative numbers are divided: ONNX would round to the other side.
    height, width = ((side + divisor - 1) // divisor * divisor for side in x.shape[-2:])
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))


def grid_size(image: torch.Tensor, stride: int) -> tuple[int, int]:
    """Rows and columns of cells that B×3×H×W needs: ⌈H/stride⌉ and ⌈W/stride⌉."""
    height, width = image.shape[-2:]
    return (height + stride - 1) // stride, (width + stride - 1) // stride


def crop_to_grid(feature: torch.Tensor, image: torch.Tensor, stride: int) -> torch.Tensor:
    """B×C×·×· to the B×C×⌈H/stride⌉×⌈W/stride⌉ cells that B×3×H×W needs."""
    rows, columns = grid_size(image, stride)
    return feature.narrow(-2, 0, rows).narrow(-1, 0, columns)
