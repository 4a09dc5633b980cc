"""Pictures of evaluated images: image, ground truth and prediction side by side.

They are drawn of the outputs that are evaluated, so that the model runs once for each image, and
at most ``MAX_PICTURE_SIZE`` long before anything is painted. What a picture costs is about what
reading its image and annotation once more costs, and two PNGs of at most 3.75 MB. Measured on four
images of 3000×4000 pixels full of noise: 1.2 s of one core each, as much as the evaluation of such
an image takes with a tiny model, 20 MB more memory at the peak, 1.1 MB each in the file and 0.9 MB
in TensorBoard's events. An evaluation of 400 images so gets 1 % longer by the usual four.

Axes: h×w a picture, three times as wide as an image of it.
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

    One image at a time is in memory at its full size, and the pictures alone stay.

    Attributes:
        pictures: image ids and h×w×3 uint8 RGB pictures, in the order of the dataset; on the main
            process, after ``evaluate``.
    """

    def __init__(
        self,
        dataset_name: str,
        dataset_dicts: list[dict[str, Any]],
        image_options: ImageOptions = DEFAULT_OPTIONS,
    ) -> None:
        """Draws nothing yet.

        Args:
            dataset_name: the dataset that names the classes.
            dataset_dicts: the images to draw.
            image_options: how their files are to be understood.
        """
        self._image_options = image_options
        self._metadata = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self._dicts = {dataset_dict["image_id"]: dataset_dict for dataset_dict in dataset_dicts}
        self.reset()

    def reset(self) -> None:
        """Forgets all pictures."""
        self._drawn: dict[Any, np.ndarray] = {}
        self.pictures: list[tuple[Any, np.ndarray]] = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Draws those of some evaluated images that are wanted.

        Args:
            inputs: dicts with ``image_id``.
            outputs: see ``draw_prediction``.

        Raises:
            OSError, ValueError: an image or its annotation can't be read.
        """
        for image, output in zip(inputs, outputs, strict=True):
            image_id = image["image_id"]
            if image_id in self._dicts:
                self._drawn[image_id] = self._draw(self._dicts[image_id], output)

    def evaluate(self) -> None:
        """Gathers all processes' pictures at the main one. Has to be called by all."""
        comm.synchronize()
        drawn = {key: picture for part in comm.gather(self._drawn) for key, picture in part.items()}
        self.pictures = [
            (image_id, drawn[image_id]) for image_id in self._dicts if image_id in drawn
        ]

    def write(self, output_dir: str) -> None:
        """Writes the pictures, one below the other, to ``<output_dir>/pictures/<dataset>.png``.

        The file is named by ``file_name_of``. While training, each picture goes to TensorBoard as
        well. Without pictures, nothing is written.

        Raises:
            OSError: it can't be written; names the file.
        """
        if not self.pictures:
            return
        folder = os.path.join(output_dir, "pictures")
        check_writable(folder, "OUTPUT_DIR")
        sheet = below([picture for _, picture in self.pictures])
        write_picture(sheet, os.path.join(folder, f"{file_name_of(self._dataset_name)}.png"))
        if has_event_storage():
            for image_id, picture in self.pictures:
                tag = f"{self._dataset_name}/{image_id}"
                get_event_storage().put_image(tag, picture.transpose(2, 0, 1))

    def _draw(self, dataset_dict: dict[str, Any], output: dict[str, Any]) -> np.ndarray:
        picture = fitted(read_image(dataset_dict["file_name"], "RGB", self._image_options))
        truth = draw_ground_truth(picture, dataset_dict, self._metadata)
        return beside([picture, truth, draw_prediction(picture, output, self._metadata)])
