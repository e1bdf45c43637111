"""Moves the first layer of a classifier of edges to the nodes, outside of convs.

``self.mlp(torch.cat([x[row], x[col], e], dim=-1))`` runs a linear layer on the edges. The layer is
a sum over what it takes, so that most of it can be computed for each node. What the tensors are is
known only when the code runs, so the code that stood there remains beside the other.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

import torch

from gnnscript.passes.calls import torch_function
from gnnscript.passes.effects import may_change_arguments
from gnnscript.passes.elementwise import module_operation
from gnnscript.passes.held import held_module, is_watched
from gnnscript.specialize.helpers import import_reference
from gnnscript.specialize.program import Specialized
from gnnscript.specialize.tree import clone, free_name, is_simple, names_read

__all__ = ["move_edge_layers"]

_CAT = ("cat", "concat", "concatenate")
_BLOCKS = ("body", "orelse")
_Operands = list[tuple[ast.expr, ast.expr | None]]


def move_edge_layers(method: Specialized) -> None:
    """Rewrites the layers of one method that act on values of the ends of edges."""
    _Mover(method).block(method.node.body)


@dataclass(frozen=True)
class _Layer:
    """A linear layer at the beginning of a call.

    Args:
        weight: Its weight.
        bias: Its bias, or ``None``.
        rest: What is called behind it, one after the other.
        modules: The modules that these are.
    """

    weight: ast.expr
    bias: ast.expr
    rest: tuple[ast.expr, ...] = ()
    modules: tuple[torch.nn.Module, ...] = ()


class _Mover:
    """Goes through a method, and knows what names stand for at each statement."""

    def __init__(self, method: Specialized) -> None:
        self.method = method
        self.reads = names_read(method.node)
        self.taken = {n.id for n in ast.walk(method.node) if isinstance(n, ast.Name)}
        self.taken |= {argument.arg for argument in method.node.args.args}

    def block(self, body: list[ast.stmt]) -> None:
        """One block of statements, from the top."""
        known: dict[str, ast.expr] = {}
        for statement in list(body):
            if isinstance(statement, (ast.Assign, ast.Return, ast.Expr)):
                self.statement(statement, body, known)
                continue
            known.clear()
            for name in _BLOCKS:
                self.block(getattr(statement, name, []))

    def statement(
        self,
        statement: ast.Assign | ast.Return | ast.Expr,
        body: list[ast.stmt],
        known: dict[str, ast.expr],
    ) -> None:
        """A plain statement: its calls, and what it assigns."""
        calls = [n for n in ast.walk(statement) if isinstance(n, ast.Call)]
        stored = _stored(statement)
        if any(self.changes(call) for call in calls) or _stores_parts(statement):
            known.clear()
        elif statement.value is not None:
            self.name_parts(statement, body, known)
            self.keep_name(statement, body, known)
        if statement.value is not None:
            read = names_read(statement.value)
            once = {name for name, count in read.items() if count == 1}
            if not isinstance(statement, ast.Return):
                once = {name for name in once if self.reads[name] == 1 or name in stored}
            finder = _Finder(self, known, once)
            statement.value = finder.visit(statement.value)
            for name in finder.used:
                self.forget(name, body, statement)
        read = names_read(statement)
        for name in list(known):
            held = names_read(known[name])
            # Of what stands beside each other nobody else may know, or it would be made anyway.
            if stored & {name, *held} or (name in read and _is_call(known[name])):
                del known[name]
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name, value = statement.targets[0].id, statement.value
            if name not in names_read(value):
                if getattr(value, "rows_", False) or self.operands(value, known) is not None:
                    known[name] = value

    def name_parts(
        self, statement: ast.stmt, body: list[ast.stmt], known: dict[str, ast.expr]
    ) -> None:
        """Gives names to what is computed where values are put beside each other."""
        value: Any = getattr(statement, "value", None)
        while isinstance(value, ast.Call) and not self.joined(value) and len(value.args) == 1:
            value = value.args[0] if is_simple(value.func) else None
        held = self.joined(value)
        meant = [known.get(e.id, e) if isinstance(e, ast.Name) else e for e in held]
        if not any(hasattr(element, "rows_") for element in meant):
            return
        for number, element in enumerate(held):
            at = hasattr(element, "rows_")
            part = element.value if at else element  # type: ignore[attr-defined]
            if is_simple(part):
                continue
            name = free_name("value", self.taken)
            self.reads[name] = 1
            named = ast.Assign([ast.Name(name, ast.Store())], part)
            if hasattr(statement, "origin"):
                named.origin = statement.origin  # type: ignore[attr-defined]
            body.insert(body.index(statement), named)
            if at:
                element.value = ast.Name(name, ast.Load())  # type: ignore[attr-defined]
            else:
                held[number] = ast.Name(name, ast.Load())

    def keep_name(
        self, statement: ast.stmt, body: list[ast.stmt], known: dict[str, ast.expr]
    ) -> None:
        """Gives values a second name where ``x = torch.cat([x[row], e], 1)`` takes the first."""
        value = getattr(statement, "value", None)
        for name in _stored(statement):
            held = [known.get(e.id) if isinstance(e, ast.Name) else e for e in self.joined(value)]
            if not any(
                name in names_read(e) and hasattr(e, "rows_") for e in held if e is not None
            ):
                continue
            other = ast.Name(free_name(name, self.taken), ast.Load())
            named = ast.Assign([ast.Name(other.id, ast.Store())], ast.Name(name, ast.Load()))
            body.insert(body.index(statement), named)
            known.update({key: clone(held, {name: other}) for key, held in known.items()})
            statement.value = clone(value, {name: other})  # type: ignore[attr-defined]

    def forget(self, name: str, body: list[ast.stmt], until: ast.stmt) -> None:
        """Drops the last assignment of a name before a statement, which nobody reads any more."""
        for statement in reversed(body[: body.index(until)]):
            if _stored(statement) == {name}:
                body.remove(statement)
                return

    def changes(self, call: ast.Call) -> bool:
        """Whether a call may change a tensor in place."""
        func = call.func
        name = func.attr if isinstance(func, ast.Attribute) else ""
        if name.endswith("_") and not name.endswith("__"):
            return True
        if any(keyword.arg in ("out", "inplace") for keyword in call.keywords):
            return True
        done, module = getattr(call, "target_", None), self.module(func)
        if isinstance(done, Specialized) and module is None:
            return done.owner is not None or may_change_arguments(done.source.function)
        return module is not None and may_change_arguments(module)

    def module(self, node: ast.expr) -> torch.nn.Module | None:
        """The module that an expression such as ``self.mlp[0]`` means."""
        return held_module(node, self.method)

    @staticmethod
    def joined(node: ast.AST | None) -> list[ast.expr]:
        """What ``torch.cat([...], dim=-1)`` puts beside each other."""
        name = torch_function(node.func) if isinstance(node, ast.Call) else None
        if not isinstance(node, ast.Call) or name not in _CAT or not node.args:
            return []
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        dims = [*node.args[1:], *(given.pop(key) for key in ("dim", "axis") if key in given)]
        held = node.args[0]
        last = len(dims) == 1 and ast.unparse(dims[0]) in ("1", "-1")
        return held.elts if last and not given and isinstance(held, (ast.List, ast.Tuple)) else []

    def operands(self, node: ast.AST | None, known: dict[str, ast.expr]) -> _Operands | None:
        """What stands beside each other for each edge, and by which index it is taken."""
        found: _Operands = []
        for element in self.joined(node):
            value = known.get(element.id, element) if isinstance(element, ast.Name) else element
            if isinstance(value, ast.Subscript) and getattr(value, "rows_", False):
                found.append((value.value, value.slice))
            else:
                found.append((element, None))
        simple = all(is_simple(part) for pair in found for part in pair if part is not None)
        return found if simple and any(index is not None for _, index in found) else None

    def linear(self, call: ast.Call) -> _Layer | None:
        """The linear layer that a call begins with."""
        func = call.func
        done = getattr(call, "target_", None)
        if torch_function(func) == "linear":
            if (
                len(call.args) not in (2, 3)
                or call.keywords
                or not all(map(is_simple, call.args[1:]))
            ):
                return None
            return _Layer(call.args[1], call.args[2] if len(call.args) == 3 else ast.Constant(None))
        if len(call.args) != 1 or call.keywords:
            return None
        module = self.module(func)
        if isinstance(done, Specialized):
            return self.inner(done, module, func)
        return None if module is None else self.first(module, func)

    def inner(
        self, done: Specialized, module: torch.nn.Module | None, func: ast.expr
    ) -> _Layer | None:
        """The layer of a specialised module that is no more than that."""
        owner, inside = done.owner, done.inline
        if owner is None or owner.ref.module is not module or is_watched(module):
            return None
        names = [argument.arg for argument in done.node.args.args]
        if not isinstance(inside, ast.Call) or len(names) != 2 or not inside.args:
            return None
        given = inside.args[0]
        if not isinstance(given, ast.Name) or given.id != names[1]:
            return None
        layer = self.linear(inside) if torch_function(inside.func) == "linear" else None
        if layer is None or names[1] in names_read(ast.Tuple(inside.args[1:], ast.Load())):
            return None
        here = {names[0]: func}
        return _Layer(clone(layer.weight, here), clone(layer.bias, here))

    def first(self, module: torch.nn.Module, func: ast.expr) -> _Layer | None:
        """A layer of torch's, or a sequence that begins with one."""
        if is_watched(module):
            return None
        if type(module) is torch.nn.Linear:
            bias = module._parameters["bias"] is not None
            none = ast.Constant(None)
            return _Layer(_attribute(func, "weight"), _attribute(func, "bias") if bias else none)
        if type(module) is not torch.nn.Sequential or not len(module):
            return None
        children = list(module)
        places = [
            ast.Subscript(clone(func), ast.Constant(n), ast.Load()) for n in range(len(module))
        ]
        layer = self.first(children[0], places[0])
        if layer is None:
            return None
        rest, modules = (*layer.rest, *places[1:]), (*layer.modules, *children[1:])
        return _Layer(layer.weight, layer.bias, rest, modules)

    def rewritten(
        self, call: ast.Call, known: dict[str, ast.expr], spent: list[str]
    ) -> ast.expr | None:
        """A call with its layer at the nodes, where that is the same.

        Args:
            call: The call.
            known: What names stand for.
            spent: Takes the names that nobody reads any more.
        """
        layer = self.linear(call)
        if layer is None or not call.args:
            return None
        given = call.args[0]
        joined = known.get(given.id, given) if isinstance(given, ast.Name) else given
        operands = self.operands(joined, known)
        if operands is None:
            return None
        texts = [ast.unparse(index) for _, index in operands if index is not None]
        ends = list(dict.fromkeys(texts))
        if len(ends) > 2:
            return None
        indices = [
            next(i for _, i in operands if i is not None and ast.unparse(i) == t) for t in ends
        ]
        sides = "".join(
            "e" if index is None else "ij"[ends.index(ast.unparse(index))] for _, index in operands
        )
        letters = [side for side in "ije" if side in sides]
        program = " + ".join(f"{letter}{number}" for number, letter in enumerate(letters))
        rest = layer.rest
        activation = None
        if rest and not is_watched(layer.modules[0]):
            activation = module_operation(layer.modules[0])
        if activation is not None:
            program = f"{activation[0]}({', '.join([program, *map(repr, activation[1])])})"
            rest = rest[1:]
        values = ast.List([operand for operand, _ in operands], ast.Load())
        at = [indices[0], indices[-1]]
        shared = [ast.Constant(sides), values, layer.weight]
        test = ast.Call(_function("has_edge_layer"), [*clone(shared), *clone(at)], [])
        fast: ast.expr = ast.Call(
            _function("edge_layer"),
            [ast.Constant(program), *clone(shared), clone(layer.bias), *clone(at)],
            [],
        )
        for place in rest:
            fast = ast.Call(place, [fast], [])
        parts = self.joined(joined)
        for number, part in enumerate(parts):
            value = known.get(part.id) if isinstance(part, ast.Name) else None
            if isinstance(part, ast.Name) and hasattr(value, "rows_") and self.reads[part.id] == 1:
                parts[number] = value  # type: ignore[assignment]
                spent.append(part.id)
        call.args[0] = joined
        return ast.IfExp(test, fast, call)


