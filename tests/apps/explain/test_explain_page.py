"""The page in a browser: it follows clicks and keys, and its console stays clean."""

from __future__ import annotations

import pytest

from detr_d2.apps.explain import explain_image, write_explanation

PIXELS = "return document.querySelector(arguments[0]).toDataURL()"
SHOWN = """
return {
  query: document.getElementById("query").value,
  hash: location.hash,
  decoder: document.querySelector("#decoder canvas").dataset.tile,
  maps: [...document.querySelectorAll("#maps canvas")].map((canvas) => canvas.dataset.tile),
  stages: document.querySelectorAll("#stages .strip").length,
  mask: document.getElementById("mask").checkVisibility(),
  pressed: [...document.querySelectorAll("[data-query][aria-pressed=true]")]
    .map((button) => button.dataset.query),
};
"""


def wait_for(browser, condition):
    """The value of a function of the driver, as soon as it is true."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser.driver, 10, poll_frequency=0.02).until(condition)


def click(browser, selector):
    from selenium.webdriver.common.by import By

    element = browser.driver.find_element(By.CSS_SELECTOR, selector)
    browser.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()
    return element


def click_cell(browser, selector, row, column, grid):
    """Clicks into the middle of a cell of a grid that fills an element."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    element = browser.driver.find_element(By.CSS_SELECTOR, selector)
    browser.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    x = ((column + 0.5) / grid[1] - 0.5) * element.size["width"]
    y = ((row + 0.5) / grid[0] - 0.5) * element.size["height"]
    chain = ActionChains(browser.driver).move_to_element_with_offset(element, round(x), round(y))
    chain.click().perform()
    return element


def tile_of(driver, selector):
    """Index of the map that is shown, -1 before there is one."""
    find = "return document.querySelector(arguments[0] + ' canvas').dataset.tile ?? -1"
    return int(driver.execute_script(find, selector))


def shows(query):
    """Whether moves 3 to 5 are about a query; mask heads without attention show no maps."""

    def shown(driver):
        page = driver.execute_script(SHOWN)
        return page["decoder"] == str(query) and set(page["maps"]) <= {str(query)} and page

    return shown


@pytest.fixture(scope="module")
def page(explanation, tmp_path_factory):
    return write_explanation(explanation, tmp_path_factory.mktemp("page"))


def check_page(browser, page, explanation):
    """Clicks and types through a page of which at least two queries are kept."""
    from selenium.webdriver.common.keys import Keys

    kept = explanation.masks.kept.tolist()
    browser.open(page)
    first = browser.driver.execute_script(SHOWN)["query"]
    wait_for(browser, shows(first))

    # A click on the image moves the point, and so do the arrow keys.
    before = browser.driver.execute_script(PIXELS, "#encoder canvas")
    height, width = explanation.padding_mask.shape
    row, column = height - 2, width - 2
    frame = click_cell(browser, "#encoder", row, column, (height, width))
    wait_for(browser, lambda driver: tile_of(driver, "#encoder") == row * width + column)
    assert browser.driver.execute_script(PIXELS, "#encoder canvas") != before
    frame.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_UP)
    expected = (row - 1) * width + column - 2
    wait_for(browser, lambda driver: tile_of(driver, "#encoder") == expected)

    # Choosing a query changes moves 3 to 5, whichever way it is chosen.
    other = next(query for query in kept if str(query) != first)
    click(browser, f".queries button[data-query='{other}']")
    shown = wait_for(browser, shows(other))
    assert shown["hash"] == f"#query={other}"
    assert (shown["stages"], shown["mask"]) == (len(explanation.masks.stages), True)
    assert set(shown["pressed"]) == {str(other)}
    frame.send_keys("j")
    after = browser.driver.execute_script(SHOWN)["query"]
    assert after != str(other)
    wait_for(browser, shows(after))
    frame.send_keys("k")
    wait_for(browser, shows(other))
    dropped = next(q for q in range(len(explanation.raw.logits)) if q not in kept)
    click(browser, f".bars button[data-query='{dropped}']")
    shown = wait_for(browser, shows(dropped))
    assert (shown["stages"], shown["mask"]) == (0, False)

    # The address keeps the query.
    browser.driver.refresh()
    wait_for(browser, shows(dropped))
    click(browser, ".moves a[href='#move7']")
    assert browser.driver.execute_script(SHOWN)["hash"] == f"#query={dropped}"
    assert browser.driver.execute_script("return document.activeElement.id") == "move7"
    current = "return document.querySelector('.moves a[aria-current=location]')?.hash"
    wait_for(browser, lambda driver: driver.execute_script(current) == "#move7")
    assert browser.console_errors() == []


def test_page_follows_clicks_and_keys(browser, page, explanation):
    check_page(browser, page, explanation)
    browser.screenshot("explain")


def test_page_fits_a_phone(browser, page):
    browser.open(page, 390, 800)
    wait_for(browser, lambda driver: tile_of(driver, "#decoder") >= 0)
    width = browser.driver.execute_script("return document.documentElement.scrollWidth")
    assert width == 390
    assert browser.console_errors() == []
    browser.screenshot("explain_phone")


def test_pages_without_masks_or_kept_queries(browser, make_model, image, tmp_path):
    from detr_d2.apps.explain import explain

    for name, model in {
        "bare": make_model("MODEL.DETR.MASK_ON", False),
        "none": make_model(kept=0),
        "flat": make_model("MODEL.DETR.ENC_LAYERS", 0),
    }.items():
        browser.open(write_explanation(explain(model, image), tmp_path / name))
        wait_for(browser, lambda driver: tile_of(driver, "#decoder") >= 0)
        click(browser, "#next")
        assert browser.console_errors() == []


def test_page_of_the_quickstarts_model(browser, quickstart_weights, tmp_path):
    import cv2
    from detectron2.data import DatasetCatalog

    from detr_d2 import config_file, load_config
    from detr_d2.predictor import Predictor

    overrides = ["MODEL.WEIGHTS", str(quickstart_weights), "MODEL.DEVICE", "cpu"]
    predictor = Predictor(load_config(config_file("shapes/detr_panoptic.yaml"), overrides))
    scene = DatasetCatalog.get("shapes_panoptic_val")[4]
    explanation = explain_image(predictor, cv2.imread(scene["file_name"]))
    page = write_explanation(explanation, tmp_path)
    assert page.stat().st_size < 8e6
    check_page(browser, page, explanation)
    browser.screenshot("explain_quickstart")
