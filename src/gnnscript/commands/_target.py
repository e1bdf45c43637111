"""From ``package.module:name`` or ``path/to/file.py:name`` on a command line to a module."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from gnnscript._errors import GnnscriptError
from gnnscript.specialize.loader import load_file

__all__ = ["add_target", "find", "module_and_inputs", "module_of"]


def add_target(parser: argparse.ArgumentParser, **options: Any) -> None:
    """Adds the positional argument that names a module, a class or a function that makes one."""
    parser.add_argument(
        "target",
        help="package.module:name or path/to/file.py:name, where name is a module (an object), a "
        "class that needs no arguments, or a function that returns a module",
        **options,
    )


def find(target: str) -> Any:
    """The object that a target names.

    Args:
        target: ``package.module:name`` or ``path/to/file.py:name``; the name may be dotted. As
            ``python file.py`` does, a file's folder is put first on ``sys.path``; otherwise the
            working directory is.

    Raises:
        GnnscriptError: There is no such file, module or name.
    """
    where, colon, name = target.rpartition(":")
    if not colon or not where or not name:
        raise GnnscriptError(
            f"expected package.module:name or path/to/file.py:name, got {target!r}; name the "
            "class or function after a colon"
        )
    if where.endswith(".py"):
        path = Path(where)
        if not path.is_file():
            raise GnnscriptError(f"expected a Python file, found none at {where!r}")
        sys.path.insert(0, str(path.resolve().parent))
        with _telling(f"importing {where!r}"):
            owner: Any = load_file(path)
    else:
        sys.path.insert(0, str(Path.cwd()))
        with _telling(f"importing {where!r}"):
            try:
                owner = importlib.import_module(where)
            except ModuleNotFoundError as error:
                if error.name is None or not f"{where}.".startswith(f"{error.name}."):
                    raise
                raise GnnscriptError(
                    f"there is no module {error.name!r} to import; for a file write its path, "
                    "which ends in .py"
                ) from error
    found = owner
    for part in name.split("."):
        if not hasattr(found, part):
            raise GnnscriptError(f"{where!r} has no {name!r}")
        found = getattr(found, part)
    return found


@contextlib.contextmanager
def _telling(doing: str) -> Iterator[None]:
    """Says of an exception of the user's code where in it, rather than where in gnnscript."""
    try:
        yield
    except GnnscriptError:
        raise
    except Exception as error:
        place = ""
        if isinstance(error, SyntaxError):
            place = f"{error.filename}:{error.lineno}: "
        elif error.__traceback__ is not None:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{frame.filename}:{frame.lineno}: "
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        raise GnnscriptError(f"{doing}: {place}{type(error).__name__}: {said}") from error


def module_of(found: Any, target: str) -> torch.nn.Module:
    """The module that a target stands for, made by calling it where it is a class or function.

    Raises:
        GnnscriptError: It takes arguments, or what it gives is no module.
    """
    return module_and_inputs(found, target)[0]


def module_and_inputs(found: Any, target: str) -> tuple[torch.nn.Module, Any]:
    """The module, and the example inputs that the function gives along with it, or None.

    Raises:
        GnnscriptError: It takes arguments, or what it gives is no module.
    """
    if isinstance(found, torch.nn.Module):
        return found, None
    if not callable(found):
        raise GnnscriptError(f"expected {target!r} to be a module or to make one, got {found!r}")
    try:
        parameters = list(inspect.signature(found).parameters.values())
    except ValueError:  # of a builtin
        parameters = []
    required = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if required:
        raise GnnscriptError(
            f"{target!r} takes arguments ({', '.join(required)}); name a function without "
            f"arguments that makes the module, such as 'def make(): return {found.__name__}(...)'"
        )
    with _telling(f"calling {target!r}"):
        made = found()
    inputs = None
    if isinstance(made, tuple) and len(made) == 2:
        made, inputs = made
    if not isinstance(made, torch.nn.Module):
        raise GnnscriptError(f"expected {target!r} to make a module, got {made!r}")
    return made, inputs
