"""Which modules of a model are specialised, and which are left to TorchScript."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any

import torch

from gnnscript import _pyg
from gnnscript.script.lowered import Lowered

__all__ = ["MARK", "Policy", "is_handled", "needs_lowering"]

MARK = _pyg.MARK


def is_handled(module: torch.nn.Module) -> bool:
    """Whether the interceptor has attached itself to the class of a message passing module."""
    return _pyg.is_message_passing(module) and bool(getattr(type(module), MARK, False))


def needs_lowering(root: torch.nn.Module, *, auto: bool) -> bool:
    """Whether there is anything in a model for gnnscript to do.

    Args:
        root: The model.
        auto: Whether gnnscript is installed globally.
    """
    if any(is_handled(module) for module in root.modules()):
        return True
    given = (module for module in root.modules() if not isinstance(module, Lowered))
    if not auto or not any(_uses_pyg(module) for module in given):
        return False
    _pyg.message_passing()  # a model of our ops or torch_scatter's may come without PyG's import
    return True


def _auto() -> bool:
    if _pyg.MESSAGE_PASSING_MODULE not in sys.modules:
        return False
    return bool(vars(_pyg.message_passing()).get(MARK, False))


# PyG, the libraries whose functions are replaced by ours, and ours.
_LIBRARIES = frozenset(
    {"gnnscript", "torch_geometric", "torch_scatter", "torch_cluster", "torch_sparse"}
)


# Libraries whose modules TorchScript compiles as they are.
_SCRIPTABLE = ("einops", "torch")


def _uses_pyg(module: torch.nn.Module) -> bool:
    """Whether a module is PyG's, or its functions reach something of those libraries."""
    found = list(vars(module).values())
    for parent in type(module).__mro__:
        root = parent.__module__.split(".")[0]
        if root == "torch_geometric":
            return True
        if root not in ("torch", "builtins", "gnnscript"):
            found += [value for name, value in vars(parent).items() if name != "__init__"]
    return _reach_library([f for f in map(_function_of, found) if f is not None])


def _reach_library(functions: list[types.FunctionType]) -> bool:
    """Whether functions, or the functions that they call, name something of those libraries."""
    seen = {id(function) for function in functions}
    while functions:
        function = functions.pop()
        names = set(_names(function.__code__))
        if any(name.split(".")[0] in _LIBRARIES for name in names):
            return True  # imported inside of the function
        for value in _named(names, function):
            module = getattr(value, "__module__", None) or getattr(value, "__name__", None)
            root = module.split(".")[0] if isinstance(module, str) else ""
            if root in _LIBRARIES:
                if not (inspect.isclass(value) and issubclass(value, torch.nn.Module)):
                    return True
                continue
            called = _function_of(value)
            if called is not None and root != "torch" and id(called) not in seen:
                seen.add(id(called))
                functions.append(called)
    return False


def _function_of(value: Any) -> types.FunctionType | None:
    """The Python function behind a function, a method, a property or a decorated one."""
    if isinstance(value, property):
        value = value.fget
    elif isinstance(value, functools.partial):
        value = value.func
    value = getattr(value, "__func__", value)
    try:
        value = inspect.unwrap(value)
    except ValueError:  # it wraps itself
        return None
    return value if isinstance(value, types.FunctionType) else None


def _names(code: types.CodeType) -> Iterator[str]:
    """The global names and attributes in a function, and in what is defined within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _named(names: set[str], function: types.FunctionType) -> Iterator[Any]:
    """What a function's names may stand for: globals, what is in modules among them, closures."""
    for name in names:
        value = function.__globals__.get(name)
        yield value
        if isinstance(value, types.ModuleType) and value.__name__.split(".")[0] != "torch":
            yield from (vars(value)[inner] for inner in names if inner in vars(value))
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # it is empty
            yield cell.cell_contents


def _is_parametrized(cls: type) -> bool:
    """Whether a class computes its parameters (``torch.nn.utils.parametrize``) or is what does.

    TorchScript refuses those; as a part of a model that is specialised they can be, too.
    """
    return cls.__module__.startswith("torch.nn.utils.parametri")


class Policy:
    """Says of each module of a model whether it is specialised or left to TorchScript.

    Args:
        root: The model.
        everything: Whether classes count that the interceptor has not marked.
        own: Whether the user's own modules are specialised that TorchScript could compile.
    """

    def __init__(
        self, root: torch.nn.Module, *, everything: bool = False, own: bool = False
    ) -> None:
        self._decided: dict[int, bool] = {}
        self._everything = everything
        self._own = own
        self._auto = everything or _auto()
        for module in root.modules():
            if self._is_handled(module):
                for child in module.modules():
                    self._decided.setdefault(id(child), self._is_python(child))
        self._keep = root

    def _is_handled(self, module: torch.nn.Module) -> bool:
        return is_handled(module) or (self._everything and _pyg.is_message_passing(module))

    def _is_python(self, module: torch.nn.Module) -> bool:
        if _pyg.is_message_passing(module):
            return self._is_handled(module)
        if isinstance(module, torch.jit.ScriptModule):
            return False
        return self._is_ours(module)

    def _is_ours(self, module: torch.nn.Module) -> bool:
        cls = type(module)
        own = self._own and cls.__module__.split(".")[0] not in _SCRIPTABLE
        return own or _is_parametrized(cls) or _uses_pyg(module)

    def __call__(self, module: torch.nn.Module) -> bool:
        """Whether a module is specialised."""
        if id(module) not in self._decided:
            self._decided[id(module)] = self._decide(module)
        return self._decided[id(module)] or self._contains(module)

    def _decide(self, module: torch.nn.Module) -> bool:
        if isinstance(module, torch.jit.ScriptModule):
            return False
        if _pyg.is_message_passing(module):
            return self._is_handled(module)
        return self._auto and self._is_ours(module)

    def _contains(self, module: torch.nn.Module) -> bool:
        if isinstance(module, torch.jit.ScriptModule):
            return False
        if _pyg.is_message_passing(module) and not self._is_handled(module):
            return False
        return any(self(child) for child in module.children())
