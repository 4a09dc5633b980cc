"""AP from hotcoco beside pycocotools, to the last bit."""

import contextlib
import io

import numpy as np
import pycocotools.mask as mask_util
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detr_d2.evaluation.average_precision import average_precision

SIZE = (60, 80)
CATEGORIES = [{"id": id_, "name": str(id_)} for id_ in (3, 7, 90)]


def rle(box) -> dict:
    """The RLE of a box's pixels, without its corner."""
    mask = np.zeros(SIZE, np.uint8, order="F")
    x, y, width, height = (int(side) for side in box)
    mask[y : y + height, x : x + width] = 1
    mask[y, x] = 0
    encoded = mask_util.encode(mask)
    return {**encoded, "counts": encoded["counts"].decode()}


def random_box(rng) -> list[float]:
    size = rng.integers(2, (60, 45))
    return [*map(float, rng.integers(0, np.array([80, 60]) - size)), *map(float, size)]


def made_up(seed: int) -> tuple[dict, list[dict]]:
    """An instance JSON with crowds, and results that are near, of wrong classes, or doubled.

    Some images have no object, some no result, and scores are often equal.
    """
    rng = np.random.default_rng(seed)
    images, annotations, results = [], [], []
    for image_id in range(10, 10 + int(rng.integers(1, 9))):
        images.append({"id": image_id, "height": SIZE[0], "width": SIZE[1]})
        for _ in range(rng.integers(0, 6)):
            box, category = random_box(rng), int(rng.choice([3, 7]))
            encoded = rle(box)
            annotations.append(
                {
                    **{"id": len(annotations) + 1, "image_id": image_id, "category_id": category},
                    **{"bbox": box, "area": float(mask_util.area(encoded))},
                    **{"iscrowd": int(rng.random() < 0.2), "segmentation": encoded},
                }
            )
            for _ in range(rng.integers(0, 4)):
                near = np.clip(
                    np.round(box + rng.normal(0, 1.5, 4)), [0, 0, 2, 2], [70, 50, 80, 60]
                )
                of_class = category if rng.random() < 0.8 else 90
                score = float(rng.integers(1, 6) / 5)
                results.append(
                    {
                        **{"image_id": image_id, "category_id": of_class, "score": score},
                        **{"bbox": near.tolist(), "segmentation": rle(near)},
                    }
                )
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}, results


def by_pycocotools(truth, results, task, image_ids=None) -> COCOeval:
    """As Detectron2 does it: for masks, areas are the masks'."""
    if task == "segm":
        results = [{k: v for k, v in result.items() if k != "bbox"} for result in results]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {**truth, "info": {}}
        coco.createIndex()
        computed = COCOeval(coco, coco.loadRes([dict(result) for result in results]), task)
        if image_ids is not None:
            computed.params.imgIds = list(image_ids)
        computed.evaluate()
        computed.accumulate()
        computed.summarize()
    return computed


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_figures_are_pycocotools(task, capsys):
    compared = 0
    for seed in range(40):
        truth, results = made_up(seed)
        if not results:
            continue
        expected = by_pycocotools(truth, results, task)
        computed = average_precision(truth, results, task)
        np.testing.assert_array_equal(computed.stats, expected.stats)
        for part in ("precision", "recall", "scores"):
            np.testing.assert_array_equal(computed.eval[part], expected.eval[part])
        compared += expected.stats[0] > 0
    assert compared > 20
    assert "Average Precision" in capsys.readouterr().out


def test_ids_of_images_may_be_texts_and_some_images_alone_may_count():
    truth, results = made_up(1)
    chosen = [image["id"] for image in truth["images"]][::2]
    expected = by_pycocotools(truth, results, "bbox", chosen)

    def named(entries, key):
        return [{**entry, key: f"photo {entry[key]}"} for entry in entries]

    truth = {
        **truth,
        "images": named(truth["images"], "id"),
        "annotations": named(truth["annotations"], "image_id"),
    }
    chosen = [f"photo {image_id}" for image_id in chosen]
    computed = average_precision(truth, named(results, "image_id"), "bbox", chosen)
    np.testing.assert_array_equal(computed.stats, expected.stats)


def test_nothing_found_and_nothing_annotated():
    truth, results = made_up(2)
    assert average_precision(truth, [], "bbox") is None
    computed = average_precision({**truth, "annotations": []}, results, "segm")
    assert computed.stats[0] == -1
