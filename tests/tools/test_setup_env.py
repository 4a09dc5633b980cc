"""tools/setup_env.sh with stand-ins for Python and pip: no network, nothing installed."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What the script reads.
LEVELS = ["runtime", "test", "lower-bounds"]
FILES = ["tools/setup_env.sh", "setup.py", *(f"requirements/{level}.txt" for level in LEVELS)]
# In the order in which they are tried.
DEFAULT_PYTHONS = ["python3.14", "python3.13", "python3.12", "python3.11", "python3", "python"]
WHEEL = "sal_detectron2-0.7.2-cp310-none-any.whl"

# A Python that makes empty environments, and records what pip and uv are asked instead of doing it.
FAKE_PYTHON = f"""#!/bin/sh
case "$1 $2" in
  "-m venv")
    echo venv >> "$CALLS"
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip" | "-m uv")
    shift
    echo "$*" >> "$CALLS"
    while [ $# -gt 1 ]; do
      if [ "$1" = --dest ]; then mkdir -p "$2" && printf wheel > "$2/{WHEEL}"; fi
      shift
    done
    if [ -n "$INSTALLER" ]; then . "$INSTALLER"; fi ;;
  "-W ignore")  # the imports at the end
    echo imports >> "$CALLS" ;;
  *) exec "{sys.executable}" "$@" ;;
