"""Classes that are called: objects known by their parts, and those that TorchScript makes."""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import inspect
import re
import typing
from typing import Any

import torch

from gnnscript import _pyg
from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import Type, from_annotation
from gnnscript.specialize import sparse
from gnnscript.specialize.folding.base import Arguments, Folded, Folding
from gnnscript.specialize.helpers import is_context, is_plain_class, is_stateless
from gnnscript.specialize.values import Const, Dyn, Seq, Value, literal, static_type


class Construction(Folding):
    """The part of a frame that makes objects."""

    def construct(self, cls: type, given: Arguments) -> Folded:
        """A class is called: named tuples are known by their fields, others are TorchScript's."""
        if issubclass(cls, tuple) and hasattr(cls, "_fields"):
            bound = inspect.signature(cls).bind(*given.args, **given.kwargs)
            fields = [bound.arguments.get(f, (Const(None), None)) for f in cls._fields]
            for position, field in enumerate(cls._fields):
                if field not in bound.arguments:
                    default = getattr(cls, "_field_defaults", {})[field]
                    fields[position] = (self.wrap(default), literal(Const(default)))
            if getattr(cls, "__parameters__", ()):
                cls = _concrete(cls, tuple(static_type(value) for value, _ in fields))
            node = ast.Call(
                self.needed(Const(cls), None), [self.needed(v, n) for v, n in fields], []
            )
            # What is read from it has the type that the class declares.
            declared = from_annotation(cls).args
            items = [
                Dyn(t) if t.name == "Optional" and t.known else value
                for t, (value, _) in zip(declared, fields, strict=True)
            ]
            return Seq(tuple(items), "tuple", cls), node
        if _pyg.is_sparse_tensor(cls):
            return self.call_function(sparse.make, given, None)
        if dataclasses.is_dataclass(cls) and not hasattr(cls, "__torch_script_class__"):
            return self.make_object(cls, given)
        if is_context(cls) or is_plain_class(cls):
            return self.make_record(cls, given)
        if _pyg.is_data_class(cls):
            return self.make_object(_pyg.object_class(cls), given)
        if issubclass(cls, torch.nn.Module):
            return self._make_module(cls, given), None
        if issubclass(cls, enum.Enum) and given.constant:
            return Const(self.compute(ast.Constant(cls.__name__), cls, *given.values()[0])), None
        if cls.__module__ == "itertools" and given.constant:
            args, kwargs = given.values()
            return Const(list(self.compute(ast.Constant(cls.__name__), cls, *args, **kwargs))), None
        if cls in (torch.device, torch.Size, torch.dtype) and given.constant:
            args, kwargs = given.values()
            return Const(self.compute(ast.Constant(cls.__name__), cls, *args, **kwargs)), None
        if cls is torch.device:
            return Dyn(Type("device")), ast.Call(self.needed(Const(cls), None), *self.nodes(given))
        if cls is torch.Size:
            return given.args[0]
        if cls.__module__ == "builtins":
            raise UnsupportedError(
                f"a Python '{cls.__name__}' is made, which TorchScript cannot hold",
                "use tensors, numbers, strings, tuples, lists or dictionaries",
            )
        if _collects(cls):
            raise UnsupportedError(
                f"a '{cls.__name__}' is made while the model runs, which TorchScript cannot hold",
                "use tensors, named tuples or dictionaries in the model",
            )
        node = ast.Call(self.needed(Const(cls), None), *self.nodes(given))
        return Dyn(from_annotation(cls)), node

    def _make_module(self, cls: type[torch.nn.Module], given: Arguments) -> Value:
        """A module that is made for one call, as in ``nn.LeakyReLU(0.2)(x)``: its options."""
        if given.constant:
            args, kwargs = given.values()
            module = self.compute(ast.Constant(cls.__name__), cls, *args, **kwargs)
            if is_stateless(module):
                return Const(module)
        raise UnsupportedError(
            f"a '{cls.__name__}' is made while the model runs",
            "make it in '__init__' and keep it as an attribute",
        )


def _collects(cls: type) -> bool:
    """Whether a class is made of any number of arguments, as TorchScript's classes are not."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    try:
        parameters = inspect.signature(cls).parameters.values()
    except ValueError:
        return False
    return cls.__module__.split(".")[0] != "torch" and any(p.kind in kinds for p in parameters)


@functools.cache
def _concrete(cls: Any, types: tuple[Type, ...]) -> type:
    """A generic named tuple with the types of its fields, as TorchScript has none of variables."""
    if not all(t.known for t in types):
        raise UnsupportedError(
            f"what the generic named tuple '{cls.__name__}' holds has no type in TorchScript",
            "put in tensors, numbers, strings, or lists and tuples of them",
        )
    names = {**vars(typing), "Tensor": torch.Tensor, "torch": torch}
    fields = [(f, eval(str(t), names)) for f, t in zip(cls._fields, types, strict=True)]
    name = "_".join([cls.__name__, *(re.sub(r"\W+", "_", str(t)).strip("_") for t in types)])
    made: Any = typing.NamedTuple(name, fields)  # type: ignore[misc]
    for key, value in vars(cls).items():
        if key not in vars(made) and key != "__orig_bases__":
            setattr(made, key, value)
    made.__module__ = cls.__module__
    return typing.cast("type", made)
