"""The tutorial in docs/ runs from its first cell to its last, and can be read without being run."""

from __future__ import annotations

import copy
import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from sure_model import save_sure_model

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = ROOT / "docs" / "tutorial.ipynb"
WEIGHTS = Path("output/quickstart/masks/model_final.pth")
MAX_SIZE = 500_000


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(TUTORIAL, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: nbformat.NotebookNode) -> list[str]:
    """What a cell has put out, in order: "stdout", "stderr", "error", "image/png" or "text"."""
    found = []
    for output in cell.outputs:
        if output.output_type == "stream":
            if found[-1:] != [output.name]:  # kernels send a stream in as many parts as they like
                found.append(output.name)
        elif output.output_type == "error":
            found.append("error")
        else:
            found.append("image/png" if "image/png" in output.data else "text")
    return found


def moves(notebook: nbformat.NotebookNode) -> dict[int, list[str]]:
    """The sources of the code cells of each move."""
    sources: dict[int, list[str]] = {}
    move = None
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if move is not None:
                sources[move].append(cell.source)
        elif title := re.match(r"## (?:Move (\d))?", cell.source):
            move = int(title[1]) if title[1] else None
            if move is not None:
                sources[move] = []
    return sources


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the quickstart leaves it, with docs/; what kernels write lies in it, too."""
    (tmp_path / "docs").mkdir()
    weights = tmp_path / WEIGHTS
    if (ROOT / WEIGHTS).is_file():
        weights.parent.mkdir(parents=True)
        shutil.copyfile(ROOT / WEIGHTS, weights)
    else:
        save_sure_model(weights)
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("DETR_D2_TUTORIAL_WEIGHTS", "MPLBACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def test_cells_run_in_order_and_leave_no_files(notebook, checkout):
    committed = [kinds(cell) for cell in code_cells(notebook)]
    executed = copy.deepcopy(notebook)
    where = {"metadata": {"path": str(checkout / "docs")}}
    NotebookClient(executed, timeout=300, kernel_name="python3", resources=where).execute()
    assert [kinds(cell) for cell in code_cells(executed)] == committed
    assert list((checkout / "docs").iterdir()) == []
    assert [path.name for path in (checkout / WEIGHTS).parent.iterdir()] == [WEIGHTS.name]


def test_weights_are_found_in_the_root_and_in_docs_or_named(notebook, checkout, monkeypatch):
    def weights_file() -> str:
        names: dict = {}
        exec(compile(code_cells(notebook)[0].source, TUTORIAL.name, "exec"), names)
        return names["weights_file"]

    for folder in (checkout, checkout / "docs"):
        monkeypatch.chdir(folder)
        assert os.path.samefile(weights_file(), checkout / WEIGHTS)
    monkeypatch.setenv("DETR_D2_TUTORIAL_WEIGHTS", "mine.pth")
    assert weights_file() == "mine.pth"


def test_there_are_seven_moves_and_each_is_checked_and_shown(notebook):
    sources = moves(notebook)
    assert list(sources) == [1, 2, 3, 4, 5, 6, 7]
    shown = {cell.source for cell in code_cells(notebook) if "image/png" in kinds(cell)}
    for move, cells in sources.items():
        assert any(re.search(r"^\s*assert ", source, re.M) for source in cells), move
        assert shown & set(cells), move


def test_outputs_are_committed_and_are_those_of_one_run(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        wanted = set()
        if re.search(r"^\s*print\(", cell.source, re.M):
            wanted.add("stdout")
        if re.search(r"^(?:show\(|plt\.show\()", cell.source, re.M):
            wanted.add("image/png")
        assert set(kinds(cell)) == wanted, cell.source


def test_nothing_is_committed_that_changes_from_run_to_run(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert all(cell.metadata == {} for cell in notebook.cells)


def test_the_file_is_small():
    assert TUTORIAL.stat().st_size < MAX_SIZE


def test_no_absolute_path_and_no_address_is_named(notebook):
    texts = [cell.source for cell in notebook.cells]
    for cell in code_cells(notebook):
        texts += [output.text for output in cell.outputs if output.output_type == "stream"]
    for text in texts:
        assert re.findall(r"(?<![\w.:/])(?:~?/[\w.-]+/|[A-Z]:\\)", text) == []
        assert re.findall(r"\b0x[0-9a-f]{6,}", text) == []


def test_links_lead_somewhere(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (TUTORIAL.parent / link).exists()] == []


def test_keys_that_are_named_exist(notebook):
    from detectron2.config import get_cfg

    from detr_d2 import add_detr_config

    cfg = get_cfg()
    add_detr_config(cfg)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    keys = set(re.findall(r"`(MODEL\.[A-Z_.]+)`", text))
    assert keys
    for key in keys:
        value = cfg
        for part in key.split("."):
            value = value[part]