esac
"""


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def disguised_python(path: Path, disguise: str) -> Path:
    """A Python that runs the code of ``-c`` after the statements of ``disguise``."""
    prelude = f"import platform, sys, sysconfig; {disguise}; exec(sys.argv[1])"
    return write_program(path, f'#!/bin/sh\nexec "{sys.executable}" -c "{prelude}" "$2"\n')


OF_VERSION = "sys.version_info = ({0}, {1}, 9); platform.python_version = lambda: '{0}.{1}.9'"
FREE_THREADED = "sysconfig.get_config_var = lambda name: 1"
WITHOUT_VENV = "sys.modules['ensurepip'] = None"


class Checkout:
    """A copy of the files that setup_env.sh reads, and calls of it with stand-ins."""

    def __init__(self, folder: Path):
        self.root = folder / "check out"  # a path with a space
        for name in FILES:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        self.script = self.root / "tools" / "setup_env.sh"
        self.venv = self.root / ".venv"
        self.python = write_program(folder / "fake" / "python", FAKE_PYTHON)
        self.calls_file = folder / "calls"
        self.installer = folder / "installer"
        self.installer.write_text("")
        self.cwd = folder

    def accept_fake_wheel(self) -> None:
        """Makes the script expect the stand-in for Detectron2's wheel."""
        lines = self.script.read_text().splitlines(keepends=True)
        expected = f"detectron2_sha256={hashlib.sha256(b'wheel').hexdigest()}\n"
        self.script.write_text(
            "".join(expected if s.startswith("detectron2_sha256=") else s for s in lines)
        )

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        inherited = {k: v for k, v in os.environ.items() if k != "DETR_D2_VENV"}
        settings = {
            "CALLS": str(self.calls_file),
            "INSTALLER": str(self.installer),
            "PYTHON": str(self.python),
        }
        return subprocess.Popen(
            [str(self.script), *arguments],
            cwd=self.cwd,
            env=inherited | settings | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def succeeds(self, *arguments: str, **environment: str) -> list[str]:
        """Calls the script; returns what it had Python, pip and uv do."""
        self.calls_file.write_text("")
        process = self.start(*arguments, **environment)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        return self.calls_file.read_text().splitlines()

    def fails(self, *arguments: str, **environment: str) -> str:
        """Calls the script; returns the line on which it gives up."""
        process = self.start(*arguments, **environment)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1, errors
        own = [line for line in errors.splitlines() if line.startswith("setup_env: ")]
        assert len(own) == 1, errors
        assert errors.rstrip().endswith(own[0])
        return own[0]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def working_checkout(checkout: Checkout) -> Checkout:
    checkout.accept_fake_wheel()
    return checkout


# --- Choosing a Python ---


@pytest.mark.parametrize(
    ("disguise", "expected"),
    [
        (OF_VERSION.format(3, 10), "is 3.10.9"),
        (OF_VERSION.format(3, 15), "is 3.15.9"),
        (FREE_THREADED, "is free-threaded"),
        (WITHOUT_VENV, "apt install python3."),
    ],
)
def test_unusable_python_is_refused(checkout: Checkout, disguise: str, expected: str):
    python = disguised_python(checkout.cwd / "python", disguise)
    line = checkout.fails(PYTHON=str(python))
    assert f"{python} " in line
    assert expected in line


def test_python_that_does_not_run_is_refused(checkout: Checkout):
    assert "/nowhere/python does not run" in checkout.fails(PYTHON="/nowhere/python")


def test_without_usable_python_all_that_were_found_are_named(checkout: Checkout):
    folder = checkout.cwd / "path"
    for name in DEFAULT_PYTHONS:
        write_program(folder / name, "#!/bin/sh\nexit 127\n")  # as a version manager's shim does
    disguised_python(folder / "python3", OF_VERSION.format(3, 10))
    line = checkout.fails(PYTHON="", PATH=f"{folder}:{os.environ['PATH']}")
    tried = ", ".join(f"{name} does not run" for name in DEFAULT_PYTHONS[:4])
    assert f"({tried}, python3 is 3.10.9, python does not run)" in line
    assert "PYTHON=" in line


def test_pythons_that_do_not_run_are_passed_over(working_checkout: Checkout):
    folder = working_checkout.cwd / "path"
    for name in DEFAULT_PYTHONS:
        write_program(folder / name, "#!/bin/sh\nexit 127\n")
    shutil.copy(working_checkout.python, folder / "python3.12")
    path = f"{folder}:{os.environ['PATH']}"
    assert working_checkout.succeeds(PYTHON="", PATH=path)[0] == "venv"


def test_the_oldest_versions_need_the_oldest_python(checkout: Checkout):
    newer = disguised_python(checkout.cwd / "python", OF_VERSION.format(3, 13))
    line = checkout.fails("lower-bounds", PYTHON=str(newer))
    assert f"no usable Python 3.11 ({newer} is 3.13.9)" in line


# --- What can go wrong ---


def test_unknown_argument(checkout: Checkout):
    assert "unknown argument 'tests'" in checkout.fails("tests")


def test_folder_made_by_someone_else_is_left_alone(checkout: Checkout):
    (checkout.cwd / "mine").mkdir()
    (checkout.cwd / "mine" / "thesis.txt").write_text("years of work")
    line = checkout.fails(DETR_D2_VENV=str(checkout.cwd / "mine"))
    assert f"{checkout.cwd / 'mine'} exists and was not made by this script" in line
    assert [path.name for path in (checkout.cwd / "mine").iterdir()] == ["thesis.txt"]


def test_folder_that_cannot_be_written(checkout: Checkout):
    # Below a file, where not even an administrator can make a folder.
    folder = checkout.cwd / "file" / "venv"
    folder.parent.write_text("")
    assert f"cannot write to {folder}" in checkout.fails(DETR_D2_VENV=str(folder))


NO_NETWORK = """\
echo "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by \
'NewConnectionError(': Failed to establish a new connection')': /simple/uv"
echo 'ERROR: Could not find a version that satisfies the requirement uv (from versions: none)'
exit 1
"""
NO_LIBRARY = "echo 'ImportError: libGL.so.1: cannot open shared object file: No such'; exit 1"
DISK_FULL = "echo 'error: No space left on device (os error 28)'; exit 1"


@pytest.mark.parametrize(
    ("installer", "expected"),
    [
        (NO_NETWORK, "check the network"),
        (DISK_FULL, "the disk is full"),
        (
            NO_LIBRARY,
            "lacks libGL.so.1; on Debian and Ubuntu 'sudo tools/setup_debian.sh libraries'",
        ),
        ("echo 'ERROR: so to say'; exit 1", "installing uv failed: ERROR: so to say; the whole"),
    ],
)
def test_failing_installer(checkout: Checkout, installer: str, expected: str):
    checkout.installer.write_text(installer)
    assert expected in checkout.fails()


def test_wheel_with_another_hash_is_not_installed(checkout: Checkout):
    line = checkout.fails()
    assert "should be 491af0c7" in line
    assert f"is {hashlib.sha256(b'wheel').hexdigest()}" in line
    assert not any(WHEEL[:14] in call for call in checkout.calls_file.read_text().splitlines())


# --- What is done, and what is not done again ---


def test_installs_and_then_rests(working_checkout: Checkout):
    calls = working_checkout.succeeds()
    assert calls[0] == "venv"
    assert any(call.endswith("-r requirements/runtime.txt") for call in calls)
    # What asks for numpy < 2 comes without what it asks for.
    for without_dependencies in (
        "-e .",
        "panopticapi-lite==0.2.0",
        WHEEL.replace("cp310", "py3"),
    ):
        (call,) = (call for call in calls if call.endswith(without_dependencies))
        assert " --no-deps " in call
    assert calls[-1] == "imports"
    assert working_checkout.succeeds() == []


def test_relative_folder_starts_at_the_checkout(working_checkout: Checkout):
    working_checkout.succeeds(DETR_D2_VENV="else where")
    assert (working_checkout.root / "else where" / "bin" / "python").is_file()


def test_test_packages_come_on_top(working_checkout: Checkout):
    working_checkout.succeeds()
    calls = working_checkout.succeeds("test")
    assert "venv" not in calls
    assert any(call.endswith("-r requirements/test.txt") for call in calls)
    assert working_checkout.succeeds("test") == []
    assert working_checkout.succeeds() == []


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="needs Python 3.11")
def test_an_environment_has_the_tested_versions_or_the_oldest(working_checkout: Checkout):
    working_checkout.succeeds("test")
    calls = working_checkout.succeeds("lower-bounds")
    assert any(call.endswith("-r requirements/lower-bounds.txt") for call in calls)
    assert working_checkout.succeeds("lower-bounds") == []
    assert any(call.endswith("test.txt") for call in working_checkout.succeeds("test"))
    assert any(call.endswith("bounds.txt") for call in working_checkout.succeeds("lower-bounds"))


