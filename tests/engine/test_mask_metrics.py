"""Metrics of masks and attention; a training is the same with and without them."""

import itertools
import json
import math

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from detr_d2.data.loader import build_train_loader
from detr_d2.engine import train, trainer
from detr_d2.engine import training_hooks as hooks
from detr_d2.engine.mask_metrics import (
    MaskRecorder,
    attention_entropies,
    mask_ious,
    mask_similarities,
)
from detr_d2.engine.training_stages import final_weights
from detr_d2.modeling import MaskHead
from detr_d2.modeling.mask_head_base import ExplainedModules

HEADS = 4
METRICS = {"metrics/mask_iou", "metrics/mask_similarity", "metrics/empty_masks"}
ENTROPIES = {f"attention_entropy/head_{m}" for m in range(HEADS)}
SHARES = {f"attention_share/head_{m}" for m in range(HEADS)}


def logits_of(*rows: str) -> torch.Tensor:
    """Makes 1×H×W logits; each letter is 4×4 pixels, and an x is above 0."""
    masks = torch.tensor([[[letter == "x" for letter in row] for row in rows]])
    return (masks.float() * 60 - 30).repeat_interleave(4, 1).repeat_interleave(4, 2)


# --- attention ---


def entropy_of(weights: list[float], num_points: int) -> float:
    (entropy,) = attention_entropies(
        torch.tensor(weights).view(1, 1, 2, -1), torch.tensor([float(num_points)])
    )[0].tolist()
    return entropy


@pytest.mark.parametrize("total", [1.0, 0.01, 1e-30])
def test_uniform_attention_has_entropy_one_and_a_point_has_none(total):
    """The head's share of the joint attention makes no difference."""
    assert entropy_of([total / 8] * 8, 8) == pytest.approx(1, abs=1e-6)
    assert entropy_of([0, 0, total, 0, 0, 0, 0, 0], 8) == 0


def test_padding_is_not_missed_by_uniform_attention():
    assert entropy_of([0.25, 0.25, 0, 0.25, 0.25, 0], 4) == pytest.approx(1, abs=1e-6)


def test_no_attention_at_all_and_a_grid_of_one_point_are_finite():
    assert entropy_of([0.0] * 8, 8) == 0
    one = attention_entropies(torch.ones(1, 1, 1, 1), torch.ones(1))
    assert one.tolist() == [[0]]


@given(st.integers(1, 32))
@settings(deadline=None, database=None)
def test_entropy_of_even_attention_is_that_of_its_points(count):
    weights = [1 / count] * count + [0.0] * (32 - count)
    assert entropy_of(weights, 32) == pytest.approx(math.log(count) / math.log(32), abs=1e-5)


# --- masks ---


def test_ious():
    predicted = torch.cat([logits_of("xx", ".."), logits_of("..", ".."), logits_of("..", "..")])
    target = torch.cat([logits_of("x.", "x."), logits_of("x.", ".."), logits_of("..", "..")]) > 0
    assert mask_ious(predicted, target).tolist() == [pytest.approx(1 / 3), 0, 1]


@pytest.mark.parametrize("shift", [0, -5, -200])
def test_masks_that_are_all_alike_show(shift):
    """Even masks that are close to 0 everywhere."""
    one = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(0)) + shift
    similarities = mask_similarities(one.repeat(3, 1, 1), torch.zeros(3))
    assert similarities.tolist() == pytest.approx([1, 1, 1], abs=1e-5)


def test_masks_that_share_no_pixel_are_not_alike():
    masks = torch.cat([logits_of("x.", ".."), logits_of(".x", "xx")])
    assert mask_similarities(masks, torch.zeros(2)).tolist() == pytest.approx([0], abs=1e-5)


def test_only_masks_of_one_image_are_compared():
    masks = torch.cat([logits_of("x."), logits_of(".x"), logits_of("x."), logits_of("x.")])
    image_index = torch.tensor([0, 0, 1, 1])
    assert mask_similarities(masks, image_index).tolist() == pytest.approx([0, 1], abs=1e-5)
    assert mask_similarities(masks, torch.arange(4)).tolist() == []
    assert mask_similarities(masks[:0], torch.arange(0)).tolist() == []


# --- a model ---


