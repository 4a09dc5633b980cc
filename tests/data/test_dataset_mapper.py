"""Image and panoptic PNG to the model's input, without and with augmentation.

The images of these tests say by their grey value which segment a pixel belongs to, so that masks
can be checked against the image that they come with.
"""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from PIL import Image

from detr_d2.data import segment_masks
from detr_d2.data.dataset_mapper import (
    MAX_SIZE_TO_CROP,
    DetrDatasetMapper,
    ResizeShortestEdge,
    segment_label_map,
)
from detr_d2.data.image_file import ImageOptions
from detr_d2.data.panoptic_png import MAX_SEGMENT_ID, write_panoptic_png
from detr_d2.data.segment_masks import SegmentMasks

# Grey value of the i-th segment is (i + 1) · STEP; void is black.
STEP = 40
# 5×4 blocks of 10×10 pixels; 0 is void.
LAYOUT = np.array(
    [[0, 7, 7, 7], [300, 300, 70_000, 7], [300, 9, 9, 7], [300, 9, 0, 7], [300, 0, 0, 8_000_000]]
)
SEGMENTS = [
    {"id": 8_000_000, "category_id": 11, "iscrowd": 0},
    {"id": 7, "category_id": 3, "iscrowd": 1},
    {"id": 300, "category_id": 2, "iscrowd": 0},
    {"id": 9, "category_id": 3},
    {"id": 70_000, "category_id": 0, "iscrowd": 0},
]
NOT_CROWD = [0, 2, 3, 4]


def make_record(folder: Path, ids: np.ndarray, segments: list[dict]) -> dict:
    place = {segment["id"]: i + 1 for i, segment in enumerate(segments)}
    grey = np.vectorize(lambda i: STEP * place.get(i, 0) % 256, otypes=[np.uint8])(ids)
    Image.fromarray(np.stack([grey, grey, 255 - grey], axis=2)).save(folder / "image.png")
    write_panoptic_png(ids, folder / "panoptic.png")
    return {
        "file_name": str(folder / "image.png"),
        "image_id": 1,
        "height": ids.shape[0],
        "width": ids.shape[1],
        "pan_seg_file_name": str(folder / "panoptic.png"),
        "segments_info": segments,
    }


@pytest.fixture
def record(tmp_path) -> dict:
    return make_record(tmp_path, np.kron(LAYOUT, np.ones((10, 10), int)), SEGMENTS)


def make_mapper(*augmentations: T.Augmentation, **changes: object) -> DetrDatasetMapper:
    options = {"is_train": True, "image_format": "RGB", "num_classes": 12, "with_masks": True}
    options |= changes
    return DetrDatasetMapper(augmentations=list(augmentations), **options)


def box_of(mask: torch.Tensor) -> list[float]:
    y, x = mask.nonzero().T
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


def assert_consistent(result: dict) -> None:
    """Masks and boxes are those that the image shows."""
    grey, instances = result["image"][0], result["instances"]
    assert result["image"].dtype == torch.uint8 and result["image"].ndim == 3
    assert instances.image_size == tuple(grey.shape)
    shown = [i for i in NOT_CROWD if (grey == (i + 1) * STEP).any()]
    assert instances.gt_classes.tolist() == [SEGMENTS[i]["category_id"] for i in shown]
    for i, mask, box in zip(shown, instances.gt_masks.tensor, instances.gt_boxes, strict=True):
        assert torch.equal(mask, grey == (i + 1) * STEP)
        assert box.tolist() == box_of(mask)


def test_targets_are_the_segments_of_the_png(record):
    result = make_mapper()(record)
    assert_consistent(result)
    instances = result["instances"]
    assert instances.gt_classes.tolist() == [11, 2, 3, 0]  # neither crowd nor void
    assert instances.gt_classes.dtype == torch.int64
    assert instances.gt_masks.tensor.dtype == torch.bool
    assert instances.gt_boxes.tensor.tolist() == [
        [30, 40, 40, 50],
        [0, 10, 20, 50],
        [10, 20, 30, 40],
        [20, 10, 30, 20],
    ]
    assert instances.gt_masks.tensor.sum((1, 2)).tolist() == [100, 500, 300, 100]


