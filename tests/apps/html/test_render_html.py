"""Values in templates, and pictures inside pages."""

from __future__ import annotations

import base64
import json
import re

import cv2
import jinja2
import numpy as np
import pytest

from detr_d2.apps.html import render_html as render
from detr_d2.apps.html.render_html import (
    jpeg_uri,
    json_for_script,
    png_uri,
    render_page,
    write_page,
)

NASTY = "</script><script>alert('<!--')</script>&\u2028"


@pytest.fixture(autouse=True)
def templates():
    """Adds two templates to those of the package."""
    render._environment.cache_clear()
    environment = render._environment()
    own = jinja2.DictLoader(
        {
            "page.html.j2": "{% extends 'base.html.j2' %}{% block title %}{{ title }}{% endblock %}"
            "{% block script %}<script>{{ asset('page.js') }};"
            "const data = {{ json_for_script(data) }}</script>{% endblock %}",
            "page.js": "const end = '</script>'",
        }
    )
    environment.loader = jinja2.ChoiceLoader([own, environment.loader])
    yield
    render._environment.cache_clear()


def decoded(uri: str, kind: str) -> np.ndarray:
    head, content = uri.split(",")
    assert head == f"data:image/{kind};base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("channels", [(), (3,), (4,)])
def test_png_uris_hold_the_picture(channels):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, *channels), dtype=np.uint8)
    stored = decoded(png_uri(picture), "png")
    if channels:
        stored = stored[..., [2, 1, 0, 3][: channels[0]]]
    assert np.array_equal(stored, picture)


def test_jpeg_uris_hold_nearly_the_picture():
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[..., 0] = 200
    stored = decoded(jpeg_uri(picture), "jpeg")[..., ::-1]
    assert np.abs(stored.astype(int) - picture).max() < 5


def test_a_picture_that_cannot_be_stored_is_an_error():
    with pytest.raises(ValueError, match="70000×1 pixels can't be stored as JPEG"):
        jpeg_uri(np.zeros((1, 70000, 3), np.uint8))


def test_json_survives_any_string_and_ends_no_element():
    value = {"name": NASTY, 3: [float("nan"), 0.5, (1, None)]}
    text = json_for_script(value)
    assert not re.search("[<>&\u2028]", text)
    assert json.loads(text) == {"name": NASTY, "3": [None, 0.5, [1, None]]}


def test_pages_are_whole_escaped_and_on_their_own(tmp_path):
    write_page(tmp_path / "page.html", "page.html.j2", title=NASTY, data=NASTY)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert page.count("<script>") == page.count("</script>") == 1
    assert "&lt;/script&gt;" in page
    assert "--accent" in page  # the style is inside
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="title"):
        render_page("page.html.j2", data=1)


def test_the_browser_shows_a_page_without_complaint(browser, tmp_path):
    write_page(tmp_path / "page.html", "page.html.j2", title="Title", data=NASTY)
    browser.open(tmp_path / "page.html")
    assert browser.driver.title == "Title"
    assert browser.driver.execute_script("return data") == NASTY
    assert browser.console_errors() == []


def test_the_browser_tells_of_errors(browser, tmp_path):
    (tmp_path / "page.html").write_text("<script>undefined_function()</script>")
    browser.open(tmp_path / "page.html")
    (error,) = browser.console_errors()
    assert "undefined_function" in error
