"""Data loaders. Training draws can be repeated exactly, from any iteration on."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

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


class RepeatableSampler(Sampler):
    """An endless stream of draws, reshuffled at each pass over the data.

    The stream depends on the seed alone: not on the number of processes, who take its items in
    turn, and not on where it starts.
    """

    def __init__(self, size: int, seed: int, start: int = 0) -> None:
        """Takes the number of images, the seed, and how many draws of all processes to skip."""
        self.size = size
        self.seed = seed
        self.start = start
        # Known here, and not in a worker process, where the sampler is iterated.
        self.rank, self.num_processes = comm.get_rank(), comm.get_world_size()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Gives (index of the image, number of the draw)."""
        mine = itertools.count(self.start + self.rank, self.num_processes)
        order, order_pass = torch.empty(0), -1
        for draw in mine:
            data_pass, place = divmod(draw, self.size)
            if data_pass != order_pass:
                generator = torch.Generator().manual_seed(mix_seed(self.seed, data_pass))
                order, order_pass = torch.randperm(self.size, generator=generator), data_pass
            yield int(order[place]), draw


class RepeatableDataset(Dataset):
    """Maps draws of a ``RepeatableSampler``, augmenting each by a seed of its own.

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
        """Takes the images, what maps them, the seed, and what counts those that are skipped: None
        skips none, and the mapper's errors come through.
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
            # This comes to an end, since some images must not be skipped.
            index = int(replacements.integers(len(self)))

    def _map(self, index: int, seed: int) -> dict:
        # Augmentations draw from these global generators.
        np.random.seed(seed % 2**32)
        random.seed(seed)
        # Without workers this is the generator of the model's dropout, too: it gets its state back.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.mapper(self.dicts[index])


def build_train_loader(cfg: CfgNode, start_iter: int = 0) -> Iterable[list[dict]]:
    """An endless loader over ``DATASETS.TRAIN``.

    Args:
        cfg: the whole config; ``SEED`` fixes order and augmentation (a negative one draws a seed),
            ``DATALOADER.ON_ERROR`` and ``MAX_SKIPPED`` what becomes of images that can't be used.
        start_iter: number of batches that a run before this one has already taken.

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
    loader = build_batch_data_loader(
        RepeatableDataset(dicts, mapper, seed, skipped),
        RepeatableSampler(len(dicts), seed, start_iter * cfg.SOLVER.IMS_PER_BATCH),
        cfg.SOLVER.IMS_PER_BATCH,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        # Else the loader would start with a draw from the generator of the model's dropout.
        seed=seed,
    )
    return _with_worker_context(loader)


def build_test_loader(
    cfg: CfgNode, dataset_name: str, *, dataset_dicts: list[dict] | None = None
) -> Iterable[list[dict]]:
    """A loader that goes over a dataset once, one image at a time, shared out over processes.

    Args:
        cfg: the whole config.
        dataset_name: a registered dataset.
        dataset_dicts: its dicts, where they have been read already. The loader takes a copy.
    """
    mapper = DetrDatasetMapper(cfg, is_train=False)  # registers what the config names
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
