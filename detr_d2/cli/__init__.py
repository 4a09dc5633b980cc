"""The commands ``detr-d2 <command>``: each is a module, and ``tools/*.py`` run the same code.

The docstring of a module is the help of its command. ``add_arguments(parser)`` declares arguments,
and ``run(args)`` returns an exit status, or None for 0. A module may have ``check_arguments(args,
parser)``, which refuses arguments that don't go together. ``run`` imports heavy modules, so that
wrong arguments are reported at once.
"""

from detr_d2.cli.program import main, tool_main

__all__ = ["main", "tool_main"]
