"""Pictures of predictions and annotations, for evaluation and reports.

Panoptic pictures are drawn by ``segment_picture``; boxes, and masks that overlap, by Detectron2's
visualizer.
Images, ids and masks are brought to the size of their picture before anything is painted, so that a
picture of a large image takes little more time and memory than reading its files. Segments that are
smaller than a pixel of the picture can be missing from it.

Axes: H×W the image, h×w the picture, between ``MIN_PICTURE_SIZE`` and ``MAX_PICTURE_SIZE`` long
where ``fitted`` made it.
"""

from __future__ import annotations

import numpy as np
from detectron2.data import Metadata
from detectron2.structures import BoxMode
from detectron2.utils.visualizer import ColorMode, Visualizer

from detr_d2.data.instance_annotations import annotation_mask
from detr_d2.data.panoptic_png import read_panoptic_png
from detr_d2.visualization.class_colors import class_color
from detr_d2.visualization.panoptic_scene import PanopticScene, as_array, nearest
from detr_d2.visualization.scene_views import draw_view

# Instances below this score are not drawn.
MIN_INSTANCE_SCORE = 0.5


def draw_prediction(picture: np.ndarray, prediction: dict, metadata: Metadata) -> np.ndarray:
    """Draws what the model returned for one image: its panoptic picture, or else its instances.

    Args:
        picture: h×w×3 uint8, RGB: the image, at the size at which it is drawn.
        prediction: ``panoptic_seg`` or ``instances``, at any size, on any device.
        metadata: of the dataset that names the classes.

    Returns:
        h×w×3 uint8, RGB.
    """
    height, width = picture.shape[:2]
    if "panoptic_seg" in prediction:
        ids, segments_info = prediction["panoptic_seg"]
        scene = PanopticScene.from_panoptic(nearest(as_array(ids), (height, width)), segments_info)
        return draw_view(picture, scene, metadata, "panoptic", numbered=False)
    instances = prediction["instances"]
    down, right = height / instances.image_size[0], width / instances.image_size[1]
    # Only the fields that are drawn are moved to the CPU: masks can take gigabytes.
    scores = instances.scores.cpu()
    shown = scores >= MIN_INSTANCE_SCORE
    return _draw_instances(
        Visualizer(picture, metadata, instance_mode=ColorMode.IMAGE),
        instances.pred_boxes.tensor.cpu()[shown].numpy() * (right, down, right, down),
        instances.pred_classes.cpu()[shown].tolist(),
        [f" {score:.0%}" for score in scores[shown].tolist()],
    )


def draw_ground_truth(picture: np.ndarray, dataset_dict: dict, metadata: Metadata) -> np.ndarray:
    """Draws the annotation of an image.

    It draws the panoptic PNG or, without one, the instances, with masks if all of them have one.

    Args:
        picture: h×w×3 uint8, RGB: the image, at the size at which it is drawn.
        dataset_dict: Detectron2's standard dict of the image.
        metadata: of the dataset that names the classes.

    Returns:
        h×w×3 uint8, RGB.

    Raises:
        FileNotFoundError, ValueError: see read_panoptic_png and annotation_mask.
    """
    height, width = picture.shape[:2]
    if "pan_seg_file_name" in dataset_dict:
        ids = nearest(read_panoptic_png(dataset_dict["pan_seg_file_name"]), (height, width))
        scene = PanopticScene.from_panoptic(ids, dataset_dict["segments_info"])
        # Small ids, as predictions have them, always get colours that can be told apart.
        scene = scene.numbered(range(1, len(scene.segments) + 1))
        return draw_view(picture, scene, metadata, "panoptic", numbered=False)
    annotations = dataset_dict["annotations"]
    down, right = height / dataset_dict["height"], width / dataset_dict["width"]
    corners = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    masks = None
    if all(annotation.get("segmentation") for annotation in annotations):
        masks = [_mask(a["segmentation"], dataset_dict, (height, width)) for a in annotations]
    return _draw_instances(
        Visualizer(picture, metadata),
        np.array(corners).reshape(-1, 4) * (right, down, right, down),
        [a["category_id"] for a in annotations],
        [" (crowd)" if a.get("iscrowd", 0) else "" for a in annotations],
        masks,
    )


def _mask(segmentation: list[list[float]] | dict, dataset_dict: dict, size: tuple) -> np.ndarray:
    """Returns the mask of an annotated instance at h×w: uint8, 0 or 1."""
    file_name = dataset_dict["file_name"]
    of_image = dataset_dict["height"], dataset_dict["width"]
    if isinstance(segmentation, dict):
        return nearest(annotation_mask(segmentation, of_image, file_name), size)
    # Polygons are scaled before they become masks: hundreds of masks of the whole image are slow.
    scale = size[1] / of_image[1], size[0] / of_image[0]
    moved = [(np.reshape(polygon, (-1, 2)) * scale).ravel().tolist() for polygon in segmentation]
    return annotation_mask(moved, size, file_name)


def _draw_instances(
    visualizer: Visualizer,
    boxes: np.ndarray,
    classes: list[int],
    remarks: list[str],
    masks: list[np.ndarray] | None = None,
) -> np.ndarray:
    """Draws n instances: n×4 corners, n h×w masks, and a remark behind the name of each class."""
    names = visualizer.metadata.thing_classes
    return visualizer.overlay_instances(
        boxes=boxes,
        labels=[f"{names[c]}{remark}" for c, remark in zip(classes, remarks, strict=True)],
        masks=masks,
        assigned_colors=[class_color(visualizer.metadata, c, True) / 255 for c in classes],
    ).get_image()
