"""A tiny model that sees something, ready to be looked at."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from detr_d2.apps.web import Shown, Viewer


@pytest.fixture(scope="session")
def make_web_cfg(
    make_tiny_cfg: Callable[..., CfgNode],
    tmp_path_factory: pytest.TempPathFactory,
    photo: np.ndarray,
) -> Callable[..., CfgNode]:
    """Makes configs of a tiny model whose queries see objects, with scores of all heights."""
    folder = tmp_path_factory.mktemp("web")

    def make(*overrides: object) -> CfgNode:
        # Masks are made one by one: then they are the same bit for bit whatever others are made.
        settings = ("MODEL.DETR.TEST.SCORE_THRESH", 0.0, "MODEL.DETR.MASK_HEAD.CHUNK_SIZE", 1)
        cfg = make_tiny_cfg(folder, *settings, *overrides)
        torch.manual_seed(0)
        model = build_model(cfg).eval()
        head = model.detector.class_head
        seen = []
        handle = head.register_forward_hook(lambda _, args, __: seen.append(args[0][-1, 0]))
        with torch.no_grad():
            model([{"image": torch.as_tensor(photo.transpose(2, 0, 1).copy())}])
            handle.remove()
            # What all queries have in common would make them agree on one class.
            head.weight.mul_(1000)
            head.bias.copy_(-head.weight @ seen[0].mean(0))
            head.bias[-1] = -20  # "no object"
            model.mask_head.output_conv.weight.mul_(10)
        torch.save({"model": model.state_dict()}, folder / "model.pth")
        cfg.defrost()
        cfg.MODEL.WEIGHTS = str(folder / "model.pth")
        return cfg

    return make


@pytest.fixture(scope="session")
def web_cfg(make_web_cfg: Callable[..., CfgNode]) -> CfgNode:
    return make_web_cfg()


@pytest.fixture(scope="session")
def viewer(web_cfg: CfgNode) -> Viewer:
    return Viewer.from_config(web_cfg)


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """60×84×3 uint8 RGB."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (15, 21, 3), np.uint8).repeat(4, 0).repeat(4, 1)


@pytest.fixture
def shown(viewer: Viewer, photo: np.ndarray) -> Shown:
    return viewer.look_at(photo, viewer.merging)


@pytest.fixture
def count_passes(viewer: Viewer) -> Iterator[Callable[[], int]]:
    """How many images have gone through the network since the fixture was made."""
    passes = []
    handle = viewer.predictor.model.detector.register_forward_hook(lambda *_: passes.append(1))
    yield lambda: len(passes)
    handle.remove()


@pytest.fixture
def photo_file(photo: np.ndarray, tmp_path: Path) -> Path:
    from PIL import Image

    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    return path


@pytest.fixture
def free_port() -> int:
    with socket.socket() as a_socket:
        a_socket.bind(("127.0.0.1", 0))
        return a_socket.getsockname()[1]
