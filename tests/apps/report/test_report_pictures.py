"""The sizes of the pictures of a report."""

import base64

import cv2
import numpy as np
import pytest
from detectron2.data import MetadataCatalog

from detr_d2.apps.report.report_pictures import layers_of_image
from detr_d2.apps.report.run_record import CompressedPrediction
from detr_d2.data.image_file import DEFAULT_OPTIONS
from detr_d2.visualization import MAX_PICTURE_SIZE


@pytest.mark.parametrize(
    ("size", "expected"),
    [((900, 1200), (480, MAX_PICTURE_SIZE)), ((24, 32), (360, 480)), ((6, 2000), (2, 640))],
)
def test_all_layers_have_the_size_of_evaluations_pictures(make_scenes, predict, size, expected):
    """Even if a run has no prediction of the image."""
    (record,) = make_scenes(1, size=size)
    ids, segments_info = predict(record)["panoptic_seg"]
    kept = CompressedPrediction.of(ids.numpy(), segments_info)
    layers = layers_of_image(record, [kept, None], MetadataCatalog.get("scenes"), DEFAULT_OPTIONS)
    contents = [base64.b64decode(layer.split(",")[1]) for layer in layers]
    pictures = [cv2.imdecode(np.frombuffer(content, np.uint8), 1) for content in contents]
    assert [picture.shape for picture in pictures] == [(*expected, 3)] * 4
