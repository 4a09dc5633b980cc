"""How the page is served: to this machine, within limits, and nothing is left behind."""

import importlib
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx")  # gradio brings it
gr = pytest.importorskip("gradio", reason="needs gradio: pip install 'detr_d2[web]'")

from detr_d2.apps.web.web_app import build_app  # noqa: E402
from detr_d2.apps.web.web_server import serve, serving  # noqa: E402

# By its path: the package has the function by the same name.
serve_module = importlib.import_module("detr_d2.apps.web.web_server")


def upload(address: str, content: bytes, name: str = "photo.png") -> httpx.Response:
    return httpx.post(f"{address}gradio_api/upload", files={"files": (name, content)}, timeout=20)


def test_served_here_alone_within_limits(viewer, free_port, photo_file, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = dict(os.environ)
    with serving(viewer, "127.0.0.1", free_port, max_upload_mb=0.1) as address:
        assert address == f"http://127.0.0.1:{free_port}/"
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((_other_address(), free_port), timeout=5)
        (path,) = upload(address, photo_file.read_bytes()).json()
        assert Path(path).is_relative_to(tmp_path)
        assert upload(address, bytes(200_000)).status_code == 413
        assert httpx.get(f"{address}gradio_api/info", timeout=20).json() == {
            "named_endpoints": {},
            "unnamed_endpoints": {},
        }
        assert httpx.get(f"{address}gradio_api/file={__file__}", timeout=20).status_code == 403
        with (
            pytest.raises(OSError, match="Name another --port"),
            serving(viewer, "127.0.0.1", free_port, max_upload_mb=1),
        ):
            pass
    assert [p for p in tmp_path.iterdir() if p != photo_file] == []
    assert os.environ.get("GRADIO_TEMP_DIR") == before.get("GRADIO_TEMP_DIR")


def _other_address() -> str:
    """Another address of this machine: all of 127.0.0.0/8 is."""
    return "127.0.0.2"


def test_starting_asks_no_other_host(viewer, free_port, monkeypatch):
    asked, real = set(), socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        asked.add(host.decode() if isinstance(host, bytes) else host)
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with serving(viewer, "127.0.0.1", free_port, max_upload_mb=1) as address:
        page = httpx.get(address, timeout=20).text
    assert asked == {"127.0.0.1"}
    assert "fonts.googleapis.com" not in page


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\nnonsense", "The image cannot be read as an image"),
        (b"", "the file is empty"),
        (b"<svg/>", "The image cannot be read as an image"),
        (None, "upload it again"),
    ],
)
def test_bad_images_are_told(viewer, tmp_path, content, message):
    path = tmp_path / "bad.png"
    if content is not None:
        path.write_bytes(content)
    look = build_app(viewer).fns[0].fn
    with pytest.raises(gr.Error, match=message) as caught:
        look(str(path), 0.5, 4, "merged")
    assert str(tmp_path) not in caught.value.message
    assert not caught.value.print_exception


def test_an_image_of_too_many_pixels_is_not_decoded(viewer, tmp_path, photo_file, monkeypatch):
    from detr_d2.data import image_file

    monkeypatch.setattr(image_file, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(gr.Error, match="1,000 pixels that are allowed"):
        build_app(viewer).fns[0].fn(str(photo_file), 0.5, 4, "merged")


def test_a_forgotten_image_is_looked_at_again(viewer, photo_file, count_passes):
    settings = 0.2, 4, "merged"
    look, merge = (build_app(viewer).fns[k].fn for k in (0, 1))
    shown = look(str(photo_file), *settings)[0]
    assert merge(shown, str(photo_file), *settings)[0].segments_info == shown.segments_info
    assert count_passes() == 1
    assert merge(None, str(photo_file), *settings)[0].segments_info == shown.segments_info
    assert count_passes() == 2
    nothing = gr.update(choices=[], value=None)
    assert merge(None, None, *settings) == (None, None, "", nothing, "")
    choose = build_app(viewer).fns[5].fn
    assert choose(shown.ids[0, 0], None, None, *settings) == (None, "", nothing, "")


def test_a_segment_chosen_by_name_is_explained(viewer, photo_file, count_passes):
    settings = 0.2, 4, "merged"
    app = build_app(viewer)
    look, choose = app.fns[0].fn, app.fns[5].fn
    shown, _, _, choice, _ = look(str(photo_file), *settings)
    assert choice["value"] is None
    name, segment_id = choice["choices"][-1]
    for kept in (shown, None):  # also where the image was forgotten, and with it the choices
        chosen, rows, choice, html = choose(segment_id, kept, str(photo_file), *settings)
        assert chosen.chosen["id"] == choice["value"] == segment_id
        assert f"<h3>{name} (" in html and 'class="chosen"' in rows
    assert count_passes() == 2
    *_, choice, html = choose(999, shown, str(photo_file), *settings)
    assert choice["value"] is None and "choose it by its name" in html


def test_nothing_is_written_beside_the_module(viewer):
    build_app(viewer)
    assert not list(Path(serve.__code__.co_filename).parent.glob("*.pyi"))


def test_missing_gradio_is_named(web_cfg, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r"pip install 'detr_d2\[web\]'") as caught:
        serve(web_cfg, "127.0.0.1", 1, 20)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ends_in_order_when_told(web_cfg, viewer, monkeypatch, number):
    ended = []

    @contextmanager
    def serving(*_):
        timer = threading.Timer(0.1, os.kill, (os.getpid(), number))
        timer.start()
        try:
            yield "http://127.0.0.1:1/"
        finally:
            ended.append(True)
            timer.join()

    monkeypatch.setattr(serve_module, "serving", serving)
    monkeypatch.setattr(serve_module.Viewer, "from_config", lambda cfg: viewer)
    before = signal.getsignal(signal.SIGTERM)
    # Shells have programs in the background ignore it.
    interrupting = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        serve(web_cfg, "127.0.0.1", 1, 20)
    finally:
        signal.signal(signal.SIGINT, interrupting)
    assert ended == [True] and signal.getsignal(signal.SIGTERM) == before


def test_ends_in_order_while_the_model_loads(web_cfg, monkeypatch, caplog):
    def interrupted(cfg):
        raise KeyboardInterrupt

    monkeypatch.setattr(serve_module.Viewer, "from_config", interrupted)
    with caplog.at_level(logging.INFO, "detr_d2"):
        serve(web_cfg, "127.0.0.1", 1, 20)
    assert "Ended." in caplog.text


def test_a_limit_of_nothing_is_refused(web_cfg):
    with pytest.raises(ValueError, match="--max-upload-mb"):
        serve(web_cfg, "127.0.0.1", 1, 0)


def test_command_hands_its_arguments_on(run_cli, monkeypatch):
    calls = []
    monkeypatch.setattr("detr_d2.config.load_config", lambda file, opts: (file, opts))
    monkeypatch.setattr("detr_d2.apps.web.serve", lambda *args: calls.append(args))
    assert run_cli("web", "--config-file", "c.yaml", "A", "1") == 0
    assert run_cli("web", "--config-file", "c.yaml", "--port", "80") == 0
    assert calls == [
        (("c.yaml", ["A", "1"]), "127.0.0.1", 7860, 20),
        (("c.yaml", []), "127.0.0.1", 80, 20),
    ]

    def fail(*_):
        raise ImportError("gradio is missing")

    monkeypatch.setattr("detr_d2.apps.web.serve", fail)
    with pytest.raises(SystemExit, match="error: gradio is missing"):
        run_cli("web", "--config-file", "c.yaml")
