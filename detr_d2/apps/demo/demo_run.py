"""Runs the demo: it reads images, videos and webcams, and writes pictures, videos, predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode

from detr_d2.apps.demo.model_demo import Demo, DemoOptions
from detr_d2.apps.demo.video import CODECS, Webcam
from detr_d2.data.input_files import distinct_names, find_pictures
from detr_d2.evaluation.saved_predictions import PNG_FOLDER


def predict_files(
    cfg: CfgNode, inputs: Sequence[str], output_dir: str, options: DemoOptions | None = None
) -> int:
    """Predicts on images and videos, and writes a picture or video of each to a folder.

    Files that can't be read, or that the model can't take, are logged. The others are predicted.

    Args:
        cfg: the whole config; ``MODEL.WEIGHTS`` is used as for evaluation.
        inputs: files, folders or globs.
        output_dir: the folder of pictures (PNG) and videos, which are named as the inputs are.
        options: what is shown.

    Returns:
        How many images and videos failed, completely or in part.

    Raises:
        FileNotFoundError: there are no images, or no weights.
        OSError: a picture or video can't be written.
        ValueError: neither a dataset nor the weights tell the names of classes, the options need
            masks that the model doesn't have, or an output would overwrite an input.
    """
    images, videos = find_pictures(inputs)
    options = options or DemoOptions()
    if videos:
        _refuse_grids(options)
    _refuse_overwriting(images, videos, Path(output_dir), options)
    with Demo.from_config(cfg, Path(output_dir), options) as demo:
        if images:
            demo.show_images(images)
        for path, name in zip(videos, distinct_names(videos), strict=True):
            demo.show_video(path, name)
        return demo.failed


def predict_webcam(
    cfg: CfgNode, index: int, output_dir: str | None, options: DemoOptions | None = None
) -> None:
    """Predicts on the frames of a camera, until the window is closed or Ctrl-C is pressed.

    Args:
        cfg: the whole config; ``MODEL.WEIGHTS`` is used as for evaluation.
        index: the number of the camera, from 0 on.
        output_dir: the folder of the video ``webcam_<index>``; None for a window alone.
        options: what is shown.

    Raises:
        FileNotFoundError, ValueError: as ``predict_files``.
        OSError: the camera or the window can't be opened, or the video can't be written.
    """
    options = options or DemoOptions()
    _refuse_grids(options)
    folder = Path(output_dir) if output_dir is not None else None
    # The camera is opened first, since a model takes long to load.
    with Webcam(index) as webcam, Demo.from_config(cfg, folder, options) as demo:
        demo.show_webcam(webcam, f"webcam_{index}")


def _refuse_grids(options: DemoOptions) -> None:
    """Refuses grids of segments in videos: their size changes with the number of segments."""
    if options.view == "masks":
        raise ValueError("--masks is for images; to see one segment of a video, take --mask ID.")


def _refuse_overwriting(
    images: Sequence[Path], videos: Sequence[Path], folder: Path, options: DemoOptions
) -> None:
    """Checks that no output is one of the inputs.

    Raises:
        ValueError: an output is an input.
    """
    targets = [folder / f"{name}.png" for name in distinct_names(images)]
    if options.save_panoptic:
        targets += [folder / PNG_FOLDER / target.name for target in targets]
    for name in distinct_names(videos):
        targets += [folder / f"{name}{suffix}" for suffix, _ in CODECS]
    inputs = {path.resolve() for path in (*images, *videos)}
    if options.save_panoptic:
        # Folders of frames count as their files.
        targets += [folder / PNG_FOLDER / name for name in distinct_names(videos)]
        inputs |= {path.parent for path in inputs}
    for target in targets:
        if target.resolve() in inputs:
            raise ValueError(f"{target} is an input and would be overwritten: name another folder.")
