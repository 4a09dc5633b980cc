"""Prefixes of wrappers around a model, or around parts of it, before the names of any kind."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detr_d2.checkpoint import CheckpointError, convert_file, from_content, load_checkpoint
from detr_d2.checkpoint.formats import HUGGING_FACE, OWN, REFERENCE, TORCHVISION, to_own_names

# A few names of each kind, of which one is typical.
KINDS = {
    OWN: [
        "detector.backbone.stem.conv1.weight",
        "detector.input_proj.bias",
        "mask_head.input.bias",
    ],
    REFERENCE: [
        "detr.transformer.encoder.layers.0.linear1.weight",
        "detr.input_proj.bias",
        "mask_head.lay1.bias",
    ],
    HUGGING_FACE: [
        "model.encoder.layers.0.self_attn.q_proj.weight",
        "model.input_projection.bias",
        "class_labels_classifier.bias",
    ],
    TORCHVISION: ["layer1.0.conv1.weight", "conv1.weight", "bn1.bias"],
}
FORMATS = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.title)


def tensors(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.full((3, 2), float(i)) for i, name in enumerate(names)}


@FORMATS
@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "model.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.model.",
        "model.module.model._orig_mod.",
        "_forward_module._fsdp_wrapped_module.",
    ],
)
def test_prefixes_before_all_names(kind, prefix):
    plain = to_own_names(tensors(*KINDS[kind]))
    wrapped = to_own_names(tensors(*(prefix + name for name in KINDS[kind])))
    assert wrapped.format is kind
    assert wrapped.weights.keys() == plain.weights.keys()
    assert all(torch.equal(wrapped.weights[k], plain.weights[k]) for k in plain.weights)
    assert wrapped.source == {own: prefix + name for own, name in plain.source.items()}
    assert set(wrapped.taken_off) == {f"{part}." for part in prefix.split(".") if part}
    assert plain.taken_off == ()


@FORMATS
@given(data=st.data())
def test_any_wrappers_around_any_parts(kind, data):
    """Each part of a model may be wrapped, for all of its tensors alike."""
    parts = {tuple(n.split(".")[:i]) for n in KINDS[kind] for i in range(n.count(".") + 1)}
    some = st.lists(st.sampled_from(["module", "_orig_mod"]), max_size=2)
    around = {part: data.draw(some) for part in sorted(parts)}

    def wrap(name: str) -> str:
        path = name.split(".")
        pieces = [[*around[tuple(path[:i])], part] for i, part in enumerate(path)]
        return ".".join(sum(pieces, []))

    plain, wrapped = (to_own_names(tensors(*map(how, KINDS[kind]))).weights for how in (str, wrap))
    assert wrapped.keys() == plain.keys()
    assert all(torch.equal(wrapped[name], plain[name]) for name in plain)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["module.detector.a", "detector.b"], "'module.' .*: module.detector.a has it, detector.b"),
        (["detector._orig_mod.a", "detector.b"], "'_orig_mod.' .*_orig_mod.a has it, detector.b d"),
        (["module.detector.a", "module._orig_mod.detector.b"], "'module._orig_mod.' of a wrapper"),
        (["model.detector.a", "criterion.b"], "'model.' .*: model.detector.a has it, criterion.b"),
        (
            ["model.detector.a", "detector.b"],
            "'model.' .*: model.detector.a has it, detector.b doesn't",
        ),
        (["module.detector.a", "detector.a"], "only some of its names have the prefix 'module.'"),
        (
            ["a.module.detector.a", "module.a.detector.a"],
            "only some of its names have the prefix 'module.'",
        ),
    ],
)
def test_prefixes_of_some_names_alone_are_refused(names, message):
    for given_names in (names, names[::-1]):
        with pytest.raises(CheckpointError, match=message):
            to_own_names(tensors(*given_names))


def test_names_that_would_be_one_are_refused():
    """Of a part that is nothing but its wrapper."""
    names = ["detector.module", "detector"]
    with pytest.raises(CheckpointError, match="detector.module and detector are both detector wi"):
        to_own_names(tensors("detector.a", *names))


@pytest.mark.parametrize("wrap", ["module._orig_mod.{}", "model.{}", "{0}"])
def test_what_was_done_is_reported(tmp_path, wrap):
    content = {"model": tensors(*map(wrap.format, KINDS[OWN]))}
    torch.save(content, tmp_path / "wrapped.pth")
    said = convert_file(str(tmp_path / "wrapped.pth"), tmp_path / "converted.pth").splitlines()
    prefixes = [f"{part}." for part in wrap.split(".")[:-1]]
    done = f", {' and '.join(map(repr, prefixes))} taken off its names" if prefixes else ""
    title = "one of this project (detector and mask head)"
    assert said[0] == f"{tmp_path / 'wrapped.pth'}: {title}{done}"
    assert any(re.search(r"renamed .*detector\.input_proj\.bias", line) for line in said) == bool(
        prefixes
    )
    content = torch.load(tmp_path / "converted.pth", weights_only=True)
    assert list(content["model"]) == KINDS[OWN]
    assert from_content(content, "converted").named.taken_off == ()


@pytest.mark.parametrize("prefix", ["_orig_mod.", "model.module."])
def test_detectron2s_own_loaders_take_them(make_model, assert_holds, prefix):
    model = make_model()
    weights = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    model.load_state_dict({prefix + name: tensor for name, tensor in weights.items()})
    assert_holds(model, weights)


def test_a_model_with_compiled_parts_takes_and_gives_its_own_names(make_model, assert_holds):
    model, compiled = make_model(), make_model()
    compiled.detector = torch.compile(compiled.detector)
    weights = {name: tensor + 1 for name, tensor in compiled.state_dict().items()}
    assert "detector._orig_mod.input_proj.bias" in weights
    compiled.load_state_dict(weights)
    assert_holds(compiled, weights)
    plain = from_content({"model": model.state_dict()}, "plain")
    load_checkpoint(compiled, plain, to_train=False)
    found = {k.replace("._orig_mod", ""): v for k, v in compiled.state_dict().items()}
    assert_holds(model, found)
    model.load_state_dict(weights)
    assert_holds(model, {k.replace("._orig_mod", ""): v for k, v in weights.items()})
