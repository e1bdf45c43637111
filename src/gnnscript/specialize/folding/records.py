"""Methods, properties and operators of named tuples and dataclasses: specialised where used."""

from __future__ import annotations

import ast
from typing import Any

from gnnscript._errors import UnsupportedError
from gnnscript.specialize.folding.base import Arguments, Folded, Folding
from gnnscript.specialize.helpers import is_record
from gnnscript.specialize.values import (
    Const,
    Dyn,
    Mapping,
    Seq,
    Super,
    Value,
    literal,
    static_type,
)

_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "truediv",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
    ast.Pow: "pow",
    ast.MatMult: "matmul",
}


class Records(Folding):
    """The part of a frame that calls what the class of a named tuple or dataclass defines."""

    def record_method(
        self, holder: Value, base: ast.expr | None, name: str, given: Arguments
    ) -> Folded | None:
        """``holder.name(...)``; ``None`` if the class of ``holder`` defines no such method."""
        cls, found = _defined(holder, name)
        if isinstance(found, staticmethod):
            return self.call_function(found.__func__, given, cls)
        if isinstance(found, classmethod):
            first: Folded = (Const(cls), None)
            return self.call_function(found.__func__, _with(first, given), cls)
        if not callable(found) or isinstance(found, type):
            return None
        return self.call_function(found, _with((holder, base), given), cls)

    def method_of_parent(self, holder: Super, name: str, given: Arguments) -> Folded:
        """``super().name(...)`` in a method of such a class."""
        assert isinstance(holder.owner, Mapping)
        order = holder.owner.cls.__mro__
        behind = order[order.index(holder.after) + 1 :]
        cls = next((parent for parent in behind if name in vars(parent)), object)
        if cls is object:
            if name == "__init__":
                return Const(None), None
            raise UnsupportedError(f"no parent class has '{name}'", "check the spelling")
        first = getattr(self.source.node, "args").args[0].arg  # noqa: B009
        this = self.fold_Name(ast.Name(first, ast.Load()))
        return self.call_function(vars(cls)[name], _with(this, given), cls)

    def record_attribute(self, holder: Value, base: ast.expr | None, name: str) -> Folded | None:
        """``holder.name`` that is a property or a constant of the class of ``holder``."""
        cls, found = _defined(holder, name)
        if isinstance(found, property):
            return self.call_function(found.fget, Arguments([(holder, base)], {}), cls)
        if cls is None or callable(found) or isinstance(found, (staticmethod, classmethod)):
            return None
        return self.wrap(found), literal(Const(found))

    def record_operator(self, operator: ast.operator, left: Folded, right: Folded) -> Folded | None:
        """``left * right`` and the like, where the class of one of them defines it."""
        name = _OPERATORS.get(type(operator))
        if name is None:
            return None
        done = self.record_method(*left, f"__{name}__", Arguments([right], {}))
        return done or self.record_method(*right, f"__r{name}__", Arguments([left], {}))


def _with(first: Folded, given: Arguments) -> Arguments:
    return Arguments([first, *given.args], given.kwargs)


def _defined(holder: Value, name: str) -> tuple[Any, Any]:
    """The class of a named tuple or dataclass, and what its author has defined under a name."""
    if isinstance(holder, Mapping) and is_record(holder.cls):
        return next(
            ((holder.cls, vars(c)[name]) for c in holder.cls.__mro__[:-1] if name in vars(c)),
            (None, None),
        )
    if not isinstance(holder, (Seq, Dyn)):
        return None, None
    cls = static_type(holder).cls
    if not isinstance(cls, type) or not hasattr(cls, "_fields") or name in cls._fields:
        return None, None
    for parent in cls.__mro__:
        if parent is tuple or name in _GENERATED:
            break
        if name in vars(parent):
            return cls, vars(parent)[name]
    return None, None


_GENERATED = frozenset({"_make", "_replace", "_asdict", "__new__", "__repr__", "__getnewargs__"})
