"""Data loaders, whose random draws in a training can be repeated exactly from any iteration on."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, build_detection_test_loader
from detectron2.data.build import build_batch_data_loader
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from detr_d2.data.dataset_mapper import DetrDatasetMapper
from detr_d2.data.panoptic_dataset import get_dataset_dicts
from detr_d2.data.processes import worker_context
from detr_d2.data.required_targets import require_targets
from detr_d2.data.skipped_images import SkippedImages


@dataclass(frozen=True)
class BatchGroups:
    """Two groups of images that aren't batched together.

    Attributes:
        is_second: of each image, bool: whether it is in the second group.
        batch_size: of all processes together.
    """

    is_second: torch.Tensor
    batch_size: int

    @classmethod
    def of_orientations(cls, dicts: Sequence[dict], batch_size: int) -> BatchGroups:
        """Groups wide images, and the others, as Detectron2 does: mixed batches need padding."""
        wide = [record.get("width", 1) > record.get("height", 0) for record in dicts]
        return cls(~torch.tensor(wide, dtype=torch.bool), batch_size)

    def gather(self, order: torch.Tensor, head: int) -> torch.Tensor:
        """Reorders images such that as many batches as possible are of one group.

        Images stay in order within their group, and batches come in the order of their first ones.
        The other images fill, in order, the unfinished batch at the start and then the end. So
        these batches may mix both groups.

        Args:
            order: N int64, all images.
            head: how many of them still belong to a batch that an earlier pass began.
        """
        in_second = self.is_second[order]
        places = [torch.nonzero(~in_second).flatten(), torch.nonzero(in_second).flatten()]
        batches = [b for group in places for b in group.split(self.batch_size)]
        whole = [b for b in batches if len(b) == self.batch_size]
        whole.sort(key=lambda batch: int(batch[0]))
        kept = whole[: max(len(order) - head, 0) // self.batch_size]
        is_left = torch.ones(len(order), dtype=torch.bool)
        is_left[torch.cat([torch.empty(0, dtype=torch.int64), *kept])] = False
        left = torch.nonzero(is_left).flatten()
        return order[torch.cat([left[:head], *kept, left[head:]])]


class RepeatableSampler(Sampler):
    """An endless stream of draws, reshuffled at each pass over the data.

    The stream depends only on the seed, and on the groups where there are any. It is the same for
    any start, and for any number of processes, which take its items in turn.
    """

    def __init__(
        self, size: int, seed: int, start: int = 0, groups: BatchGroups | None = None
    ) -> None:
        """
        Args:
            size: number of images.
            seed: of the order.
            start: how many draws of all processes together are skipped.
            groups: of images that come together in batches; None: batches mix all images.
        """
        self.size = size
        self.seed = seed
        self.start = start
        self.groups = groups
        # Both are unknown in worker processes, which may iterate the sampler.
        self.rank, self.num_processes = comm.get_rank(), comm.get_world_size()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yields (index of the image, number of the draw)."""
        mine = itertools.count(self.start + self.rank, self.num_processes)
        order, order_pass = torch.empty(0), -1
        for draw in mine:
            data_pass, place = divmod(draw, self.size)
            if data_pass != order_pass:
                generator = torch.Generator().manual_seed(mix_seed(self.seed, data_pass))
                order, order_pass = torch.randperm(self.size, generator=generator), data_pass
                if self.groups is not None:
                    drawn = data_pass * self.size  # before this pass
                    order = self.groups.gather(order, -drawn % self.groups.batch_size)
            yield int(order[place]), draw


