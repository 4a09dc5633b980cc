"""Weights of timm's models: by name, from files in the names of two libraries, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from detr_d2.checkpoint import CheckpointError, read_checkpoint
from detr_d2.engine import train
from detr_d2.engine.checkpointer import StrictCheckpointer
from detr_d2.engine.training_stages import evaluation_config
from detr_d2.modeling import DETR

timm = pytest.importorskip("timm")

SCRATCH = ("MODEL.PIXEL_MEAN", [], "MODEL.PIXEL_STD", [], "MODEL.TIMM.PYRAMID_WIDTH", 32)
KINDS = ("test_resnet", "test_efficientnet", "test_convnext", "test_vit")


@pytest.fixture
def make_timm_cfg(make_tiny_cfg, tmp_path):
    def make(name: str, *overrides: object):
        backbone = ("MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", name)
        return make_tiny_cfg(tmp_path / "output", *backbone, *SCRATCH, *overrides)

    return make


@pytest.fixture
def make_timm_model(make_timm_cfg) -> Callable[..., DETR]:
    def make(name: str, *overrides: object, seed: int = 0) -> DETR:
        torch.manual_seed(seed)
        return build_model(make_timm_cfg(name, *overrides))

    return make


def whole_model(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return timm.create_model(name).state_dict()


def backbone_of(model: DETR) -> dict[str, torch.Tensor]:
    """The model's backbone in timm's names."""
    state = model.detector.backbone.state_dict()
    return {key: state[own] for key, own in model.detector.backbone.names_in_timm.items()}


def check_loaded(model: DETR, theirs: dict[str, torch.Tensor]) -> None:
    ours = backbone_of(model)
    assert len(ours) > 10
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("wrapped", ["", "module."])
def test_a_file_in_timms_names_loads(make_timm_model, tmp_path, name, wrapped):
    theirs = whole_model(name)
    path = str(tmp_path / "weights.pth")
    torch.save({f"{wrapped}{key}": tensor for key, tensor in theirs.items()}, path)
    for address in (path, f"timm://{path}"):
        model = make_timm_model(name)
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        StrictCheckpointer(model, to_train=True).load(address)
        check_loaded(model, theirs)
        rest = [key for key in before if not key.startswith("detector.backbone.model.")]
        assert any(".pyramid." in key for key in rest) == (name == "test_vit")
        assert all(torch.equal(before[key], model.state_dict()[key]) for key in rest)


def test_detectron2s_own_loader_takes_it_too(make_timm_model, tmp_path):
    theirs = whole_model("test_resnet")
    torch.save({"model": theirs}, tmp_path / "weights.pth")
    model = make_timm_model("test_resnet").train()
    DetectionCheckpointer(model).load(str(tmp_path / "weights.pth"))
    check_loaded(model, theirs)


@pytest.mark.parametrize("name", ["test_resnet", "test_resnet.r160_in1k"])
def test_weights_by_name_are_timms(make_timm_model, monkeypatch, name):
    theirs, asked = whole_model("test_resnet"), []

    def create_model(model_name, pretrained=False, **options):
        asked.append((model_name, pretrained))
        model = create(model_name, **options)
        if pretrained:
            model.load_state_dict(theirs)
        return model

    create = timm.create_model
    model = make_timm_model("test_resnet")
    monkeypatch.setattr(timm, "create_model", create_model)
    torch.manual_seed(3)
    StrictCheckpointer(model, to_train=True).load(f"timm://{name}")
    drawn = torch.rand(1)
    assert asked == [(name, True)]
    check_loaded(model, theirs)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))  # loading draws no numbers


def test_without_a_network_it_is_one_line(make_timm_model, monkeypatch):
    def no_network(*_args, **_options):
        raise OSError("We couldn't connect\nto the hub.")

    model = make_timm_model("test_resnet")
    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(CheckpointError) as caught:
        StrictCheckpointer(model, to_train=True).load("timm://test_resnet.r160_in1k")
    assert str(caught.value) == (
        "timm://test_resnet.r160_in1k could not be downloaded: We couldn't connect to the hub. "
        "Where there is no network, give the path of a file that was downloaded elsewhere."
    )


def efficientnet_pytorch_names(theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict as efficientnet-pytorch has it: the same tensors in the same order."""
    names = {"conv_stem.weight": "_conv_stem.weight", "classifier.bias": "_fc.bias"}
    return {names.get(key, f"_part_{i}"): tensor for i, (key, tensor) in enumerate(theirs.items())}


def test_a_file_of_efficientnet_pytorch_loads(make_timm_model, tmp_path):
    theirs = whole_model("tf_efficientnet_lite0")
    without = {key: x for key, x in theirs.items() if not key.endswith("num_batches_tracked")}
    path = str(tmp_path / "efficientnet-lite0.pth")
    torch.save(efficientnet_pytorch_names(without), path)
    model = make_timm_model("tf_efficientnet_lite0")
    StrictCheckpointer(model, to_train=True).load(path)
    check_loaded(model, {**theirs, **without})

    torch.save(dict(list(efficientnet_pytorch_names(without).items())[:-3]), path)
    with pytest.raises(CheckpointError, match="an EfficientNet of another size"):
        StrictCheckpointer(model, to_train=True).load(path)


