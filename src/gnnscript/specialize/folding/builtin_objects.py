"""Functions of objects: of dataclasses that the model makes, of configuration, of the process."""

from __future__ import annotations

import ast
import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from gnnscript._errors import UnsupportedError
from gnnscript.specialize.folding.base import Arguments, Folded, NeedsConstant
from gnnscript.specialize.folding.builtins import evaluated, for_, python_class
from gnnscript.specialize.values import (
    Const,
    Context,
    Mapping,
    ModuleRef,
    Value,
    is_object,
    static_type,
)

if TYPE_CHECKING:
    from gnnscript.specialize.folding.statements import Frame

__all__: list[str] = []


def _fields(frame: Frame, folded: Folded) -> dict[str, Folded] | None:
    """The fields of an object that the model makes; ``None`` for what is none."""
    value, node = folded
    if not isinstance(value, Mapping) or not is_object(value):
        return None
    entries = zip(value.items.values(), frame.entries(value, node), strict=True)
    return dict(zip(value.items, entries, strict=True))


@for_(getattr)
def _getattr(frame: Frame, function: Any, given: Arguments) -> Folded:
    if len(given.args) == 2 and not isinstance(given.args[1][0], Const):
        value, node = given.args[1]
        return frame.pick_attribute(given.args[0][0], value, frame.needed(value, node))
    name = _attribute_name(given)
    if len(given.args) > 2 and not _has(frame, given.args[0][0], name):
        return given.args[2]
    return frame.attribute(*given.args[0], name)


@for_(hasattr)
def _hasattr(frame: Frame, function: Any, given: Arguments) -> Folded:
    return Const(_has(frame, given.args[0][0], _attribute_name(given))), None


@for_(setattr)
def _setattr(frame: Frame, function: Any, given: Arguments) -> Folded:
    raise UnsupportedError("'setattr' has no TorchScript form", "write 'self.name = value'")


def _attribute_name(given: Arguments) -> str:
    value = given.args[1][0]
    if not isinstance(value, Const):
        raise NeedsConstant(
            "an attribute is looked up by a name that is known only at run time",
            "use a constant name, or a loop over constants",
        )
    return str(value.value)


def _has(frame: Frame, value: Value, name: str) -> bool:
    if isinstance(value, ModuleRef):
        path = frame.program.owner(value).ref.path
        return hasattr(value.module, name) or (path, name) in frame.program.written
    if isinstance(value, Const):
        return hasattr(value.value, name)
    if is_object(value):
        assert isinstance(value, Mapping)
        return name in value.items or hasattr(value.cls, name)
    t = static_type(value)
    cls = python_class(t)
    return cls is not None and hasattr(cls, name)


@for_(vars, dataclasses.asdict)
def _as_dictionary(frame: Frame, function: Any, given: Arguments) -> Folded:
    fields = _fields(frame, given.args[0]) if given.args else None
    if fields is not None:
        return frame.mapping(
            {name: value for name, (value, _) in fields.items()},
            [node for _, node in fields.values()],
        )
    done = evaluated(frame, function, given) if given.args else None
    if done is None:
        raise UnsupportedError(f"'{function.__name__}' has no TorchScript form", "name the fields")
    return done


@for_(
    torch.no_grad,
    torch.enable_grad,
    torch.inference_mode,
    torch.autocast,
    torch.autograd.profiler.record_function,
)
def _context(frame: Frame, function: Any, given: Arguments) -> Folded:
    """It is entered where its block stands, perhaps by another name."""
    return Context(function, given), None


@for_(dataclasses.astuple)
def _as_tuple(frame: Frame, function: Any, given: Arguments) -> Folded:
    fields = _fields(frame, given.args[0])
    if fields is None:
        done = evaluated(frame, function, given)
        if done is None:
            raise UnsupportedError("'astuple' of what is no dataclass", "name the fields")
        return done
    values, nodes = zip(*fields.values(), strict=True)
    return frame.sequence("tuple", list(values), list(nodes))


@for_(dataclasses.replace)
def _replace(frame: Frame, function: Any, given: Arguments) -> Folded:
    fields = _fields(frame, given.args[0])
    if fields is not None and isinstance(given.args[0][0], Mapping):
        changed = Arguments([], {**fields, **given.kwargs})
        return frame.call(Const(given.args[0][0].cls), changed, None)
    value = given.args[0][0]
    if isinstance(value, Const) and dataclasses.is_dataclass(value.value):
        held = {f.name: getattr(value.value, f.name) for f in dataclasses.fields(value.value)}
        kept: dict[str, Folded] = {name: (frame.wrap(v), None) for name, v in held.items()}
        return frame.call(Const(type(value.value)), Arguments([], {**kept, **given.kwargs}), None)
    raise UnsupportedError("'replace' of what is no dataclass", "make a new object")


@for_(dataclasses.is_dataclass)
def _is_dataclass(frame: Frame, function: Any, given: Arguments) -> Folded:
    value = given.args[0][0]
    held = getattr(value, "cls", None) if isinstance(value, Mapping) else getattr(value, "value", 0)
    return Const(dataclasses.is_dataclass(held)), None


@for_(dataclasses.fields)
def _field_names(frame: Frame, function: Any, given: Arguments) -> Folded:
    value = given.args[0][0]
    held = value.cls if isinstance(value, Mapping) else getattr(value, "value", None)
    return Const(frame.compute(ast.Constant("fields"), dataclasses.fields, held)), None