class _Finder(ast.NodeTransformer):
    """Rewrites the calls of one statement.

    Args:
        mover: Knows the method.
        known: What names stand for.
        once: Names whose values are read here for the only time.
    """

    def __init__(self, mover: _Mover, known: dict[str, ast.expr], once: set[str]) -> None:
        self.mover, self.once = mover, once
        self.known = {k: v for k, v in known.items() if k in once or not _is_call(v)}
        self.used: list[str] = []

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """A call, those in its arguments first."""
        self.generic_visit(node)
        given = node.args[0] if node.args else None
        made = self.mover.rewritten(node, self.known, self.used)
        if made is not None and isinstance(given, ast.Name):
            self.used.append(given.id)
        return node if made is None else made

    def visit_ListComp(self, node: ast.ListComp) -> ast.expr:
        """Its names are its own."""
        return node


def _is_call(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Call)


def _stored(statement: ast.stmt) -> set[str]:
    """The names that a statement assigns."""
    return {
        node.id
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _stores_parts(statement: ast.stmt) -> bool:
    """Whether a statement assigns an element or an attribute."""
    return any(
        isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, ast.Store)
        for node in ast.walk(statement)
    )


def _attribute(node: ast.expr, name: str) -> ast.Attribute:
    return ast.Attribute(clone(node), name, ast.Load())


def _function(name: str) -> ast.Name:
    return import_reference("gnnscript.ops.ends", name, name)