@pytest.mark.parametrize(
    ("name", "theirs", "message"),
    [
        ("resnet18", "resnet34", "tensors that weights of timm's resnet18 don't have: layer1.2"),
        ("resnet18", "resnet50", "layer1.0.conv3.weight"),
        ("test_resnet", "test_convnext", "no known kind of checkpoint"),
    ],
)
def test_weights_of_another_model_are_refused(make_timm_model, tmp_path, name, theirs, message):
    path = str(tmp_path / "weights.pth")
    torch.save(timm.create_model(theirs).state_dict(), path)
    with pytest.raises(CheckpointError, match=message):
        StrictCheckpointer(make_timm_model(name), to_train=True).load(path)


def test_a_smaller_model_of_the_kind_is_refused(make_timm_model, tmp_path):
    path = str(tmp_path / "weights.pth")
    torch.save(timm.create_model("resnet18").state_dict(), path)
    with pytest.raises(
        CheckpointError, match="missing in the file: detector.backbone.model.layer1"
    ):
        StrictCheckpointer(make_timm_model("resnet34"), to_train=True).load(path)


def test_unknown_names_are_answered_with_similar_ones(make_timm_model):
    with pytest.raises(
        CheckpointError, match="no pretrained weights of this name. Similar.*resnet"
    ):
        StrictCheckpointer(make_timm_model("test_resnet"), to_train=True).load("timm://resnet81")


def test_a_backbone_alone_predicts_nothing(make_timm_model, tmp_path):
    path = str(tmp_path / "weights.pth")
    torch.save(whole_model("test_resnet"), path)
    with pytest.raises(CheckpointError, match="a backbone to train from"):
        StrictCheckpointer(make_timm_model("test_resnet")).load(f"timm://{path}")


def test_timms_weights_are_for_timms_models(make_tiny_cfg, tmp_path):
    model = build_model(make_tiny_cfg(tmp_path))
    with pytest.raises(CheckpointError, match='BACKBONE.NAME "build_timm_backbone"'):
        StrictCheckpointer(model, to_train=True).load("timm://resnet18")


@pytest.mark.parametrize("to_train", [False, True])
def test_checkpoints_refuse_another_backbone_by_name(make_timm_model, tmp_path, to_train):
    StrictCheckpointer(make_timm_model("test_resnet"), str(tmp_path)).save("model")
    path = str(tmp_path / "model.pth")
    assert read_checkpoint(path).settings.backbone == "test_resnet of timm"
    for resize in (False, True):
        other = make_timm_model("test_convnext", "MODEL.DETR.RESIZE_ON_LOAD", resize)
        with pytest.raises(CheckpointError) as caught:
            StrictCheckpointer(other, to_train=to_train).load(path)
        assert (
            "The backbone is 'test_convnext of timm', the file was made with 'test_resnet of timm'"
        ) in str(caught.value)
        other.train(to_train)
        with pytest.raises(CheckpointError, match="in the file, but not in the model"):
            DetectionCheckpointer(other).load(path)


def test_checkpoints_record_the_stride_of_the_last_stage(make_timm_model, tmp_path):
    """No tensor shows it."""
    StrictCheckpointer(make_timm_model("test_resnet"), str(tmp_path)).save("model")
    other = make_timm_model("test_resnet", "MODEL.TIMM.OUTPUT_STRIDE", 16)
    with pytest.raises(CheckpointError, match="OUTPUT_STRIDE is 16, the file was made with 32"):
        StrictCheckpointer(other).load(str(tmp_path / "model.pth"))


def test_a_resnet_is_no_backbone_of_timm(make_timm_model, make_tiny_cfg, tmp_path):
    StrictCheckpointer(build_model(make_tiny_cfg(tmp_path)), str(tmp_path)).save("model")
    with pytest.raises(CheckpointError, match="'test_resnet of timm', the file was made with 'Res"):
        StrictCheckpointer(make_timm_model("test_resnet")).load(str(tmp_path / "model.pth"))


@pytest.mark.parametrize("name", KINDS)
def test_a_run_goes_from_timms_file_to_a_model(make_timm_cfg, tmp_path, name):
    """Both stages; the result is what is evaluated, although MODEL.WEIGHTS names the file."""
    path = tmp_path / "weights.pth"
    theirs = whole_model(name)
    torch.save(theirs, path)
    cfg = make_timm_cfg(
        name,
        *("MODEL.WEIGHTS", f"timm://{path}", "MODEL.BACKBONE.FREEZE_AT", 5),
        *("SOLVER.MAX_ITER", 1, "SOLVER.MASK_STAGE.MAX_ITER", 1),
        *("SOLVER.BACKBONE_LAYER_DECAY", 0.8),
    )
    assert "panoptic_seg" in train(cfg)
    evaluated = evaluation_config(cfg)
    assert Path(evaluated.MODEL.WEIGHTS).parts[-2:] == ("masks", "model_final.pth")
    model = build_model(evaluated)
    StrictCheckpointer(model).load(evaluated.MODEL.WEIGHTS)
    check_loaded(model, theirs)
