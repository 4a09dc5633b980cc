"""What all tests share: folders of their own, small datasets, and the config of a tiny model.

Nothing here imports detr_d2, Detectron2 or PyTorch before the environment variables are set.
"""

from __future__ import annotations

import base64
import operator
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from selenium.webdriver.remote.webdriver import WebDriver

# The embedded data goes here, and not into the user's cache.
_session_folder = tempfile.TemporaryDirectory(prefix="detr_d2_tests_")
os.environ["DETR_D2_CACHE"] = os.path.join(_session_folder.name, "cache")
# No test finds COCO, also where the user has it.
os.environ["DETECTRON2_DATASETS"] = os.path.join(_session_folder.name, "no_datasets")
# Nor does Hypothesis leave its folder in the checkout.
os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = os.path.join(_session_folder.name, "hypothesis")
# One thread, whatever the user has set: the models are tiny, sums come out the same each time, and
# processes that some tests fork would wait forever for a pool of threads that they don't have.
os.environ["OMP_NUM_THREADS"] = "1"

# Number of scenes in each of the small datasets.
SMALL_SHAPES = {"small_shapes_train": 12, "small_shapes_val": 6}


# What tests measured, for the lines at the end of the run: each figure, and the format of its text.
_figures: dict[str, tuple[float, str]] = {}
_JOINED: dict[str, Callable[[float, float], float]] = {"max": max, "min": min, "sum": operator.add}


def pytest_unconfigure() -> None:
    _session_folder.cleanup()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collects what tests recorded, in this process or in one of several."""
    if report.when != "teardown":  # the last report of a test has all that it recorded
        return
    for kind, value in report.user_properties:
        if kind == "figure":
            what, figure, text, joined = value
            if what in _figures:
                figure = _JOINED[joined](_figures[what][0], figure)
            _figures[what] = figure, text


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _figures:
        return
    terminalreporter.section("measured")
    width = max(map(len, _figures))
    for what, (figure, text) in _figures.items():
        terminalreporter.line(f"{what:{width}}  {text.format(figure)}")


@pytest.fixture
def record_figure(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Shows a figure in a line at the end of the run.

    ``record_figure(what, figure, text="{:g}", joined="max")``: the figure in a format; of several
    by one name, the largest ("max"), the smallest ("min") or the sum ("sum") is shown.
    """

    def record(what: str, figure: float, text: str = "{:g}", joined: str = "max") -> None:
        record_property("figure", (what, figure, text, joined))

    return record