def test_changed_requirements_are_installed(working_checkout: Checkout):
    working_checkout.succeeds("test")
    with (working_checkout.root / "requirements" / "test.txt").open("a") as file:
        file.write("six==1.17.0\n")
    assert working_checkout.succeeds() == []
    calls = working_checkout.succeeds("test")
    assert calls
    assert "venv" not in calls


def test_pip_takes_over_when_uv_fails(working_checkout: Checkout):
    working_checkout.installer.write_text('case $(tail -n 1 "$CALLS") in uv*) exit 2 ;; esac')
    calls = working_checkout.succeeds()
    assert any(call.startswith("pip install") and "runtime.txt" in call for call in calls)


def test_interruption_is_repaired(working_checkout: Checkout):
    # The installer ends the script that called it, as a closed terminal does.
    working_checkout.installer.write_text(
        'case $(tail -n 1 "$CALLS") in *runtime.txt) kill -KILL $PPID ;; esac'
    )
    process = working_checkout.start()
    process.communicate(timeout=60)
    assert process.returncode != 0
    working_checkout.installer.write_text("")
    assert working_checkout.succeeds()[0] == "venv"
    assert working_checkout.succeeds() == []


def test_environment_whose_python_is_gone_is_made_anew(working_checkout: Checkout):
    working_checkout.succeeds()
    (working_checkout.venv / "bin" / "python").unlink()
    assert working_checkout.succeeds()[0] == "venv"


def test_environment_of_a_python_that_will_not_do_any_more_is_made_anew(
    working_checkout: Checkout,
):
    working_checkout.succeeds()
    old = disguised_python(working_checkout.cwd / "python", OF_VERSION.format(3, 10))
    shutil.copy(old, working_checkout.venv / "bin" / "python")
    assert working_checkout.succeeds()[0] == "venv"


def test_failure_to_reach_the_index_keeps_what_works(working_checkout: Checkout):
    working_checkout.succeeds()
    working_checkout.installer.write_text(NO_NETWORK)
    assert "check the network" in working_checkout.fails("test")
    assert working_checkout.succeeds() == []


@pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock")
def test_second_call_waits_for_the_first(working_checkout: Checkout):
    working_checkout.installer.write_text("sleep 0.3")
    working_checkout.calls_file.write_text("")
    first = working_checkout.start()
    while "venv" not in working_checkout.calls_file.read_text():  # it holds the lock
        assert first.poll() is None
        time.sleep(0.02)
    second = working_checkout.start()
    for process in (first, second):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    calls = working_checkout.calls_file.read_text().splitlines()
    assert sum(call.endswith("runtime.txt") for call in calls) == 1
