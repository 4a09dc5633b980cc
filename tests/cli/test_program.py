"""detr-d2 as a whole: its commands, how they end, and the scripts that run the same code."""

import argparse
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import detr_d2
from detr_d2.cli import main, program
from detr_d2.cli.program import COMMANDS, run_command, tool_main
from detr_d2.config_checks import STAGES

ROOT = Path(__file__).resolve().parents[2]
TOOLS = {
    path: re.search(r'tool_main\("(\w+)"\)', path.read_text(encoding="utf-8"))[1]
    for path in (ROOT / "tools").glob("*.py")
    if path.stem != "benchmark"  # which is no part of what is installed
}


@pytest.fixture
def failing(monkeypatch):
    """Makes the command ``check`` fail with an error."""

    def fail_with(error: BaseException) -> None:
        def run(args: argparse.Namespace) -> None:
            raise error

        monkeypatch.setattr("detr_d2.cli.check.run", run)
        monkeypatch.setattr("detr_d2.cli.check.check_arguments", lambda *_: None)

    return fail_with


def test_every_module_is_a_command_or_serves_them():
    modules = {path.stem for path in (ROOT / "detr_d2" / "cli").glob("*.py")}
    others = modules - set(COMMANDS)
    assert others == {"__init__", "program", "run_process", "shared", "submission"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_the_command_as_it_was_typed(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: detr-d2 {command} ")
    assert f"\ndetr-d2 {command}" in shown  # its examples
    with pytest.raises(SystemExit, match="0"):
        run_command(command, ["--help"], "tools/x.py")
    shown = capsys.readouterr().out
    assert shown.startswith("usage: tools/x.py ")
    assert "\ntools/x.py" in shown and f"detr-d2 {command}" not in shown


def arguments_without_help(parser: argparse.ArgumentParser, command: str) -> list[str]:
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                found += arguments_without_help(below, f"{command} {name}")
        elif not action.help:
            found.append(f"{command} {action.dest}")
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_is_explained(command):
    parser = argparse.ArgumentParser()
    import_module(f"detr_d2.cli.{command}").add_arguments(parser)
    assert arguments_without_help(parser, command) == []


def test_help_lists_all_commands(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    for command, what in COMMANDS.items():
        assert re.search(rf"^  {command} +{what}$", shown, re.M)


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"detr-d2 {detr_d2.__version__}\n"


@pytest.mark.parametrize("argv", [[], ["trian"], ["--config-file", "x.yaml"]])
def test_what_is_no_command_is_refused(argv, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["train", "demo", "explain", "report", "export", "web", "check"]
)
def test_an_unknown_config_gives_the_list_of_those_there_are(command, run_cli, tmp_path):
    arguments = {
        "demo": ["--input", "x.jpg", "--output", tmp_path],
        "explain": ["--output", tmp_path],
        "export": ["--output", tmp_path / "x.onnx"],
        "report": [tmp_path],
    }.get(command, [])
    with pytest.raises(SystemExit) as caught:
        run_cli(command, *arguments, "--config-file", "detr_panoptik.yaml")
    message = caught.value.code
    assert message.startswith("error: There is no config file 'detr_panoptik.yaml'")
    assert "detr_panoptic.yaml" in message and "shapes/detr_panoptic.yaml" in message


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("the key"), "error: the key"),
        (OSError("the disk"), "error: the disk"),
        (KeyError("No dataset of that name."), "error: No dataset of that name."),
        (ImportError("Benchmarks need more"), "error: Benchmarks need more"),
        (ModuleNotFoundError("", name="scipy.ndimage"), "error: detr_d2 needs scipy, which"),
        (ModuleNotFoundError("", name="detectron2.data"), "error: detr_d2 needs Detectron2"),
        (ModuleNotFoundError("No module named 'detr_d2.x'", name="detr_d2.x"), "error: No module"),
    ],
)
def test_errors_for_people_are_one_line(error, said, failing):
    failing(error)
    with pytest.raises(SystemExit) as caught:
        main(["check"])
    assert caught.value.code.startswith(said) and "\n" not in caught.value.code


def test_what_is_missing_for_training_is_named_with_its_extra(failing):
    for name in ("scipy", "detectron2", "torch"):
        failing(ModuleNotFoundError(name=name))
        with pytest.raises(SystemExit, match=r"lacks.*pip install 'detr_d2\[train\]'"):
            main(["check"])


def test_detectron2_comes_before_what_goes_with_it(failing, monkeypatch):
    """Where exported models are all that works, the first module that is missed is another."""
    monkeypatch.setattr("detr_d2.extras._is_installed", lambda name: name == "torchvision")
    failing(ModuleNotFoundError(name="cv2"))
    with pytest.raises(SystemExit, match="Detectron2, .* lacks torch and detectron2"):
        main(["check"])


def test_faults_of_ours_keep_their_traceback(failing):
    failing(KeyError("file_name"))
    with pytest.raises(KeyError):
        main(["check"])


def test_ctrl_c_ends_with_the_status_that_shells_expect(failing):
    failing(KeyboardInterrupt())
    assert main(["check"]) == 130


def test_stages_in_the_help_are_those_there_are(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    (shown,) = re.findall(r"--stage STAGE +run only this stage: ([^-]*)", capsys.readouterr().out)
    assert [word for word in re.findall(r"\w+", shown) if word in STAGES] == list(STAGES)


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)
def test_scripts_run_the_commands(path, monkeypatch):
    calls = []
    monkeypatch.setattr(program, "run_command", lambda *call: calls.append(call) or 3)
    monkeypatch.setattr(sys, "argv", [str(path), "--some", "thing"])
    assert tool_main(TOOLS[path])() == 3
    assert calls == [(TOOLS[path], ["--some", "thing"], f"tools/{path.name}")]


def test_every_command_but_those_of_installed_packages_has_a_script():
    assert set(TOOLS.values()) == set(COMMANDS) - {"deploy", "env"}
    assert all(len(path.read_text().splitlines()) <= 11 for path in TOOLS)


def test_a_script_of_the_checkout_runs():
    script = ROOT / "tools" / "train_net.py"
    command = [sys.executable, str(script), "--config-file", "nowhere.yaml"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert result.stderr.startswith("error: There is no config file 'nowhere.yaml'")


def test_environment_is_listed_with_its_place(run_cli, capsys):
    assert run_cli("env") == 0
    shown = capsys.readouterr().out
    assert f"{detr_d2.__version__} in {ROOT / 'detr_d2'}" in shown
    for name in ("Python", "torch", "numpy", "onnxruntime", "detectron2"):
        assert re.search(rf"^{name} ", shown, re.M), name


def test_environment_is_listed_where_detectron2_is_missing(run_cli, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "detectron2.utils.collect_env", None)
    assert run_cli("env") == 0
    assert re.search(r"^Detectron2 +missing: ", capsys.readouterr().out, re.M)
