"""The commands ``detr-d2 <command>``, each a module; ``tools/*.py`` run the same code.

A command's module has its help as its docstring, ``add_arguments(parser)`` and ``run(args)``, which
returns an exit status or None for 0. Where arguments depend on each other, ``check_arguments(args,
parser)`` looks at them. What is heavy is imported by ``run``: until then, arguments may be wrong.
"""

from detr_d2.cli.program import main, tool_main

__all__ = ["main", "tool_main"]
