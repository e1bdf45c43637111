"""Sets of run time: dictionaries whose keys are the elements, as TorchScript has no sets.

The order of a set is that of Python's hash table. Code that depends on it is refused; membership,
size, the operations of sets, and ``sorted``, ``min``, ``max`` and ``sum`` of one do not.
"""

from __future__ import annotations

import ast
from typing import Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import (
    BOOL,
    FLOAT,
    INT,
    STR,
    UNKNOWN,
    Type,
    dict_of,
    has_tuple_keys,
    key_type,
    list_of,
    set_of,
)
from gnnscript.specialize.folding.base import Arguments, Folded, Folding, Learned
from gnnscript.specialize.folding.builtin_sequences import parts_of
from gnnscript.specialize.set_operations import SET_OPERATIONS
from gnnscript.specialize.values import Const, Dyn, Value, literal, static_type

_OPERATORS: dict[type[ast.operator], str] = {
    ast.BitOr: "union",
    ast.BitAnd: "intersection",
    ast.Sub: "difference",
    ast.BitXor: "symmetric_difference",
}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "equal",
    ast.LtE: "issubset",
    ast.GtE: "issuperset",
    ast.Lt: "proper_subset",
    ast.Gt: "proper_superset",
}
_IN_PLACE = {f"{name}_update": name for name in _OPERATORS.values()}
_IN_PLACE["update"] = _IN_PLACE.pop("union_update")


