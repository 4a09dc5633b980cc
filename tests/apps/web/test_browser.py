"""The page in Chromium: upload, slide, click, as people do."""

from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

gr = pytest.importorskip("gradio", reason="needs gradio: pip install 'detr_d2[web]'")
pytest.importorskip("selenium", reason="needs selenium")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

from detr_d2.apps.web.web_server import serving  # noqa: E402

PHONE = {"width": 390, "height": 844}


@pytest.fixture
def address(viewer, free_port):
    with serving(viewer, "127.0.0.1", free_port, max_upload_mb=0.05) as address:
        yield address


class Page:
    """What people see of the page, and do to it."""

    def __init__(self, driver) -> None:
        self._driver = driver

    def find(self, selector: str):
        return self.until(lambda: self._driver.find_element(By.CSS_SELECTOR, selector))

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def until(self, condition: Callable):
        from selenium.common.exceptions import WebDriverException

        wait = WebDriverWait(self._driver, 60, 0.05, [WebDriverException])
        return wait.until(lambda _: condition())

    def upload(self, path) -> None:
        self.find("#image input[type=file]").send_keys(str(path))

    def rows(self) -> list[str]:
        """The list of segments, once it is there."""
        self.find("#segments table")
        return self.text("#segments").splitlines()[1:]

    def run(self, script: str):
        return self._driver.execute_script(f"return {script}")


def test_upload_slide_click(browser, address, photo_file, viewer, count_passes):
    browser.open(address)
    page = Page(browser.driver)
    page.upload(photo_file)
    rows = page.rows()
    shown = viewer.look_at_file(photo_file, viewer.merging)
    largest = sorted(shown.segments_info, key=lambda s: -s["area"])
    assert [row.split()[0] for row in rows] == [str(s["id"]) for s in largest]
    assert count_passes() == 2  # the page's, and ours

    threshold = page.find("#score_thresh input[type=range]")
    # Of the values on the way the page may show some or none, but in the end it shows the last.
    threshold.send_keys(*[Keys.PAGE_UP] * 20, *[Keys.ARROW_LEFT] * 3)
    page.until(lambda: "No segments" in page.text("#segments"))
    threshold.send_keys(*[Keys.PAGE_DOWN] * 4, *[Keys.ARROW_RIGHT] * 3)
    page.until(lambda: threshold.get_property("value") == "0.6")
    few = shown.merged(replace(viewer.merging, score_thresh=0.6)).segments_info
    assert 0 < len(few) < len(rows)
    page.until(lambda: len(page.rows()) == len(few))
    threshold.send_keys(Keys.HOME)
    page.until(lambda: page.rows() == rows)
    page.find("#stuff_merging input[value=reference]").click()
    merged = page.until(lambda: page.rows() != rows and page.rows())
    page.find("#stuff_merging input[value=merged]").click()
    page.until(lambda: page.rows() == rows)
    assert merged

    picture = page.find("#picture img")
    page.until(lambda: picture.get_property("naturalWidth") == shown.picture_size[1])
    picture.click()  # in its middle
    height, width = shown.picture_size
    middle = shown.pointed(width // 2, height // 2).chosen
    name = shown.metadata.stuff_classes[middle["category_id"]]
    page.until(lambda: page.text("#reasons h3").startswith(f"{middle['id']}: {name}"))
    assert page.text("#segments tr.chosen").startswith(str(middle["id"]))
    assert page.run("[...document.querySelectorAll('#reasons img')].every(i => i.naturalWidth)")
    assert count_passes() == 2

    # With the keyboard alone, from the segment that was clicked to another.
    choice = page.find("#choice input")
    page.until(lambda: choice.get_property("value") == f"{middle['id']}: {name}")
    choice.send_keys(Keys.ARROW_UP)
    choice.send_keys(Keys.ENTER)
    marked = lambda: page.text("#segments tr.chosen").split()[0]  # noqa: E731
    page.until(lambda: marked() != str(middle["id"]))
    page.until(lambda: page.text("#reasons h3").startswith(f"{marked()}: "))
    assert choice.get_property("value").startswith(f"{marked()}: ")

    hosts = page.run("performance.getEntriesByType('resource').map(e => e.name)")
    assert {urlsplit(host).hostname for host in hosts} <= {"127.0.0.1", None}
    assert browser.console_errors() == []
    browser.screenshot("web_demo")


def test_bad_and_large_files_are_told(browser, address, tmp_path, photo_file):
    browser.open(address)
    page = Page(browser.driver)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    page.upload(tmp_path / "bad.png")
    page.until(lambda: "cannot be read as an image" in page.text(".toast-body"))
    assert "Traceback" not in page.text("body")
    (tmp_path / "large.png").write_bytes(bytes(100_000))
    browser.open(address)
    page.upload(tmp_path / "large.png")
    page.until(lambda: "maximum" in page.text(".toast-body"))
    browser.open(address)
    page.upload(photo_file)
    assert page.rows()


def test_on_a_phone_nothing_is_cut_off(browser, address, photo_file):
    browser.open(address, **PHONE)
    page = Page(browser.driver)
    page.upload(photo_file)
    page.rows()
    page.find("#picture img").click()
    page.find("#reasons h3")
    assert page.run("document.documentElement.scrollWidth") <= PHONE["width"]
    too_wide = "[...document.querySelectorAll('.detr *')].filter(e => {}).length".format(
        f"e.getBoundingClientRect().right > {PHONE['width']}"
    )
    assert page.run(too_wide) == 0
    browser.screenshot("web_demo_phone")


def test_visitors_see_their_own_images(browser, address, photo_file, tmp_path, viewer):
    from PIL import Image

    other = tmp_path / "other.png"
    Image.open(photo_file).transpose(Image.Transpose.ROTATE_90).save(other)
    page = Page(browser.driver)
    lists = []
    for path in (photo_file, other):
        browser.driver.switch_to.new_window("tab")
        browser.open(address)
        page.upload(path)
        lists.append(page.rows())
    assert lists[0] != lists[1]
    browser.driver.close()
    browser.driver.switch_to.window(browser.driver.window_handles[-1])
    threshold = page.find("#score_thresh input[type=range]")
    threshold.send_keys(Keys.END)
    page.until(lambda: "No segments" in page.text("#segments"))
    threshold.send_keys(Keys.HOME)
    assert page.rows() == lists[0]
    browser.driver.close()
    browser.driver.switch_to.window(browser.driver.window_handles[0])
