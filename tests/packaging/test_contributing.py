"""What contributors are given agrees with the project."""

import re
from pathlib import Path

import pytest
import yaml

import detr_d2

ROOT = Path(__file__).resolve().parents[2]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def content_of(path: str) -> dict:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_workflow_runs_everything_on_all_pythons():
    job = content_of(".github/workflows/tests.yml")["jobs"]["tests"]
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert job["strategy"]["matrix"]["python"] == re.findall(r"Python :: (3\.\d+)\"", setup)
    (step,) = [step for step in job["steps"] if step.get("run") == ".ci/run"]
    assert step["env"]["PYTHON"].startswith("python")


def test_hooks_are_the_pinned_linter():
    (repo,) = content_of(".pre-commit-config.yaml")["repos"]
    pinned = (ROOT / "requirements" / "test.txt").read_text(encoding="utf-8")
    assert f"ruff=={repo['rev'].removeprefix('v')}\n" in pinned


def test_the_citation_has_the_version():
    assert content_of("CITATION.cff")["version"] == detr_d2.__version__


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_forms_ask_for_the_environment(form):
    fields = content_of(form.relative_to(ROOT).as_posix())["body"]
    ids = [field["id"] for field in fields if field["type"] != "markdown"]
    assert len(set(ids)) == len(ids) and "env" in ids


def test_there_are_forms():
    assert len(FORMS) == 3
    template = (ROOT / ".github" / "pull_request_template.md").read_text(encoding="utf-8")
    assert "detr-d2 env" in template and ".ci/run" in template


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md"])
def test_what_a_page_names_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:tools|tests|configs|docs|detr_d2|requirements|\.ci)/[\w./-]*)", text)
    named += [target for target in re.findall(r"\]\(([^)#:]+)", text)]
    assert named
    for path in named:
        assert (ROOT / path.rstrip(".")).exists(), path