class RepeatableDataset(Dataset):
    """Maps draws of a ``RepeatableSampler``. Each draw is augmented with a seed of its own.

    A draw whose image can't be used is replaced by another image, which the seed and the number of
    the draw decide.
    """

    def __init__(
        self,
        dicts: Sequence[dict],
        mapper: Callable[[dict], dict],
        seed: int,
        skipped: SkippedImages | None = None,
    ) -> None:
        """
        Args:
            dicts: of the images.
            mapper: reads an image and augments it.
            seed: of all draws.
            skipped: counts skipped images. None: no image is skipped, and errors are raised.
        """
        self.dicts = DatasetFromList(list(dicts), copy=False)
        self.mapper = mapper
        self.seed = seed
        self.skipped = skipped

    def __len__(self) -> int:
        return len(self.dicts)

    def __getitem__(self, item: tuple[int, int]) -> dict:
        index, draw = item
        seed = mix_seed(self.seed, draw)
        if self.skipped is None:
            return self._map(index, seed)
        replacements = np.random.default_rng(seed)
        while True:
            try:
                return self._map(index, seed)
            except (OSError, ValueError) as error:
                self.skipped.add(index, self.dicts[index]["file_name"], error)
            # The loop ends, because only a share of all images may be skipped.
            index = int(replacements.integers(len(self)))

    def _map(self, index: int, seed: int) -> dict:
        # Augmentations draw from these global generators.
        np.random.seed(seed % 2**32)
        random.seed(seed)
        # Without workers, dropout draws from this generator, too, so its state is restored.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.mapper(self.dicts[index])


def build_train_loader(cfg: CfgNode, start_iter: int = 0) -> Iterable[list[dict]]:
    """An endless loader over ``DATASETS.TRAIN``.

    Args:
        cfg: the whole config. ``SEED`` fixes order and augmentation; if it is negative, a seed is
            drawn. ``DATALOADER.ASPECT_RATIO_GROUPING`` is Detectron2's, but batches are those of
            all processes together, and a resumed run continues exactly. ``DATALOADER.ON_ERROR``
            and ``MAX_SKIPPED`` are about images that can't be used.
        start_iter: number of batches that an earlier part of the run has used.

    Raises:
        KeyError, FileNotFoundError, ValueError: see ``get_dataset_dicts`` and ``require_targets``.
    """
    mapper = DetrDatasetMapper(cfg, is_train=True)
    dicts = get_dataset_dicts(cfg.DATASETS.TRAIN)
    require_targets(dicts, cfg.DATASETS.TRAIN)
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    skipped = None
    if cfg.DATALOADER.ON_ERROR == "skip":
        skipped = SkippedImages(len(dicts), cfg.DATALOADER.MAX_SKIPPED)
    batch_size, groups = cfg.SOLVER.IMS_PER_BATCH, None
    if cfg.DATALOADER.ASPECT_RATIO_GROUPING:
        groups = BatchGroups.of_orientations(dicts, batch_size)
    loader = build_batch_data_loader(
        RepeatableDataset(dicts, mapper, seed, skipped),
        RepeatableSampler(len(dicts), seed, start_iter * batch_size, groups),
        batch_size,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        # Without it, the loader would draw a seed from the generator of the model's dropout.
        seed=seed,
    )
    return _with_worker_context(loader)


def build_test_loader(
    cfg: CfgNode, dataset_name: str, *, dataset_dicts: list[dict] | None = None
) -> Iterable[list[dict]]:
    """A loader that reads a dataset once, one image at a time. Processes share the images.

    Args:
        cfg: the whole config.
        dataset_name: a registered dataset.
        dataset_dicts: its dicts, if they have been read already; the loader copies them.
    """
    mapper = DetrDatasetMapper(cfg, is_train=False)  # this registers the datasets of the config
    loader = build_detection_test_loader(
        get_dataset_dicts([dataset_name]) if dataset_dicts is None else dataset_dicts,
        mapper=mapper,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
    return _with_worker_context(loader)


def _with_worker_context(loader: DataLoader) -> DataLoader:
    if loader.num_workers > 0:
        loader.multiprocessing_context = worker_context()
    return loader


def mix_seed(seed: int, number: int) -> int:
    """Spreads (seed, number) over 63 bits, so that neighbours give unrelated streams."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0]) >> 1