@pytest.fixture
def make_model(make_fast_cfg, tmp_path):
    """Makes a model in training mode and a batch with one padded image."""

    def make(*overrides: object):
        sizes = ("INPUT.MIN_SIZE_TRAIN", [64, 128], "INPUT.CROP_PROB", 0.0)
        cfg = make_fast_cfg(tmp_path, "SOLVER.STAGES", ["joint"], *sizes, *overrides)
        for batch in itertools.islice(build_train_loader(cfg, 0), 20):
            heights = [x["image"].shape[-2] for x in batch]
            if max(heights) - min(heights) > 32:
                torch.manual_seed(0)
                return build_model(cfg).train(), batch
        pytest.fail("no batch is padded")

    return make


def recorded(model: nn.Module, *batches: list[dict]) -> dict[str, float]:
    """Returns what is written to the storage after some batches. The model is not changed."""
    recorder = MaskRecorder(model)
    for batch in batches:
        model(batch)
    recorder.close()
    with EventStorage() as storage:
        recorder.put(storage)
    assert model.criterion.mask_observer is None
    assert not any(module._forward_hooks for module in model.modules())
    return {name: value for name, (value, _) in storage.latest().items()}


@pytest.mark.parametrize("softmax", ["joint", "per_head"])
def test_attention_of_heads_that_see_nothing_is_uniform(make_model, softmax):
    model, batch = make_model("MODEL.DETR.MASK_HEAD.ATTENTION_SOFTMAX", softmax)
    nn.init.zeros_(model.mask_head.attention_map.q_proj.weight)
    figures = recorded(model, batch)
    assert all(figures[name] == pytest.approx(1, abs=1e-5) for name in ENTROPIES)
    if softmax == "joint":
        assert all(figures[name] == pytest.approx(1 / HEADS, abs=1e-5) for name in SHARES)
    else:
        assert not SHARES & figures.keys()


class OnePointUnlessMatched(nn.Module):
    """Half of the heads attend to all points for matched queries, and to one point for others."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        head.register_forward_pre_hook(self.see_matches, with_kwargs=True)

    def see_matches(self, head: nn.Module, args: tuple, inputs: dict) -> None:
        self.matched = inputs["image_index"], inputs["query_index"]

    def forward(self, queries, memory, padding_mask):
        attention = torch.zeros(*queries.shape[:2], HEADS, *memory.shape[-2:])
        attention[..., 0, 0] = 1
        image_index, query_index = self.matched
        attention[image_index, query_index, : HEADS // 2] = 1
        return attention.masked_fill(padding_mask[:, None, None], 0)


def test_matched_queries_count_and_no_others(make_model):
    model, batch = make_model("MODEL.DETR.NUM_QUERIES", 40)
    model.mask_head.attention_map = OnePointUnlessMatched(model.mask_head)
    figures = recorded(model, batch)
    entropies = [figures[name] for name in sorted(ENTROPIES)]
    assert entropies == pytest.approx([1, 1, 0, 0], abs=1e-6)


def test_masks_that_are_all_empty_show(make_model):
    model, batch = make_model()
    nn.init.zeros_(model.mask_head.output_conv.weight)
    nn.init.constant_(model.mask_head.output_conv.bias, -9)
    figures = recorded(model, batch)
    assert figures["metrics/empty_masks"] == 1 and figures["metrics/mask_iou"] == 0
    assert figures["metrics/mask_similarity"] == pytest.approx(1, abs=1e-5)


def test_parts_of_a_batch_are_put_together(make_model):
    """Each query has the same weight."""
    model, (one, other) = make_model()
    one["instances"] = one["instances"][:2]
    first, second = recorded(model, [one]), recorded(model, [other])
    both = recorded(model, [one], [other])
    counts = [len(one["instances"]), len(other["instances"])]
    assert counts[0] != counts[1] and first["metrics/mask_iou"] != second["metrics/mask_iou"]
    for name in ("metrics/mask_iou", "attention_entropy/head_1"):
        total = counts[0] * first[name] + counts[1] * second[name]
        assert both[name] == pytest.approx(total / sum(counts), rel=1e-5)


def test_an_image_without_targets_has_no_figures(make_model):
    model, batch = make_model()
    batch[0]["instances"] = batch[0]["instances"][:0]
    assert recorded(model, batch[:1]) == {}


class Constant(nn.Module):
    """Replaces a module's output by a constant."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, *args: object, **kwargs: object) -> torch.Tensor:
        return self.value


class OtherHead(MaskHead):
    """Makes constant masks, and has a module that gives a constant."""

    def __init__(self, constant: torch.Tensor) -> None:
        super().__init__()
        self.attention_map = Constant(constant)

    def forward(self, *, laterals, image_index, **rest):
        self.attention_map()
        return torch.ones(len(image_index), *laterals[-1].shape[-2:])


