"""The mask head's work: what is done for each image, for each query, and how much is kept."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from detr_d2.modeling import AttentionMaskHead

D, HEADS = 32, 4
LATERAL_CHANNELS = (24, 12, 10)
DOUBLED = [(4, 5), (8, 10), (16, 20), (32, 40)]
ODD = [(5, 6), (9, 12), (18, 23), (35, 45)]
DILATED = [(5, 6), (5, 6), (9, 12), (18, 23)]
ALL_GRIDS = pytest.mark.parametrize(
    "grids", [DOUBLED, ODD, DILATED], ids=["doubled", "odd", "dilated res5"]
)
CHUNK_SIZES = (1, 2, 5, 0)
QUERIES = 7
# Of two images, in no order.
IMAGE_INDEX = torch.tensor([0, 1, 1, 0, 1, 0, 0])
# The steps: channels that a convolution sees, and makes.
STEPS = [(D + HEADS, 16), (16, 8), (8, 4), (4, 2)]


def make_inputs(
    image_index: torch.Tensor,
    grids: list[tuple[int, int]],
    dtype: torch.dtype = torch.float32,
    wants_gradients: bool = True,
) -> dict:
    """What ``upsample`` takes, with attention as large as the image's features."""
    torch.manual_seed(1)
    images = int(image_index.max()) + 1 if len(image_index) else 1
    inputs = {
        "projected": torch.randn(images, D, *grids[0], dtype=dtype),
        "attention": torch.randn(len(image_index), HEADS, *grids[0], dtype=dtype),
        "laterals": [
            torch.randn(images, channels, *grid, dtype=dtype)
            for channels, grid in zip(LATERAL_CHANNELS, grids[1:], strict=True)
        ],
        "image_index": image_index,
    }
    for tensor in (inputs["projected"], inputs["attention"], *inputs["laterals"]):
        tensor.requires_grad_(wants_gradients)
    return inputs


def masks_and_gradients(head: AttentionMaskHead, inputs: dict) -> dict[str, torch.Tensor]:
    masks = head.upsample(**inputs)
    rng = torch.Generator().manual_seed(2)
    weights = torch.randn(masks.shape, generator=rng, dtype=masks.dtype)
    (masks * weights).sum().backward()
    gradients = {name: p.grad for name, p in head.named_parameters() if "attention_map" not in name}
    given = [inputs["projected"], inputs["attention"], *inputs["laterals"]]
    gradients.update({str(i): tensor.grad for i, tensor in enumerate(given)})
    assert all(gradient.any() for gradient in gradients.values())
    return {"masks": masks.detach(), **gradients}


