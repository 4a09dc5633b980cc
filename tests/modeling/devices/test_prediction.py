"""Prediction on a pretended GPU: queries chosen, masks made and merged, results on the GPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from detr_d2.modeling import merging, upsampling
from detr_d2.modeling.inference import QuerySelection
from detr_d2.modeling.inference_options import PanopticOptions
from detr_d2.modeling.merging import merge_panoptic
from detr_d2.modeling.upsampling import ImageSizes

SHALLOW = {
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.DETR.ENC_LAYERS": 1,
    "MODEL.DETR.TEST.SCORE_THRESH": 0.2,
    "MODEL.DETR.TEST.RAW_ON": True,
}
IMAGES = [(64, 96), (75, 70)]  # both padded, with grids of odd sides
OUTPUT = {"height": 50, "width": 61}
IS_THING = torch.tensor([True, False, True, False, True, False])
SIZES = ImageSizes(padded=(40, 48), network=(37, 48), output=(30, 41))


@pytest.fixture
def make_model(tiny_model, batch):
    """Makes the same model each time, of things and stuff, whose queries are of many classes."""

    @torch.no_grad()
    def make(overrides: dict | None = None):
        model = tiny_model({**SHALLOW, **(overrides or {})}).eval()
        model.is_thing = IS_THING
        head = model.detector.class_head
        torch.nn.init.normal_(model.detector.query_embed.weight, std=3)
        torch.nn.init.normal_(head.weight)
        # Without what queries have in common, they are of different classes.
        head.bias -= head(model.detector(model.preprocess(batch)).hidden[-1]).mean((0, 1))
        head.bias[-1] -= 30  # "no object"
        if hasattr(model.mask_head, "pixel_embedding"):
            # Likewise their masks differ, and places decide, so that none covers the image.
            embed = model.mask_head.query_embedding
            hidden = model.detector(model.preprocess(batch)).hidden[-1]
            embed.layers[-1].bias -= embed(hidden).mean((0, 1))
            model.mask_head.pixel_embedding.output_conv.weight[:, -2:] *= 20
        return model

    return make


@pytest.fixture
def batch(make_batch):
    first, second = make_batch(*IMAGES)
    return [{"image": first["image"], **OUTPUT}, {"image": second["image"]}]


@pytest.mark.parametrize("stuff_merging", ["reference", "merged"])
@pytest.mark.parametrize("head", ["AttentionMaskHead", "PixelEmbeddingMaskHead"])
def test_results_are_on_the_gpu_and_as_on_a_cpu(
    make_model, batch, pretended_gpu, head, stuff_merging
):
    overrides = {
        "MODEL.DETR.MASK_HEAD.NAME": head,
        "MODEL.DETR.TEST.STUFF_MERGING": stuff_merging,
    }
    expected = make_model(overrides)(batch)
    results = make_model(overrides).to("cuda")(batch)
    for result, wanted in zip(results, expected, strict=True):
        ids, segments = result["panoptic_seg"]
        assert ids.device.type == "cuda"
        np.testing.assert_array_equal(ids.cpu(), wanted["panoptic_seg"][0])
        classes = [segment["category_id"] for segment in segments]
        assert classes == [segment["category_id"] for segment in wanted["panoptic_seg"][1]]
        if head == "AttentionMaskHead":
            assert len(IS_THING[classes].unique()) == 2
        assert len(set(classes)) > 1
        fields = result["instances"].get_fields()
        assert {fields[name].device.type for name in fields} == {"cuda"}
        assert len(result["instances"]) == len(wanted["instances"]) > 0
        assert result["instances"].to("cpu").pred_masks.equal(wanted["instances"].pred_masks)
        again, _ = result["raw"].panoptic(PanopticOptions(0.0, "merged", 9))
        assert again.device.type == "cuda"


def test_prediction_in_bfloat16_and_one_by_one(make_model, batch, pretended_gpu):
    overrides = {"MODEL.DETR.TEST.PRECISION": "bfloat16", "MODEL.DETR.BATCH_INVARIANT": True}
    results = make_model(overrides).to("cuda")(batch)
    assert {result["panoptic_seg"][0].device.type for result in results} == {"cuda"}


def test_nothing_is_kept_of_an_image_without_objects(make_model, batch, pretended_gpu):
    model = make_model({"MODEL.DETR.TEST.INSTANCE_SCORE_THRESH": 1.0}).to("cuda")
    none = replace(model.options.panoptic, score_thresh=1.0)
    model.options = replace(model.options, panoptic=none, instance_score_thresh=1.0)
    # By itself the image has grids of even sides: what PyTorch's fakes have for nearest upsampling,
    # which odd ones need, knows no empty batches. The kernels of CPU and GPU do.
    ids, segments = model(batch[:1])[0]["panoptic_seg"]
    assert ids.device.type == "cuda" and not ids.any() and not segments


def masks_in_rounds() -> tuple[QuerySelection, torch.Tensor]:
    """Queries of which one is small and one repeats a stuff class, so that rounds follow."""
    generator = torch.Generator().manual_seed(0)
    mask_logits = torch.randn(5, 10, 12, generator=generator)
    mask_logits[1] -= 9
    mask_logits[1, :1, :1] += 12
    selection = QuerySelection(
        query_index=torch.arange(5),
        classes=torch.tensor([0, 2, 1, 1, 4]),
        scores=torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]),
    )
    return selection, mask_logits


def merge(device: str, stuff_merging: str, rounds: list | None = None):
    selection, mask_logits = masks_in_rounds()
    return merge_panoptic(
        QuerySelection(*(x.to(device) for x in vars(selection).values())),
        mask_logits.to(device),
        IS_THING.to(device),
        SIZES,
        PanopticOptions(0.0, stuff_merging, 20),
        on_round=None if rounds is None else rounds.append,
    )


@pytest.mark.parametrize("stuff_merging", ["reference", "merged"])
def test_merging_in_several_rounds(pretended_gpu, stuff_merging):
    expected, expected_segments = merge("cpu", stuff_merging)
    rounds = []
    ids, segments = merge("cuda", stuff_merging, rounds)
    assert len(rounds) > 1 and ids.device.type == "cuda"
    assert ids.cpu().equal(expected) and segments == expected_segments


def _stay(rows: upsampling._Rows, device: torch.device) -> upsampling._Rows:
    return rows


def test_rows_that_stay_on_the_cpu_are_found(pretended_gpu, monkeypatch):
    monkeypatch.setattr(upsampling._Rows, "to", _stay)
    with pytest.raises(RuntimeError, match="same device"):
        merge("cuda", "merged")


class _PlaceOnTheCpu:
    """``torch`` for a module that forgets where to put the tensors it makes of lists."""

    def __getattr__(self, name: str):
        return getattr(torch, name)

    def tensor(self, values: list, *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype)


def test_a_table_of_ids_on_the_cpu_is_found(pretended_gpu, monkeypatch):
    monkeypatch.setattr(merging, "torch", _PlaceOnTheCpu())
    with pytest.raises(RuntimeError, match="same device"):
        merge("cuda", "merged")


def test_a_table_of_classes_on_the_cpu_is_found(make_model, batch, pretended_gpu):
    model = make_model().to("cuda")
    model.is_thing = model.is_thing.cpu()
    with pytest.raises(RuntimeError, match="indices should be on the same device"):
        model(batch)


def test_a_buffer_that_is_left_behind_is_found(make_model, batch, pretended_gpu):
    model = make_model().to("cuda")
    model.pixel_std = model.pixel_std.cpu()
    with pytest.raises(RuntimeError, match="on the same device, but found"):
        model.preprocess(batch)


def test_numbers_need_a_way_back_from_the_gpu(pretended_gpu):
    scores = torch.rand(3).to("cuda")
    with pytest.raises(RuntimeError, match="numpy"):
        scores.numpy()
    assert scores.cpu().numpy().tolist() == scores.tolist()
    assert scores.sum().item() == pytest.approx(sum(scores.tolist()))