def test_scenes_by_brute_force(tiny_cfg):
    """Things and stuff of real scenes, through the config."""
    from detr_d2.data.panoptic_dataset import get_dataset_dicts

    tiny_cfg.INPUT.RANDOM_FLIP = "none"
    mapper = DetrDatasetMapper(tiny_cfg, is_train=True)
    for image in get_dataset_dicts(tiny_cfg.DATASETS.TRAIN):
        instances = mapper(image)["instances"]
        rgb = np.asarray(Image.open(image["pan_seg_file_name"])).astype(int)
        ids = rgb @ [1, 256, 65536]
        wanted = [s for s in image["segments_info"] if not s["iscrowd"]]
        assert instances.gt_classes.tolist() == [s["category_id"] for s in wanted]
        for segment, mask, box in zip(
            wanted, instances.gt_masks.tensor, instances.gt_boxes, strict=True
        ):
            assert np.array_equal(mask, ids == segment["id"])
            left, top, width, height = segment["bbox"]
            assert box.tolist() == [left, top, left + width, top + height]


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # in fvcore
def test_masks_move_as_the_image_does(record, augmentations):
    np.random.seed(0)
    mapper = make_mapper(*augmentations)
    results = [mapper(record) for _ in range(20)]
    for result in results:
        assert_consistent(result)
    plain = make_mapper()(record)
    assert any(not torch.equal(result["image"], plain["image"]) for result in results)


def test_masks_are_resized_by_nearest_pixels(record):
    result = make_mapper(T.Resize((100, 120)))(record)
    grey, instances = result["image"][0], result["instances"]
    assert instances.image_size == (100, 120) == tuple(grey.shape)
    # Every block is now 20×30 pixels; inside it the smoothed image still has the block's value.
    for i, mask in zip(NOT_CROWD, instances.gt_masks.tensor, strict=True):
        blocks = torch.from_numpy(LAYOUT == SEGMENTS[i]["id"])
        expected = blocks.repeat_interleave(20, 0).repeat_interleave(30, 1)
        assert torch.equal(mask, expected)
        assert (grey == (i + 1) * STEP)[mask].float().mean() > 0.4


def test_what_a_crop_removes_is_no_target(record):
    result = make_mapper(T.CropTransform(0, 10, 20, 10))(record)
    assert result["instances"].gt_classes.tolist() == [2]
    assert result["instances"].gt_boxes.tensor.tolist() == [[0, 0, 20, 10]]
    nothing = make_mapper(T.CropTransform(0, 0, 10, 10))(record)["instances"]
    assert len(nothing) == 0 and nothing.image_size == (10, 10)
    assert nothing.gt_masks.tensor.shape == (0, 10, 10)
    assert nothing.gt_boxes.tensor.shape == (0, 4)


@pytest.mark.parametrize("segments", [[], [{"id": 5, "category_id": 1, "iscrowd": 1}]])
def test_no_targets_at_all(tmp_path, segments):
    ids = np.zeros((6, 8), int)
    ids[:3] = 5 if segments else 0
    instances = make_mapper()(make_record(tmp_path, ids, segments))["instances"]
    assert len(instances) == 0
    assert instances.gt_classes.shape == (0,) and instances.gt_classes.dtype == torch.int64
    assert instances.gt_masks.tensor.shape == (0, 6, 8)
    assert instances.gt_boxes.tensor.shape == (0, 4)


@pytest.mark.parametrize("num_segments", [255, 256, 300])
def test_many_segments(tmp_path, num_segments):
    """Beyond 255 segments, a byte doesn't hold their numbers."""
    ids = 1 + np.arange(320).reshape(16, 20) % num_segments
    segments = [{"id": int(i), "category_id": int(i % 12)} for i in np.unique(ids)[::-1]]
    record = make_record(tmp_path, ids, segments)
    for augmentation in ([], [T.RandomFlip(1.0)], [T.Resize((32, 40))]):
        instances = make_mapper(*augmentation)(record)["instances"]
        assert instances.gt_classes.tolist() == [s["category_id"] for s in segments]
        expected = torch.from_numpy(np.stack([ids == s["id"] for s in segments]))
        if augmentation and isinstance(augmentation[0], T.RandomFlip):
            expected = expected.flip(2)
        elif augmentation:
            expected = expected.repeat_interleave(2, 1).repeat_interleave(2, 2)
        assert torch.equal(instances.gt_masks.tensor, expected)


@pytest.mark.parametrize(
    "augmentation",
    [T.NoOpTransform(), T.CropTransform(0, 10, 30, 20), T.RandomFlip(1.0), T.Resize((100, 120))],
    ids=["none", "crop", "flip", "resize"],
)
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # in fvcore
def test_masks_take_a_byte_a_pixel(record, augmentation):
    """That is what worker processes send: also of a crop, no more than its own pixels."""
    instances = make_mapper(augmentation)(record)["instances"]
    height, width = instances.image_size
    label_map, labels = instances.gt_masks.label_map, instances.gt_masks.labels
    assert label_map.untyped_storage().nbytes() == height * width
    assert labels.untyped_storage().nbytes() <= len(SEGMENTS)
    sent = pickle.dumps(instances)
    assert len(sent) < height * width + 4000
    assert torch.equal(pickle.loads(sent).gt_masks.tensor, instances.gt_masks.tensor)


