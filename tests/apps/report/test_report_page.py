"""The page of a report: its escaping, and its behaviour in a browser."""

import json
import re

import pytest
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model

from detr_d2 import config_file, load_config
from detr_d2.apps.report import ReportCollector
from detr_d2.apps.report.report_page import write_report
from detr_d2.data.panoptic_dataset import load_panoptic_dataset, set_panoptic_metadata
from detr_d2.data.shapes.shape_categories import CATEGORIES as SHAPES
from detr_d2.engine.checkpointer import StrictCheckpointer
from detr_d2.engine.model_evaluation import evaluate

HOSTILE = '<script>document.title = "taken"</script>"\'&'
CATEGORIES = [
    {"id": 1, "name": HOSTILE, "isthing": 1},
    {"id": 2, "name": "cat", "isthing": 1},
    {"id": 3, "name": "grass", "isthing": 0},
    {"id": 4, "name": "</script><b>sky", "isthing": 0},
]


@pytest.fixture
def write(make_scenes, predict, record_run, tmp_path):
    """Writes the report of one run or of two: ``write(num_runs)``."""
    records = make_scenes(12, CATEGORIES)
    _, classes = load_panoptic_dataset("scenes", records)

    def make(num_runs=1):
        runs = [
            record_run(records, [predict(record, seed=seed) for record in records])
            for seed in range(num_runs)
        ]
        return write_report(runs, records, classes, "scenes", tmp_path / "out")

    return make


def test_names_are_escaped_and_nothing_is_loaded(write):
    page = write().read_text()
    assert HOSTILE not in page and "<b>sky" not in page
    assert "&lt;script&gt;document.title" in page
    assert page.count("<script>") == page.count("</script>") == 1
    sources = re.findall(r'(?:src|href)="([^"]{0,20})', page)
    assert sources and all(s.startswith(("data:", "#")) for s in sources)


def test_many_classes_have_no_table(write, monkeypatch):
    sentence = "too many classes for a table"
    assert sentence not in write().read_text()
    monkeypatch.setattr("detr_d2.apps.report.confusion.MAX_TABLE_CLASSES", 3)
    page = write().read_text()
    assert page.count(sentence) == 2 and 'class="matrix"' not in page
    assert "Most frequent confusions" in page


def test_images_are_there_once_and_links_lead_to_them(write):
    page = write(2).read_text()
    anchors = re.findall(r'<figure id="(image-\d+)"', page)
    links = set(re.findall(r'href="#(image-\d+)"', page))
    assert len(anchors) == len(set(anchors)) and links and links <= set(anchors)


def test_figures_of_the_page_are_those_of_the_json(write):
    path = write()
    groups = json.loads(path.with_name("report.json").read_text())["runs"][0]["groups"]
    page = path.read_text()
    for group, figures in groups.items():
        card = page[page.index(f'id="card-{group}"') :].split("</dl>")[0]
        shown = [float(value) for value in re.findall(r'data-value="([^"]+)"', card)]
        assert shown == [figures[name] for name in ("PQ", "SQ", "RQ")]


def column(browser, index):
    script = (
        "return [...document.querySelectorAll('table.classes tbody tr')]"
        ".map(row => row.cells[arguments[0]].dataset.value)"
    )
    return browser.driver.execute_script(script, index)


def click(browser, element):
    """Scrolls first, because the row of links at the top would cover the element."""
    browser.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


@pytest.mark.parametrize("width", [1280, 390])
def test_page_in_the_browser(write, browser, width):
    browser.open(write(), width=width)
    find = browser.driver.find_element
    assert browser.driver.title == "Report: run on scenes"
    # The page is no wider than the screen; what is wider scrolls inside.
    assert browser.driver.execute_script("return document.documentElement.scrollWidth") == width

    head = find("css selector", "table.classes th[data-column='2']")
    button = head.find_element("css selector", "button")
    for order, reverse in (("descending", True), ("ascending", False)):
        click(browser, button)
        assert head.get_attribute("aria-sort") == order
        values = list(map(float, column(browser, 2)))
        assert values == sorted(values, reverse=reverse) and len(set(values)) > 1
    find("css selector", "table.classes th[data-column='0'] button").send_keys("\ue007")  # Enter
    assert column(browser, 0) == sorted(column(browser, 0), key=str.lower)
    assert head.get_attribute("aria-sort") == "none"

    figure = find("css selector", "figure[data-wipe]")
    slider = figure.find_element("css selector", "input[type=range]")
    layers = figure.find_elements("css selector", ".wipe img")
    assert len(layers) == 3
    assert slider.get_attribute("aria-valuetext") == "prediction"
    slider.send_keys("\ue012" * 10)  # the left arrow
    assert float(slider.get_attribute("value")) == 1.5
    assert slider.get_attribute("aria-valuetext") == "prediction over annotation"
    assert "inset(0px 50% 0px 0px)" in layers[2].value_of_css_property("clip-path")
    buttons = figure.find_elements("css selector", ".steps button")
    buttons[0].send_keys(" ")
    assert slider.get_attribute("value") == "0"
    assert [b.get_attribute("aria-pressed") for b in buttons] == ["true", "false", "false"]
    assert layers[1].value_of_css_property("clip-path") == "inset(0px 100% 0px 0px)"

    assert not find("id", "pixels-a").is_displayed()
    click(browser, find("css selector", "button[data-view='pixels-a']"))
    assert find("id", "pixels-a").is_displayed() and not find("id", "segments-a").is_displayed()
    assert browser.console_errors() == []
    browser.screenshot(f"report_{width}")


def test_two_runs_in_the_browser(write, browser):
    browser.open(write(2))
    assert len(browser.driver.find_elements("css selector", "#card-all dd")) == 9
    figure = browser.driver.find_element("css selector", "figure[data-wipe]")
    assert len(figure.find_elements("css selector", ".wipe img")) == 4
    assert browser.console_errors() == []
    browser.screenshot("report_two_runs")


def test_report_of_the_quickstarts_model(quickstart_weights, browser, registry, tmp_path):
    """The report is made from some validation images, and opened."""
    name = "quickstart_val_start"
    records = DatasetCatalog.get("shapes_panoptic_val")[:8]
    DatasetCatalog.register(name, lambda: records)
    set_panoptic_metadata(name, map(vars, SHAPES))
    cfg = load_config(config_file("shapes/detr_panoptic.yaml"))
    cfg.MODEL.DETR.TEST.RAW_ON, cfg.MODEL.DETR.TEST.NUM_PICTURES = True, 0
    cfg.MODEL.DETR.TEST.INSTANCES_ON = False
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR, cfg.DATASETS.TEST = "cpu", str(tmp_path), (name,)
    cfg.MODEL.WEIGHTS, cfg.DATALOADER.NUM_WORKERS = str(quickstart_weights), 0
    model = build_model(cfg)
    StrictCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    results = evaluate(cfg, model, reporter=ReportCollector)["panoptic_seg"]
    browser.open(tmp_path / "inference" / name / "report.html")
    shown = browser.driver.find_element("css selector", "#card-all dd.PQ")
    assert float(shown.get_attribute("data-value")) == results["PQ"] > 40
    assert browser.console_errors() == []
    browser.screenshot("report_quickstart")