@ALL_GRIDS
@pytest.mark.parametrize("images", [1, 2])
def test_chunks_and_checkpoints_change_neither_masks_nor_gradients(make_head, grids, images):
    """In double precision, where gradients that cancel out leave nothing to differ in."""
    index = IMAGE_INDEX * (images - 1)
    expected = masks_and_gradients(
        make_head(chunk_size=0).double(), make_inputs(index, grids, torch.float64)
    )
    for chunk_size in CHUNK_SIZES:
        for checkpointing in (False, True):
            head = make_head(chunk_size=chunk_size, checkpointing=checkpointing).double()
            actual = masks_and_gradients(head, make_inputs(index, grids, torch.float64))
            for name, value in expected.items():
                torch.testing.assert_close(actual[name], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
def test_no_convolution_sees_more_queries_than_a_chunk(
    make_head, record_operations, chunk_size, checkpointing
):
    head = make_head(chunk_size=chunk_size, checkpointing=checkpointing)
    inputs = make_inputs(torch.zeros(QUERIES, dtype=torch.int64), ODD)
    with record_operations() as operations:
        head.upsample(**inputs).sum().backward()
    for name in ("convolution", "convolution_backward"):
        seen = {taken[0][0][0] for call, taken, _ in operations.calls if call == name}
        assert max(seen) == (chunk_size or QUERIES), name


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
@pytest.mark.parametrize(("images", "queries"), [(1, 0), (1, 1), (1, 7), (2, 7)])
@torch.no_grad()
def test_multiplications_are_those_of_each_image_once_and_of_each_query(
    make_head, chunk_size, images, queries
):
    def conv(in_channels, out_channels, grid, taps):
        return 2 * in_channels * out_channels * grid[0] * grid[1] * taps

    per_image = conv(D, D + HEADS, DOUBLED[0], 9)
    per_query = conv(HEADS, D + HEADS, DOUBLED[0], 9) + conv(*STEPS[0], DOUBLED[0], 9)
    for channels, (width, out), grid in zip(LATERAL_CHANNELS, STEPS[1:], DOUBLED[1:], strict=True):
        per_image += conv(channels, width, grid, 1) + conv(width, out, grid, 9)
        per_query += conv(width, out, grid, 4)  # of nine taps, on a grid that was doubled
    per_query += conv(STEPS[-1][-1], 1, DOUBLED[-1], 9)

    inputs = make_inputs(IMAGE_INDEX[:queries] * (images - 1), DOUBLED)
    with FlopCounterMode(display=False) as counter:
        make_head(chunk_size=chunk_size).upsample(**inputs)
    assert counter.get_total_flops() == images * per_image + queries * per_query


@ALL_GRIDS
@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
@torch.no_grad()
def test_the_image_is_worked_on_once_and_queries_only_as_asked(
    make_head, record_operations, grids, chunk_size
):
    """Rows of work, counted at the convolutions by their channels."""
    inputs = make_inputs(IMAGE_INDEX[:5], grids)
    with record_operations() as operations:
        make_head(chunk_size=chunk_size).upsample(**inputs)
    images, queries = 2, 5
    convolved = Counter()
    for name, taken, given in operations.calls:
        # Borders of odd sides, two pixels wide, are made anew.
        if name == "convolution" and min(given[0][0][-2:]) > 2:
            convolved[taken[0][0][1], given[0][0][1]] += taken[0][0][0]
    expected = {(HEADS, D + HEADS): queries, (D, D + HEADS): images, STEPS[0]: queries}
    for channels, step in zip(LATERAL_CHANNELS, STEPS[1:], strict=True):
        expected |= {(channels, step[0]): images, step: images + queries}
    assert convolved == {**expected, (2, 1): queries}


def kept_for_backward(head: AttentionMaskHead, queries: int) -> int:
    """Bytes that autograd keeps, each tensor counted once."""
    kept = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    inputs = make_inputs(torch.zeros(queries, dtype=torch.int64), DOUBLED, wants_gradients=False)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        masks = head.upsample(**inputs)
    masks.sum().backward()
    return sum(kept.values())


def test_checkpoints_keep_no_activations_of_queries(make_head):
    kept = {
        checkpointing: [
            kept_for_backward(make_head(chunk_size=2, checkpointing=checkpointing), n)
            for n in (4, 8)
        ]
        for checkpointing in (False, True)
    }
    # At least the four steps' maps, after the norm and after ReLU, of each query.
    maps = sum(out * h * w * 4 for (_, out), (h, w) in zip(STEPS, DOUBLED, strict=True))
    assert kept[False][1] - kept[False][0] >= 4 * maps
    assert kept[True][1] - kept[True][0] < maps
    assert kept[True][1] < kept[False][1] / 3


def test_checkpoints_do_nothing_without_gradients(make_head, monkeypatch):
    def unwanted(*args, **kwargs):
        raise AssertionError("a checkpoint without gradients")

    monkeypatch.setattr("detr_d2.modeling.attention_mask_head.checkpoint", unwanted)
    inputs = make_inputs(IMAGE_INDEX, DOUBLED)
    with torch.no_grad():
        make_head(chunk_size=2, checkpointing=True).upsample(**inputs)
    make_head(chunk_size=2, checkpointing=False).upsample(**inputs)
    with pytest.raises(AssertionError, match="a checkpoint"):
        make_head(chunk_size=2, checkpointing=True).upsample(**inputs)


def test_the_config_sets_chunks_and_checkpoints(tiny_model):
    head = tiny_model().mask_head
    assert (head.chunk_size, head.checkpointing) == (16, False)
    overrides = {"MODEL.DETR.MASK_HEAD.CHUNK_SIZE": 3, "MODEL.DETR.MASK_HEAD.CHECKPOINTING": True}
    head = tiny_model(overrides).mask_head
    assert (head.chunk_size, head.checkpointing) == (3, True)


@pytest.mark.parametrize("freeze", [False, True])
def test_losses_and_gradients_of_the_model_do_not_depend_on_chunks(tiny_model, make_batch, freeze):
    losses, gradients = [], []
    for chunk_size, checkpointing in ((0, False), (2, False), (2, True)):
        model = tiny_model(
            {
                "MODEL.DETR.MASK_HEAD.CHUNK_SIZE": chunk_size,
                "MODEL.DETR.MASK_HEAD.CHECKPOINTING": checkpointing,
                "MODEL.DETR.FREEZE_DETECTOR": freeze,
                "MODEL.DETR.DROPOUT": 0.0,
            }
        )
        losses.append(model(make_batch((64, 96), (50, 70))))
        sum(losses[-1].values()).backward()
        gradients.append({k: p.grad for k, p in model.named_parameters() if p.grad is not None})
    for other_losses, other in zip(losses[1:], gradients[1:], strict=True):
        torch.testing.assert_close(other_losses, losses[0], rtol=1e-5, atol=1e-6)
        assert other.keys() == gradients[0].keys()
        for name, gradient in gradients[0].items():
            difference = (other[name] - gradient).norm()
            assert difference <= 1e-4 * max(gradient.norm(), 1e-2), name
