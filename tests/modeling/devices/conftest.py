"""A GPU that is pretended: where each tensor is, is checked as on a real one, without having one.

PyTorch's ``FakeTensorMode`` has tensors without values on any device, and refuses operations that
mix devices. It ends where a shape or a branch depends on values: at ``nonzero``, at ``bincount``
and wherever numbers come back to Python. ``PretendedGPU`` gives its tensors values for that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from packaging.version import Version
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.autograd.graph import Node
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map_only

GPU = torch.device("cuda", 0)
aten = torch.ops.aten
# FakeTensorMode doesn't look at where indices are.
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


class PretendedGPU(FakeTensorMode):
    """``FakeTensorMode`` whose tensors on "cuda" have values, each in a tensor on the CPU.

    Every operation is done twice: on fakes, which says what kind of tensors come out, where they
    are, and whether devices mix; and on their values. Tensors on the CPU are ordinary ones, so
    that what comes back from "cuda" can be turned into NumPy's, and what is on "cuda" can't.

    Attributes:
        waits: the operations so far at which a program waits for a real GPU.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self._inside = False
        self.waits: list[str] = []

    def dispatch(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # Fakes may be made by other operations on fakes, whose values nobody needs.
        if self._inside or func is torch.ops.prim.device.default:
            return super().dispatch(func, types, args, kwargs)
        if not any(map(_is_on_gpu, tree_leaves((args, kwargs)))):
            return func(*args, **kwargs)
        if func in INDEXING and not isinstance(args[0], FakeTensor):
            raise RuntimeError("indices should be on the same device as the tensor (cpu)")
        self._inside = True
        try:
            known, made = True, super().dispatch(func, types, args, kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException):
            known, made = False, None
        finally:
            self._inside = False
        values = func(*values_of(args), **values_of(kwargs))
        comes_back = isinstance(made, FakeTensor) and made.device.type == "cpu"
        if not known or comes_back:
            self.waits.append(str(func))
        if not known:  # a number, or a tensor whose shape the values alone tell
            return tree_map_only(torch.Tensor, self.of_values, values)
        if isinstance(made, (tuple, list)):
            kind = list if isinstance(made, list) else tuple
            return kind(map(_with_values, made, values))
        return _with_values(made, values)

    def of_values(self, values: torch.Tensor) -> FakeTensor:
        """A tensor on "cuda" that has these values."""
        with self:
            self._inside = True
            fake = torch.empty_strided(
                values.shape, values.stride(), dtype=values.dtype, device=GPU
            )
            self._inside = False
        return _with_values(fake, values)


def values_of(tree: object) -> object:
    """The same with values in the place of fakes, and the CPU in that of the GPU."""
    tree = tree_map_only(FakeTensor, lambda fake: fake.values_on_cpu, tree)
    return tree_map_only(torch.device, lambda _: torch.device("cpu"), tree)


def _is_on_gpu(x: object) -> bool:
    return isinstance(x, FakeTensor) or (isinstance(x, torch.device) and x.type == "cuda")


def _with_values(fake: object, values: object) -> object:
    if not isinstance(fake, FakeTensor):
        return fake
    if fake.device.type == "cpu":
        return values
    assert fake.shape == values.shape and fake.dtype == values.dtype
    if not hasattr(fake, "values_on_cpu"):  # else it is one that was written into
        fake.values_on_cpu = values
    return fake


def backward(loss: torch.Tensor) -> None:
    """``loss.backward()``, node by node: PyTorch's engine asks a real GPU for its streams.

    Raises:
        RuntimeError: a gradient isn't where its tensor is.
    """
    waiting = _count_uses(loss.grad_fn)
    gradients: dict[Node, list] = {loss.grad_fn: [torch.ones_like(loss)]}
    ready = [loss.grad_fn]
    with torch.no_grad():
        while ready:
            node = ready.pop()
            run = getattr(node, "apply", node)  # of an autograd.Function: what it says itself
            given = run(*gradients.pop(node))
            given = given if isinstance(given, tuple) else (given,)
            for gradient, (user, slot) in zip(given, node.next_functions, strict=False):
                if user is None:
                    continue
                slots = gradients.setdefault(user, [None] * len(user._input_metadata))
                if gradient is not None:
                    gradient = _fitted(gradient, user._input_metadata[slot])
                    slots[slot] = gradient if slots[slot] is None else slots[slot] + gradient
                waiting[user] -= 1
                if not waiting[user]:
                    ready.append(user)


def _count_uses(root: Node) -> Counter:
    """For each node how many others it waits for."""
    uses: Counter = Counter()
    seen, queue = {root}, [root]
    while queue:
        for user, _ in queue.pop().next_functions:
            if user is not None:
                uses[user] += 1
                if user not in seen:
                    seen.add(user)
                    queue.append(user)
    return uses


def _fitted(gradient: torch.Tensor, wanted) -> torch.Tensor:
    """What the engine does between two nodes: sums over what was broadcast, and looks closely."""
    if gradient.device != wanted.device and gradient.dim():
        raise RuntimeError(f"a gradient is on {gradient.device}, its tensor on {wanted.device}")
    gradient = gradient.to(wanted.device, wanted.dtype)
    shape = torch.Size(wanted.shape)
    return gradient if gradient.shape == shape else gradient.sum_to_size(shape)


@pytest.fixture(scope="session", autouse=True)
def fakes_without_a_driver() -> None:
    if Version(torch.__version__) < Version("2.8"):
        pytest.skip("older PyTorch asks the driver of a GPU for fake tensors, too")


@pytest.fixture
def autocast_on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU, PyTorch would leave its autocast off."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)


@pytest.fixture
def fake_gpu(autocast_on_gpu: None) -> FakeTensorMode:
    """``with fake_gpu:`` makes tensors without values; those from before it come in as well."""
    return FakeTensorMode(allow_non_fake_inputs=True)


@pytest.fixture
def pretended_gpu(autocast_on_gpu: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGPU]:
    """Tensors with values, and gradients."""
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    # To checkpointing, all of this is one way back, on which activations are made anew once.
    monkeypatch.setattr(torch._C, "_current_graph_task_id", lambda: 0)
    # Values are computed by a CPU, which lacks the kernels that a GPU would take for attention.
    with sdpa_kernel(SDPBackend.MATH), PretendedGPU() as mode:
        yield mode
