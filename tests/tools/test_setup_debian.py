"""tools/setup_debian.sh with a stand-in for apt-get: nothing is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "setup_debian.sh"
LIBRARIES = "libGL.so.1 libglib-2.0.so.0 libgthread-2.0.so.0 libSM.so.6 libXext.so.6".split()
TOOLS = ("bash", "cat", "env", "mktemp", "rm", "tail")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as the script does")


class System:
    """A path on which there is little but what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "bin"
        self.path.mkdir()
        self.calls = folder / "calls"
        for tool in TOOLS:
            (self.path / tool).symlink_to(shutil.which(tool))
        self.knows([])

    def program(self, name: str, text: str = "") -> None:
        file = self.path / name
        file.write_text(f'#!/bin/sh\necho "{name} $*" >> "{self.calls}"\n{text}\n')
        file.chmod(0o755)

    def knows(self, libraries: list[str]) -> None:
        """What ldconfig lists."""
        lines = "\n".join(f"  {name} (libc6,x86-64) => /lib/{name}" for name in libraries)
        self.program("ldconfig", f"cat <<'END'\n{lines}\nEND")

    def run(self, *arguments: str) -> tuple[int, str, list[str]]:
        """Status, what was said, and how apt-get was called."""
        result = subprocess.run(
            [SCRIPT, *arguments], env={"PATH": str(self.path)}, capture_output=True, text=True
        )
        calls = self.calls.read_text().splitlines() if self.calls.exists() else []
        calls = [call for call in calls if not call.startswith("ldconfig")]
        return result.returncode, result.stdout + result.stderr, calls


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def test_what_is_in_place_is_left_alone(system: System):
    system.program("apt-get")
    system.knows(LIBRARIES)
    assert system.run("libraries") == (0, "", [])
    for name in ("chromium", "chromedriver"):
        system.program(name)
    assert system.run("browser") == (0, "", [])


@as_root
@pytest.mark.parametrize("missing", LIBRARIES)
def test_one_missing_library_is_enough(system: System, missing: str):
    system.program("apt-get")
    system.knows([name for name in LIBRARIES if name != missing])
    status, said, calls = system.run("libraries")
    assert status == 0 and said.startswith("setup_debian: installed libgl1 ")
    assert len(calls) == 1 and calls[0].startswith("apt-get install -y ")


@as_root
def test_package_lists_are_brought_where_they_are_missing(system: System):
    system.program("apt-get", f'[ "$1" = update ] || grep -q update "{system.calls}"')
    (system.path / "grep").symlink_to(shutil.which("grep"))
    status, _, calls = system.run("browser")
    assert status == 0
    assert [call.split()[1] for call in calls] == ["install", "update", "install"]


@as_root
def test_failures_are_told_with_the_end_of_the_log(system: System):
    system.program("apt-get", "echo 'E: no network'; exit 100")
    status, said, _ = system.run("browser")
    assert status == 1
    assert "E: no network" in said and said.endswith("can't be installed\n")


def test_other_systems_are_told_what_is_meant(system: System):
    status, said, _ = system.run("libraries")
    assert status == 1
    assert "neither Debian nor Ubuntu" in said and "libgl1" in said


@pytest.mark.parametrize("arguments", [[], ["everything"]])
def test_unknown_argument(system: System, arguments: list[str]):
    status, said, _ = system.run(*arguments)
    assert status == 1 and "setup_debian.sh libraries" in said
