"""Dictionaries of run time that make the entries that are missing: ``defaultdict`` and ``Counter``.

TorchScript's dictionaries do not: an entry is put in before it is read, or counted from zero.
"""

from __future__ import annotations

import ast
from dataclasses import replace

from gnnscript.analyze.types import Type, list_of, set_of
from gnnscript.specialize.folding.base import Arguments, Binding, Folded, Folding
from gnnscript.specialize.folding.rewritten import parsed, parsed_expression
from gnnscript.specialize.helpers import annotation, torch_name
from gnnscript.specialize.values import Defaulting, Dyn, static_type

_GROWS = ("append", "extend", "add")


class Defaults(Folding):
    """The part of a frame that puts in what such a dictionary lacks."""

    def defaulting(self, node: ast.expr) -> Defaulting | None:
        """The dictionary of ``held[key]``, if it is one of those."""
        if not isinstance(node, ast.Subscript) or not isinstance(node.value, ast.Name):
            return None
        binding = self.env.get(node.value.id)
        value = binding.value if binding is not None else None
        return value if isinstance(value, Defaulting) else None

    def read_default(self, node: ast.Subscript, held: Defaulting) -> Folded:
        """``held[key]``: a ``defaultdict`` has the entry from then on, a ``Counter`` has not."""
        place = self.in_variables(node)
        if not held.counts:
            self._run(f"if {self._missing(place)}: {ast.unparse(place)} = {self._made(held)}", node)
        self._as_plain(place, None)
        try:
            if held.counts:
                found = f"{ast.unparse(place)} if {self._missing(place, 'in')} else 0"
                return self.fold(parsed_expression(found, node))
            return self.fold(place)
        finally:
            self._as_plain(place, held)

    def _as_plain(self, place: ast.Subscript, held: Defaulting | None) -> None:
        """Has the dictionary taken for one without defaults, or for what it is."""
        assert isinstance(place.value, ast.Name)
        binding = self.env[place.value.id]
        assert isinstance(binding.value, Dyn)
        value = Dyn(binding.value.type) if held is None else held
        self.env[place.value.id] = Binding(value, binding.name, binding.node)

    def add_to_default(self, node: ast.AugAssign, held: Defaulting) -> None:
        """``held[key] += value``."""
        assert isinstance(node.target, ast.Subscript)
        place, item = self.in_variables(node.target), self._variable("item", node.value)
        start, made = self.fresh("default"), self.call(held.default, Arguments([], {}), None)
        self.env[start] = Binding(made[0], None, made[1])
        spelled = ast.unparse(place)
        operator = ast.unparse(ast.BinOp(ast.Name(start), node.op, ast.Name(item)))
        grown = ast.unparse(ast.BinOp(place, node.op, ast.Name(item)))
        self._as_plain(place, None)
        self._run(
            f"if {self._missing(place)}: {spelled} = {operator}\nelse: {spelled} = {grown}", node
        )
        self._as_plain(place, self._like(held, place))

    def grow_default(self, node: ast.expr) -> bool:
        """``held[key].append(value)`` as a statement; whether it was one."""
        func = node.func if isinstance(node, ast.Call) else None
        if not isinstance(func, ast.Attribute) or func.attr not in _GROWS:
            return False
        held = self.defaulting(func.value)
        if held is None or not isinstance(node, ast.Call) or len(node.args) != 1:
            return False
        assert isinstance(func.value, ast.Subscript)
        place, item = self.in_variables(func.value), self._variable("item", node.args[0])
        spelled, t = ast.unparse(place), static_type(self.env[item].value)
        made = {"append": list_of(t), "add": set_of(t)}.get(func.attr, t)
        empty = self._empty(made)
        self._as_plain(place, None)
        self._run(f"if {self._missing(place)}: {spelled} = {empty}", node)
        self._run(f"{spelled}.{func.attr}({item})", node)
        self._as_plain(place, self._like(held, place))
        return True

    def _like(self, held: Defaulting, place: ast.Subscript) -> Defaulting:
        assert isinstance(place.value, ast.Name)
        value = self.env[place.value.id].value
        return replace(held, type=value.type) if isinstance(value, Dyn) else held

    def _made(self, held: Defaulting) -> str:
        """The variable that stands for what the dictionary makes for a key."""
        t = held.type.args[1]
        if t.name in ("List", "Dict", "Set"):
            return self._empty(t)
        name = self.fresh("default")
        value, node = self.call(held.default, Arguments([], {}), None)
        self.env[name] = Binding(value, None, node)
        return name

    def _empty(self, t: Type) -> str:
        """The variable that stands for an empty list or dictionary of a type."""
        name = self.fresh("default")
        empty = ast.Dict([], []) if t.name in ("Dict", "Set") else ast.List([], ast.Load())
        made = ast.Call(torch_name("torch.jit.annotate"), [annotation(t), empty], [])
        self.env[name] = Binding(Dyn(t), None, made)
        return name

    @staticmethod
    def _missing(place: ast.Subscript, how: str = "not in") -> str:
        return f"{ast.unparse(place.slice)} {how} {ast.unparse(place.value)}"

    def _variable(self, wish: str, node: ast.expr) -> str:
        name = self.fresh(wish)
        self.bind(name, *self.fold(node))
        return name

    def _run(self, code: str, at: ast.AST) -> None:
        self.block(parsed(code, at))
