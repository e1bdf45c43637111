"""Print the explicit tensor code that a module is specialised to.

Of a model, the text of each class is printed, the model's own first; it is what TorchScript
compiles, and what gnnscript.source(module) returns.
"""

from __future__ import annotations

import argparse

import gnnscript
from gnnscript.commands._target import add_target, find, module_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``gnnscript source``."""
    add_target(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints the text."""
    gnnscript.install()
    print(gnnscript.source(module_of(find(arguments.target), arguments.target)), end="")
    return 0
