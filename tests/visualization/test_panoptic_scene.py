"""What is drawn, from what models return and from annotations."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from detr_d2.visualization import PanopticScene, SceneSegment


@given(
    ids=arrays.arrays(np.int32, (4, 5), elements=st.sampled_from([-1, 0, 1, 2, 3, 7, 2**24 - 1])),
    known=st.lists(st.sampled_from([1, 2, 3, 7, 2**24 - 1]), unique=True),
)
@settings(deadline=None, database=None, max_examples=80)
def test_ids_are_kept_and_others_show_nothing(ids, known):
    infos = [{"id": id, "category_id": 3, "isthing": 0} for id in known]
    scene = PanopticScene.from_panoptic(ids, infos)
    assert np.array_equal(scene.ids, np.where(np.isin(ids, known), ids, 0))
    assert [segment.id for segment in scene.segments] == known
    assert scene.segments_info == [info | {"isthing": False} for info in infos]


def test_what_the_model_returns(tiny_cfg):
    from detectron2.modeling import build_model

    tiny_cfg.merge_from_list(["MODEL.DETR.TEST.SCORE_THRESH", 0.0, "MODEL.DETR.TEST.RAW_ON", True])
    torch.manual_seed(0)
    model = build_model(tiny_cfg).eval()
    model.detector.class_head.bias.data[:12] += 5  # nothing is "no object"
    [output] = model([{"image": torch.rand(3, 64, 96) * 255, "height": 128, "width": 192}])
    ids, segments_info = output["panoptic_seg"]
    assert segments_info
    scene = PanopticScene.from_output(output, 0.5)
    assert scene.size == (128, 192)
    assert np.array_equal(scene.ids, ids.numpy())
    for segment, info in zip(scene.segments, segments_info, strict=True):
        assert (segment.id, segment.class_id) == (info["id"], info["category_id"])
        cx, cy, width, height = output["raw"].boxes_cxcywh[info["queries"][0]].tolist()
        expected = [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]
        expected = np.clip(expected, 0, 1) * [192, 128, 192, 128]
        np.testing.assert_allclose(segment.box, expected, rtol=1e-4, atol=1e-3)


def test_instances_of_a_model_without_masks():
    instances = Instances((50, 60))
    instances.pred_boxes = Boxes(torch.tensor([[1.0, 2, 30, 40], [0, 0, 5, 5]]))
    instances.scores = torch.tensor([0.9, 0.2])
    instances.pred_classes = torch.tensor([3, 4])
    scene = PanopticScene.from_output({"instances": instances}, 0.5)
    assert scene.places is None and scene.size == (50, 60)
    [segment] = scene.segments
    assert (segment.id, segment.class_id, segment.is_thing) == (1, 3, True)
    assert segment.box == (1, 2, 30, 40) and segment.score == pytest.approx(0.9)
    [larger] = scene.resized((100, 180)).segments
    assert larger.box == (3, 4, 90, 80)


def test_other_sizes_numbers_and_groups(make_scene):
    ids = np.array([[1, 1, 2], [0, 3, 3]], np.int32)
    scene = make_scene(ids, {1: (0, True), 2: (0, True), 3: (1, False)})
    assert np.array_equal(scene.resized((4, 6)).ids, ids.repeat(2, 0).repeat(2, 1))
    assert scene.resized((2, 3)) is scene
    numbered = scene.numbered([9, 8, 70_000])
    assert np.array_equal(numbered.ids, [[9, 9, 8], [0, 70_000, 70_000]])
    grouped = scene.regrouped({0: 0, 1: 0}, [SceneSegment(5, 0, True)])
    assert np.array_equal(grouped.ids, [[5, 5, 5], [0, 0, 0]])


def test_too_many_segments_are_refused():
    infos = [{"id": id, "category_id": 0, "isthing": 1} for id in range(1, 65_537)]
    with pytest.raises(ValueError, match="65536 segments; at most 65535"):
        PanopticScene.from_panoptic(np.zeros((1, 1), np.int32), infos)
