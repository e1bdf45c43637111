"""What the code that is traced finds under the names ``torch``, ``len``, ``gather``, ..."""

from __future__ import annotations

import builtins
import contextlib
import math
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.fx.proxy import Proxy as FxProxy

from gnnscript.ops.derivatives import gradients
from gnnscript.script import Lowered

if TYPE_CHECKING:
    from gnnscript.fx.tracer import Tracer

__all__ = ["is_generated", "renamed"]

# Functions of Python whose calls become nodes where they are made with one.
_BUILTINS = ("bool", "float", "int", "len", "max", "min", "round")
# Say something of the process, not of tensors; they are answered while tracing.
_QUESTIONS = frozenset(
    {
        "device",
        "enable_grad",
        "finfo",
        "get_default_dtype",
        "iinfo",
        "is_available",
        "is_scripting",
        "is_tracing",
        "no_grad",
    }
)


def _has_proxy(value: Any) -> bool:
    """Whether there is a node among the elements of a value."""
    if isinstance(value, FxProxy):
        return True
    if isinstance(value, (tuple, list)):
        return any(map(_has_proxy, value))
    if isinstance(value, dict):
        return any(map(_has_proxy, value.values()))
    return isinstance(value, slice) and _has_proxy((value.start, value.stop, value.step))


def _recorded(function: Callable[..., Any], tracer: Tracer) -> Callable[..., Any]:
    """A function whose calls become nodes, where a node is an argument or a tensor is made."""
    makes_tensors = isinstance(function, types.BuiltinFunctionType) and (
        getattr(torch, function.__name__, None) is function
    )

    def record(*args: Any, **kwargs: Any) -> Any:
        if makes_tensors or _has_proxy(args) or _has_proxy(kwargs):
            return tracer.create_proxy("call_function", function, args, kwargs)
        return function(*args, **kwargs)

    return record


class _Namespace:
    """Stands for ``torch`` or ``math``: its functions become nodes.

    Nodes do not see all calls that are made with them: ``torch.zeros(size)`` takes numbers.
    """

    def __init__(self, module: Any, tracer: Tracer) -> None:
        self._module = module
        self._tracer = tracer

    def __getattr__(self, name: str) -> Any:
        return _stand_in(getattr(self._module, name), name, self._tracer)


def _stand_in(value: Any, name: str, tracer: Tracer) -> Any:
    """What traced code finds in place of something of torch's."""
    if name == "_unwrap_optional":
        return lambda value: value
    if name == "annotate":
        return lambda _type, value: value
    if name == "isinstance":
        return lambda of, kind: torch.jit.isinstance(tracer.known(of), kind)  # type: ignore[no-untyped-call]
    if value is torch.autograd.grad:
        return _recorded(gradients, tracer)
    if value is torch.set_grad_enabled:
        return tracer.set_grad_enabled
    if value is torch.is_grad_enabled:
        return tracer.is_grad_enabled
    if isinstance(value, (types.ModuleType, torch._ops._OpNamespace, torch._ops._Ops)):
        return _Namespace(value, tracer)
    if isinstance(value, type) or name in _QUESTIONS or not callable(value):
        return value
    return _recorded(value, tracer)


def _is_op(value: Any) -> bool:
    module = getattr(value, "__module__", None) or ""
    return isinstance(value, types.FunctionType) and module.startswith("gnnscript.ops")


def _stand_ins(namespace: dict[str, Any], tracer: Tracer) -> dict[str, Any]:
    def is_instance(value: Any, kind: Any) -> bool:
        return isinstance(tracer.known(value), kind)

    found: dict[str, Any] = {}
    for name in _BUILTINS:
        if namespace.get(name, getattr(builtins, name)) is getattr(builtins, name):
            found[name] = _recorded(getattr(builtins, name), tracer)
    if "isinstance" not in namespace:
        found["isinstance"] = is_instance
    for name, value in namespace.items():
        if value is math or (isinstance(value, types.ModuleType) and _is_torch(value)):
            found[name] = _Namespace(value, tracer)
        elif _is_op(value):
            found[name] = _recorded(value, tracer)
    return found


def _is_torch(module: types.ModuleType) -> bool:
    return module.__name__.partition(".")[0] == "torch"


def is_generated(function: Any) -> bool:
    """Whether fx has written a function, as it does of a graph that is loaded."""
    code = getattr(function, "__code__", None)
    return code is not None and "eval_with_key" in code.co_filename


@contextlib.contextmanager
def renamed(root: torch.nn.Module, tracer: Tracer) -> Iterator[None]:
    """Puts stand-ins into the namespaces of the specialised classes, while they are traced."""
    namespaces = {
        id(function.__globals__): function.__globals__
        for module in root.modules()
        if isinstance(module, Lowered)
        for function in vars(type(module)).values()
        if isinstance(function, types.FunctionType)
        and function.__module__ == type(module).__module__
    }
    forward = type(root).forward
    if is_generated(forward):
        namespaces[id(forward.__globals__)] = forward.__globals__
    missing = object()
    before = []
    try:
        for namespace in namespaces.values():
            for name, value in _stand_ins(namespace, tracer).items():
                before.append((namespace, name, namespace.get(name, missing)))
                namespace[name] = value
        yield
    finally:
        for namespace, name, value in reversed(before):
            if value is missing:
                del namespace[name]
            else:
                namespace[name] = value
