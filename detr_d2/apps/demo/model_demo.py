"""Pictures, videos and panoptic predictions of a model.

One image or batch of frames is in memory at a time. Axes: H×W an image or a frame.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import Metadata
from tqdm import tqdm

from detr_d2.apps.demo.frame_window import Window
from detr_d2.apps.demo.tracking import SegmentTracker
from detr_d2.apps.demo.video import VideoReader, VideoWriter, Webcam
from detr_d2.data.categories import PanopticClasses
from detr_d2.data.image_file import DEFAULT_OPTIONS, ImageOptions, read_image
from detr_d2.data.input_files import distinct_names
from detr_d2.data.picture_file import write_picture
from detr_d2.engine.training_stages import evaluation_config
from detr_d2.evaluation.saved_predictions import PredictionWriter, image_id_of
from detr_d2.predictor import Predictor, picture_config, predict_stream, require_names
from detr_d2.visualization import MIN_INSTANCE_SCORE, PanopticScene, draw_one, draw_view, enlarge

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DemoOptions:
    """What the pictures show, and what is written beside them.

    Attributes:
        view: one of ``VIEWS``, see ``draw_view``. A model without masks shows boxes.
        segment_id: the only segment to show, instead of a view.
        batch_size: images that go through the network together.
        save_panoptic: write ``predictions.json`` and ``predictions/*.png``, COCO's panoptic
            format, beside the pictures. The id of an image is its name, and that of a frame
            ``name/0000012``; 12 digits, as COCO's images have them, are a number.
        window: show a video's frames while they are predicted.
    """

    view: str = "panoptic"
    segment_id: int | None = None
    batch_size: int = 1
    save_panoptic: bool = False
    window: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"--batch has to be at least 1, not {self.batch_size}.")


class Demo:
    """A model, and the kind of pictures that are drawn of its predictions.

    Attributes:
        failed: number of images and videos that were not shown, or only in part.
    """

    def __init__(
        self,
        predictor: Predictor,
        metadata: Metadata,
        output_dir: Path | None,
        options: DemoOptions,
        image_options: ImageOptions = DEFAULT_OPTIONS,
    ) -> None:
        """Takes the model, the names of classes, the folder of all outputs (None for none), the
        options, and how image files are read.
        """
        self._predictor = predictor
        self._metadata = metadata
        self._folder = output_dir
        self._options = options
        self._image_options = image_options
        self._open = ExitStack()
        self._predictions: PredictionWriter | None = None
        self.failed = 0

    @classmethod
    def from_config(cls, cfg: CfgNode, output_dir: Path | None, options: DemoOptions) -> Demo:
        """Builds the model such that it predicts what the options show.

        Raises:
            FileNotFoundError, ValueError: as ``predict_files``.
        """
        if options.save_panoptic and output_dir is None:
            raise ValueError("--save-panoptic needs a folder to write to: name it by --output.")
        has_masks = cfg.MODEL.DETR.MASK_ON and cfg.MODEL.DETR.TEST.PANOPTIC_ON
        needs_masks = options.segment_id is not None or options.save_panoptic
        if not has_masks and (needs_masks or options.view not in ("panoptic", "boxes")):
            raise ValueError(
                "A model without masks can only show boxes (MODEL.DETR.MASK_ON or "
                "MODEL.DETR.TEST.PANOPTIC_ON is False)."
            )
        predictor = Predictor(picture_config(evaluation_config(cfg), options.view))
        require_names(predictor)
        image_options = ImageOptions.from_config(cfg)
        return cls(predictor, predictor.metadata, output_dir, options, image_options)

    def __enter__(self) -> Demo:
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._options.save_panoptic:
                categories = PanopticClasses.from_metadata(self._metadata).categories()
                writer = PredictionWriter(self._folder, categories)
                self._predictions = self._open.enter_context(writer)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def show_images(self, paths: Sequence[Path]) -> None:
        """Writes a picture of each image.

        Raises:
            ValueError: there is no folder to write to.
        """
        if self._folder is None:
            raise ValueError("Pictures need a folder to write to: name it by --output.")
        # The bar is left out where the output goes to a file and not to a terminal.
        bar = tqdm(total=len(paths), unit="image", disable=None)
        written = 0
        try:
            with bar:
                images = self._read(paths, bar)
                predictions = predict_stream(
                    self._predictor, images, self._options.batch_size, self._skip_image
                )
                for (path, name), image, output in predictions:
                    scene = PanopticScene.from_output(output, MIN_INSTANCE_SCORE)
                    self._warn_of_missing(path, scene)
                    target = self._folder / f"{name}.png"
                    write_picture(self._draw(image, scene), target)
                    self._save(f"{name}.png", image_id_of(name), scene)
                    written += 1
        finally:
            logger.info("Wrote %d of %d pictures to %s", written, len(paths), self._folder)

    def show_video(self, path: Path, name: str) -> None:
        """Writes the pictures of a video's frames as a video, or logs what is wrong with it."""
        try:
            with VideoReader(path) as video:
                self._show_frames(video, name, total=video.num_frames)
                problem = video.problem()
        except (FileNotFoundError, ValueError) as error:
            problem = str(error)
        if problem:
            self._fail(problem)

    def show_webcam(self, webcam: Webcam, name: str) -> None:
        """Shows a camera's frames, and writes a video of them if there is a folder."""
        self._show_frames(webcam, name, is_live=True)

    def _show_frames(
        self,
        video: VideoReader | Webcam,
        name: str,
        *,
        total: int | None = None,
        is_live: bool = False,
    ) -> None:
        """Shows frames. The recorded video of a camera plays at real speed.

        Raises:
            OSError: a frame can't be written.
            ValueError: the model can't take a frame, and thus none of the others.
        """
        tracker, shown = SegmentTracker(), 0
        start = first = time.monotonic()
        with ExitStack() as stack:
            writer = window = None
            if self._folder is not None:
                writer = stack.enter_context(VideoWriter(self._folder, name, video.fps))
            if self._options.window or self._folder is None:
                window = stack.enter_context(Window(name))
            stack.callback(lambda: _log_speed(video, shown, time.monotonic() - start, writer))
            bar = stack.enter_context(tqdm(total=total, unit="frame", desc=name, disable=None))
            predictions = predict_stream(
                self._predictor, video, self._options.batch_size, _refuse_frame(video)
            )
            for place, image, output in predictions:
                scene = tracker.follow(PanopticScene.from_output(output, MIN_INSTANCE_SCORE))
                picture = self._draw(image, scene)
                self._save(f"{name}/{place:07d}.png", f"{name}/{place:07d}", scene)
                if writer is not None:
                    if shown == 0:
                        first = time.monotonic()
                    # A camera doesn't wait. Frames are repeated while a slow model predicts.
                    elapsed = (time.monotonic() - first) * video.fps if is_live else shown
                    for _ in range(writer.num_frames, round(elapsed) + 1):
                        writer.write(picture[:, :, ::-1])
                shown += 1
                bar.update()
                if window is not None and not window.show(picture):
                    break

    def _read(
        self, paths: Sequence[Path], bar: tqdm
    ) -> Iterator[tuple[tuple[Path, str], np.ndarray]]:
        """Yields the readable images, H×W×3 BGR, with their paths and the names of pictures."""
        for path, name in zip(paths, distinct_names(paths), strict=True):
            try:
                image = read_image(path, "BGR", self._image_options)
            except (OSError, ValueError) as error:
                self._fail(str(error))
            else:
                yield (path, name), image
            bar.update()

    def _draw(self, image: np.ndarray, scene: PanopticScene) -> np.ndarray:
        """Draws a picture in RGB of an image in BGR."""
        picture = enlarge(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        if self._options.segment_id is not None:
            return draw_one(picture, scene, self._metadata, self._options.segment_id)
        view = self._options.view if scene.places is not None else "boxes"
        return draw_view(picture, scene, self._metadata, view)

    def _save(self, file_name: str, image_id: Any, scene: PanopticScene) -> None:
        if self._predictions is not None:
            self._predictions.add(file_name, image_id, scene.ids, scene.segments_info)

    def _warn_of_missing(self, path: Path, scene: PanopticScene) -> None:
        wanted, there = self._options.segment_id, [segment.id for segment in scene.segments]
        if wanted is not None and wanted not in there:
            logger.warning("%s: there is no segment %d, only %s", path, wanted, there or "none")

    def _skip_image(self, name: tuple[Path, str], error: ValueError) -> None:
        self._fail(f"{name[0]}: {error}")

    def _fail(self, problem: str) -> None:
        logger.error("%s", problem)
        self.failed += 1


def _refuse_frame(video: VideoReader | Webcam) -> Callable[[int, ValueError], None]:
    def refuse(place: int, error: ValueError) -> None:
        raise ValueError(f"{video}, frame {place}: {error}") from error

    return refuse


def _log_speed(
    video: VideoReader | Webcam, num_frames: int, seconds: float, writer: VideoWriter | None
) -> None:
    speed = num_frames / seconds if seconds > 0 else 0
    where = f" to {writer.path}" if writer is not None and writer.path is not None else ""
    logger.info("%s: %d frames at %.1f frames/s%s", video, num_frames, speed, where)
