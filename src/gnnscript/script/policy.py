"""Which modules of a model are specialised, and which are left to TorchScript."""

from __future__ import annotations

import inspect
import sys
import types

import torch

from gnnscript import _pyg

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
    if not auto or not any(_uses_pyg(type(module)) for module in root.modules()):
        return False
    _pyg.message_passing()  # a model of our ops or torch_scatter's may come without PyG's import
    return True


def _auto() -> bool:
    if _pyg.MESSAGE_PASSING_MODULE not in sys.modules:
        return False
    return bool(vars(_pyg.message_passing()).get(MARK, False))


# PyG, the libraries whose functions are replaced by ours, and ours.
_LIBRARIES = frozenset({"gnnscript", "torch_geometric", "torch_scatter", "torch_cluster"})


def _uses_pyg(cls: type) -> bool:
    """Whether a module class is PyG's, or its methods name something of those libraries'."""
    for parent in cls.__mro__:
        root = parent.__module__.split(".")[0]
        if root == "torch_geometric":
            return True
        if root in ("torch", "builtins"):
            continue
        for function in vars(parent).values():
            if not isinstance(function, types.FunctionType) or function.__name__ == "__init__":
                continue
            namespace = function.__globals__
            if any(name.split(".")[0] in _LIBRARIES for name in function.__code__.co_names):
                return True  # imported inside of the function
            for name in function.__code__.co_names:
                value = namespace.get(name)
                module = getattr(value, "__module__", None) or getattr(value, "__name__", None)
                pyg = isinstance(module, str) and module.split(".")[0] in _LIBRARIES
                if pyg and not (inspect.isclass(value) and issubclass(value, torch.nn.Module)):
                    return True
    return False


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
        return self._is_ours(type(module))

    def _is_ours(self, cls: type) -> bool:
        own = self._own and cls.__module__.split(".")[0] != "torch"
        return own or _uses_pyg(cls) or _is_parametrized(cls)

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
        return self._auto and self._is_ours(type(module))

    def _contains(self, module: torch.nn.Module) -> bool:
        if isinstance(module, torch.jit.ScriptModule):
            return False
        if _pyg.is_message_passing(module) and not self._is_handled(module):
            return False
        return any(self(child) for child in module.children())