@pytest.fixture(scope="session")
def small_shapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Embedded scenes, registered: the datasets' names and numbers of images."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from detr_d2.data.shapes.shapes_dataset import register_shapes_split

    folder = tmp_path_factory.mktemp("small_shapes")
    for name, num_images in SMALL_SHAPES.items():
        register_shapes_split(name, folder / name, name.rsplit("_")[-1], num_images)
        DatasetCatalog.get(name)  # writes the files
    yield SMALL_SHAPES
    for name in SMALL_SHAPES:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def registry() -> Iterator[None]:
    """Takes the datasets that a test registers out of Detectron2's catalogs again."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    catalogs = (DatasetCatalog, MetadataCatalog)
    before = [set(catalog.list()) for catalog in catalogs]
    yield
    for catalog, names in zip(catalogs, before, strict=True):
        for name in set(catalog.list()) - names:
            catalog.remove(name)


@pytest.fixture(scope="session")
def make_tiny_cfg(small_shapes: dict[str, int]) -> Callable[..., CfgNode]:
    """Makes configs of a tiny model on the small datasets: ``(output_dir, *overrides)``."""
    from detr_d2 import config_file, load_config

    train_name, val_name = small_shapes
    settings = {
        "MODEL.DEVICE": "cpu",
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 32,
        "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
        "MODEL.DETR.HIDDEN_DIM": 32,
        "MODEL.DETR.NUM_HEADS": 4,
        "MODEL.DETR.NUM_QUERIES": 8,
        "MODEL.DETR.MASK_HEAD.NAME": "AttentionMaskHead",
        "MODEL.DETR.ENC_LAYERS": 1,
        "MODEL.DETR.DEC_LAYERS": 2,
        "MODEL.DETR.DIM_FEEDFORWARD": 64,
        "MODEL.DETR.TEST.NUM_PICTURES": 1,
        "DATASETS.TRAIN": (train_name,),
        "DATASETS.TEST": (val_name,),
        "DATALOADER.NUM_WORKERS": 0,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.WARMUP_ITERS": 2,
        "SOLVER.MAX_ITER": 4,
        "SOLVER.MASK_STAGE.IMS_PER_BATCH": 2,
        "SOLVER.MASK_STAGE.MAX_ITER": 4,
    }

    def make(output_dir: Path | str, *overrides: object) -> CfgNode:
        flat = [part for setting in settings.items() for part in setting]
        return load_config(
            config_file("shapes/detr_panoptic.yaml"),
            [*flat, "OUTPUT_DIR", str(output_dir), *overrides],
        )

    return make


@pytest.fixture
def tiny_cfg(make_tiny_cfg: Callable[..., CfgNode], tmp_path: Path) -> CfgNode:
    return make_tiny_cfg(tmp_path / "output")


@pytest.fixture
def trained_cfg(tiny_cfg: CfgNode, tmp_path: Path) -> CfgNode:
    """A tiny model on disk that is sure of seeing a ball in every query."""
    import torch
    from detectron2.modeling import build_model

    model = build_model(tiny_cfg)
    torch.nn.init.zeros_(model.detector.class_head.weight)
    torch.nn.init.zeros_(model.mask_head.output_conv.weight)  # whole, quick to draw
    model.detector.class_head.bias.data = 20.0 * torch.eye(13)[0]
    tiny_cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    torch.save({"model": model.state_dict()}, tiny_cfg.MODEL.WEIGHTS)
    return tiny_cfg


@pytest.fixture(scope="session")
def run_cli() -> Callable[..., int]:
    """Runs ``detr-d2`` with arguments, without loggers for the whole session; gives its status."""
    # Imported before any test replaces what it takes from other modules.
    import detr_d2.cli.run_process  # noqa: F401
    from detr_d2.cli import main

    def run(*arguments: object) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("detectron2.utils.logger.setup_logger", lambda *args, **kwargs: None)
            for setup in ("setup_logger", "default_setup"):
                patch.setattr(f"detr_d2.cli.run_process.{setup}", lambda *args, **kwargs: None)
            return main([str(argument) for argument in arguments])

    return run


class Browser:
    """A headless Chromium with an empty profile."""

    def __init__(self, driver: WebDriver, screenshots: Path | None) -> None:
        self.driver = driver
        self._screenshots = screenshots

    def open(self, page: Path | str, width: int = 1280, height: int = 900) -> None:
        """Opens a file or an address in a window of a size in CSS pixels."""
        self.console_errors()  # forgets those of the page before
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self.driver.get(page.resolve().as_uri() if isinstance(page, Path) else page)

    def console_errors(self) -> list[str]:
        """What the console has shown as an error since the last call."""
        log = self.driver.get_log("browser")
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]

    def screenshot(self, name: str) -> None:
        """Keeps the whole page as NAME.png in the folder that DETR_D2_SCREENSHOTS names, if any."""
        if self._screenshots is not None:
            shot = self.driver.execute_cdp_cmd(
                "Page.captureScreenshot", {"captureBeyondViewport": True}
            )
            self._screenshots.mkdir(parents=True, exist_ok=True)
            (self._screenshots / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium, driven by selenium; tests that need it are skipped where there is none."""
    programs = [
        next(filter(None, map(shutil.which, names)), None)
        for names in (("chromium", "chromium-browser", "google-chrome"), ("chromedriver",))
    ]
    if None in programs:
        pytest.skip("needs Chromium and its driver (Debian: apt install chromium chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, chromedriver = programs
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    screenshots = os.environ.get("DETR_D2_SCREENSHOTS")
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        yield Browser(driver, Path(screenshots) if screenshots else None)
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def quickstart_weights() -> Path:
    """The quickstart's model, where the quickstart has run."""
    weights = Path(__file__).resolve().parents[1] / "output/quickstart/masks/model_final.pth"
    if not weights.is_file():
        pytest.skip("needs the quickstart's model: run tools/quickstart.sh first")
    return weights


@pytest.fixture
def quickstart_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the quickstart leaves it, with a model that is sure of seeing class 3."""
    import cv2
    from sure_model import save_sure_model

    from detr_d2.data.shapes.synthetic_scenes import draw_scene

    save_sure_model(tmp_path / "output/quickstart/masks/model_final.pth", whole_masks=True)
    cv2.imwrite(str(tmp_path / "image.jpg"), draw_scene((7, 7)).image[:, :, ::-1])
    monkeypatch.chdir(tmp_path)
    return tmp_path
