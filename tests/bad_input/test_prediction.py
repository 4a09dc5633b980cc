"""Arrays and files of all sizes, types, layouts and modes, given to a predictor."""

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from detr_d2.data.image_file import read_image
from detr_d2.predictor import Predictor

# The model is slower than readers of files.
FUZZ = settings(deadline=None, database=None, max_examples=max(1, settings().max_examples // 2))
FORMATS = {"PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"), "JPEG": ("RGB", "L", "CMYK")}
FORMATS |= {"TIFF": ("RGB", "CMYK", "L", "F", "I"), "GIF": ("P", "L"), "WEBP": ("RGB", "RGBA")}


@pytest.fixture(scope="module")
def predictor(make_tiny_cfg, tmp_path_factory) -> Predictor:
    """A tiny model that is sure of seeing a ball in every query."""
    folder = tmp_path_factory.mktemp("model")
    cfg = make_tiny_cfg(folder, "MODEL.DETR.ENC_LAYERS", 0, "MODEL.DETR.DEC_LAYERS", 1)
    cfg.merge_from_list(["INPUT.MIN_SIZE_TEST", 40, "INPUT.MAX_SIZE_TEST", 80])
    model = build_model(cfg)
    torch.nn.init.zeros_(model.detector.class_head.weight)
    torch.nn.init.zeros_(model.mask_head.output_conv.weight)  # one segment has all pixels
    model.detector.class_head.bias.data = 20.0 * torch.eye(13)[0]
    cfg.MODEL.WEIGHTS = str(folder / "model.pth")
    torch.save({"model": model.state_dict()}, cfg.MODEL.WEIGHTS)
    return Predictor(cfg)


def has_size(height: int, width: int):
    def check(output: dict) -> None:
        ids, segments_info = output["panoptic_seg"]
        assert ids.shape == (height, width)
        if height * width > 4:  # smaller segments are dropped
            assert len(segments_info) > 0 and ids.max() > 0
        assert output["instances"].image_size == (height, width)
        assert output["instances"].pred_boxes.tensor.isfinite().all()

    return check


def is_refused(output: object) -> None:
    pytest.fail("this was to be refused")


DTYPES = ["u1", "u2", "i2", "i8", "f2", "f4", "f8", "?", "c8", "U1", "O"]
SHAPES = st.one_of(
    arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
    st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5)),
    st.sampled_from([(1, 20_000, 3), (20_000, 30, 3), (30, 20_000, 3), (3, 17, 21), (1, 1), (1,)]),
)


@given(shape=SHAPES, dtype=st.sampled_from(DTYPES), highest=st.sampled_from([1, 255, 256, 65_535]))
@FUZZ
def test_arrays(predictor, try_input, shape, dtype, highest):
    values = np.random.default_rng(0).random(shape) * (highest + 0.99)
    with np.errstate(all="ignore"):
        image = values.astype(dtype)
    right_layout = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    accepted = (
        right_layout and 0 not in shape and dtype in ("u1", "u2", "i2", "i8", "f2", "f4", "f8")
    )
    if accepted and dtype == "u2":
        accepted = image.max() > 255 or image.max() == 0
    elif accepted and dtype != "u1":
        accepted = 0 <= image.min() and image.max() <= 255
        accepted = accepted and (dtype[0] == "i" or image.max() > 1 or image.max() == 0)
    try_input(lambda: predictor(image), has_size(*shape[:2]) if accepted else is_refused)


@pytest.mark.parametrize("what", [None, [[[1, 2, 3]]], "image.jpg", torch.zeros(3, 4, 5), 5])
def test_what_is_no_array(predictor, try_input, what):
    try_input(lambda: predictor(what), is_refused, type(what).__name__)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # of Pillow
@given(
    kind=st.sampled_from([(kind, mode) for kind, modes in FORMATS.items() for mode in modes]),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)) | st.just((1, 3000)),
    orientation=st.integers(0, 9),
)
@FUZZ
def test_files(predictor, try_input, tmp_path_factory, kind, size, orientation):
    path = tmp_path_factory.getbasetemp() / "picture.bin"
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.new(kind[1], size[::-1]).save(path, kind[0], exif=exif)
    has_exif = kind[0] != "GIF"
    shown = size[::-1] if has_exif and 5 <= orientation <= 8 else size
    check = is_refused if kind[1] in ("F", "I") else has_size(*shown)
    try_input(lambda: predictor(read_image(path, "BGR")), check)
    path.unlink()
