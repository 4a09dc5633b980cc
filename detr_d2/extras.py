"""Optional packages, and messages for environments that lack them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

# Packages that no extra installs, see setup.py.
BASIS = ("torch", "torchvision", "detectron2")
# In a checkout, pip doesn't know the package by its name.
_IN_A_CHECKOUT = "or in a checkout pip install -e '.[{extra}]'"


def require_extra(extra: str, who_needs: str, names: Sequence[str]) -> None:
    """Makes sure that packages of an extra are installed, without importing them.

    Args:
        extra: its name in setup.py.
        who_needs: how the message begins, such as "Benchmarks need".
        names: of the modules.

    Raises:
        ImportError: the message names the missing ones and the command that installs them.
    """
    missing = [name for name in names if not _is_installed(name)]
    if missing:
        raise ImportError(
            f"{who_needs} {' and '.join(missing)}, which this environment lacks: "
            f"pip install 'detr_d2[{extra}]', {_IN_A_CHECKOUT.format(extra=extra)}."
        )


def message_on_missing(error: ModuleNotFoundError) -> str:
    """Tells people what to do about a module that an import did not find."""
    missing = (error.name or "").partition(".")[0]
    if missing in ("", "detr_d2"):  # an error of ours; installing a package can't fix it
        return str(error)
    basis = [name for name in BASIS if name == missing or not _is_installed(name)]
    if basis:
        return (
            "detr_d2 needs Detectron2, with PyTorch and torchvision, and this environment lacks "
            f"{' and '.join(basis)}. Either run `tools/setup_env.sh` in a checkout of detr_d2, or "
            "install PyTorch, then Detectron2 by `pip install --no-build-isolation "
            "'git+https://github.com/facebookresearch/detectron2.git'`, then "
            "`pip install 'detr_d2[train]'`. Without them, exported models work: see "
            "detr_d2.deploy."
        )
    return (
        f"detr_d2 needs {missing}, which this environment lacks: pip install 'detr_d2[train]', "
        f"{_IN_A_CHECKOUT.format(extra='train')}."
    )


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # find_spec raises it for modules that were blocked
        return False
