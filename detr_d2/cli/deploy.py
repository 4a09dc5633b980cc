"""Draws the panoptic picture of images with an exported model, without PyTorch and Detectron2.

detr-d2 deploy MODEL IMAGES... --output FOLDER [--save-panoptic]

The same as python -m detr_d2.deploy. It needs pip install 'detr_d2[deploy]'.
"""

from detr_d2.deploy.__main__ import add_arguments, run

__all__ = ["add_arguments", "run"]
