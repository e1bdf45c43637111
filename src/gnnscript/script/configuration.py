"""What specialised code depends on beside the types of its arguments, as keys to compare.

An eager call may take specialised code again only while all that was folded into it is the same:
the attributes of the conv and what these hold, and the globals and class attributes that its code
reads.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from gnnscript.analyze.sources import FunctionSource

__all__ = ["Read", "configuration", "frozen", "read_again"]

Read = tuple[Any, str]
"""A function, class or module of Python and the name of something that was read from it."""

_HOOKS = ("message", "aggregate", "update", "edge_update")
_SIMPLE = (int, float, bool, str, bytes, complex, type(None))
# What every module has, and what PyG's inspector holds, are no configuration.
_HELD = frozenset(vars(torch.nn.Module())) | {"inspector", "_user_args", "_fused_user_args"}
_DEEPEST = 6
_LONGEST = 256
_MISSING = object()


Within = tuple[int, ...]
"""The modules, by ``id``, whose configuration is being taken: an attribute may lead back to one."""


def configuration(module: torch.nn.Module, within: Within = ()) -> tuple[Any, ...]:
    """What the specialised code depends on of a module: all that is folded or looked into."""
    if id(module) in within:
        return (type(module), within.index(id(module)))
    within = (*within, id(module))
    parts: list[Any] = [type(module), type(module).forward]
    for name, value in module.__dict__.items():
        if name not in _HELD and not name.endswith("_hooks"):
            parts.append((name, frozen(value, within=within)))
    for name, tensor in module._parameters.items():
        if tensor is None or torch.nn.parameter.is_lazy(tensor):
            parts.append((name, type(tensor)))
        else:
            parts.append((name, tensor.dim()))
    for name, buffer in module._buffers.items():
        parts.append((name, buffer is None))
    parts.append(bool(module._forward_hooks or module._forward_pre_hooks))
    parts += [getattr(type(module), hook, None) for hook in _HOOKS]
    for name, child in module._modules.items():
        parts.append((name, None if child is None else configuration(child, within)))
    return tuple(parts)


def frozen(value: Any, depth: int = 0, within: Within = ()) -> Hashable:
    """A key that is equal only for values that fold alike."""
    kind = type(value)
    if kind in _SIMPLE:
        return value if kind is str else (kind, value)
    if isinstance(value, Tensor):
        return (kind, value.dim(), value.dtype)
    if isinstance(value, torch.nn.Module):
        return configuration(value, within)
    if isinstance(value, (enum.Enum, torch.dtype, torch.device, torch.layout)):
        return value
    if kind.__module__ == "numpy":
        return (kind, repr(value))
    if depth > _DEEPEST:
        return id(value)
    if isinstance(value, (tuple, list, set, frozenset, dict)):
        if len(value) > _LONGEST:
            return (kind, id(value), len(value))
        if isinstance(value, dict):
            return (
                kind,
                *(
                    (frozen(k, depth, within), frozen(v, depth + 1, within))
                    for k, v in value.items()
                ),
            )
        if isinstance(value, (set, frozenset)):
            return (kind, frozenset(frozen(v, depth + 1, within) for v in value))
        return (kind, *(frozen(v, depth + 1, within) for v in value))
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return (kind, *(frozen(part, depth + 1, within) for part in parts))
    if isinstance(value, types.MethodType):
        return (kind, id(value.__self__), value.__func__)
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, types.ModuleType)):
        return value
    if isinstance(value, type):
        return (id(value), *_class_data(value, depth, within))
    return _object(value, depth, within)


def _object(value: Any, depth: int, within: Within) -> Hashable:
    """An object by its fields, if they are to be seen."""
    kind = type(value)
    if kind.__module__.split(".")[0] in ("torch", "torch_geometric", "builtins"):
        return (kind, id(value))
    held = getattr(value, "__dict__", None)
    if dataclasses.is_dataclass(value):
        held = {f.name: getattr(value, f.name, _MISSING) for f in dataclasses.fields(value)}
    if not isinstance(held, dict):
        return (kind, id(value))
    return (id(kind), frozen(dict(held), depth + 1, within), *_class_data(kind, depth, within))


def _class_data(cls: type, depth: int, within: Within) -> tuple[Hashable, ...]:
    """The fields that a class of the user's gives its objects."""
    if cls.__module__.split(".")[0] in ("torch", "torch_geometric", "builtins"):
        return ()
    return tuple(
        (name, frozen(value, depth + 1, within))
        for base in cls.__mro__[:-1]
        for name, value in vars(base).items()
        if not name.startswith("__") and type(value) in (*_SIMPLE, tuple, list, dict)
    )


def read_again(read: Read) -> Hashable:
    """What a name means now."""
    place, name = read
    if isinstance(place, FunctionSource):
        try:
            return _held(place.resolve(name))
        except KeyError:
            return _MISSING
    if isinstance(place, type):
        for cls in place.__mro__:
            if name in cls.__dict__:
                return frozen(cls.__dict__[name])
        return _MISSING
    return _held(getattr(place, name, _MISSING))


def _held(value: Any) -> Hashable:
    """The value of a global; that of a tensor is written into the code."""
    if not isinstance(value, Tensor) or value.is_inference():
        return frozen(value)
    return (id(value), value._version, frozen(value))
