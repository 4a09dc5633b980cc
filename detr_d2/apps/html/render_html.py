"""HTML pages from templates, with all pictures, styles and scripts inside.

Axes: H×W pixels of a picture.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from detr_d2.file_io import written_whole


def render_page(template: str, **context: Any) -> str:
    """Fills in a template of ``detr_d2/apps/html/templates``.

    Values are escaped, unless they are ``Markup``. A template includes style and script by
    ``{{ asset("name.css") }}``, so the page needs no other file.

    Args:
        template: the file's name.
        context: the template's variables. A missing variable is an error.
    """
    return _environment().get_template(template).render(context)


def write_page(path: Path, template: str, **context: Any) -> None:
    """Writes the page of ``render_page`` to a file, whole or not at all."""
    page = render_page(template, **context)
    with written_whole(path, "wb") as file:
        file.write(page.encode())


def png_uri(picture: np.ndarray) -> str:
    """The data URI of a picture: H×W×3 uint8 RGB, H×W×4 RGBA or H×W grey."""
    if picture.ndim == 3:
        picture = picture[:, :, [2, 1, 0, 3][: picture.shape[2]]]  # OpenCV expects BGR.
    return _data_uri("png", picture)


def jpeg_uri(picture: np.ndarray, quality: int = 85) -> str:
    """The data URI of a photograph, H×W×3 uint8 RGB; quality is in 1 … 100."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return _data_uri("jpeg", picture[:, :, ::-1], flags)


def json_for_script(value: Any) -> Markup:
    """JSON that is safe inside a script element, whatever strings it holds. NaN becomes null."""
    text = json.dumps(_without_nan(value), ensure_ascii=False, separators=(",", ":"))
    # These characters could end the element, or begin a comment in it.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _data_uri(kind: str, picture: np.ndarray, flags: Sequence[int] = ()) -> str:
    is_encoded, content = cv2.imencode(f".{kind}", picture, flags)
    if not is_encoded:  # for example, JPEG has at most 65,500 pixels in a row.
        height, width = picture.shape[:2]
        raise ValueError(f"A picture of {width}×{height} pixels can't be stored as {kind.upper()}.")
    return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode('ascii')}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("detr_d2.apps.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = _asset_of(environment)
    environment.globals |= {"jpeg_uri": jpeg_uri, "json_for_script": json_for_script}
    return environment


def _asset_of(environment: Environment) -> Callable[[str], Markup]:
    """A function that includes style and scripts; a script can't end its own script element."""

    def asset(name: str) -> Markup:
        assert environment.loader is not None
        source = environment.loader.get_source(environment, name)[0]
        return Markup(source.replace("</", "<\\/") if name.endswith(".js") else source)

    return asset
