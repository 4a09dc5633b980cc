"""One image, merged again: always what the model would say, without another forward pass."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from detr_d2.apps.web import Viewer
from detr_d2.apps.web import image_viewer as viewer_module
from detr_d2.apps.web.segment_reasons import reasons
from detr_d2.modeling.inference_options import PanopticOptions
from detr_d2.modeling.mask_head_base import ExplainedModules
from detr_d2.predictor import Predictor

MERGINGS = st.builds(
    PanopticOptions,
    score_thresh=st.floats(0, 1),
    min_area=st.integers(0, 2000),
    stuff_merging=st.sampled_from(["reference", "merged"]),
)
quick = settings(
    deadline=None,
    database=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def test_shows_what_the_model_says(shown, web_cfg, photo):
    ids, segments_info = Predictor(web_cfg)(photo[:, :, ::-1])["panoptic_seg"]
    assert len(segments_info) > 2
    np.testing.assert_array_equal(shown.ids, ids.numpy())
    assert shown.segments_info == segments_info


@quick
@given(merging=MERGINGS)
def test_merges_as_a_new_look_would(viewer, shown, photo, merging):
    again, fresh = shown.merged(merging), viewer.look_at(photo, merging)
    np.testing.assert_array_equal(again.ids, fresh.ids)
    assert again.segments_info == fresh.segments_info


def test_merges_without_a_forward_pass(viewer, shown, photo, count_passes):
    before = shown.ids.copy(), list(shown.segments_info)
    few = shown.merged(PanopticOptions(0.5, "merged", 50))
    assert 0 < len(few.segments_info) < len(shown.segments_info)
    assert count_passes() == 0
    np.testing.assert_array_equal(shown.ids, before[0])
    assert shown.segments_info == before[1]
    viewer.look_at(photo, viewer.merging)
    assert count_passes() == 1


@quick
@given(x=st.integers(-5, 600), y=st.integers(-5, 600))
def test_a_click_finds_the_segment_under_it(shown, x, y):
    height, width = shown.picture_size
    inside = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    large = shown.scene.resized((height, width)).ids  # as the picture is painted
    chosen = shown.pointed(x, y).chosen
    assert chosen["id"] == large[inside]
    assert chosen in shown.segments_info


def test_each_segment_can_be_pointed_at(shown):
    for segment in shown.segments_info:
        assert shown.pointed_at(segment["id"]).chosen == segment
    assert shown.pointed_at(999).point is None
    assert shown.merged(PanopticOptions(1.0, "merged", 0)).pointed_at(1).chosen is None


def test_a_point_stays_when_thresholds_change(shown):
    pointed = shown.pointed(100, 100)
    merged = pointed.merged(PanopticOptions(0.5, "merged", 50))
    assert merged.point == pointed.point
    assert merged.chosen["id"] == merged.ids[pointed.point[1], pointed.point[0]]


def test_nothing_is_chosen_where_nothing_is(shown):
    empty = shown.merged(PanopticOptions(1.0, "merged", 0))
    assert empty.segments_info == []
    assert not empty.ids.any()
    assert empty.pointed(3, 3).chosen is None
    assert shown.chosen is None  # without a point
    assert empty.picture().shape == (*empty.picture_size, 3)


@pytest.mark.parametrize(("size", "seen"), [((300, 150), (64, 32)), ((400, 1), (64, 1))])
def test_large_images_are_made_smaller(viewer, tmp_path, monkeypatch, size, seen):
    monkeypatch.setattr(viewer_module, "LONGEST_SIDE", 64)
    path = tmp_path / "large.png"
    Image.new("RGB", size, (200, 100, 0)).save(path)
    shown = viewer.look_at_file(path, viewer.merging)
    assert shown.image.shape[1::-1] == seen
    assert shown.ids.shape == shown.image.shape[:2]
    assert shown.image[0, 0].tolist() == [200, 100, 0]  # red is still first


def test_an_image_of_one_pixel_is_explained(viewer):
    shown = viewer.look_at(np.full((1, 1, 3), 200, np.uint8), viewer.merging)
    shown = shown.merged(replace(viewer.merging, min_area=0)).pointed(0, 0)
    assert shown.picture().shape == (480, 480, 3)
    reason, *_ = reasons(shown, shown.chosen)
    assert reason.mask.shape == (480, 480, 3) and len(reason.attention) == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (("MODEL.DETR.MASK_ON", False), "MODEL.DETR.MASK_ON is False"),
        (("DATASETS.TEST", (), "DATASETS.TRAIN", ()), "DATASETS.TEST is empty"),
    ],
)
def test_what_cannot_be_shown_is_refused(web_cfg, override, message):
    cfg = web_cfg.clone()
    cfg.merge_from_list(override)
    with pytest.raises(ValueError, match=message):
        Viewer.from_config(cfg)


def test_a_head_without_attention_maps_is_shown(viewer, photo, monkeypatch):
    head = type(viewer.predictor.model.mask_head)
    monkeypatch.setattr(head, "explained_modules", lambda self: ExplainedModules())
    shown = viewer.look_at(photo, replace(viewer.merging, min_area=1))
    assert shown.attention_maps is None
    assert shown.segments_info
