"""Tables: lists and dictionaries of Python's in which a value known only at run time is looked up.

A table that an attribute holds becomes an attribute of the lowered module, of TorchScript's type;
any other is written down where it is used. Where the code itself fills a table, the scripted
module has one of its own, and starts from what the eager module's holds.
"""

from __future__ import annotations

import ast
import collections
from typing import Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import (
    UNKNOWN,
    Type,
    dict_of,
    list_of,
    table_type,
)
from gnnscript.specialize.folding.base import Arguments, Folded, Folding, NeedsConstant
from gnnscript.specialize.folding.mutation import CHANGE_IN_PLACE, CHANGE_SETS
from gnnscript.specialize.folding.sets import is_set
from gnnscript.specialize.values import Const, Dyn, ModuleRef, Seq, Value, literal, static_type


class Tables(Folding):
    """The part of a frame that looks up in tables, and fills them."""

    def table(self, holder: Value, base: ast.expr | None, key: Type) -> Folded | None:
        """A constant list, tuple or dictionary as a value of run time, to look ``key`` up in.

        Raises:
            NeedsConstant: Its keys or its entries have no one type.
            AttributeFound: It is empty so far, which the code must change.
        """
        t = static_type(holder)
        if isinstance(holder, (Seq, Dyn)) and t.name == "Tuple" and t.cls is None:
            return self._evened(t, base)
        if not is_table(holder):
            return None
        assert isinstance(holder, Const)
        home = self.program.homes.get(id(holder.value))
        if not holder.value and home is not None:
            empty = dict_of(key, UNKNOWN) if isinstance(holder.value, dict) else list_of(UNKNOWN)
            self.program.record_growth(home[0], home[1], empty)
        known = table_type(holder.value)
        if known is None:
            raise NeedsConstant(
                "what an index picks that is known only at run time has no one type: "
                f"{_described(holder.value)}",
                "give all entries one type, and all keys of a dictionary (int or str); or use a "
                "constant index, or a loop over the entries",
            )
        if home is not None and self._reaches(home[0]):
            self.program.owner(home[0]).attributes[home[1]] = known
            return Dyn(known), self.self_attribute(*home[:2])
        return Dyn(known), _display(holder.value)

    def _reaches(self, ref: ModuleRef) -> bool:
        if self.owner is None:
            return False
        prefix = self.owner.ref.path
        return ref.path[: len(prefix)] == prefix

    def _evened(self, t: Type, base: ast.expr | None) -> Folded | None:
        """A tuple of values of one type, as the list that TorchScript indexes at run time."""
        if len(set(t.args)) != 1 or not t.known or base is None:
            return None
        return Dyn(list_of(t.args[0])), ast.List(
            self.element_nodes(base, len(t.args)).elts, ast.Load()
        )

    def method_of_constant(
        self, holder: Const, name: str, node: ast.Call, given: Arguments
    ) -> Folded | None:
        """A call of a constant's method, where its arguments are constants as well."""
        assert isinstance(node.func, ast.Attribute)
        self.fill_by(node.func.value, holder, name, given)
        if is_set(holder.value) and not given.constant:
            return self.method_of_set(*self.as_set(holder, None), name, given.args)
        if name in CHANGE_IN_PLACE | CHANGE_SETS and isinstance(holder.value, (list, dict, set)):
            raise UnsupportedError(
                f"'{name}' would change a Python object of the eager model",
                "work on a copy, or keep what changes in tensors",
            )
        if given.constant and name in dir(holder.value):
            method = getattr(holder.value, name)
            args, kwargs = given.values()
            result = self.compute(node, method, *args, **kwargs)
            if isinstance(result, (type({}.keys()), type({}.values()), type({}.items()))):
                result = list(result)
            return self.wrap(result), None
        return None

    def fill(self, place: ast.expr, holder: Value, given: Type) -> None:
        """Notes that the code changes the table that an attribute holds, named by ``place``.

        Raises:
            AttributeFound: It was a constant so far, or its type was not known.
        """
        home: tuple[ModuleRef, str] | None = None
        if is_table(holder):
            assert isinstance(holder, Const)
            found = self.program.homes.get(id(holder.value))
            home = found[:2] if found is not None else None
        elif isinstance(place, ast.Attribute) and not static_type(holder).known:
            owner, _ = self.fold(place.value)
            home = (owner, self.mangled(place.attr)) if isinstance(owner, ModuleRef) else None
        if home is not None:
            self.program.record_growth(home[0], home[1], given)

    def fill_item(self, target: ast.Subscript, holder: Value, item: Value) -> None:
        """Like :meth:`fill`, for ``place[key] = item``."""
        if _kind(holder) == "Dict":
            key = self.index(target.slice)[0]
            self.fill(target.value, holder, dict_of(static_type(key), static_type(item)))
        elif _kind(holder) == "List":
            self.fill(target.value, holder, list_of(static_type(item)))

    def fill_by(self, place: ast.expr, holder: Value, name: str, given: Arguments) -> None:
        """Like :meth:`fill`, for a call of a method that changes a list or dictionary."""
        if name not in CHANGE_IN_PLACE:
            return
        types = [static_type(value) for value, _ in given.args]
        kind = _kind(holder)
        if kind == "List":
            item = {"append": 0, "insert": 1}.get(name)
            grown = list_of(types[item]) if item is not None else list_of(UNKNOWN)
            if name == "extend" and types[0].name in ("List", "Tuple"):
                grown = list_of(self.element_type(types[0]).type)
            self.fill(place, holder, grown)
        elif kind == "Dict":
            grown = dict_of(types[0] if name in ("pop", "setdefault") else UNKNOWN, UNKNOWN)
            if name == "setdefault" and len(types) > 1:
                grown = dict_of(*types[:2])
            elif name == "update" and types and types[0].name == "Dict":
                grown = types[0]
            self.fill(place, holder, grown)


def _kind(holder: Value) -> str:
    """``List`` or ``Dict`` of what can be filled, else nothing."""
    if isinstance(holder, Const):
        kinds: dict[Any, str] = {list: "List", dict: "Dict", collections.OrderedDict: "Dict"}
        return kinds.get(type(holder.value), "")
    return holder.type.name if isinstance(holder, Dyn) else ""


def is_table(holder: Value) -> bool:
    """Whether a value is a constant list, tuple or dictionary, in which something is looked up."""
    if not isinstance(holder, Const):
        return False
    value = holder.value
    return type(value) in (list, tuple, dict, collections.OrderedDict)


def _described(value: Any) -> str:
    kinds: dict[str, None] = {}
    for entry in value.values() if isinstance(value, dict) else value:
        kinds[f"'{type(entry).__name__}'"] = None
    if not kinds:
        return "there is none"
    entries = f"entries of type {', '.join(kinds)}"
    if not isinstance(value, dict):
        return entries
    keys = dict.fromkeys(f"'{type(key).__name__}'" for key in value)
    return f"keys of type {', '.join(keys)}, {entries}"


def _display(value: Any) -> ast.expr:
    """A table, written down."""
    entries = list(value.values()) if isinstance(value, dict) else list(value)
    nodes = [literal(Const(entry)) for entry in entries]
    if any(node is None for node in nodes):
        raise UnsupportedError(
            "an index that is known only at run time picks from Python objects",
            "use a constant index, or a loop over the objects",
        )
    elements = [node for node in nodes if node is not None]
    if not isinstance(value, dict):
        return ast.List(elements, ast.Load())
    return ast.Dict([literal(Const(key)) for key in value], elements)
