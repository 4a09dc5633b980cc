"""Serves the page, by default to this machine alone."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.config import CfgNode

from detr_d2.apps.web.image_viewer import Viewer
from detr_d2.extras import require_extra

logger = logging.getLogger(__name__)

# Number of images that are kept, one for each visitor. An image of COCO's size takes about 0.15 GB,
# with the network's prediction for it.
MAX_VISITORS = 8


def require_gradio() -> None:
    """Checks that gradio is installed.

    Raises:
        ImportError: it is not installed. The message names the extra that installs it.
    """
    # Otherwise gradio reports every start to its makers.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    require_extra("web", "The web demo needs", ("gradio",))


def serve(cfg: CfgNode, host: str, port: int, max_upload_mb: float) -> None:
    """Serves the page of a config's model until Ctrl-C, or until the process is told to end.

    Args:
        cfg: the whole config; ``MODEL.WEIGHTS`` is used as for evaluation.
        host: the address to listen at; "127.0.0.1" is this machine alone.
        port: the port to listen at.
        max_upload_mb: the largest size of an image file, in megabytes.

    Raises:
        ImportError: gradio is missing.
        FileNotFoundError, ValueError: as ``Viewer.from_config``.
        OSError: the port is taken, or the host isn't this machine's.
    """
    if max_upload_mb <= 0:
        raise ValueError(f"--max-upload-mb has to be above 0, not {max_upload_mb}.")
    require_gradio()
    # SIGTERM ends the server as Ctrl-C does, so that uploads are removed.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        viewer = Viewer.from_config(cfg)
        with serving(viewer, host, port, max_upload_mb) as address:
            logger.info("Open %s in a browser; Ctrl-C ends.", address)
            threading.Event().wait()
    except KeyboardInterrupt:
        logger.info("Ended.")
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def serving(viewer: Viewer, host: str, port: int, max_upload_mb: float) -> Iterator[str]:
    """Serves a viewer's page while the context is open; gives its address.

    Uploads and pictures are gone afterwards.

    Raises:
        ImportError, OSError: as ``serve``.
    """
    require_gradio()
    from detr_d2.apps.web.segment_markup import page_style
    from detr_d2.apps.web.web_app import build_app, make_theme

    with tempfile.TemporaryDirectory(prefix="detr_d2_web_") as folder, _gradio_files_in(folder):
        app = build_app(viewer)
        try:
            address = app.launch(
                server_name=host,
                server_port=port,
                share=False,
                prevent_thread_lock=True,
                quiet=True,
                max_file_size=round(max_upload_mb * 1e6),
                state_session_capacity=MAX_VISITORS,
                css=page_style(),
                theme=make_theme(),
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
            )[1]
        except OSError as error:
            raise OSError(
                f"{host}, port {port}: the page can't be served there ({error}). Name another "
                "--port, or a --host of this machine."
            ) from error
        try:
            yield address
        finally:
            app.close(verbose=False)


@contextmanager
def _gradio_files_in(folder: str) -> Iterator[None]:
    """Has gradio put uploads and pictures into a folder, which only the environment can name."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = before