def test_other_heads_tell_of_their_masks_alone(make_model):
    """Whatever their modules are called, and whatever these give."""
    model, batch = make_model()
    model.mask_head = OtherHead(torch.ones(3, 2))
    assert recorded(model, batch).keys() == METRICS


def test_other_heads_tell_of_the_attention_that_they_name(make_model):
    class NamingHead(OtherHead):
        def explained_modules(self) -> ExplainedModules:
            return ExplainedModules("attention_map")

    model, batch = make_model()
    num_queries = model.detector.query_embed.num_embeddings
    # Two heads, whose maps sum to one together.
    model.mask_head = NamingHead(torch.full((len(batch), num_queries, 2, 1, 4), 1 / 8))
    figures = recorded(model, batch)
    attention = {f"attention_{kind}/head_{m}" for kind in ("entropy", "share") for m in (0, 1)}
    assert figures.keys() == METRICS | attention
    assert figures["attention_share/head_1"] == pytest.approx(0.5)


# --- a training ---


@pytest.fixture
def make_joint_cfg(make_fast_cfg, monkeypatch):
    """Makes configs of five steps with dropout; the second, fourth and last step are logged."""
    monkeypatch.setattr(trainer, "LOG_PERIOD", 2)
    settings = (
        *("SOLVER.STAGES", ["joint"], "SOLVER.MAX_ITER", 5, "MODEL.DETR.DROPOUT", 0.1),
        *("MODEL.DETR.MASK_HEAD.CHECKPOINTING", True, "SOLVER.ACCUMULATION_STEPS", 2),
    )
    return lambda folder: make_fast_cfg(folder, *settings)


def test_a_training_ends_bit_for_bit_where_it_ends_without(make_joint_cfg, tmp_path, monkeypatch):
    models = []
    for name in ("with", "without"):
        cfg = make_joint_cfg(tmp_path / name)
        train(cfg)
        models.append(torch.load(final_weights(cfg, "joint"), weights_only=True)["model"])
        lines = (tmp_path / name / "joint" / "metrics.json").read_text().splitlines()
        assert all(("metrics/mask_iou" in json.loads(line)) == (name == "with") for line in lines)
        monkeypatch.setattr(hooks, "MaskRecorder", pytest.fail)
        monkeypatch.setattr(hooks.MaskMetrics, "before_step", lambda self: None)
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])


def test_only_steps_that_are_logged_are_recorded(make_joint_cfg, tmp_path, monkeypatch):
    """In these steps every call of the model is recorded; other steps cost nothing."""
    seen = []
    run_step = trainer.Trainer.run_step

    def step(self):
        seen.append((self.iter, self.model.criterion.mask_observer is not None))
        run_step(self)

    monkeypatch.setattr(trainer.Trainer, "run_step", step)
    train(make_joint_cfg(tmp_path))
    assert seen == [(0, False), (1, True), (2, False), (3, True), (4, True)]
    lines = [json.loads(line) for line in (tmp_path / "joint" / "metrics.json").open()]
    assert [line["iteration"] for line in lines if "metrics/mask_iou" in line] == [1, 3, 4]


def test_a_step_that_fails_leaves_the_model_as_it_was(make_joint_cfg, tmp_path, monkeypatch):
    models = []
    run_step = trainer.Trainer.run_step

    def step(self):
        models.append(self.model)
        run_step(self)
        if self.iter == 1:
            assert self.model.criterion.mask_observer is not None
            raise AssertionError("mistake")

    monkeypatch.setattr(trainer.Trainer, "run_step", step)
    with pytest.raises(AssertionError, match="mistake"):
        train(make_joint_cfg(tmp_path))
    assert models[-1].criterion.mask_observer is None and not models[-1].mask_head._forward_hooks


def test_runs_leave_the_figures(finished_run):
    """Only the mask stage has metrics of masks."""
    for stage, wanted in (("boxes", set()), ("masks", METRICS | ENTROPIES)):
        lines = (finished_run.folder / stage / "metrics.json").read_text().splitlines()
        figures = {name: value for line in lines for name, value in json.loads(line).items()}
        names = {n for n in figures if n in METRICS or n.startswith("attention_")}
        assert names - SHARES == wanted
        assert all(0 <= figures[name] <= 1 for name in names)
