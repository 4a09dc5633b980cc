"""Loaders whose draws can be repeated."""

import copy
import itertools
import random
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils import comm

from detr_d2.data.loader import (
    BatchGroups,
    RepeatableDataset,
    RepeatableSampler,
    build_test_loader,
    build_train_loader,
    mix_seed,
)

AUGMENTED = (
    *("INPUT.CROP_PROB", 0.5, "INPUT.CROP_RESIZE", [48, 72], "INPUT.CROP_RANGE", [40, 64]),
    *("INPUT.MIN_SIZE_TRAIN", [40, 56, 64], "SOLVER.IMS_PER_BATCH", 3),
)


def set_process(monkeypatch, rank: int, num_processes: int) -> None:
    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    monkeypatch.setattr(comm, "get_world_size", lambda: num_processes)


def first(iterable, count: int) -> list:
    return list(islice(iterable, count))


def assert_same_batches(batches: list[list[dict]], others: list[list[dict]]) -> None:
    assert len(batches) == len(others)
    for one, other in zip(itertools.chain(*batches), itertools.chain(*others), strict=True):
        assert one["file_name"] == other["file_name"]
        assert torch.equal(one["image"], other["image"])
        ours, theirs = one["instances"], other["instances"]
        assert torch.equal(ours.gt_classes, theirs.gt_classes)
        assert torch.equal(ours.gt_masks.tensor, theirs.gt_masks.tensor)
        assert torch.equal(ours.gt_boxes.tensor, theirs.gt_boxes.tensor)


@pytest.mark.parametrize("size", [1, 7, 12])
def test_each_pass_visits_every_image_once_in_a_new_order(size):
    stream = first(RepeatableSampler(size, seed=3), 5 * size)
    assert [draw for _, draw in stream] == list(range(5 * size))
    passes = [[index for index, _ in stream[i : i + size]] for i in range(0, 5 * size, size)]
    assert all(sorted(indices) == list(range(size)) for indices in passes)
    assert size == 1 or len(set(map(tuple, passes))) == 5


@pytest.mark.parametrize("start", [1, 6, 7, 8, 30])
def test_a_later_start_drops_the_beginning(start):
    whole = first(RepeatableSampler(7, seed=3), 50)
    assert first(RepeatableSampler(7, seed=3, start=start), 50 - start) == whole[start:]


@pytest.mark.parametrize(("num_processes", "start"), [(2, 0), (3, 0), (8, 0), (2, 4), (3, 9)])
def test_processes_take_turns_on_one_stream(monkeypatch, num_processes, start):
    whole = first(RepeatableSampler(7, seed=3, start=start), 10 * num_processes)
    shares = []
    for rank in range(num_processes):
        set_process(monkeypatch, rank, num_processes)
        shares.append(first(RepeatableSampler(7, seed=3, start=start), 10))
    assert [draw for draws in zip(*shares, strict=True) for draw in draws] == whole


def test_the_seed_decides_the_order():
    orders = {tuple(i for i, _ in first(RepeatableSampler(9, seed), 9)) for seed in range(20)}
    assert len(orders) > 15


@pytest.mark.parametrize(("size", "batch_size"), [(50, 4), (53, 4), (53, 8), (9, 1), (5, 8)])
def test_batches_are_of_one_orientation(size, batch_size):
    """But for a few at the end of each pass, which still visits every image once."""
    upright = [i % 3 == 0 for i in range(size)]
    dicts = [{"width": 3, "height": 4 if is_upright else 2} for is_upright in upright]
    groups = BatchGroups.of_orientations(dicts, batch_size)
    num_passes = 12
    stream = first(RepeatableSampler(size, 3, groups=groups), num_passes * size)
    assert [draw for _, draw in stream] == list(range(num_passes * size))
    indices = [index for index, _ in stream]
    for i in range(0, len(indices), size):
        assert sorted(indices[i : i + size]) == list(range(size))
    batches = [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]
    mixed = [batch for batch in batches if len({upright[i] for i in batch}) > 1]
    assert len(mixed) <= 3 * num_passes
    assert len(set(map(tuple, batches))) > 1
    rest = stream[7 * batch_size :]
    later = RepeatableSampler(size, 3, start=7 * batch_size, groups=groups)
    assert first(later, len(rest)) == rest


def test_images_without_a_size_and_square_ones_have_a_group():
    dicts = [{}, {"width": 3, "height": 3}, {"width": 4, "height": 3}, {"width": 3, "height": 4}]
    groups = BatchGroups.of_orientations(dicts, 2)
    assert groups.is_second.tolist() == [False, True, False, True]


