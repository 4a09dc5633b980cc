"""The 19 classes on which Cityscapes evaluates (Cordts et al. 2016, arXiv:1604.01685)."""

from __future__ import annotations

# Label, name, and colour as red, green, blue. Detectron2 has the same table, and needs PyTorch.
STUFF = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
)
THINGS = (
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
# Labels from 0 on; those that are not among the 19 are void.
NUM_LABELS = 34


def cityscapes_categories() -> list[dict]:
    """The classes as COCO's ``categories``."""
    return [
        {"id": label, "name": name, "isthing": isthing, "color": list(color)}
        for isthing, classes in ((0, STUFF), (1, THINGS))
        for label, name, color in classes
    ]
