"""The page itself, made with gradio: its elements, and what they do when people use them."""

from __future__ import annotations

import gradio as gr
import numpy as np
from gradio.data_classes import ImageData

from detr_d2.apps.web.image_viewer import Shown, Viewer
from detr_d2.apps.web.segment_markup import explanation, segment_choices, segment_list
from detr_d2.modeling.inference_options import PanopticOptions
from detr_d2.modeling.merging_rules import MERGING_RULES

# Highest minimum area that the slider goes to, in pixels.
MAX_MIN_AREA = 2000
# Seconds for which an image that nobody uses is kept, with the network's prediction for it.
KEPT_SECONDS = 3600
# Seconds between two removals of older images.
CLEANING_SECONDS = 60
# Number of people who may wait for the model at once. Others are told that it is busy.
MAX_WAITING = 20

SANS, MONO = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]

# How the page describes the rules of merging. For a rule that is not here, it shows the name.
RULE_TEXTS = {
    "reference": "reference: the first query of a stuff class alone",
    "merged": "merged: all queries of a stuff class share a segment",
}


def build_app(viewer: Viewer) -> gr.Blocks:
    """Builds the page of a viewer, which ``detr_d2.apps.web.web_server`` serves."""

    def look(path: str | None, *settings) -> tuple:
        return _show(seen(path, settings))

    def merge(shown: Shown | None, path: str | None, *settings) -> tuple:
        if shown is not None:
            return _show(shown.merged(_merging(*settings)))
        return look(path, *settings)

    def point(event: gr.SelectData, shown: Shown | None, path: str | None, *settings) -> tuple:
        shown = shown or seen(path, settings)
        return _explain(shown and shown.pointed(*event.index))

    def choose(segment_id: int | None, shown: Shown | None, path: str | None, *settings) -> tuple:
        shown = shown or seen(path, settings)
        return _explain(shown and shown.pointed_at(segment_id))

    def seen(path: str | None, settings: tuple) -> Shown | None:
        """Predicts on the uploaded image, for the first time or after it was removed."""
        try:
            return None if path is None else viewer.look_at_file(path, _merging(*settings))
        except FileNotFoundError as error:
            raise _told("This image is no longer there: upload it again.") from error
        except ValueError as error:
            # The path of the upload on the server means nothing to the person who uploaded it.
            raise _told(str(error).replace(f"{path}: ", "The image ")) from error

    with gr.Blocks(
        title="Panoptic DETR",
        analytics_enabled=False,
        delete_cache=(CLEANING_SECONDS, KEPT_SECONDS),
    ) as app:
        shown = gr.State(None, time_to_live=KEPT_SECONDS)
        gr.Markdown("# Panoptic DETR\nWhat the model sees in an image, and why.")
        with gr.Row(equal_height=True):
            image = gr.Image(
                label="Image", sources=["upload", "webcam"], type="filepath", elem_id="image"
            )
            # Gradio's own preprocessing would open images of any size. This isn't a subclass, since
            # gradio writes a stub file beside the module of each subclass.
            image.preprocess = _uploaded_path  # type: ignore[method-assign]
            picture = gr.Image(
                label="Segments",
                interactive=False,
                format="png",
                buttons=["download", "fullscreen"],
                elem_id="picture",
            )
        with gr.Row():
            with gr.Column():
                settings = _settings(viewer.merging)
            with gr.Column():
                segments = gr.HTML(elem_id="segments")
                # The choice does the same as a click on the picture, for people who use keys.
                choice = gr.Dropdown([], value=None, label="Explain a segment", elem_id="choice")
                # Gradio's own preprocessing would refuse choices that it forgot with the image.
                choice.preprocess = lambda segment_id: segment_id  # type: ignore[method-assign, assignment]
        reasons = gr.HTML(elem_id="reasons")

        def on(event, function, inputs, outputs, **options) -> None:
            # Calls run one at a time, since they share the model and the kept images.
            event(
                function,
                inputs,
                outputs,
                concurrency_id="model",
                concurrency_limit=1,
                api_visibility="private",
                **options,
            )

        texts = [segments, choice, reasons]
        everything = [shown, picture, *texts]
        kept = [shown, image, *settings]
        on(image.change, look, [image, *settings], everything)
        for setting in settings:
            # Of the many values that a slider passes through, only the last counts.
            quiet = {"trigger_mode": "always_last", "show_progress": "hidden"}
            on(setting.change, merge, kept, everything, **quiet)
        on(picture.select, point, kept, [shown, *texts], show_progress="hidden")
        on(choice.input, choose, [choice, *kept], [shown, *texts], show_progress="hidden")
    return app.queue(max_size=MAX_WAITING)


def _uploaded_path(payload: ImageData | None) -> str | None:
    """Returns the path of an upload. Gradio accepts only paths in its own folder."""
    return None if payload is None else payload.path


def make_theme() -> gr.Theme:
    """Makes a theme with fonts that every system has: Gradio's own come from another host."""
    theme = gr.themes.Default(font=SANS, font_mono=MONO)
    # Gradio's small print is too pale to be read.
    names = "body_text_color_subdued", "block_info_text_color"
    light = {name: "*neutral_600" for name in names}
    return theme.set(**light, **{f"{name}_dark": "*neutral_300" for name in names})


def _merging(score_thresh: float, min_area: int, stuff_merging: str) -> PanopticOptions:
    """Takes the values of the settings, in their order in the page."""
    return PanopticOptions(score_thresh, stuff_merging, min_area)


def _settings(merging: PanopticOptions) -> list[gr.Slider | gr.Radio]:
    """Makes the settings that ``_merging`` takes, in the same order."""
    return [
        gr.Slider(
            0,
            1,
            merging.score_thresh,
            step=0.01,
            label="Score threshold",
            info="Queries below it don't compete for pixels.",
            elem_id="score_thresh",
        ),
        gr.Slider(
            0,
            max(MAX_MIN_AREA, merging.min_area),
            merging.min_area,
            step=1,
            label="Minimum area",
            info="Segments with no more pixels than this are dropped.",
            elem_id="min_area",
        ),
        gr.Radio(
            [(RULE_TEXTS.get(rule, rule), rule) for rule in MERGING_RULES],
            value=merging.stuff_merging,
            label="Stuff",
            elem_id="stuff_merging",
        ),
    ]


def _show(shown: Shown | None) -> tuple[Shown | None, np.ndarray | None, str, dict, str]:
    shown, segments, choice, reasons = _explain(shown)
    return shown, None if shown is None else shown.picture(), segments, choice, reasons


def _explain(shown: Shown | None) -> tuple[Shown | None, str, dict, str]:
    """Returns, beside the image, its list of segments, the choice, and the explanation."""
    if shown is None:
        return None, "", gr.update(choices=[], value=None), ""
    chosen = None if shown.chosen is None else shown.chosen["id"]
    choice = gr.update(choices=segment_choices(shown), value=chosen)
    return shown, segment_list(shown), choice, explanation(shown)


def _told(message: str) -> gr.Error:
    """Makes an error for a mistake of the user: the page shows it, and the log leaves it out."""
    return gr.Error(message, print_exception=False)
