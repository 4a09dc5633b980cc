"""The program ``detr-d2``: its commands, their errors and their exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from detr_d2 import __version__
from detr_d2.extras import message_on_missing

# Modules of this package, in the order in which people need them.
COMMANDS = {
    "train": "train or evaluate a model, as its config says",
    "demo": "predict images, videos or a webcam",
    "explain": "follow one image through a model, as a page",
    "report": "show where saved predictions are wrong, as a page",
    "web": "try a model in a browser",
    "prepare": "turn other annotations into COCO's panoptic format",
    "check": "look for what is wrong with a dataset",
    "convert": "convert a checkpoint of any kind",
    "export": "write a model as one file for other runtimes",
    "deploy": "predict with an exported file, without PyTorch",
    "submit": "submit a training to a SLURM cluster",
    "env": "list versions and devices, for reports of bugs",
}
# The exit status that shells expect of a program that Ctrl-C has ended.
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``detr-d2``.

    Args:
        argv: the arguments after its name; None: those of this process.

    Returns:
        The exit status.

    Raises:
        SystemExit: arguments or files were wrong; its message is one line for people.
    """
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, what in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="detr-d2",
        usage="detr-d2 COMMAND [arguments of the command]",
        description="Panoptic segmentation with DETR as a Detectron2 plugin.",
        epilog="\n".join(["commands:", *lines, "", "detr-d2 COMMAND --help tells more of each."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"detr-d2 {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    return run_command(args.command, args.arguments, f"detr-d2 {args.command}")


def tool_main(command: str) -> Callable[[], int]:
    """The main function of a script of ``tools/``, which runs a command under the script's name."""

    def run() -> int:
        script = Path(sys.argv[0])
        return run_command(command, sys.argv[1:], f"tools/{script.name}")

    return run


def run_command(command: str, argv: Sequence[str], program: str) -> int:
    """Runs one of ``COMMANDS``.

    Args:
        command: its name.
        argv: its arguments.
        program: what people typed to run it.

    Returns:
        The exit status.

    Raises:
        SystemExit: see ``main``.
    """
    return run_module(f"detr_d2.cli.{command}", argv, program)


def run_module(name: str, argv: Sequence[str], program: str) -> int:
    """Runs a module that has the functions of a command, see ``parse_arguments``.

    Args:
        name: of the module.
        argv: its arguments.
        program: what people typed to run it.

    Returns:
        The exit status.

    Raises:
        SystemExit: see ``main``.
    """
    try:
        module = import_module(name)
        return module.run(_parse(module, argv, program)) or 0
    except ModuleNotFoundError as error:
        sys.exit(f"error: {message_on_missing(error)}")
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyError as error:
        # Detectron2's catalogs raise it with a sentence. Any other one is a bug of ours.
        sentence = str(error.args[0]) if error.args else ""
        if " " not in sentence:
            raise
        sys.exit(f"error: {sentence}")
    except KeyboardInterrupt:
        return INTERRUPTED


def parse_arguments(command: str, argv: Sequence[str]) -> argparse.Namespace:
    """Parses the arguments of a command.

    Args:
        command: one of ``COMMANDS``.
        argv: its arguments.

    Raises:
        SystemExit: the arguments are wrong, or ask for help.
    """
    return _parse(import_module(f"detr_d2.cli.{command}"), argv, f"detr-d2 {command}")


def _parse(module: ModuleType, argv: Sequence[str], program: str) -> argparse.Namespace:
    documented = f"detr-d2 {module.__name__.rpartition('.')[2]}"
    parser = argparse.ArgumentParser(
        prog=program,
        description=(module.__doc__ or "").replace(documented, program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    args = parser.parse_args(argv)
    if hasattr(module, "check_arguments"):
        module.check_arguments(args, parser)
    return args
