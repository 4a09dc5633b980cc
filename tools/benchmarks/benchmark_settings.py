"""Settings of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.weights import FULL, TINY


@dataclass(frozen=True)
class SweepValues:
    """The values of each sweep; everything else is as in the settings."""

    kept: tuple[int, ...] = (5, 15, 30, 60, 100)
    queries: tuple[int, ...] = (100, 200, 300)
    sizes: tuple[tuple[int, int], ...] = ((480, 640), (640, 853), (800, 1066), (1000, 1333))
    batches: tuple[int, ...] = (1, 2, 4)


@dataclass(frozen=True)
class BenchmarkSettings:
    """The defaults are the released R50 model on an image of COCO's usual size.

    Attributes:
        device: "cpu" or "cuda".
        threads: number of PyTorch's threads.
        repeats: rounds that are timed.
        seed: seed of weights, images and scenes.
        size: (H, W) of the image.
        kept: queries that compete for pixels.
        num_targets: segments of the training image.
        trained_size: (H, W) of the images of the box stage.
        evaluated_images: number of predictions that are evaluated, and written.
        evaluated_size: their (H, W).
        annotated_images: number of images in the JSON that is read.
        ap_images: number of images whose boxes are evaluated.
        architecture: changes to transformers' ``DetrConfig``.
        matrix_side: side of the matrices whose product shows the machine's speed.
        memory: whether memory is measured, which starts a process for each figure.
        compiled: whether ``torch.compile`` is measured.
        sweeps: values of sweeps; None: no sweeps.
    """

    device: str
    threads: int
    repeats: int = 5
    seed: int = 0
    size: tuple[int, int] = (800, 1066)
    kept: int = 15
    num_targets: int = 10
    trained_size: tuple[int, int] = (480, 640)
    evaluated_images: int = 200
    evaluated_size: tuple[int, int] = (480, 640)
    annotated_images: int = 118_287
    ap_images: int = 5_000
    architecture: Mapping[str, Any] = field(default_factory=lambda: FULL)
    matrix_side: int = 2048
    memory: bool = True
    compiled: bool = False
    sweeps: SweepValues | None = None

    def quick(self) -> BenchmarkSettings:
        """Settings to try the tool out: a tiny model, small images, two rounds, without memory."""
        small = SweepValues(
            kept=(3, 5), queries=(100, 110), sizes=((64, 96), (96, 128)), batches=(1, 2)
        )
        return replace(
            self,
            repeats=2,
            size=(96, 128),
            kept=5,
            num_targets=3,
            trained_size=(64, 96),
            evaluated_images=4,
            evaluated_size=(60, 80),
            annotated_images=20,
            ap_images=5,
            architecture=TINY,
            matrix_side=256,
            memory=False,
            sweeps=self.sweeps and small,
        )