def test_one_pass_finds_all_segments_and_no_stack_is_made(record, monkeypatch):
    passes = []
    find_objects = segment_masks.find_objects
    monkeypatch.setattr(
        segment_masks, "find_objects", lambda *args: passes.append(1) or find_objects(*args)
    )
    monkeypatch.setattr(SegmentMasks, "tensor", property(lambda masks: pytest.fail("a stack")))
    assert len(make_mapper()(record)["instances"]) == len(NOT_CROWD)
    assert len(passes) == 1


def test_a_picture_of_one_pixel(tmp_path):
    segments = [{"id": MAX_SEGMENT_ID, "category_id": 4}]
    record = make_record(tmp_path, np.array([[MAX_SEGMENT_ID]]), segments)
    instances = make_mapper()(record)["instances"]
    assert instances.gt_classes.tolist() == [4]
    assert instances.gt_masks.tensor.tolist() == [[[True]]]
    assert instances.gt_boxes.tensor.tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("seed", range(20))
def test_label_maps_by_brute_force(seed):
    """Any ids that a PNG can have."""
    rng = np.random.default_rng(seed)
    known = rng.choice(MAX_SEGMENT_ID, rng.integers(1, 400), replace=False) + 1
    known[rng.integers(len(known))] = MAX_SEGMENT_ID
    ids = rng.choice([0, *known], rng.integers(1, 40, 2)).astype(np.int32)
    known = known.tolist()
    label_map = segment_label_map(ids, [{"id": i} for i in known], "x.png")
    assert label_map.dtype == (np.uint8 if len(known) <= 255 else np.float32)
    assert np.array_equal(np.array([0, *known])[label_map.astype(int)], ids)
    assert not label_map[ids == 0].any()


@pytest.mark.parametrize("segment_id", [0, -1, MAX_SEGMENT_ID + 1, 2**40])
def test_ids_that_no_colour_has_and_that_of_void_are_refused(segment_id):
    with pytest.raises(ValueError, match=rf"x\.png: .* id {segment_id}\. .*0 stands for void"):
        segment_label_map(np.zeros((2, 3), np.int32), [{"id": segment_id}], "x.png")


def test_ids_that_the_annotation_lacks_are_named(record):
    record["segments_info"] = SEGMENTS[2:]
    with pytest.raises(ValueError, match=r"panoptic\.png has segment ids .* \[7, 8000000\]$"):
        make_mapper()(record)


def test_two_segments_with_one_id_are_named(record):
    record["segments_info"] = [*SEGMENTS, {**SEGMENTS[2], "category_id": 5}]
    with pytest.raises(ValueError, match=r"panoptic\.png: several .* the same id: \[300\]$"):
        make_mapper()(record)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (30, 20_000)])
@pytest.mark.parametrize("is_train", [True, False])
def test_images_of_any_shape_keep_a_pixel_and_stay_small(tiny_cfg, tmp_path, size, is_train):
    """The shorter side of a long image would be rounded to none, and a crop be taken from more
    pixels than memory has.
    """
    tiny_cfg.merge_from_list(["INPUT.MIN_SIZE_TRAIN", [480, 800], "INPUT.MAX_SIZE_TRAIN", 1333])
    tiny_cfg.merge_from_list(["INPUT.MIN_SIZE_TEST", 800, "INPUT.MAX_SIZE_TEST", 1333])
    tiny_cfg.merge_from_list(["INPUT.CROP_PROB", 1.0, "INPUT.CROP_RESIZE", [400, 600]])
    record = make_record(tmp_path, np.ones(size, int), [{"id": 1, "category_id": 2}])
    result = DetrDatasetMapper(tiny_cfg, is_train=is_train)(record)
    _, height, width = result["image"].shape
    assert 1 <= height <= 1333 and 1 <= width <= 1333 and max(height, width) >= 384
    if is_train:
        assert result["instances"].gt_boxes.tensor.tolist() == [[0, 0, width, height]]


def test_ordinary_images_are_cropped_as_by_the_reference(tiny_cfg):
    ratio = 13
    for size in tiny_cfg.INPUT.CROP_RESIZE:
        ours = ResizeShortestEdge([size], MAX_SIZE_TO_CROP, "choice")
        theirs = T.ResizeShortestEdge([size], sample_style="choice")
        image = np.zeros((50, 50 * ratio, 3), np.uint8)
        assert ours.get_transform(image).new_w == theirs.get_transform(image).new_w


