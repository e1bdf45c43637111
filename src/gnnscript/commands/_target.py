"""From ``package.module:name`` or ``path/to/file.py:name`` on a command line to a module."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from gnnscript._errors import GnnscriptError
from gnnscript.specialize.loader import load_file

__all__ = [
    "add_inputs",
    "add_target",
    "find",
    "find_classes",
    "inputs_of",
    "module_and_inputs",
    "module_of",
]


def add_target(parser: argparse.ArgumentParser, **options: Any) -> None:
    """Adds the positional argument that names a module, a class or a function that makes one."""
    parser.add_argument(
        "target",
        help="package.module:name or path/to/file.py:name, where name is a module (an object), a "
        "class that needs no arguments, or a function that returns a module",
        **options,
    )


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Adds the option that names example inputs."""
    parser.add_argument(
        "--inputs",
        metavar="TARGET",
        help="example inputs, named like the target: a tuple, a dict, a list of these, or a "
        "function that returns one",
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
    owner = _imported(where)
    found: Any = owner
    for part in name.split("."):
        if not hasattr(found, part):
            classes = ", ".join(_module_classes(owner))
            has = f"; the modules that it defines: {classes}" if classes else ""
            raise GnnscriptError(f"{where!r} has no {name!r}{has}")
        found = getattr(found, part)
    return found


def find_classes(where: str) -> dict[str, type[torch.nn.Module]]:
    """The classes of modules that a file or a package's module defines, by name, in its order.

    Args:
        where: ``package.module`` or ``path/to/file.py``.

    Raises:
        GnnscriptError: There is no such file or module, or it defines no class of modules.
    """
    classes = _module_classes(_imported(where))
    if not classes:
        raise GnnscriptError(
            f"{where!r} defines no class of modules; name what makes one, as {where}:name"
        )
    return classes


def _module_classes(owner: types.ModuleType) -> dict[str, type[torch.nn.Module]]:
    return {
        name: found
        for name, found in vars(owner).items()
        if inspect.isclass(found)
        and issubclass(found, torch.nn.Module)
        and found.__module__ == owner.__name__
    }


def _imported(where: str) -> types.ModuleType:
    """A file or a package's module, imported."""
    if where.endswith(".py"):
        path = Path(where)
        if not path.is_file():
            raise GnnscriptError(f"expected a Python file, found none at {where!r}")
        sys.path.insert(0, str(path.resolve().parent))
        with _telling(f"importing {where!r}"):
            return load_file(path)
    sys.path.insert(0, str(Path.cwd()))
    with _telling(f"importing {where!r}"):
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{where}.".startswith(f"{error.name}."):
                raise
            raise GnnscriptError(
                f"there is no module {error.name!r} to import; for a file write its path, "
                "which ends in .py"
            ) from error


@contextlib.contextmanager
def _telling(doing: str) -> Iterator[None]:
    """Says of an exception of the user's code where in it, rather than where in gnnscript."""
    try:
        yield
    except GnnscriptError:
        raise
    except SystemExit as error:
        raise GnnscriptError(
            f"{doing}: it ends the process; put what only a program does under "
            "'if __name__ == \"__main__\":'"
        ) from error
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


def inputs_of(target: str) -> Any:
    """The example inputs that a target names, got by calling it where it is a function.

    Raises:
        GnnscriptError: There is no such target, it takes arguments, or it gives no inputs.
    """
    inputs = find(target)
    if callable(inputs):
        try:
            inspect.signature(inputs).bind()
        except TypeError as error:
            raise GnnscriptError(
                f"expected {target!r} to need no arguments, as it is a function: {error}"
            ) from None
        with _telling(f"calling {target!r}"):
            inputs = inputs()
    if not isinstance(inputs, (tuple, dict, list)):
        raise GnnscriptError(
            f"expected {target!r} to be a tuple, a dict or a list of these, got "
            f"{type(inputs).__name__}; write (x,) for a single argument"
        )
    return inputs
