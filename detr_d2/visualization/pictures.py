"""Pictures of predictions and annotations, for evaluation.

Panoptic pictures are painted by ours; boxes, and masks that overlap, by Detectron2's visualizer.

Axes: H×W the image, h×w the picture, at least ``MIN_PICTURE_SIZE`` long.
"""

from __future__ import annotations

import cv2
import numpy as np
from detectron2.data import Metadata
from detectron2.structures import BoxMode
from detectron2.utils.visualizer import ColorMode, Visualizer

from detr_d2.data.image_file import DEFAULT_OPTIONS, ImageOptions, read_image
from detr_d2.data.instance_annotations import annotation_mask
from detr_d2.data.panoptic_png import read_panoptic_png
from detr_d2.visualization.colors import class_color
from detr_d2.visualization.scene import Scene
from detr_d2.visualization.views import draw_view

# Smaller images are enlarged to this length, so that names are legible on them.
MIN_PICTURE_SIZE = 480
# Instances below this score are not drawn.
MIN_INSTANCE_SCORE = 0.5


def draw_prediction(image: np.ndarray, prediction: dict, metadata: Metadata) -> np.ndarray:
    """Draws what the model returned for one image: its panoptic picture, or else its instances.

    Args:
        image: H×W×3 uint8, RGB.
        prediction: ``panoptic_seg`` or ``instances``, at the image's size.
        metadata: of the dataset that names the classes.

    Returns:
        h×w×3 uint8, RGB.
    """
    image = enlarge(image)
    if "panoptic_seg" in prediction:
        scene = Scene.from_output(prediction, MIN_INSTANCE_SCORE)
        return draw_view(image, scene, metadata, "panoptic", numbered=False)
    visualizer = Visualizer(image, metadata, instance_mode=ColorMode.IMAGE)
    instances = prediction["instances"].to("cpu")
    instances = instances[instances.scores >= MIN_INSTANCE_SCORE]
    return _draw_instances(
        visualizer,
        instances.pred_boxes.tensor.numpy() * (image.shape[0] / instances.image_size[0]),
        instances.pred_classes.tolist(),
        [f" {score:.0%}" for score in instances.scores.tolist()],
    )


def draw_ground_truth(
    dataset_dict: dict, metadata: Metadata, options: ImageOptions = DEFAULT_OPTIONS
) -> np.ndarray:
    """Draws the annotation of an image: Detectron2's standard dict to h×w×3 uint8, RGB.

    Drawn is its panoptic PNG, or else its instances, with masks where all of them have one. The
    options say how the image file is to be understood.
    """
    image = read_image(dataset_dict["file_name"], "RGB", options)
    picture = enlarge(image)
    if "pan_seg_file_name" in dataset_dict:
        ids = read_panoptic_png(dataset_dict["pan_seg_file_name"])
        scene = Scene.from_panoptic(ids, dataset_dict["segments_info"])
        # Small numbers, as predictions have, are sure to have colours that can be told apart.
        scene = scene.numbered(range(1, len(scene.segments) + 1))
        return draw_view(picture, scene, metadata, "panoptic", numbered=False)
    visualizer = Visualizer(picture, metadata)
    annotations = dataset_dict["annotations"]
    factor = picture.shape[0] // image.shape[0]
    corners = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    masks = None
    if all(annotation.get("segmentation") for annotation in annotations):
        masks = [
            annotation_mask(a["segmentation"], image.shape[:2], dataset_dict["file_name"])
            .repeat(factor, axis=0)
            .repeat(factor, axis=1)
            for a in annotations
        ]
    return _draw_instances(
        visualizer,
        np.array(corners).reshape(-1, 4) * factor,
        [a["category_id"] for a in annotations],
        [" (crowd)" if a.get("iscrowd", 0) else "" for a in annotations],
        masks,
    )


def beside(pictures: list[np.ndarray]) -> np.ndarray:
    """Puts pictures of one height side by side, a white gap between them."""
    gap = np.full((pictures[0].shape[0], 8, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(row[:-1], axis=1)


def below(pictures: list[np.ndarray]) -> np.ndarray:
    """Puts pictures one below the other, left-aligned on white."""
    width = max(picture.shape[1] for picture in pictures)
    rows = [
        np.pad(p, ((0, 8), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures
    ]
    return np.concatenate(rows)[:-8]


def enlarge(image: np.ndarray) -> np.ndarray:
    """Enlarges a small H×W×3 image by a whole factor; leaves a large one as it is."""
    factor = max(1, round(MIN_PICTURE_SIZE / max(image.shape[:2])))
    if factor == 1:
        return image
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def _draw_instances(
    visualizer: Visualizer,
    boxes: np.ndarray,
    classes: list[int],
    remarks: list[str],
    masks: list[np.ndarray] | None = None,
) -> np.ndarray:
    """Draws n instances: n×4 corners, a remark behind each class's name, n h×w masks."""
    names = visualizer.metadata.thing_classes
    return visualizer.overlay_instances(
        boxes=boxes,
        labels=[f"{names[c]}{remark}" for c, remark in zip(classes, remarks, strict=True)],
        masks=masks,
        assigned_colors=[class_color(visualizer.metadata, c, True) / 255 for c in classes],
    ).get_image()