def test_a_segment_that_the_png_lacks_is_no_target(record):
    record["segments_info"] = [{"id": 12, "category_id": 5}, *SEGMENTS]
    assert make_mapper()(record)["instances"].gt_classes.tolist() == [11, 2, 3, 0]


@pytest.mark.parametrize("wrong", [-1, 12])
def test_a_class_out_of_range_is_named(record, wrong):
    record["segments_info"] = [{**SEGMENTS[0], "category_id": wrong}, *SEGMENTS[1:]]
    message = rf"panoptic\.png: segment 8000000 has class {wrong}, outside 0 … 11 .*NUM_CLASSES"
    with pytest.raises(ValueError, match=message):
        make_mapper()(record)


def test_sizes_that_disagree_are_named(record):
    with pytest.raises(ValueError, match=r"image\.png, got \(40, 50\), expect \(41, 50\)"):
        make_mapper()({**record, "width": 41})
    write_panoptic_png(np.zeros((40, 50), int), record["pan_seg_file_name"])
    with pytest.raises(ValueError, match=r"panoptic\.png has 40×50 .*image\.png has 50×40"):
        make_mapper()(record)


def test_an_image_that_exif_turns_says_so_and_can_be_left_as_it_is(record):
    image, tags = Image.open(record["file_name"]), Image.Exif()
    tags[0x112] = 6
    image.save(record["file_name"], exif=tags)
    message = r"image\.png, got \(50, 40\), expect \(40, 50\).* INPUT\.IGNORE_EXIF True"
    for is_train in (True, False):
        with pytest.raises(ValueError, match=message):
            make_mapper(is_train=is_train)(record)
    result = make_mapper(image_options=ImageOptions(ignore_exif=True))(record)
    assert np.array_equal(result["image"].permute(1, 2, 0), np.asarray(image))


def test_deep_images_have_the_range_of_the_config(tiny_cfg, record):
    pixels = np.random.default_rng(0).integers(0, 4096, (50, 40), dtype=np.uint16)
    Image.fromarray(pixels).save(record["file_name"])
    tiny_cfg.merge_from_list(["INPUT.DEEP_RANGE", 4095, "INPUT.MIN_SIZE_TEST", 0])
    mapper = DetrDatasetMapper(tiny_cfg, is_train=False)
    assert np.array_equal(mapper(record)["image"][0], pixels >> 4)


def test_files_that_cannot_be_read_are_named(record):
    image, png = Path(record["file_name"]), Path(record["pan_seg_file_name"])
    data = image.read_bytes()
    for damaged in (b"", b"no picture", data[: len(data) // 2]):
        image.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"image\.png: cannot be read"):
            make_mapper()(record)
    image.unlink()
    with pytest.raises(FileNotFoundError, match=r"image\.png"):
        make_mapper()(record)
    image.write_bytes(data)
    png.unlink()
    with pytest.raises(FileNotFoundError, match=r"panoptic\.png"):
        make_mapper()(record)


def test_the_dict_is_left_alone(record):
    kept = copy.deepcopy(record)
    make_mapper(T.RandomFlip(1.0))(record)
    make_mapper(is_train=False)(record)
    assert record == kept


def test_to_predict_no_annotation_is_read(record):
    Path(record["pan_seg_file_name"]).unlink()
    result = make_mapper(T.Resize((25, 20)), is_train=False, num_classes=1)(record)
    assert "instances" not in result
    assert result["image"].shape == (3, 25, 20)
    assert (result["height"], result["width"]) == (50, 40)  # of the output, as Detectron2 has it


def test_channels_are_in_the_order_asked_for(record):
    rgb, bgr = (make_mapper(image_format=order)(record)["image"] for order in ("RGB", "BGR"))
    assert torch.equal(rgb, bgr.flip(0)) and not torch.equal(rgb, bgr)
    assert torch.equal(rgb[2], 255 - rgb[0])


def test_the_config_chooses_the_order_and_is_checked(tiny_cfg):
    tiny_cfg.INPUT.FORMAT = "BGR"
    assert DetrDatasetMapper(tiny_cfg, is_train=False).image_format == "BGR"
    tiny_cfg.MODEL.DETR.NUM_CLASSES = 13
    for is_train in (True, False):
        with pytest.raises(ValueError, match=r"Set MODEL\.DETR\.NUM_CLASSES to 12"):
            DetrDatasetMapper(tiny_cfg, is_train=is_train)
