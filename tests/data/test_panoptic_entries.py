"""The entries of a panoptic JSON: what each is read as, and what is refused, by name."""

from collections.abc import Callable

import pytest

pytestmark = pytest.mark.usefixtures("registry")

NAME = "panoptic_entries_test"


@pytest.fixture
def altered(content: Callable[..., dict]) -> Callable[..., dict]:
    """Makes the content with a part changed; None takes a key away.

    ``of`` names the first image, annotation or segment, or "lists" for the lists themselves.
    """

    def make(of: str, **changes: object) -> dict:
        whole = content()
        annotation = whole["annotations"][0]
        entry = {
            "lists": whole,
            "image": whole["images"][0],
            "annotation": annotation,
            "segment": annotation["segments_info"][0],
        }[of]
        entry.update(changes)
        for key in [key for key, value in changes.items() if value is None]:
            del entry[key]
        return whole

    return make


@pytest.mark.parametrize(
    ("of", "changes", "message"),
    [
        ("segment", {"category_id": 41}, "image 'b' has a segment of category 41"),
        (
            "segment",
            {"category_id": None},
            r"segments_info\[0\] has no 'category_id'",
        ),
        (
            "segment",
            {"id": "x"},
            r"image 'b': segments_info\[0\] has a wrong 'id': 'x'",
        ),
        ("annotation", {"segments_info": [5]}, "is no dict: 5"),
        (
            "annotation",
            {"segments_info": 5},
            r"annotation \(annotations\[0\]\) has a wrong 'segments_info'",
        ),
        ("annotation", {"image_id": "c"}, "no image has the annotated id 'c'"),
        (
            "annotation",
            {"file_name": None},
            r"annotation \(annotations\[0\]\) has no 'file_name'.*'b'",
        ),
        ("image", {"width": "x"}, r"an image \(images\[0\]\) has a wrong 'width': 'x'.*'b'"),
        ("image", {"width": 0}, "a wrong 'width': 0. It must be a whole number from 1 on"),
        ("image", {"id": ""}, "a wrong 'id': ''"),
        ("image", {"id": True}, "a wrong 'id': True"),
        ("segment", {"id": 0}, "a wrong 'id': 0. .*0 stands for void"),
        ("segment", {"id": 2**24}, "a wrong 'id': 16777216"),
        ("segment", {"iscrowd": ""}, "a wrong 'iscrowd': ''. It must be 0, 1, false or true"),
        ("image", {"id": None}, r"image \(images\[0\]\) has no 'id'"),
        ("lists", {"images": []}, "no image has the annotated id 'b'"),
    ],
)
def test_entries_that_make_no_sense_are_refused(read, altered, of, changes, message):
    with pytest.raises(ValueError, match=rf"panoptic\.json: .*{message}"):
        read(NAME, altered(of, **changes))


@pytest.mark.parametrize(
    ("key", "message"),
    [("images", "two images have the id 'b'"), ("annotations", "image 'b' has two annotations")],
)
def test_entries_that_are_there_twice_are_refused(content, read, key, message):
    with pytest.raises(ValueError, match=rf"panoptic\.json: .*{message}"):
        read(NAME, content(**{key: 2 * content()[key]}))


@pytest.mark.parametrize("of", ["image", "annotation"])
@pytest.mark.parametrize(
    "file_name", ["../b.png", "a/../../b.png", "/etc/b.png", "..\\b.png", "\\b.png", "..", "", "."]
)
def test_file_names_that_leave_their_folder_are_refused(read, altered, of, file_name):
    with pytest.raises(ValueError, match=r"panoptic\.json: the file name .* leaves its folder"):
        read(NAME, altered(of, file_name=file_name))


@pytest.mark.parametrize("file_name", ["a/b.png", "a..b.png", "...png", "./b.png", "a b/ü.JPG"])
def test_file_names_below_their_folder_are_taken(tmp_path, read, altered, file_name):
    (image,) = read(NAME, altered("image", file_name=file_name))
    assert image["file_name"] == str(tmp_path / "images") + "/" + file_name


@pytest.mark.parametrize(
    ("written", "iscrowd"),
    [(0, 0), (1, 1), (False, 0), (True, 1), ("0", 0), ("1", 1), (0.0, 0), (1.0, 1)],
)
def test_crowds_are_read_whatever_tool_wrote_them(read, altered, written, iscrowd):
    (image,) = read(NAME, altered("segment", iscrowd=written))
    assert image["segments_info"][0]["iscrowd"] == iscrowd
    assert type(image["segments_info"][0]["iscrowd"]) is int


def test_a_segment_that_does_not_say_so_is_no_crowd_and_null_is_refused(content, read, altered):
    (image,) = read(NAME, altered("segment", iscrowd=None))
    assert image["segments_info"][0]["iscrowd"] == 0
    wrong = content()
    wrong["annotations"][0]["segments_info"][0]["iscrowd"] = None
    with pytest.raises(ValueError, match=r"panoptic\.json: image 'b': .* a wrong 'iscrowd': None"):
        read(NAME, wrong)


@pytest.mark.parametrize("ids", [(7, "7"), ("7", 7), (7.0, "7"), ("7", "7")])
def test_numbers_of_images_are_found_however_they_are_written(content, read, ids):
    whole = content()
    whole["images"][0]["id"], whole["annotations"][0]["image_id"] = ids
    (image,) = read(NAME, whole)
    assert image["image_id"] == 7 and type(image["image_id"]) is int


def test_image_ids_are_texts_where_one_is(content, read):
    """COCO's API doesn't find numbers among texts."""
    whole = content()
    whole["images"].append({**whole["images"][0], "id": 7})
    whole["annotations"].append({**whole["annotations"][0], "image_id": "7"})
    whole["images"].append({**whole["images"][0], "id": "007"})
    whole["annotations"].append({**whole["annotations"][0], "image_id": "007"})
    assert [image["image_id"] for image in read(NAME, whole)] == ["b", "7", "007"]


@pytest.mark.parametrize("name", ["None", "007", "-1", "١", "9" * 30, "frame 1"])
def test_other_texts_than_numbers_are_ids_as_they_are(content, read, name):
    whole = content()
    whole["images"][0]["id"] = whole["annotations"][0]["image_id"] = name
    (image,) = read(NAME, whole)
    assert image["image_id"] == name


def test_two_segments_of_one_id_are_refused(content, read):
    whole = content()
    whole["annotations"][0]["segments_info"] *= 2
    with pytest.raises(ValueError, match=r"panoptic\.json: image 'b' has two segments of the id 5"):
        read(NAME, whole)