class Sets(Folding):
    """The part of a frame that folds sets."""

    def fold_Set(self, node: ast.Set) -> Folded:
        display = ast.copy_location(ast.List(node.elts, ast.Load()), node)
        return self.make_set(self.fold(display))

    def fold_SetComp(self, node: ast.SetComp) -> Folded:
        listed = ast.ListComp(node.elt, node.generators)
        return self.make_set(self.fold(ast.copy_location(listed, node)))

    def make_set(self, values: Folded) -> Folded:
        """``set(values)``."""
        value, node = values
        if isinstance(value, Const) and not isinstance(value.value, str):
            return Const(self.compute(ast.Constant("set"), set, value.value)), None
        parts = parts_of(self, values)  # type: ignore[arg-type]
        if parts is not None:
            return self._set_of_parts(parts)
        t = static_type(value)
        kept = self.needed(value, node)
        if t.name == "Set":
            return value, ast.Call(ast.Attribute(kept, "copy", ast.Load()), [], [])
        if t.name not in ("List", "Dict"):
            raise UnsupportedError(
                f"a set is made of a '{t}'", "make it of a list: of a tensor, x.tolist()"
            )
        held = ast.Name(self.fresh("element"), ast.Store())
        key = self.set_key(Dyn(t.args[0]), ast.Name(held.id, ast.Load()))
        if t.name == "Dict":
            kept = ast.Call(ast.Attribute(kept, "keys", ast.Load()), [], [])
        made = ast.DictComp(key, ast.Constant(True), [ast.comprehension(held, kept, [], 0)])
        return Dyn(set_of(t.args[0])), made

    def _set_of_parts(self, parts: list[Folded]) -> Folded:
        types = {static_type(value) for value, _ in parts}
        if len(types) > 1:
            raise UnsupportedError(
                "a set of run time holds elements of several types", "give all one type"
            )
        keys: list[ast.expr | None] = [self.set_key(*part) for part in parts]
        made = ast.Dict(keys, [ast.Constant(True) for _ in keys])
        return Dyn(set_of(types.pop() if types else UNKNOWN)), made

    def runtime_set(self, value: Const, declared: Type | None) -> Folded:
        """A set that is known so far, and changes: its elements, or an empty one."""
        if not value.value and declared is not None and declared.name == "Set":
            return Dyn(declared), ast.Dict([], [])
        elements = sorted(value.value, key=str)
        return self._set_of_parts([(Const(item), literal(Const(item))) for item in elements])

    def set_key(self, value: Value, node: ast.expr | None) -> ast.expr:
        """An element as a key of TorchScript's dictionaries: a tuple of integers as a text."""
        t = static_type(value)
        kept = self.needed(value, node)
        if t in (INT, STR, FLOAT):
            return kept
        if t.name == "Tuple" and t.args and set(t.args) == {INT}:
            parts: list[ast.expr] = []
            for element in self.element_nodes(kept, len(t.args)).elts:
                parts += [ast.Constant(",")] if parts else []
                parts.append(ast.FormattedValue(element, -1, None))
            return ast.JoinedStr(parts)
        raise UnsupportedError(
            f"a set of run time holds a '{t}'",
            "put in integers, floats, strings, or tuples of integers: of a tensor, int(x)",
        )

    def as_set(self, value: Value, node: ast.expr | None) -> tuple[Dyn, ast.expr]:
        """An operand, or an argument, as a set of run time."""
        if isinstance(value, Const) and isinstance(value.value, (set, frozenset)):
            value, node = self.runtime_set(value, None)
        elif static_type(value).name != "Set":
            value, node = self.make_set((value, node))
            if isinstance(value, Const):
                value, node = self.runtime_set(value, None)
        assert isinstance(value, Dyn)
        return value, self.needed(value, node)

    def _operate(self, name: str, left: Folded, right: Folded) -> Folded:
        pairs = [self.as_set(*left), self.as_set(*right)]
        known = [v.type for v, _ in pairs if v.type.args != (UNKNOWN,)]
        t = known[0] if known else pairs[0][0].type
        if any(other != t for other in known):
            raise UnsupportedError(
                f"sets of a '{known[0].args[0]}' and of a '{known[1].args[0]}' are compared",
                "give the elements one type",
            )
        held = dict_of(key_type(t), BOOL)
        given = Arguments([(Dyn(held), node) for _, node in pairs], {})
        value, node = self.call_function(SET_OPERATIONS[name], given, None)
        return (value if static_type(value) == BOOL else Dyn(t)), node

    def set_operator(self, op: ast.operator, left: Folded, right: Folded) -> Folded | None:
        """``left | right`` and the like, if one is a set of run time."""
        if "Set" not in {static_type(v).name for v, _ in (left, right)}:
            return None
        name = _OPERATORS.get(type(op))
        return None if name is None else self._operate(name, left, right)

    def set_comparison(self, op: ast.cmpop, left: Folded, right: Folded) -> Folded | None:
        """``left <= right`` and the like, if one is a set of run time."""
        holder = static_type(right[0])
        keyed = holder.name == "Set" or has_tuple_keys(holder)
        if isinstance(op, (ast.In, ast.NotIn)) and keyed:
            key = self.set_key(*left)
            return Dyn(BOOL), ast.Compare(key, [op], [self.needed(*right)])
        if "Set" not in {static_type(v).name for v, _ in (left, right)}:
            return None
        if isinstance(op, ast.NotEq):
            value, node = self._operate("equal", left, right)
            return value, ast.UnaryOp(ast.Not(), self.needed(value, node))
        name = _COMPARISONS.get(type(op))
        return None if name is None else self._operate(name, left, right)

    def augment_set(self, held: Folded, op: ast.operator, given: Folded) -> bool:
        """``held |= given`` and the like, of a set of run time; whether it was one."""
        name = _OPERATORS.get(type(op))
        if name is None:
            return False
        method = next(key for key, value in _IN_PLACE.items() if value == name)
        self.method_of_set(held[0], self.needed(*held), method, [given])
        return True

    def method_of_set(self, held: Value, node: ast.expr, name: str, args: list[Folded]) -> Folded:
        """``held.name(...)`` of a set of run time."""
        t = static_type(held)
        done: Folded = (Const(None), None)
        if name in ("add", "discard", "remove"):
            self._learn(node, static_type(args[0][0]), t)
            key = self.set_key(*args[0])
            if name == "add":
                place = ast.Subscript(node, key, ast.Store())
                self.emit(ast.Assign([place], ast.Constant(True)))
                return done
            key = self.hold("element", key) or key
            drop = ast.Expr(ast.Call(ast.Attribute(node, "pop", ast.Load()), [key], []))
            if name == "discard":
                self.emit(ast.If(ast.Compare(key, [ast.In()], [node]), [self.stamped(drop)], []))
            else:
                self._change(node, "pop", key)
            return done
        if name == "copy":
            return Dyn(t), ast.Call(ast.Attribute(node, name, ast.Load()), [], [])
        if name == "clear":
            self._change(node, name)
            return done
        if name in _IN_PLACE:
            found: Folded = (Dyn(t), node)
            for given in args:
                self._learn(node, self.as_set(*given)[0].type.args[0], t)
                found = self._operate(_IN_PLACE[name], found, given)
            elements = self.hold("elements", self.needed(*found), force=True)
            assert elements is not None
            self._change(node, "clear")
            self._change(node, "update", elements)
            return done
        if name in _OPERATORS.values() or name in _COMPARISONS.values() or name == "isdisjoint":
            found = (Dyn(t), node)
            for given in args:
                found = self._operate(name, found, given)
            return found
        raise UnsupportedError(
            f"'{name}' of a set whose elements are known only at run time",
            "use add, discard, remove, update, or sorted(...) for a list",
        )

    def _change(self, node: ast.expr, method: str, *args: ast.expr) -> None:
        self.emit(ast.Expr(ast.Call(ast.Attribute(node, method, ast.Load()), list(args), [])))

    def _learn(self, node: ast.expr, element: Type, t: Type) -> None:
        """Gives an empty set the type of what is put into it first."""
        if t.args == (element,) or element == UNKNOWN:
            return
        held_as = node.id if isinstance(node, ast.Name) else ""
        for name, binding in self.env.items():
            if t.args == (UNKNOWN,) and binding.name == held_as and held_as in self.open_lists:
                raise Learned(self, name, set_of(element))
        raise UnsupportedError(
            f"a set of '{t.args[0]}' is given a '{element}'",
            "give its elements one type; where it is empty at first, declare it: "
            "'seen: Set[int] = set()'",
        )

    def listed_set(self, folded: Folded) -> Folded:
        """The elements of a set as a list, for what does not depend on their order."""
        value, node = folded
        t = static_type(value)
        if t.name != "Set":
            return folded
        if has_tuple_keys(t):
            raise unread_keys(t)
        call = ast.Call(ast.Attribute(self.needed(value, node), "keys", ast.Load()), [], [])
        return Dyn(list_of(t.args[0])), ast.Call(ast.Name("list", ast.Load()), [call], [])


def changes_order(t: Type) -> UnsupportedError:
    """The error of reading a set element by element."""
    return UnsupportedError(
        f"the elements of a set of '{t.args[0]}' are read one by one, in an order that only "
        "Python's hash table knows",
        "loop over sorted(...) of it, or keep them in a list or dictionary",
    )


def unread_keys(t: Type) -> UnsupportedError:
    """The error of asking for the tuples that a set or dictionary of run time holds."""
    return UnsupportedError(
        f"the keys of type '{t.args[0]}' of a {t.name.lower()} of run time are read again, which "
        "TorchScript's have none of",
        "keep them in a list as well",
    )


def is_set(value: Any) -> bool:
    """Whether a Python object is a set."""
    return isinstance(value, (set, frozenset))
