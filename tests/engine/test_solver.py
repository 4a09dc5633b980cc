"""The optimizer: groups of parameters, and clipping."""

import copy

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from torch import nn

from detr_d2.engine.solver import build_optimizer

NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
SGD = ("SOLVER.OPTIMIZER", "SGD", "SOLVER.MOMENTUM", 0.0, "SOLVER.BASE_LR", 1.0)


@pytest.fixture(scope="module")
def model(make_tiny_cfg, tmp_path_factory) -> nn.Module:
    return build_model(make_tiny_cfg(tmp_path_factory.mktemp("solver")))


def settings(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, dict]:
    """The parameter group of each optimized parameter, by the parameter's name."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {names[p]: group for group in optimizer.param_groups for p in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in optimizer.param_groups)
    return found


def parameters_of_norms(model: nn.Module) -> set[str]:
    return {
        f"{name}.{parameter}"
        for name, module in model.named_modules()
        if isinstance(module, NORMS)
        for parameter, _ in module.named_parameters(recurse=False)
    }


@pytest.mark.parametrize("optimizer", ["ADAMW", "SGD"])
def test_learning_rates_and_weight_decay(model, tiny_cfg, optimizer):
    solver = tiny_cfg.SOLVER
    solver.OPTIMIZER, solver.BASE_LR, solver.BACKBONE_MULTIPLIER = optimizer, 2e-3, 0.25
    solver.WEIGHT_DECAY, solver.WEIGHT_DECAY_NORM = 3e-4, 7e-5
    found = settings(build_optimizer(tiny_cfg, model), model)
    assert found.keys() == {name for name, _ in model.named_parameters()}
    norms = parameters_of_norms(model)
    assert len(norms) > 100 and any("mask_head" in name for name in norms)
    for name, group in found.items():
        in_backbone = name.startswith("detector.backbone.")
        assert group["lr"] == (5e-4 if in_backbone else 2e-3), name
        assert group["weight_decay"] == (7e-5 if name in norms else 3e-4), name


def test_the_reference_decays_norms_as_all_else(model, tiny_cfg):
    groups = settings(build_optimizer(tiny_cfg, model), model).values()
    assert {group["weight_decay"] for group in groups} == {1e-4}
    assert {group["lr"] for group in groups} == {tiny_cfg.SOLVER.BASE_LR}


def test_the_kind_of_optimizer(model, tiny_cfg):
    assert isinstance(build_optimizer(tiny_cfg, model), torch.optim.AdamW)
    tiny_cfg.SOLVER.OPTIMIZER, tiny_cfg.SOLVER.MOMENTUM = "SGD", 0.8
    optimizer = build_optimizer(tiny_cfg, model)
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["momentum"] for group in optimizer.param_groups} == {0.8}


def test_frozen_parameters_are_left_out(tiny_cfg):
    tiny_cfg.MODEL.DETR.FREEZE_DETECTOR = True
    frozen = build_model(tiny_cfg)
    names = settings(build_optimizer(tiny_cfg, frozen), frozen).keys()
    assert names == {n for n, _ in frozen.named_parameters() if n.startswith("mask_head.")}

    tiny_cfg.MODEL.DETR.FREEZE_DETECTOR = False
    tiny_cfg.MODEL.BACKBONE.FREEZE_AT = 2
    partly = build_model(tiny_cfg)
    names = settings(build_optimizer(tiny_cfg, partly), partly).keys()
    assert not any(".stem." in name or ".res2." in name for name in names)
    assert any(".res3." in name for name in names)


def small_model_with_gradients(scale: float) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3))
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn_like(parameter)
    return model


def updates(cfg, model: nn.Module) -> list[torch.Tensor]:
    """Returns what one step subtracts from each parameter."""
    before = copy.deepcopy(list(model.parameters()))
    build_optimizer(cfg, model).step()
    return [
        old.detach() - new.detach() for old, new in zip(before, model.parameters(), strict=True)
    ]


@pytest.fixture
def sgd_cfg(make_tiny_cfg, tmp_path):
    """A config of SGD whose step subtracts the gradient itself."""
    decay = ("SOLVER.WEIGHT_DECAY", 0.0, "SOLVER.WEIGHT_DECAY_NORM", 0.0)
    return make_tiny_cfg(tmp_path, *SGD, *decay)


@pytest.mark.parametrize("scale", [0.001, 1.0, 100.0])
@pytest.mark.parametrize("norm_type", [1.0, 2.0])
def test_gradients_are_clipped_over_the_whole_model(sgd_cfg, scale, norm_type):
    clip = sgd_cfg.SOLVER.CLIP_GRADIENTS
    assert clip.ENABLED and clip.CLIP_TYPE == "full_model"
    clip.CLIP_VALUE, clip.NORM_TYPE = 0.1, norm_type
    expected = small_model_with_gradients(scale)
    nn.utils.clip_grad_norm_(expected.parameters(), 0.1, norm_type)
    steps = updates(sgd_cfg, small_model_with_gradients(scale))
    for step, parameter in zip(steps, expected.parameters(), strict=True):
        torch.testing.assert_close(step, parameter.grad, rtol=1e-4, atol=1e-7)
    total = torch.cat([step.flatten() for step in steps]).norm(norm_type)
    assert total <= 0.1 * (1 + 1e-5)


def test_adamw_is_clipped_too(sgd_cfg):
    """All steps of AdamW except the first depend on the size of gradients."""
    sgd_cfg.SOLVER.OPTIMIZER, sgd_cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = "ADAMW", 0.1
    model, expected = small_model_with_gradients(10), small_model_with_gradients(10)
    build_optimizer(sgd_cfg, model).step()
    nn.utils.clip_grad_norm_(expected.parameters(), 0.1)
    torch.optim.AdamW(expected.parameters(), lr=1.0, weight_decay=0).step()
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("optimizer", ["ADAMW", "SGD"])
def test_under_mixed_precision_the_true_gradients_are_clipped(sgd_cfg, optimizer):
    """Clipping comes after unscaling; the scaler makes gradients 1024 times larger."""
    sgd_cfg.SOLVER.OPTIMIZER, sgd_cfg.SOLVER.AMP.ENABLED = optimizer, True
    scaled, plain = small_model_with_gradients(0.01), small_model_with_gradients(0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    products = [(p * p.grad).sum() for p in scaled.parameters()]
    scaled.zero_grad()
    scaler.scale(sum(products)).backward()
    scaler.step(build_optimizer(sgd_cfg, scaled))
    build_optimizer(sgd_cfg, plain).step()
    for ours, theirs in zip(scaled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_detectron2s_own_kinds_of_clipping_work(sgd_cfg):
    clip = sgd_cfg.SOLVER.CLIP_GRADIENTS
    clip.CLIP_VALUE = 0.5
    gradients = [p.grad for p in small_model_with_gradients(1.0).parameters()]
    clip.CLIP_TYPE = "value"
    for step, gradient in zip(
        updates(sgd_cfg, small_model_with_gradients(1.0)), gradients, strict=True
    ):
        torch.testing.assert_close(step, gradient.clamp(-0.5, 0.5))
    clip.CLIP_TYPE = "norm"
    for step, gradient in zip(
        updates(sgd_cfg, small_model_with_gradients(1.0)), gradients, strict=True
    ):
        torch.testing.assert_close(
            step, gradient * min(1.0, 0.5 / gradient.norm().item()), rtol=1e-4, atol=1e-6
        )


def test_clipping_can_be_turned_off(sgd_cfg):
    sgd_cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    gradients = [p.grad for p in small_model_with_gradients(1.0).parameters()]
    for step, gradient in zip(
        updates(sgd_cfg, small_model_with_gradients(1.0)), gradients, strict=True
    ):
        torch.testing.assert_close(step, gradient)


def test_schedules_and_saved_states_live_with_the_clipping_class(sgd_cfg):
    model = small_model_with_gradients(1.0)
    optimizer = build_optimizer(sgd_cfg, model)
    scheduler = build_lr_scheduler(sgd_cfg, optimizer)
    rates = []
    for _ in range(sgd_cfg.SOLVER.MAX_ITER):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] < rates[1] and rates[-1] < max(rates)  # There is a warm-up, then a decay.
    again = build_optimizer(sgd_cfg, model)
    again.load_state_dict(optimizer.state_dict())
    assert again.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


@pytest.fixture
def timm_model(make_tiny_cfg, tmp_path):
    """A model with a vision transformer of timm, and its config."""
    pytest.importorskip("timm")
    cfg = make_tiny_cfg(
        tmp_path,
        *("MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", "test_vit"),
        *("MODEL.PIXEL_MEAN", [], "MODEL.PIXEL_STD", [], "MODEL.BACKBONE.FREEZE_AT", 0),
        *("SOLVER.BACKBONE_LAYER_DECAY", 0.5, "SOLVER.BACKBONE_MULTIPLIER", 0.25),
        *("SOLVER.BASE_LR", 2e-3, "SOLVER.WEIGHT_DECAY", 3e-4),
    )
    return build_model(cfg), cfg


def test_layers_of_a_backbone_of_timm_decay_towards_the_image(timm_model):
    model, cfg = timm_model
    found = settings(build_optimizer(cfg, model), model)
    rates = {name: group["lr"] / (0.25 * 2e-3) for name, group in found.items()}
    prefix = "detector.backbone."
    blocks = [rates[f"{prefix}model.blocks.{i}.mlp.fc1.weight"] for i in range(6)]
    assert blocks[:2] == [2 * rates[f"{prefix}model.patch_embed.proj.weight"], 2 * blocks[0]]
    assert blocks == pytest.approx([blocks[0] * 2**i for i in range(6)])
    assert blocks[-1] <= rates[f"{prefix}model.norm.weight"] <= 1
    behind = [rate for name, rate in rates.items() if name.startswith(f"{prefix}pyramid.")]
    assert set(behind) == {1.0}
    others = {group["lr"] for name, group in found.items() if not name.startswith(prefix)}
    assert others == {2e-3}


def test_position_embeddings_of_timm_have_no_weight_decay(timm_model):
    model, cfg = timm_model
    found = settings(build_optimizer(cfg, model), model)
    without = {name for name, group in found.items() if group["weight_decay"] == 0}
    assert {name.rpartition(".")[2] for name in without} >= {"pos_embed"}
    assert all(name.startswith("detector.backbone.model.") for name in without)
    assert found["detector.backbone.model.blocks.0.mlp.fc1.weight"]["weight_decay"] == 3e-4


def test_layers_are_decayed_where_a_backbone_tells_them(model, tiny_cfg):
    tiny_cfg.SOLVER.BACKBONE_LAYER_DECAY = 0.8
    with pytest.raises(ValueError, match="BACKBONE_LAYER_DECAY is 0.8, but must be 1"):
        build_optimizer(tiny_cfg, model)
