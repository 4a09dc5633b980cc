"""Merging masks to a panoptic picture, against a slow reading of the reference's procedure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from detr_d2.modeling.inference import QuerySelection
from detr_d2.modeling.inference_options import PanopticOptions
from detr_d2.modeling.merging import merge_panoptic
from detr_d2.modeling.upsampling import ImageSizes

IS_THING = torch.tensor([True, False, True, False, False])
NUM_SCENES = 250
BOTH_WAYS = pytest.mark.parametrize("stuff_merging", ["reference", "merged"])


@dataclass
class Scene:
    kept: QuerySelection
    mask_logits: torch.Tensor
    sizes: ImageSizes
    min_area: int

    def merge(
        self, stuff_merging: str, on_round=None, min_area: int | None = None
    ) -> tuple[torch.Tensor, list[dict]]:
        min_area = self.min_area if min_area is None else min_area
        options = PanopticOptions(0.0, stuff_merging, min_area)
        return merge_panoptic(self.kept, self.mask_logits, IS_THING, self.sizes, options, on_round)


def random_scene(seed: int) -> Scene:
    """Up to seven queries: things, stuff, often repeated; some tiny, some seen nowhere."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 8))
    classes = rng.choice([[0, 1, 2, 3, 4], [1, 3, 3, 3, 1], [0, 2, 0, 2, 0]][rng.integers(3)], n)
    padded = tuple(int(side) for side in rng.integers(8, 50, 2))
    network = padded
    if rng.random() < 0.5:
        network = tuple(int(side) for side in rng.integers(6, np.array(padded) + 1))
    grid = tuple(-(-side // 4) for side in padded)
    logits = rng.normal(0, 2, (n, *grid)) + rng.normal(0, 1.5, (n, 1, 1))
    for mask in logits:
        if rng.random() < 0.3:  # one spot, or none
            mask -= 8
            mask[tuple(rng.integers(grid))] += rng.uniform(0, 20)
    network_to_output = tuple(int(side) for side in rng.integers(1, 80, 2))
    output = network if rng.random() < 0.3 else network_to_output
    kept = QuerySelection(
        torch.from_numpy(rng.permutation(20)[:n]),
        torch.from_numpy(classes).long(),
        torch.from_numpy(rng.uniform(0.5, 1, n)).float(),
    )
    sizes = ImageSizes(padded=padded, network=network, output=output)
    return Scene(kept, torch.from_numpy(logits).float(), sizes, int(rng.choice([0, 4, 4, 30])))


def upsampled_masks(scene: Scene) -> list[np.ndarray]:
    """Of each query the logits at the pixels of the network's input, without padding."""
    height, width = scene.sizes.network
    masks = []
    for logits in scene.mask_logits:
        padded = F.interpolate(logits[None, None], size=scene.sizes.padded, mode="bilinear")
        masks.append(padded[0, 0, :height, :width].double().numpy())
    return masks


def clear_scenes() -> Iterator[tuple[int, Scene]]:
    """Seeds and their scenes, but the few where rounding could decide who wins a pixel."""
    left_out = 0
    for seed in range(NUM_SCENES):
        scene = random_scene(seed)
        if len(scene.kept) > 1:
            ordered = np.sort(np.stack(upsampled_masks(scene)), axis=0)
            if np.diff(ordered, axis=0).min() < 1e-5:
                left_out += 1
                continue
        yield seed, scene
    assert left_out < 0.03 * NUM_SCENES


def nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    picture = Image.fromarray(values.astype(np.int32))
    return np.asarray(picture.resize(size[::-1], Image.Resampling.NEAREST))


def slow_merge(scene: Scene, stuff_merging: str) -> tuple[np.ndarray, dict[int, list[int]]]:
    """The procedure in single steps.

    Returns:
        H'×W' numbers of the winning queries, -1 where none is kept; and for each number there the
        queries whose segment it stands for.
    """
    masks = upsampled_masks(scene)
    classes = scene.kept.classes.tolist()
    queries, merging = list(range(len(masks))), True
    while queries:
        exponentials = np.exp(np.stack([masks[q] for q in queries]))
        winner = np.array(queries)[(exponentials / exponentials.sum(0)).argmax(0)]
        segments = {q: [q] for q in queries}
        if merging:
            for q in queries:
                same = [p for p in queries if classes[p] == classes[q]]
                if not IS_THING[classes[q]] and same[0] != q:
                    winner[winner == q] = same[0]
                    segments[same[0]].append(q)
                    del segments[q]
        resized = nearest(winner, scene.sizes.output)
        if stuff_merging == "reference":
            merging = False
            survivors = [q for q in queries if (resized == q).sum() > scene.min_area]
        else:
            large = [q for q in segments if (resized == q).sum() > scene.min_area]
            survivors = sorted(p for q in large for p in segments[q])
        if survivors == queries:
            return resized, segments
        queries = survivors
    return np.full(scene.sizes.output, -1), {}


@BOTH_WAYS
def test_equals_the_slow_procedure_on_random_scenes(stuff_merging):
    for seed, scene in clear_scenes():
        ids, segments_info = scene.merge(stuff_merging)
        winners, segments = slow_merge(scene, stuff_merging)
        assert [s["id"] for s in segments_info] == list(range(1, len(segments) + 1)), seed
        for info, first in zip(segments_info, sorted(segments), strict=True):
            mask = winners == first
            assert np.array_equal(ids.numpy() == info["id"], mask), seed
            class_id = int(scene.kept.classes[first])
            best = scene.kept.scores[segments[first]].max().item()
            assert info == {
                "id": info["id"],
                "category_id": class_id,
                "isthing": bool(IS_THING[class_id]),
                "score": best,
                "area": int(mask.sum()),
                "queries": scene.kept.query_index[segments[first]].tolist(),
            }, seed
        assert np.array_equal(ids.numpy() == 0, winners == -1), seed


def test_random_scenes_have_all_that_can_go_wrong():
    seen = Counter()
    for seed in range(NUM_SCENES):
        scene = random_scene(seed)
        things = IS_THING[scene.kept.classes]
        _, segments = scene.merge("merged")
        stuff = scene.kept.classes[~things].tolist()
        reached = sum(len(queries) for queries in slow_merge(scene, "merged")[1].values())
        seen["no queries"] += len(scene.kept) == 0
        seen["nothing large enough"] += len(scene.kept) > 0 and not segments
        seen["something too small"] += bool(segments) and reached < len(scene.kept)
        seen["only things"] += bool(things.all()) and len(things) > 1
        seen["only stuff"] += not things.any() and len(things) > 1
        seen["repeated stuff"] += len(set(stuff)) < len(stuff)
        seen["the two ways differ"] += segments != scene.merge("reference")[1]
        seen["padding"] += scene.sizes.padded != scene.sizes.network
        seen["larger output"] += scene.sizes.output[0] > scene.sizes.network[0]
        seen["smaller output"] += scene.sizes.output[0] < scene.sizes.network[0]
    assert min(seen.values()) >= 3, seen
    assert len(seen) == 10


@BOTH_WAYS
def test_areas_types_and_numbers(stuff_merging):
    for seed in range(NUM_SCENES):
        scene = random_scene(seed)
        ids, segments = scene.merge(stuff_merging)
        assert ids.dtype == torch.int32
        assert ids.shape == scene.sizes.output
        assert [s["id"] for s in segments] == list(range(1, len(segments) + 1))
        for info in segments:
            types = {key: type(value) for key, value in info.items()}
            assert types == {
                "id": int,
                "category_id": int,
                "isthing": bool,
                "score": float,
                "area": int,
                "queries": list,
            }
            assert {type(query) for query in info["queries"]} == {int}
            assert info["area"] == (ids == info["id"]).sum() > scene.min_area
        total = sum(s["area"] for s in segments)
        assert total == (ids.numel() if segments else 0)


def test_merged_has_one_segment_of_each_stuff_class():
    for seed in range(NUM_SCENES):
        _, segments = random_scene(seed).merge("merged")
        stuff = [s["category_id"] for s in segments if not s["isthing"]]
        assert len(stuff) == len(set(stuff)), seed


def test_merging_gives_no_pixel_to_another_class():
    """Where no segment is too small, each pixel has the class of the mask that won it."""
    for seed, scene in clear_scenes():
        ids, segments = scene.merge("merged", min_area=0)
        if not segments:
            continue
        class_of_id = torch.tensor([-1] + [s["category_id"] for s in segments])
        winner = nearest(np.stack(upsampled_masks(scene)).argmax(0), scene.sizes.output)
        expected = scene.kept.classes[torch.tensor(winner).long()]
        assert torch.equal(class_of_id[ids.long()], expected), seed


def test_the_reference_gives_pixels_of_repeated_stuff_to_what_comes_next():
    """Left: stuff. Right: the same stuff again, where a thing is the second best."""
    logits = torch.zeros(3, 4, 8)
    logits[0, :, :4], logits[0, :, 4:] = 9, -9
    logits[1, :, :4], logits[1, :, 4:] = -9, 9
    logits[2] = -5
    kept = QuerySelection(torch.arange(3), torch.tensor([1, 1, 0]), torch.tensor([0.6, 0.9, 0.7]))
    size = (4, 8)
    scene = Scene(kept, logits, ImageSizes(size, size, size), min_area=4)
    ids, segments = scene.merge("merged")
    assert (ids == 1).all()
    assert [s["score"] for s in segments] == pytest.approx([0.9])
    # The thing is dropped with the repeated stuff, having no pixels in the first round.
    assert [s["area"] for s in scene.merge("reference")[1]] == [32]
    logits[2, 0, :5] = 10  # now it survives the first round
    ids, segments = scene.merge("reference")
    assert [(s["category_id"], s["area"]) for s in segments] == [(1, 12), (0, 20)]
    assert (ids[:, 4:] == 2).all()
    assert [s["area"] for s in scene.merge("merged")[1]] == [27, 5]


def test_nothing_given_is_changed():
    scene = random_scene(3)
    before = scene.mask_logits.clone()
    scene.merge("reference")
    assert torch.equal(scene.mask_logits, before)


@BOTH_WAYS
def test_rounds_are_told_and_change_nothing(stuff_merging):
    num_rounds = Counter()
    for seed in range(60):
        scene = random_scene(seed)
        rounds: list[tuple] = []

        def remember(one, rounds=rounds):
            rounds.append((one, one.winner.clone()))

        told = scene.merge(stuff_merging, on_round=remember)
        ids, segments_info = scene.merge(stuff_merging)
        assert torch.equal(told[0], ids) and told[1] == segments_info
        num_rounds[len(rounds)] += 1
        for (before, _), (after, _) in zip(rounds, rounds[1:], strict=False):
            assert after.competing == before.survivors
            assert len(before.survivors) < len(before.competing)
        for one, winner in rounds:
            assert sum(one.areas) == winner.numel()
            assert set(winner.unique().tolist()) <= set(one.competing)
        if segments_info:
            last, winner = rounds[-1]
            assert last.survivors == last.competing
            areas = [area for area in last.areas if area]
            assert areas == [segment["area"] for segment in segments_info]
    assert num_rounds[1] > 5 and num_rounds[2] > 5
