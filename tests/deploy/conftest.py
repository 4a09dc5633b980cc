"""Small graphs of the exporter's inputs and outputs, made by hand, and their metadata.

A pixel's segment is its strongest channel, if that is above a threshold. So pictures in red, green
and blue have known segments.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]

# Classes of red, green and blue: a thing, a thing of the same class, stuff.
CLASSES_OF_CHANNELS = (1, 1, 2)
CLASSES = [
    {"id": 3, "name": "balloon", "isthing": True, "color": [220, 20, 60]},
    {"id": 7, "name": "kite", "isthing": True, "color": [0, 120, 255]},
    {"id": 40, "name": "sky", "isthing": False, "color": [90, 200, 120]},
]
THRESHOLD = 60.0

INFO = {
    "format": 1,
    "form": "panoptic",
    "version": "0.1.0",
    "config_version": 2,
    "classes": CLASSES,
    "score_thresh": 0.7,
    "stuff_merging": "merged",
    "min_area": 4,
    "pixel_mean": [0.0, 0.0, 0.0],
    "pixel_std": [1.0, 1.0, 1.0],
    "input_format": "RGB",
    "min_size": 0,
    "max_size": 1333,
    "fixed_size": None,
    "top_k": None,
    "num_queries": 3,
}

# S = up to 3 segments; nearest pixels of a resized image, which here is small enough to be exact.
GRAPH = """
<ir_version: 8, opset_import: ["": 18]>
panoptic (uint8[1, 3, {height}, {width}] image, int64[2] output_size)
    => (int32[a, b] ids, int64[s] classes, float[s] scores, int64[s] areas, float[s, 4] boxes)
<float[64, 3, 3, 3] wide, float[3, 64, 1, 1] narrow, float[3, 3] mixing, float[3, 3] rows_of_head,
 float[3] class_head_bias, int64[3] class_table>
{{
    pixels = Cast<to=1>(image)
    features = Conv<pads=[1, 1, 1, 1]>(pixels, wide)
    mixed = Conv(features, narrow)
    leading = Constant<value = int64[2] {{1, 3}}>()
    sizes = Concat<axis=0>(leading, output_size)
    resized = Resize<mode="nearest">(mixed, , , sizes)
    last = Transpose<perm=[0, 2, 3, 1]>(resized)
    hidden = MatMul(last, mixing)
    product = MatMul(hidden, rows_of_head)
    logits = Add(product, class_head_bias)
    first = Constant<value = int64[1] {{0}}>()
    rows = Squeeze(logits, first)
    winner = ArgMax<axis=-1, keepdims=0>(rows)
    axes = Constant<value = int64[1] {{-1}}>()
    highest = ReduceMax<keepdims=0>(rows, axes)
    threshold = Constant<value = float {{{threshold}}}>()
    kept = Greater(highest, threshold)
    kept_int = Cast<to=7>(kept)
    depth = Constant<value = int64 {{3}}>()
    values = Constant<value = int64[2] {{0, 1}}>()
    one_hot = OneHot(winner, depth, values)
    kept_column = Unsqueeze(kept_int, axes)
    counted = Mul(one_hot, kept_column)
    pixel_axes = Constant<value = int64[2] {{0, 1}}>()
    all_areas = ReduceSum<keepdims=0>(counted, pixel_axes)
    zero = Constant<value = int64 {{0}}>()
    present = Greater(all_areas, zero)
    present_int = Cast<to=7>(present)
    axis = Constant<value = int64 {{0}}>()
    numbers = CumSum(present_int, axis)
    number_of_pixel = Gather(numbers, winner)
    long_ids = Mul(number_of_pixel, kept_int)
    ids = Cast<to=6>(long_ids)
    places = NonZero(present)
    place = Squeeze(places, first)
    classes = Gather(class_table, place)
    areas = Gather(all_areas, place)
    score_table = Constant<value = float[3] {{0.9, 0.8, 0.75}}>()
    scores = Gather(score_table, place)
    y_x = Cast<to=1>(output_size)
    y = Gather(y_x, first)
    one = Constant<value = int64[1] {{1}}>()
    x = Gather(y_x, one)
    none = Constant<value = float[1] {{0.0}}>()
    box = Concat<axis=0>(none, none, x, y)
    flat = Unsqueeze(box, first)
    table = Concat<axis=0>(flat, flat, flat)
    boxes = Gather(table, place)
}}
"""


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """Writes a graph: ``(name, class_table=…, size=…, metadata=…, **changed metadata)``."""

    def make(
        name: str = "model.onnx",
        *,
        class_table: tuple[int, ...] = CLASSES_OF_CHANNELS,
        size: tuple[Any, Any] = ("h", "w"),
        metadata: str | None = "",
        graph: str = GRAPH,
        **changed: object,
    ) -> Path:
        import onnx
        from onnx import numpy_helper

        text = graph.format(height=size[0], width=size[1], threshold=THRESHOLD)
        model = onnx.parser.parse_model(text)
        weights = {
            "wide": np.zeros((64, 3, 3, 3), np.float32),
            "narrow": np.eye(3, 64, dtype=np.float32)[:, :, None, None],
            "mixing": np.eye(3, dtype=np.float32),
            "rows_of_head": np.eye(3, dtype=np.float32),
            "class_head_bias": np.zeros(3, np.float32),
            "class_table": np.array(class_table, np.int64),
        }
        weights["wide"][:3, :, 1, 1] = np.eye(3)
        for key, value in weights.items():
            model.graph.initializer.append(numpy_helper.from_array(value, key))
        if metadata is not None:
            text = metadata or json.dumps({**INFO, **changed})
            model.metadata_props.add(key="detr_d2", value=text)
        onnx.checker.check_model(model)
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return make


@pytest.fixture
def info() -> dict:
    """The metadata of the graphs."""
    return json.loads(json.dumps(INFO))


@pytest.fixture
def stripes() -> np.ndarray:
    """48×64×3 RGB: red on the left, black, and blue below; no green."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:32, :40, 0] = 200
    image[32:, :, 2] = 150
    return image


@pytest.fixture
def photos(tmp_path: Path, stripes: np.ndarray) -> Path:
    """A folder of three images, two of them of one name."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    Image.fromarray(stripes).save(folder / "a.png")
    Image.fromarray(stripes[::-1]).save(folder / "more" / "a.png")
    Image.fromarray(stripes[:20, :30]).save(folder / "small.bmp")
    return folder


@pytest.fixture
def run_without_torch() -> Callable[..., subprocess.CompletedProcess]:
    """Runs a module in a Python that has neither PyTorch nor Detectron2, nor what they bring."""

    def run(module: str, *arguments: object) -> subprocess.CompletedProcess:
        hidden = ["torch", "torchvision", "detectron2", "fvcore", "iopath", "cv2", "panopticapi"]
        code = (
            "import runpy, sys\n"
            f"sys.modules.update(dict.fromkeys({hidden}))\n"
            f"sys.argv[1:] = {[str(argument) for argument in arguments]}\n"
            f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
        )
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run
