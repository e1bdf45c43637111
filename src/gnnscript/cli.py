"""The command ``gnnscript``, also ``python -m gnnscript``: finds the subcommands and runs one."""

from __future__ import annotations

import argparse
import importlib
import inspect
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import gnnscript
from gnnscript import commands
from gnnscript._errors import GnnscriptError
from gnnscript._warnings import ignore_retirement
from gnnscript.cpp import cmake_prefix

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand.

    Args:
        argv: The arguments; by default those of the process.

    Returns:
        The exit code: 0 for success, 1 for a negative answer, 2 for what could not be done.
    """
    arguments = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            ignore_retirement()
            code: int = arguments.run(arguments)
    except (GnnscriptError, OSError) as error:  # of the system: a disk that is full, say
        print(f"gnnscript: {error}", file=sys.stderr)
        return 2
    return code


class _PrintPrefix(argparse.Action):
    """Prints as it is what ``action="version"`` would wrap."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(cmake_prefix())
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gnnscript", description=inspect.getdoc(gnnscript), allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=gnnscript.__version__)
    parser.add_argument(
        "--cmake-prefix",
        action=_PrintPrefix,
        nargs=0,
        help="print the CMAKE_PREFIX_PATH with which find_package(gnnscript) succeeds, and exit",
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for found in pkgutil.iter_modules(commands.__path__):
        if found.name.startswith("_"):
            continue
        command: Any = importlib.import_module(f"{commands.__name__}.{found.name}")
        description = inspect.getdoc(command) or ""
        subparser = subparsers.add_parser(
            found.name.rstrip("_"),
            help=description.partition("\n")[0].rstrip("."),
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.configure(subparser)
        subparser.set_defaults(run=command.run)
    return parser
