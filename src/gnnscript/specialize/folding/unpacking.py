"""Unpacking: ``a, *b = values``, one by one where the elements are known."""

from __future__ import annotations

import ast

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import TENSOR, UNKNOWN, Type
from gnnscript.specialize.folding.base import Arguments, Binding, Fails, Folding
from gnnscript.specialize.program import is_runtime
from gnnscript.specialize.values import (
    Const,
    Dyn,
    ModuleRef,
    Seq,
    Value,
    constant_items,
    generalize,
    literal,
    static_type,
)


class Unpacking(Folding):
    """The part of a frame that unpacks."""

    def unpack(self, target: ast.Tuple | ast.List, value: Value, residual: ast.expr | None) -> None:
        starred = [i for i, e in enumerate(target.elts) if isinstance(e, ast.Starred)]
        if residual is not None:
            value, residual = self.present(value, residual)
        done = self.record_method(value, residual, "__iter__", Arguments([], {}))
        value, residual = done or (value, residual)
        items = constant_items(value)
        if items is None and isinstance(value, ModuleRef):
            items = list(self.module_items(value))
        if items is None and isinstance(value, Dyn) and value.type.name == "Tuple":
            items = [Dyn(t) for t in value.type.args]
        if items is not None and starred:
            at, behind = starred[0], len(target.elts) - starred[0] - 1
            count, stop = len(items), len(items) - behind
            middle = Seq(tuple(items[at:stop]), "list")
            items = [*items[:at], middle, *items[stop:]]
            if residual is not None and not isinstance(value, Const):
                residual = self.element_nodes(residual, count)
                elements = residual.elts
                residual = ast.Tuple(
                    [*elements[:at], ast.List(elements[at:stop], ast.Load()), *elements[stop:]],
                    ast.Load(),
                )
        if items is None:
            self._unpack_unknown(target, value, residual)
            return
        if len(items) != len(target.elts):
            cause = f"{len(items)} values are unpacked into {len(target.elts)} names"
            raise Fails(cause, "give as many names as there are values", ValueError(cause))
        targets = [e.value if isinstance(e, ast.Starred) else e for e in target.elts]
        plain = all(isinstance(t, ast.Name) for t in targets)
        if residual is None or isinstance(residual, (ast.Tuple, ast.List, ast.Name)):
            nodes: list[ast.expr | None] = [None] * len(items)
            if residual is not None:
                nodes = list(self.element_nodes(residual, len(items)).elts)
            if isinstance(residual, (ast.Tuple, ast.List)) and self._overlap(targets, residual):
                self._swap(targets, items, nodes)
                return
            for part, item, node in zip(targets, items, nodes, strict=True):
                self.assign(part, item, node if is_runtime(item) else literal(item) or node)
            return
        names = []
        for part, item in zip(targets, items, strict=True):
            name = part.id if isinstance(part, ast.Name) else self.fresh("item")
            names.append(self.variable(name, static_type(item)))
        store = [ast.Name(name, ast.Store()) for name in names]
        self.emit(ast.Assign([ast.Tuple(list(store), ast.Store())], residual))
        for part, item, name in zip(targets, items, names, strict=True):
            if plain and isinstance(part, ast.Name):
                self.forget({part.id})
                self.env[part.id] = Binding(item, name)
            else:
                self.assign(part, item, ast.Name(name, ast.Load()))

    @staticmethod
    def _overlap(targets: list[ast.expr], residual: ast.expr) -> bool:
        written = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        return any(isinstance(n, ast.Name) and n.id in written for n in ast.walk(residual))

    def _swap(
        self, targets: list[ast.expr], items: list[Value], nodes: list[ast.expr | None]
    ) -> None:
        names = []
        for target, item in zip(targets, items, strict=True):
            name = target.id if isinstance(target, ast.Name) else self.fresh("item")
            names.append(self.variable(name, static_type(item)))
        values = [self.needed(i, n) for i, n in zip(items, nodes, strict=True)]
        store = ast.Tuple([ast.Name(name, ast.Store()) for name in names], ast.Store())
        self.emit(ast.Assign([store], ast.Tuple(values, ast.Load())))
        for target, item, name in zip(targets, items, names, strict=True):
            if isinstance(target, ast.Name):
                self.env[target.id] = Binding(generalize(item), name)
            else:
                self.assign(target, item, ast.Name(name, ast.Load()))

    def _unpack_unknown(
        self, target: ast.Tuple | ast.List, value: Value, residual: ast.expr | None
    ) -> None:
        node = self.needed(value, residual)
        t = static_type(value)
        element = t.args[0] if t.name == "List" and t.args else UNKNOWN
        if t == TENSOR:
            if not isinstance(node, ast.Name):
                name = self.fresh("pair")
                self.emit(ast.Assign([ast.Name(name, ast.Store())], node))
                node = ast.Name(name, ast.Load())
            for position, part in enumerate(target.elts):
                row = ast.Subscript(node, ast.Constant(position), ast.Load())
                self.assign(part, Dyn(TENSOR), row)
            return
        if any(isinstance(part, ast.Starred) for part in target.elts):
            self._unpack_starred(target, t, self.hold("items", node))
            return
        names = []
        for part in target.elts:
            if isinstance(part, ast.Name):
                names.append(self.variable(part.id, element))
            else:
                names.append(self.fresh("item"))
        store = [ast.Name(name, ast.Store()) for name in names]
        self.emit(ast.Assign([ast.Tuple(list(store), ast.Store())], node))
        for part, name in zip(target.elts, names, strict=True):
            self.assign(part, Dyn(element), ast.Name(name, ast.Load()))

    def _unpack_starred(self, target: ast.Tuple | ast.List, t: Type, node: ast.expr | None) -> None:
        """``first, *rest = values`` of a list whose length only the run knows."""
        if t.name != "List" or node is None:
            raise UnsupportedError(
                f"a '{t}' is unpacked with '*', and its length is known only at run time",
                "pick its elements by index",
            )
        count = len(target.elts)
        star = next(i for i, e in enumerate(target.elts) if isinstance(e, ast.Starred))
        length = ast.Call(ast.Name("len", ast.Load()), [node], [])
        enough = ast.Compare(length, [ast.GtE()], [ast.Constant(count - 1)])
        self.emit(ast.Assert(enough, ast.Constant(f"{count - 1} or more values are unpacked")))
        for position, part in enumerate(target.elts):
            at = literal(Const(position if position < star else position - count))
            if isinstance(part, ast.Starred):
                stop = None if star == count - 1 else literal(Const(star - count + 1))
                rest = ast.Subscript(node, ast.Slice(ast.Constant(star), stop), ast.Load())
                self.assign(part.value, Dyn(t), rest)
            else:
                assert at is not None
                item = ast.Subscript(node, at, ast.Load())
                self.assign(part, Dyn(t.args[0]), item)
