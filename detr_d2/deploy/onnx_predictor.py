"""Runs an exported model in onnxruntime, from an image to its panoptic picture.

Axes: H×W the image, h×w the network's input, S segments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detr_d2.data.image_array import to_uint8_colors
from detr_d2.deploy.model_info import ModelError, ModelInfo
from detr_d2.deploy.resize import network_size, resize_ids, resize_image
from detr_d2.extras import require_extra

require_extra("deploy", "Exported models need", ("onnxruntime",))

import onnxruntime  # noqa: E402  (where it is missing, the line above tells how to get it)

OUTPUTS = ("ids", "classes", "scores", "areas", "boxes")


class OnnxPredictor:
    """Predicts with a file of ``detr-d2 export --form panoptic``.

    Thresholds and the way of merging are part of the exported graph.

    Attributes:
        info: the ``ModelInfo`` of the file.
    """

    def __init__(
        self,
        model_path: str | Path,
        *,
        image_format: str = "BGR",
        categories: Iterable[dict] | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        """Loads a model.

        Args:
            model_path: the ONNX file.
            image_format: the order of channels in the images that it will be given: "BGR", as
                OpenCV reads them, or "RGB", as Pillow does.
            categories: COCO's categories, whose ids, names and colours are to replace those in the
                file.
            providers: onnxruntime's execution providers. Each part of the model runs on the first
                one that supports it.

        Raises:
            FileNotFoundError: there is no such file.
            ModelError: the file is not such a model, its metadata contradict its graph, or its
                classes are not those of the categories.
            ValueError: the categories or the format are invalid.
        """
        if image_format not in ("BGR", "RGB"):
            raise ValueError(f"image_format is 'BGR' or 'RGB', not {image_format!r}.")
        self._path, self._image_format = Path(model_path), image_format
        options = onnxruntime.SessionOptions()
        # Weights that are stored in 8 bits are converted once, and not for each image.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._session = load_session(self._path, options, providers=list(providers))
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.info = ModelInfo.from_metadata(metadata, model_path)
        self._check_graph()
        if categories is not None:
            self.info = self.info.with_categories(categories, "categories")

    def __call__(self, image: np.ndarray) -> dict:
        """Predicts on one image, of any size from one pixel on.

        Args:
            image: H×W×3 in 0 … 255, in the order of ``image_format``: uint8, or whole or
                floating-point numbers, which are rounded; uint16 in the range that the file names.
                The image may also be grey (H×W, H×W×1). A fourth channel is ignored.

        Returns:
            ``{"panoptic_seg": (ids, segments_info)}``: H×W int32, 0 where nothing was found, and
            a dict for each id from 1 on, with ``id``, ``category_id`` (contiguous: an index of
            ``info.classes``), ``isthing``, ``score`` (in 0 … 1), ``area`` (pixels) and ``box``
            (x0, y0, x1, y1 in pixels, of the segment's best query). A model of a fixed size sees
            the image stretched to it.

        Raises:
            ModelError: the output contradicts the file's metadata, for example in its classes.
            ValueError: the array is not such an image, the image is larger than the model can see,
                or the model fails on it, for example because memory runs out.
        """
        image = to_uint8_colors(image, self.info.image_options.deep_range)
        height, width = size = image.shape[:2]
        if self._image_format != self.info.input_format:
            image = image[:, :, ::-1]
        fixed = self.info.fixed_size
        inside = fixed or network_size(height, width, self.info.min_size, self.info.max_size)
        limit = self.info.max_side
        if limit is not None and max(inside) > limit:
            raise ValueError(
                f"An image of {size[0]}×{size[1]} pixels (height × width), which {self._path.name} "
                f"sees at {inside[0]}×{inside[1]}: its learned positions reach {limit} pixels a "
                "side. Make the image smaller, or export the model with INPUT.MAX_SIZE_TEST "
                f"{limit}."
            )
        if inside != size:
            image = resize_image(np.ascontiguousarray(image), inside)
        feeds = {"image": np.ascontiguousarray(image.transpose(2, 0, 1))[None]}
        if "output_size" in self._inputs:
            feeds["output_size"] = np.array(size, np.int64)
        try:
            ids, *segments = self._session.run(OUTPUTS, feeds)
        except Exception as error:  # onnxruntime's have no common class
            raise ValueError(
                f"{self._path.name} failed on an image of {size[0]}×{size[1]} pixels, which it "
                f"sees at {inside[0]}×{inside[1]}: {error}"
            ) from error
        self._check_output(ids, segments, fixed if fixed and ids.shape == fixed else size)
        if ids.shape != size:
            ids, segments = _to_size(ids, segments, size)
        return {"panoptic_seg": (ids, self._segments_info(*segments))}

    def _check_graph(self) -> None:
        """Checks that the graph is as the metadata describe it."""
        self._inputs = {each.name: each for each in self._session.get_inputs()}
        outputs = {each.name for each in self._session.get_outputs()}
        image = self._inputs.get("image")
        if image is None or not set(self._inputs) <= {"image", "output_size"}:
            problem = f"takes {', '.join(sorted(self._inputs))} and not image and output_size"
        elif not outputs.issuperset(OUTPUTS):
            problem = f"gives {', '.join(sorted(outputs))} and not {', '.join(OUTPUTS)}"
        elif image.type != "tensor(uint8)" or len(image.shape) != 4 or image.shape[1] != 3:
            problem = f"takes images as {image.type} {image.shape}, not uint8 and 1×3×height×width"
        elif self.info.fixed_size and tuple(image.shape[2:]) != self.info.fixed_size:
            problem = f"takes images of {image.shape[2:]}, not {list(self.info.fixed_size)}"
        elif not self.info.fixed_size and any(isinstance(n, int) for n in image.shape[2:]):
            problem = f"takes images of {image.shape[2:]} alone, not of any size"
        else:
            return
        raise ModelError(
            f"{self._path}: the graph {problem}, as its metadata say. Export it again."
        )

    def _check_output(
        self, ids: np.ndarray, segments: Sequence[np.ndarray], size: tuple[int, int]
    ) -> None:
        """Checks that ids and segments agree with each other and with the metadata."""
        classes, known = segments[0], len(self.info.classes)
        highest = int(ids.max()) if ids.size else 0
        if any(not 0 <= class_id < known for class_id in classes.tolist()):
            problem = (
                f"class {max(classes.tolist())}, but its metadata list {known} classes (0 … "
                f"{known - 1}): it was exported for another number of classes"
            )
        elif ids.shape != size:
            problem = f"ids of shape {ids.shape} for an image of {size}"
        elif {len(values) for values in segments} != {highest} or ids.min() < 0:
            lengths = ", ".join(str(len(values)) for values in segments)
            problem = f"ids up to {highest}, and {lengths} entries for them"
        else:
            return
        raise ModelError(f"{self._path}: the model gives {problem}. Export it again.")

    def _segments_info(
        self, classes: np.ndarray, scores: np.ndarray, areas: np.ndarray, boxes: np.ndarray
    ) -> list[dict]:
        columns = (values.tolist() for values in (classes, scores, areas, boxes))
        return [
            {
                "id": segment_id,
                "category_id": class_id,
                "isthing": self.info.classes[class_id].isthing,
                "score": score,
                "area": area,
                "box": box,
            }
            for segment_id, (class_id, score, area, box) in enumerate(
                zip(*columns, strict=True), start=1
            )
        ]


def load_session(
    path: Path, options: onnxruntime.SessionOptions, **more: Any
) -> onnxruntime.InferenceSession:
    """Opens a file with onnxruntime; it is given ``more`` beside the options.

    Raises:
        FileNotFoundError: there is no such file.
        ModelError: onnxruntime can't load it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    options.log_severity_level = 3  # errors; it warns of each shape that it can't infer
    try:
        return onnxruntime.InferenceSession(str(path), options, **more)
    except Exception as error:  # onnxruntime's have no common class
        raise ModelError(f"{path}: onnxruntime cannot load it as a model ({error}).") from error


def _to_size(
    ids: np.ndarray, segments: Sequence[np.ndarray], size: tuple[int, int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Resizes ids and boxes, and removes segments that have no pixel at the new size."""
    classes, scores, _, boxes = segments
    boxes = boxes * np.array([size[1] / ids.shape[1], size[0] / ids.shape[0]] * 2, np.float32)
    ids = resize_ids(ids, size)
    areas = np.bincount(ids.ravel(), minlength=len(classes) + 1)[1:]
    left = areas > 0
    new_id = np.concatenate([[0], np.cumsum(left)]).astype(np.int32)
    return new_id[ids], [values[left] for values in (classes, scores, areas, boxes)]
