"""What several commands share: arguments, the log on the screen, and a model's config."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def add_config_file(
    group: argparse._ActionsContainer, what: str = "", *, required: bool = True
) -> None:
    """Adds ``--config-file``.

    Args:
        group: a parser or a group of arguments.
        what: the help's beginning, on what the file is for.
        required: whether the command needs it.
    """
    group.add_argument(
        "--config-file",
        required=required,
        metavar="FILE",
        help=f"{what}a YAML file, or the name of one that comes with detr_d2, such as "
        "shapes/detr_panoptic.yaml",
    )


def add_overrides(group: argparse._ActionsContainer) -> None:
    """Adds ``opts``, which takes all remaining arguments: keys of the config and their values."""
    group.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="keys of the config and their values, such as MODEL.WEIGHTS model.pth",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of a trained model: its config, and at the end keys that change it."""
    add_config_file(parser)
    add_overrides(parser)


def show_log() -> None:
    """Shows the log of detr_d2 on the screen."""
    from detectron2.utils.logger import setup_logger

    setup_logger(name="detr_d2")


def load_model_config(args: argparse.Namespace) -> CfgNode:
    """Loads the config that ``add_model``'s arguments name, after showing the log.

    Raises:
        FileNotFoundError, ValueError: as ``load_config``.
    """
    from detr_d2.config import load_config

    show_log()
    return load_config(args.config_file, args.opts)