@pytest.mark.parametrize("grouped", [False, True])
def test_a_key_groups_images_by_orientation(make_tiny_cfg, tmp_path, grouped):
    """The scenes are square, wide and upright; wide ones come together."""
    cfg = make_tiny_cfg(tmp_path, "DATALOADER.ASPECT_RATIO_GROUPING", grouped)
    cfg.SOLVER.IMS_PER_BATCH = 2
    batches = first(build_train_loader(cfg), 18)
    mixed = sum(len({x["width"] > x["height"] for x in batch}) > 1 for batch in batches)
    assert (mixed <= 3) == grouped


def test_mixed_seeds_differ_and_fit_all_generators():
    seeds = [mix_seed(seed, number) for seed in range(30) for number in range(30)]
    assert len({seed % 2**32 for seed in seeds}) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_draw_augments_by_its_number_alone():
    dataset = RepeatableDataset(
        [{}, {}], lambda _: (np.random.rand(), random.random(), torch.rand(1).item()), seed=5
    )
    drawn = [dataset[1, number] for number in range(20)]
    for generator in range(3):
        assert len({values[generator] for values in drawn}) == 20
    assert dataset[1, 13] == drawn[13] == dataset[0, 13]


def test_loading_leaves_the_models_randomness_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    _ = RepeatableDataset([{}], lambda _: torch.rand(1), seed=5)[0, 4]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(make_tiny_cfg, tmp_path, num_workers):
    loaders = [
        build_train_loader(make_tiny_cfg(tmp_path, *AUGMENTED, "DATALOADER.NUM_WORKERS", workers))
        for workers in (0, num_workers)
    ]
    assert_same_batches(*(first(loader, 6) for loader in loaders))


def test_a_resumed_loader_continues_exactly(make_tiny_cfg, tmp_path):
    cfg = make_tiny_cfg(tmp_path, *AUGMENTED)
    whole = first(build_train_loader(cfg), 7)  # over the border of the first pass
    assert_same_batches(first(build_train_loader(cfg, start_iter=3), 4), whole[3:])


def test_batches_have_the_asked_size_and_are_augmented_anew(make_tiny_cfg, tmp_path):
    batches = first(build_train_loader(make_tiny_cfg(tmp_path, *AUGMENTED)), 8)
    assert all(len(batch) == 3 for batch in batches)
    images = list(itertools.chain(*batches))
    assert set(Counter(image["file_name"] for image in images).values()) == {2}
    by_name = sorted(images, key=lambda image: image["file_name"])
    pairs = list(zip(by_name[::2], by_name[1::2], strict=True))
    assert sum(not torch.equal(a["image"], b["image"]) for a, b in pairs) > 8
    assert len({image["image"].shape for image in images}) > 8


def test_other_seeds_load_other_batches(make_tiny_cfg, tmp_path):
    names = [
        tuple(image["file_name"] for image in next(iter(build_train_loader(cfg))))
        for cfg in (make_tiny_cfg(tmp_path, *AUGMENTED, "SEED", seed) for seed in (1, 2, 1, -1))
    ]
    assert names[0] == names[2] != names[1]


def test_a_batch_may_be_larger_than_the_dataset(make_tiny_cfg, tmp_path):
    cfg = make_tiny_cfg(tmp_path, "SOLVER.IMS_PER_BATCH", 30)
    batch = next(iter(build_train_loader(cfg)))
    times = Counter(image["image_id"] for image in batch)
    assert len(batch) == 30 and len(times) == 12 and set(times.values()) == {2, 3}


@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_the_test_loader_covers_the_dataset_once(tiny_cfg, monkeypatch, num_processes):
    name = tiny_cfg.DATASETS.TEST[0]
    batches = []
    for rank in range(num_processes):
        set_process(monkeypatch, rank, num_processes)
        batches.extend(build_test_loader(tiny_cfg, name))
    assert all(len(batch) == 1 for batch in batches)
    assert [batch[0]["image_id"] for batch in batches] == [1, 2, 3, 4, 5, 6]
    assert not any("instances" in batch[0] for batch in batches)


def test_the_test_loader_leaves_dicts_that_it_was_given_alone(tiny_cfg, monkeypatch):
    name = tiny_cfg.DATASETS.TEST[0]
    dicts = DatasetCatalog.get(name)
    before = copy.deepcopy(dicts)
    monkeypatch.setattr(DatasetCatalog, "get", None)  # they are not read again
    for batch in build_test_loader(tiny_cfg, name, dataset_dicts=dicts):
        batch[0]["segments_info"][0]["category_id"] = -1
        batch[0].clear()
    assert dicts == before


def test_several_training_datasets_are_one(make_tiny_cfg, tmp_path, small_shapes):
    cfg = make_tiny_cfg(tmp_path, "DATASETS.TRAIN", tuple(small_shapes), "SOLVER.IMS_PER_BATCH", 18)
    batch = next(iter(build_train_loader(cfg)))
    assert len({image["file_name"] for image in batch}) == 18
