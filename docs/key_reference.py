"""Sphinx's directive ``config-keys``: every key that detr_d2 adds, from config.py's comments."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

CONFIG = Path(__file__).resolve().parents[1] / "detr_d2" / "config.py"
# The functions that add keys, and what their keys are about before the first heading.
SECTION_OF = {"add_detr_config": "Classes and queries", "_add_timm_config": "Backbones of timm"}
# "# --- Title ---", or "# --- Title ---------", or "# --- Title. More ---".
_HEADING = re.compile(r"# --- (.*?) -+$")


@dataclass(frozen=True)
class Key:
    """A key, such as ``MODEL.DETR.NUM_QUERIES``.

    Attributes:
        section: the heading above it in config.py.
        default: as Python writes it.
        comment: the lines above it, joined.
    """

    name: str
    section: str
    default: str
    comment: str


def read_keys(path: Path = CONFIG) -> Iterator[Key]:
    """The keys in the order of the file.

    A variable such as ``detr = cfg.MODEL.DETR = CfgNode()`` stands for the node that it names.

    Raises:
        ValueError: a key has no comment.
    """
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    nodes_of = {"cfg": ""}
    seen = 0
    for statement in ast.walk(ast.parse(source)):
        if not isinstance(statement, ast.FunctionDef) or statement.name not in SECTION_OF:
            continue
        section = SECTION_OF[statement.name]
        for assignment in statement.body:
            if not isinstance(assignment, ast.Assign):
                continue
            for line in lines[seen : assignment.lineno]:
                if heading := _HEADING.search(line.strip()):
                    section = heading[1].partition(". ")[0]
            seen = assignment.lineno
            *_, target = assignment.targets
            variable, _, rest = ast.unparse(target).partition(".")
            if variable not in nodes_of:
                continue
            name = nodes_of[variable] + rest
            value = ast.unparse(assignment.value)
            if value == "CfgNode()":
                for alias in assignment.targets:
                    if isinstance(alias, ast.Name):
                        nodes_of[alias.id] = f"{name}."
                continue
            comment = _comment_above(lines, assignment.lineno - 1)
            if not comment:
                raise ValueError(f"{path}: {name} has no comment.")
            yield Key(name, section, value, comment)


def _comment_above(lines: list[str], index: int) -> str:
    """The comment that ends above a line, as one line; "" for none."""
    found: list[str] = []
    while (line := lines[index - 1].strip()).startswith("# ") and not _HEADING.search(line):
        found.insert(0, line[2:])
        index -= 1
    return " ".join(found)


class ConfigKeys(Directive):
    """A section for each group of keys, with a definition list."""

    def run(self) -> list[nodes.Node]:
        environment = self.state.document.settings.env
        environment.note_dependency(str(CONFIG))
        result: list[nodes.Node] = []
        section = None
        for key in read_keys():
            if key.section != section:
                section = key.section
                result += [nodes.rubric(text=section), nodes.definition_list()]
            term = nodes.term("", "", nodes.literal(text=key.name), nodes.Text(" = "))
            term += nodes.literal(text=key.default)
            about = nodes.definition("", nodes.paragraph(text=key.comment))
            result[-1] += nodes.definition_list_item("", term, about)
        return result


def setup(app) -> dict:
    """Makes the directive known to Sphinx."""
    app.add_directive("config-keys", ConfigKeys)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
