"""The augmentation that a config describes."""

import numpy as np
import pytest
from detectron2.data import transforms as T

from detr_d2 import config_file, load_config
from detr_d2.data.dataset_mapper import build_augmentations


def flatten(transform: T.Transform) -> list[T.Transform]:
    if isinstance(transform, T.TransformList):
        return [leaf for part in transform.transforms for leaf in flatten(part)]
    return [transform]


def draw(cfg, size: tuple[int, int], times: int, is_train: bool = True) -> list[list[T.Transform]]:
    """What is done to an image of a size (height, width), several times."""
    augmentations = T.AugmentationList(build_augmentations(cfg, is_train))
    image = np.zeros(size, np.uint8)
    return [flatten(augmentations(T.AugInput(image))) for _ in range(times)]


def of_type(kind: type, transforms: list[T.Transform]) -> list:
    return [transform for transform in transforms if isinstance(transform, kind)]


@pytest.fixture(scope="module")
def cfg():
    return load_config(config_file("detr_panoptic.yaml"))


@pytest.fixture(scope="module")
def draws(cfg) -> list[list[T.Transform]]:
    np.random.seed(0)
    return draw(cfg, (480, 640), 200)


def test_every_shortest_side_of_the_reference_occurs(draws):
    last = [of_type(T.ResizeTransform, transforms)[-1] for transforms in draws]
    assert all(transforms[-1] is resize for transforms, resize in zip(draws, last, strict=True))
    sides = {min(resize.new_h, resize.new_w) for resize in last}
    assert set(range(480, 801, 32)) <= sides
    # Narrow crops would become longer than the limit, which then shortens both sides.
    for resize in last:
        short, long = sorted((resize.new_h, resize.new_w))
        assert long <= 1333
        assert short in range(480, 801, 32) or long == 1333


def test_half_of_the_images_are_cropped(draws):
    crops = [of_type(T.CropTransform, transforms) for transforms in draws]
    assert 75 <= sum(map(len, crops)) <= 125
    for transforms, crop in zip(draws, crops, strict=True):
        resizes = of_type(T.ResizeTransform, transforms)
        assert len(crop) <= 1 and len(resizes) == 1 + len(crop)
        if crop:
            assert min(resizes[0].new_h, resizes[0].new_w) in (400, 500, 600)
            assert 384 <= crop[0].w <= 600 and 384 <= crop[0].h <= 600
            assert transforms.index(resizes[0]) < transforms.index(crop[0])
    chosen = {min(t[0].new_h, t[0].new_w) for t in (of_type(T.ResizeTransform, t) for t in draws)}
    assert {400, 500, 600} <= chosen
    assert len({(crop[0].w, crop[0].h, crop[0].x0) for crop in crops if crop}) > 60


def test_half_of_the_images_are_flipped(draws):
    flipped = [of_type(T.HFlipTransform, transforms) for transforms in draws]
    assert 75 <= sum(map(len, flipped)) <= 125
    assert not any(of_type(T.VFlipTransform, transforms) for transforms in draws)


def test_long_images_are_limited(cfg):
    for transforms in draw(cfg, (200, 800), 40):
        resize = of_type(T.ResizeTransform, transforms)[-1]
        assert max(resize.new_h, resize.new_w) <= 1333


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1067)), ((640, 480), (1067, 800)), ((300, 900), (444, 1333))],
)
def test_to_predict_images_are_resized_alone(cfg, size, expected):
    ((resize,),) = draw(cfg, size, 1, is_train=False)
    assert (resize.new_h, resize.new_w) == expected


def test_augmentation_can_be_turned_off(tiny_cfg):
    tiny_cfg.INPUT.RANDOM_FLIP = "none"
    for is_train in (True, False):
        for transforms in draw(tiny_cfg, (96, 72), 20, is_train):
            assert all(isinstance(transform, T.NoOpTransform) for transform in transforms)


def test_vertical_flips(tiny_cfg):
    tiny_cfg.INPUT.RANDOM_FLIP = "vertical"
    draws = draw(tiny_cfg, (96, 72), 40)
    assert 8 <= sum(len(of_type(T.VFlipTransform, transforms)) for transforms in draws) <= 32
    assert not any(of_type(T.HFlipTransform, transforms) for transforms in draws)
