"""The subjects that are compared at inference, ours and our peers', from pixels to results.

Axes: Q queries, K classes, H×W the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from oracles.plain_panoptic import PlainPanoptic

from benchmarks.agreement import Picture
from benchmarks.weights import load_ours, random_image
from detr_d2.modeling import DETR

# Keys below ``MODEL.DETR``, as ``Workload.load_ours`` takes them.
PIXEL_HEAD = {"MASK_HEAD__NAME": "PixelEmbeddingMaskHead", "RESIZE_ON_LOAD": True}


@dataclass(frozen=True)
class Workload:
    """The input of every subject. It is picklable.

    Attributes:
        weights: the folder that ``save_random_weights`` filled.
        size: (H, W) of the image, and of the output.
        score_thresh: queries with a higher score are kept.
        device: "cpu" or "cuda".
        seed: seed of the image.
    """

    weights: str
    size: tuple[int, int]
    score_thresh: float
    device: str
    seed: int

    def image(self) -> torch.Tensor:
        """Returns the image: 3×H×W uint8, on the CPU, as from a data loader."""
        return random_image(self.size, torch.Generator().manual_seed(self.seed))

    def load_ours(self, **overrides: object) -> DETR:
        """Loads our model. Overrides are keys below ``MODEL.DETR``, with ``__`` for the dot."""
        return load_ours(
            self.weights,
            {
                "MODEL.DEVICE": self.device,
                "MODEL.DETR.TEST.INSTANCES_ON": False,
                "MODEL.DETR.TEST.SCORE_THRESH": self.score_thresh,
                **{f"MODEL.DETR.{key.replace('__', '.')}": x for key, x in overrides.items()},
            },
        )


@dataclass(frozen=True)
class Subject:
    """A way of predicting.

    Attributes:
        run: predicts on the workload's image, from pixels to a result.
        picture: gets the panoptic picture from a result; None for bare detectors.
    """

    run: Callable[[], object]
    picture: Callable[[object], Picture] | None = None


def score_threshold(logits: torch.Tensor, kept: int) -> float:
    """Finds the threshold that exactly ``kept`` queries pass, halfway to the next best query.

    Args:
        logits: Q×(K+1).
        kept: number of queries to keep.

    Raises:
        ValueError: no threshold does, since too few queries are objects, or scores are equal.
    """
    scores, classes = logits.float().softmax(-1).max(-1)
    scores = scores[classes != logits.shape[-1] - 1].double().sort(descending=True).values
    if not 1 <= kept <= len(scores):
        raise ValueError(f"{kept} queries can't be kept: only {len(scores)} predict an object.")
    next_score = scores[kept].item() if kept < len(scores) else 0.0
    if next_score == scores[kept - 1].item():
        raise ValueError(f"{kept} queries can't be kept: the next one has the same score.")
    return (scores[kept - 1].item() + next_score) / 2


def build_ours(workload: Workload, **overrides: object) -> Subject:
    """Our panoptic model."""
    return _panoptic(workload.load_ours(**overrides), workload)


def build_bf16(workload: Workload) -> Subject:
    """Our panoptic model in bfloat16, see ``MODEL.DETR.TEST.PRECISION``."""
    return build_ours(workload, TEST__PRECISION="bfloat16")


def build_default(workload: Workload) -> Subject:
    """The default output: the panoptic picture, and its things as instances."""
    return build_ours(workload, TEST__INSTANCES_ON=True)


def build_all_instances(workload: Workload) -> Subject:
    """The panoptic picture, and an instance with its mask for every query that may be a thing."""
    return build_ours(workload, TEST__INSTANCES_ON=True, TEST__INSTANCE_SCORE_THRESH=0.0)


def build_pixel(workload: Workload) -> Subject:
    """Our panoptic model with another mask head, whose weights are its initial ones."""
    model, image = workload.load_ours(**PIXEL_HEAD), workload.image()
    return Subject(lambda: model([{"image": image}])[0]["panoptic_seg"])


def build_pixel_with_all_masks(workload: Workload) -> Subject:
    """The same, and the mask logits of all queries."""
    model, image = workload.load_ours(**PIXEL_HEAD), workload.image()
    every = torch.arange(model.detector.query_embed.num_embeddings, device=model.device)

    def run() -> tuple:
        (raw,) = model.raw_predictions([{"image": image}])
        return raw.masks(every), raw.panoptic()

    return Subject(run)


def build_compiled(workload: Workload) -> Subject:
    """Our panoptic model with detector and mask head under ``torch.compile``.

    The other steps depend on how many queries are kept, and wait for this number.
    """
    model = workload.load_ours()
    model.detector.compile()
    model.mask_head.compile()
    return _panoptic(model, workload)


def build_detector(workload: Workload) -> Subject:
    """Our bare detector: boxes, classes and scores of things."""
    model = workload.load_ours(
        MASK_ON=False, TEST__INSTANCES_ON=True, TEST__INSTANCE_SCORE_THRESH=0.0
    )
    image = workload.image()
    return Subject(lambda: model([{"image": image}])[0]["instances"])


def build_plain(workload: Workload) -> Subject:
    """The plain path with our parameters."""
    plain, image = PlainPanoptic(workload.load_ours()), workload.image()
    return Subject(lambda: plain(image), lambda result: Picture.from_output(*result))


def build_transformers(workload: Workload) -> Subject:
    """The panoptic DETR of transformers with its image processor and its merging.

    Thresholds on a segment's own pixels are 0, so that it keeps the same segments as ours. It
    doesn't fuse stuff, since then it would give one id to several segments.
    """
    from transformers import DetrForSegmentation

    model = DetrForSegmentation.from_pretrained(workload.weights).to(workload.device).eval()
    process, image = _their_input(workload)

    @torch.no_grad()
    def run() -> dict:
        return process.post_process_panoptic_segmentation(
            model(**process(image, return_tensors="pt").to(workload.device)),
            threshold=workload.score_thresh,
            mask_threshold=0.0,
            overlap_mask_area_threshold=0.0,
            label_ids_to_fuse=set(),
            target_sizes=[workload.size],
        )[0]

    return Subject(run, Picture.from_transformers)


def build_transformers_detector(workload: Workload) -> Subject:
    """The bare detector of transformers with its image processor."""
    from transformers import DetrForSegmentation

    model = DetrForSegmentation.from_pretrained(workload.weights).detr.to(workload.device).eval()
    process, image = _their_input(workload)

    @torch.no_grad()
    def run() -> dict:
        return process.post_process_object_detection(
            model(**process(image, return_tensors="pt").to(workload.device)),
            threshold=0.0,
            target_sizes=[workload.size],
        )[0]

    return Subject(run)


@torch.no_grad()
def their_masks_merged_plainly(workload: Workload) -> Picture:
    """Merges transformers' masks by our rules, to show that it is the same network."""
    from transformers import DetrForSegmentation

    model = DetrForSegmentation.from_pretrained(workload.weights).to(workload.device).eval()
    process, image = _their_input(workload)
    output = model(**process(image, return_tensors="pt").to(workload.device))
    plain = PlainPanoptic(workload.load_ours())
    merged = plain.choose_and_merge(output.logits[0], output.pred_masks[0], workload.size)
    return Picture.from_output(*merged)


# Names as in the tables. Times are compared with those of the first subject, and results with those
# of "plain".
SUBJECTS: dict[str, Callable[[Workload], Subject]] = {
    "panoptic": build_ours,
    "default output": build_default,
    "all instances": build_all_instances,
    "pixel head": build_pixel,
    "pixel head, all masks": build_pixel_with_all_masks,
    "panoptic bf16": build_bf16,
    "panoptic compiled": build_compiled,
    "plain": build_plain,
    "transformers": build_transformers,
    "detector": build_detector,
    "transformers detector": build_transformers_detector,
}


def prepare_run(name: str, workload: Workload) -> Callable[[], object]:
    """Builds a subject by its name, for measuring memory."""
    return SUBJECTS[name](workload).run


def _panoptic(model: DETR, workload: Workload) -> Subject:
    image = workload.image()
    return Subject(
        lambda: model([{"image": image}])[0]["panoptic_seg"],
        lambda result: Picture.from_output(*result),
    )


def _their_input(workload: Workload) -> tuple:
    """The image processor of transformers, and the image for it."""
    from transformers import DetrImageProcessor

    return DetrImageProcessor(do_resize=False), workload.image()
