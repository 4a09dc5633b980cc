"""JSONs with something else in any one place: a dataset or an error for people, nothing else."""

import base64
import copy
import io
import json
import shutil

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from detr_d2.data.prepare import (
    PreparationError,
    prepare_instances,
    prepare_labelme,
    prepare_semantic,
    split_panoptic,
)

CATEGORIES = [
    {"id": 1, "name": "cat", "isthing": 1, "color": [1, 2, 3]},
    {"id": 7, "name": "sky", "isthing": 0},
]
IMAGES = [{"id": i, "file_name": f"{i}.png", "height": 4, "width": 5} for i in (1, 2)]
SEGMENTATIONS = [
    [[0, 0, 3, 0, 3, 3]],
    {"size": [4, 5], "counts": [3, 17]},
    {"size": [4, 5], "counts": "3a0"},
]
ANNOTATIONS = [
    {"id": i, "image_id": 1, "category_id": 1, "iscrowd": i % 2, "segmentation": segmentation}
    for i, segmentation in enumerate(SEGMENTATIONS)
]
INSTANCES = {"images": IMAGES, "annotations": ANNOTATIONS, "categories": CATEGORIES}
_png = io.BytesIO()
Image.fromarray(np.full((1, 1), 255, np.uint8)).save(_png, "PNG")
MASK = base64.b64encode(_png.getvalue()).decode()
SHAPES = [
    {"label": "cat", "points": [[0, 0], [3, 0], [3, 3]], "shape_type": "polygon", "group_id": 1},
    {"label": "sky", "points": [[0, 0], [3, 2]], "shape_type": "circle"},
    {"label": "sky", "points": [[0, 0], [0, 0]], "shape_type": "mask", "mask": MASK},
]
LABELME = {"shapes": SHAPES, "imageHeight": 4, "imageWidth": 5}
PANOPTIC_ANNOTATIONS = [
    {"image_id": i, "file_name": f"{i}.png", "segments_info": [{"id": 1, "category_id": 7}]}
    for i in (1, 2)
]
PANOPTIC = {"images": IMAGES, "annotations": PANOPTIC_ANNOTATIONS, "categories": CATEGORIES}

odd_values = st.one_of(
    st.sampled_from([None, True, 0, -1, 1, 7, 2**31, 2**64, 10**300, 1.5, 1e308, float("nan")]),
    st.sampled_from(["", "..", "../x", "/x", "1", "\x00", "P", "a\\b", "x" * 300, [], {}, [[]]]),
    st.lists(st.sampled_from([0, 1, -1, "a", None, 2**40]), max_size=8),
)


def places(content, path=()):
    """The paths to all values of a JSON, itself included."""
    yield path
    if isinstance(content, dict | list):
        keys = content if isinstance(content, dict) else range(len(content))
        for key in keys:
            yield from places(content[key], (*path, key))


def changed(content, path, value):
    """A copy with something else at one place."""
    if not path:
        return value
    result = copy.deepcopy(content)
    place = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return result


@given(data=st.data())
@settings(
    deadline=None,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_value_in_any_place(data, tmp_path):
    folder = tmp_path / "fuzzed"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("images", "labelme", "semantic"):
        (folder / name).mkdir(parents=True)
        Image.fromarray(np.full((4, 5), 7, np.uint8)).save(folder / name / "1.png")
    paths = {}
    originals = {
        "instances.json": INSTANCES,
        "labelme/1.json": LABELME,
        "panoptic.json": PANOPTIC,
        "categories.json": CATEGORIES,
        "mapping.json": {"7": 7, "1": None},
    }
    chosen = data.draw(st.sampled_from(list(originals)))
    for name, content in originals.items():
        if name == chosen:
            place = data.draw(st.sampled_from(list(places(content))))
            content = changed(content, place, data.draw(odd_values))
        paths[name] = folder / name
        paths[name].write_text(json.dumps(content))
    before = set(tmp_path.rglob("*"))
    out, skip = folder / "out", {"skip_errors": data.draw(st.booleans())}
    semantic = {"categories": paths["categories.json"], "mapping": paths["mapping.json"]}
    more = {"background": data.draw(st.sampled_from([None, "floor", "cat"]))}
    crowds = {"crowds_as_things": data.draw(st.booleans())}
    images = folder / "images"
    jobs = [
        lambda: prepare_instances(paths["instances.json"], out / "1", **skip, **more, **crowds),
        lambda: prepare_labelme(folder / "labelme", out / "2", ignore=["sky"], **skip, **more),
        lambda: prepare_semantic(folder / "semantic", out / "3", images=images, **semantic),
        lambda: split_panoptic(paths["panoptic.json"], out / "4"),
    ]
    for number, job in enumerate(jobs, start=1):
        try:
            assert job().images
        except PreparationError as error:
            assert str(error)
            assert not (out / str(number)).exists()
    new = set(tmp_path.rglob("*")) - before - {out}
    assert all(out in path.parents for path in new)
