"""Pictures of evaluated images: image, ground truth and prediction side by side.

The pictures show the evaluated outputs, so the model runs once for each image. Images are shrunk
to at most ``MAX_PICTURE_SIZE`` before anything is painted. A picture costs about as much as reading
its image and annotation once more, and two PNGs of at most 3.75 MB. Measured on four images of
3000×4000 pixels of noise: 1.2 s of one core for each picture, which is as long as the evaluation of
such an image by a tiny model; 20 MB more memory at the peak; 1.1 MB for each picture in the file
and 0.9 MB in TensorBoard's events. With the usual four pictures, an evaluation of 400 images takes
1 % longer.

Axes: h×w a picture, which is about three times as wide as an image in it.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage, has_event_storage

from detr_d2.data.file_names import file_name_of
from detr_d2.data.image_file import DEFAULT_OPTIONS, ImageOptions, read_image
from detr_d2.data.picture_file import write_picture
from detr_d2.file_io import check_writable
from detr_d2.visualization import below, beside, draw_ground_truth, draw_prediction, fitted


class PictureCollector(DatasetEvaluator):
    """Draws some images of a dataset while they are evaluated, in any number of processes.

    One image at a time is in memory at its full size; afterwards only its picture is kept.

    Attributes:
        pictures: pairs of image id and h×w×3 uint8 RGB picture, in the order of the dataset; the
            main process has them after ``evaluate``.
    """

    def __init__(
        self,
        dataset_name: str,
        dataset_dicts: list[dict[str, Any]],
        image_options: ImageOptions = DEFAULT_OPTIONS,
    ) -> None:
        """
        Args:
            dataset_name: the dataset that has the names and colours of the classes.
            dataset_dicts: the images to draw.
            image_options: how image files are read.
        """
        self._image_options = image_options
        self._metadata = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self._dicts = {dataset_dict["image_id"]: dataset_dict for dataset_dict in dataset_dicts}
        self.reset()

    def reset(self) -> None:
        """Starts a new evaluation, without any picture."""
        self._drawn: dict[Any, np.ndarray] = {}
        self.pictures: list[tuple[Any, np.ndarray]] = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Draws those of the evaluated images that are in ``dataset_dicts``.

        Args:
            inputs: dicts with ``image_id``.
            outputs: see ``draw_prediction``. They are not changed.

        Raises:
            OSError, ValueError: an image or its annotation can't be read.
        """
        for image, output in zip(inputs, outputs, strict=True):
            image_id = image["image_id"]
            if image_id in self._dicts:
                self._drawn[image_id] = self._draw(self._dicts[image_id], output)

    def evaluate(self) -> None:
        """Gathers the pictures of all processes, which all have to call it, on the main process."""
        comm.synchronize()
        drawn = {key: picture for part in comm.gather(self._drawn) for key, picture in part.items()}
        self.pictures = [
            (image_id, drawn[image_id]) for image_id in self._dicts if image_id in drawn
        ]

    def write(self, output_dir: str) -> None:
        """Writes the pictures, one below the other, to ``<output_dir>/pictures/<dataset>.png``.

        ``file_name_of`` makes the file's name from the dataset's. During a training, TensorBoard
        gets each picture, too. Without pictures, nothing is written.

        Raises:
            OSError: the file can't be written; the message names it.
        """
        if not self.pictures:
            return
        folder = os.path.join(output_dir, "pictures")
        check_writable(folder, "OUTPUT_DIR")
        column = below([picture for _, picture in self.pictures])
        write_picture(column, os.path.join(folder, f"{file_name_of(self._dataset_name)}.png"))
        if has_event_storage():
            for image_id, picture in self.pictures:
                tag = f"{self._dataset_name}/{image_id}"
                get_event_storage().put_image(tag, picture.transpose(2, 0, 1))

    def _draw(self, dataset_dict: dict[str, Any], output: dict[str, Any]) -> np.ndarray:
        picture = fitted(read_image(dataset_dict["file_name"], "RGB", self._image_options))
        truth = draw_ground_truth(picture, dataset_dict, self._metadata)
        return beside([picture, truth, draw_prediction(picture, output, self._metadata)])
