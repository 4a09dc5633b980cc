"""Files of arbitrary bytes, and valid ones with some bytes changed: pictures, PNGs and JSON."""

import copy
import io
import json

import numpy as np
import pytest
from detectron2.data import Metadata
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detr_d2.data import image_file
from detr_d2.data.check import CheckReport, check_dataset
from detr_d2.data.image_file import read_image
from detr_d2.data.panoptic_json import read_categories, read_panoptic_json
from detr_d2.data.panoptic_png import MAX_SEGMENT_ID, read_panoptic_png

FUZZ = settings(deadline=None, database=None)
# More pixels than these files have, and few enough that none takes memory.
FEW_PIXELS = 5000


def encoded(mode: str, kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert(mode)
    image.save(buffer, kind, exif=Image.Exif())
    return buffer.getvalue()


VALID = [
    *(encoded(mode, "PNG") for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    *(encoded(mode, "JPEG") for mode in ("RGB", "L", "CMYK")),
    *(encoded("RGB", kind) for kind in ("BMP", "PPM", "TIFF", "WEBP", "JPEG2000")),
    encoded("P", "GIF"),
]
# Places in a file, preferably in its header, and what is written there.
CHANGES = st.lists(
    st.tuples(st.integers(0, 80) | st.integers(0, 3000), st.binary(min_size=1, max_size=4)),
    min_size=1,
    max_size=4,
)
FILES = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda start, rest: start[:40] + rest, st.sampled_from(VALID), st.binary()),
    st.builds(lambda whole, end: whole[:end], st.sampled_from(VALID), st.integers(0, 3000)),
    st.builds(lambda whole, changes: changed(whole, changes), st.sampled_from(VALID), CHANGES),
)


def changed(whole: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    content = bytearray(whole)
    for place, new in changes:
        content[place % len(content) : place % len(content) + len(new)] = new
    return bytes(content)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("files") / "picture.bin"


@pytest.fixture(scope="module", autouse=True)
def few_pixels_are_allowed():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_file, "MAX_IMAGE_PIXELS", FEW_PIXELS)
        yield


@pytest.mark.filterwarnings("ignore")  # of Pillow, about the files
@given(content=FILES)
@FUZZ
def test_files_as_images(path, try_input, content):
    path.write_bytes(content)

    def check(image):
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        assert 0 < image.shape[0] * image.shape[1] <= FEW_PIXELS

    try_input(lambda: read_image(path, "RGB"), check, str(path))


@pytest.mark.filterwarnings("ignore")
@given(content=FILES)
@FUZZ
def test_files_as_panoptic_pngs(path, try_input, content):
    path.write_bytes(content)

    def check(ids):
        assert ids.dtype == np.int32 and ids.ndim == 2 and 0 < ids.size <= FEW_PIXELS
        assert ids.min() >= 0 and ids.max() <= MAX_SEGMENT_ID

    try_input(lambda: read_panoptic_png(path), check, str(path))


# --- JSON ---

CONTENT = {
    "images": [{"id": 1, "file_name": "a.png", "height": 2, "width": 3}],
    "annotations": [
        {
            "image_id": 1,
            "file_name": "a.png",
            "segments_info": [{"id": 5, "category_id": 7, "area": 6, "bbox": [0, 0, 3, 2]}],
        }
    ],
    "categories": [{"id": 7, "name": "cat", "isthing": 1, "color": [1, 2, 3]}],
}
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**40, 10**400, -1, 0, 1, 7])
    | st.floats()
    | st.sampled_from(["", "..", "../a.png", "/etc/passwd", "a.png", "\0", "x" * 1000])
    | st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner)
)


def places(content: object, path: tuple = ()) -> list[tuple]:
    inner = enumerate(content) if isinstance(content, list) else ()
    inner = content.items() if isinstance(content, dict) else inner
    return [path] * bool(path) + [p for key, value in inner for p in places(value, (*path, key))]


@st.composite
def contents(draw: st.DrawFn) -> str:
    """The valid JSON with one to three values replaced, removed or repeated."""
    content = copy.deepcopy(CONTENT)
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from(places(content) or [("images",)]))
        parent = content
        for key in parents:
            parent = parent[key]
        what = draw(st.sampled_from(["replace", "remove", "repeat"]))
        if what == "remove":
            del parent[last]
        elif what == "repeat" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[last]))
        else:
            parent[last] = draw(VALUES)
        if not places(content):
            break
    return json.dumps(content)


JSONS = st.one_of(
    contents().map(str.encode),
    st.binary(max_size=100),
    VALUES.map(json.dumps).map(str.encode),
    st.builds(changed, st.just(json.dumps(CONTENT).encode()), CHANGES),
    st.integers(1, 10_000).map(lambda depth: b"[" * depth),
)


@pytest.fixture(scope="module")
def panoptic_json(tmp_path_factory):
    folder = tmp_path_factory.mktemp("json")
    Image.new("RGB", (3, 2), (5, 0, 0)).save(folder / "a.png")
    return folder / "panoptic.json"


def metadata() -> Metadata:
    return Metadata(thing_dataset_id_to_contiguous_id={7: 0}, stuff_dataset_id_to_contiguous_id={})


@given(content=JSONS)
@FUZZ
def test_json_as_annotation(panoptic_json, try_input, content):
    panoptic_json.write_bytes(content)
    folder = panoptic_json.parent

    def check(dicts):
        for image in dicts:
            for key in ("file_name", "pan_seg_file_name"):
                path = (folder / image[key]).resolve()
                assert "\0" in image[key] or path.is_relative_to(folder)
            assert {segment["category_id"] for segment in image["segments_info"]} <= {0}

    try_input(
        lambda: read_panoptic_json(panoptic_json, folder, folder, metadata()),
        check,
        str(panoptic_json),
    )


@given(content=JSONS)
@FUZZ
def test_json_as_categories(panoptic_json, try_input, content):
    panoptic_json.write_bytes(content)

    def check(categories):
        assert categories
        for category in categories:
            assert type(category["id"]) is int and type(category["isthing"]) is bool
            assert len(category["color"]) == 3

    try_input(lambda: read_categories(panoptic_json), check, str(panoptic_json))


@given(content=JSONS)
@FUZZ
def test_json_in_a_check(panoptic_json, try_input, content):
    """The checker survives whatever is in the JSON, and its report can be printed and saved."""
    panoptic_json.write_bytes(content)
    folder = str(panoptic_json.parent)

    def check(report: CheckReport):
        assert str(report)
        assert json.loads(json.dumps(report.to_dict()))["breaks"] == report.breaks

    try_input(lambda: check_dataset(folder, folder, str(panoptic_json)), check, str(panoptic_json))


def test_the_files_that_are_changed_are_valid_themselves(path, panoptic_json):
    for content in VALID:
        path.write_bytes(content)
        assert read_image(path, "RGB").shape == (20, 30, 3)
    panoptic_json.write_text(json.dumps(CONTENT))
    folder = str(panoptic_json.parent)
    assert len(read_panoptic_json(panoptic_json, folder, folder, metadata())) == 1
    assert not check_dataset(folder, folder, str(panoptic_json)).findings.counts
