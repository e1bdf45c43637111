"""What is written in place: sums that may be, and scatters that need not be.

A sum may be written over its first operand, where nobody else sees it.
What a layer adds to its result, a bias or a transformed root, needs no third tensor then. The
operand must be new, made by a statement before, under one name alone; where gradients are asked
for, the sum is one as it was written.

A tensor that code has just made, and nobody else holds, may be scattered into in place, as degrees
are counted. The same without a write is a value like others, which the passes look through.
"""

from __future__ import annotations

import ast

import torch

from gnnscript.analyze.types import TENSOR, optional
from gnnscript.passes.uses import Reader, Uses, callee, returns_new
from gnnscript.specialize.helpers import has_forward_hooks, import_reference
from gnnscript.specialize.program import Program, Specialized
from gnnscript.specialize.tree import names_read
from gnnscript.specialize.values import static_type

__all__ = ["add_in_place", "scatter_anew"]

# Ops of ours that return a new tensor whatever they are given.
_OPS = frozenset(
    {"add_to", "edge_aggregate", "edge_aggregate_layers", "edge_products", "edge_values", "linear"}
)

# Methods in place whose result has the dtype of their tensor without the write, too.
_WRITES = frozenset(
    {
        "clamp_", "clamp_max_", "clamp_min_", "index_add_", "index_copy_", "index_fill_",
        "masked_fill_", "scatter_", "scatter_add_", "scatter_reduce_",
    }
)  # fmt: skip


def scatter_anew(program: Program) -> None:
    """Rewrites scatters into tensors that are new as ones that return another tensor."""
    fresh = _Fresh()
    for function in program.functions():
        _without_writes(fresh, function, function.node.body, [])


def _without_writes(
    fresh: _Fresh, function: Specialized, block: list[ast.stmt], before: list[ast.stmt]
) -> None:
    """Rewrites a block; ``before`` has run whenever it begins."""
    for at, statement in enumerate(block):
        run = [*before, *block[:at]]
        for inner in ("body", "orelse"):
            if isinstance(nested := getattr(statement, inner, None), list):
                once = isinstance(statement, ast.If)
                _without_writes(fresh, function, nested, run if once else [])
        written = _written(getattr(statement, "value", None))
        if written is None or not isinstance(statement, (ast.Assign, ast.Expr, ast.Return)):
            continue
        assert isinstance(written.func, ast.Attribute)
        base = written.func.value
        if isinstance(base, ast.Name):
            if isinstance(statement, ast.Expr):
                rebound = statement.value is written
            else:
                rebound = _ends(statement, base.id)
                rebound = rebound or _is_last(function, [*run, statement], base.id)
            given = [*written.args, *(keyword.value for keyword in written.keywords)]
            if not rebound or any(base.id in names_read(value) for value in given):
                continue
            if not fresh.is_own(function, [*run, *block[at:]], len(run), base.id):
                continue
        elif isinstance(statement, ast.Expr) or not fresh.is_new(function, base):
            continue
        written.func.attr = written.func.attr.removesuffix("_")
        if isinstance(statement, ast.Expr) and isinstance(base, ast.Name):
            block[at] = ast.Assign([ast.Name(base.id, ast.Store())], written)
            ast.copy_location(block[at], statement)
            if hasattr(statement, "origin"):
                block[at].origin = statement.origin  # type: ignore[attr-defined]


def _is_last(function: Specialized, run: list[ast.stmt], name: str) -> bool:
    """Whether statements of a function are all that read a variable."""
    return _reads(function.node.body, name) == _reads(run, name)


def _reads(statements: list[ast.stmt], name: str) -> int:
    """How often statements read a variable."""
    count = 0
    for statement in statements:
        for node in ast.walk(statement):
            target = node.target if isinstance(node, ast.AugAssign) else node
            read = isinstance(node, ast.AugAssign) or isinstance(
                getattr(node, "ctx", None), ast.Load
            )
            count += isinstance(target, ast.Name) and target.id == name and read
    return count


def _written(node: ast.expr | None) -> ast.Call | None:
    """The first call of a chain of methods, if it writes to its tensor."""
    first: ast.Call | None = None
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in _WRITES:
            first = node
        elif first is not None:
            break
        node = node.func.value
    return first


def add_in_place(program: Program) -> None:
    """Rewrites the sums of a model that may be written over their first operand."""
    fresh = _Fresh()
    for function in program.functions():
        names = {n.attr for n in ast.walk(function.node) if isinstance(n, ast.Attribute)}
        if not names & {"set_grad_enabled", "requires_grad_"}:
            _block(fresh, function, function.node.body, [])


def _block(
    fresh: _Fresh, function: Specialized, block: list[ast.stmt], before: list[ast.stmt]
) -> None:
    """Rewrites a block; ``before`` has run whenever it begins."""
    body = [*before, *block]
    for at, statement in enumerate(body):
        if at < len(before):
            continue
        for inner in ("body", "orelse"):
            if isinstance(nested := getattr(statement, inner, None), list):
                once = isinstance(statement, ast.If)  # not a loop, nor where gradients are off
                _block(fresh, function, nested, body[:at] if once else [])
        if not isinstance(statement, (ast.Assign, ast.Return)):
            continue
        value = statement.value
        if not isinstance(value, ast.BinOp) or not isinstance(value.op, ast.Add):
            continue
        left, right = value.left, value.right
        if isinstance(left, ast.Name):
            free = _ends(statement, left.id) and left.id not in names_read(right)
            new = free and fresh.is_own(function, body, at, left.id)
        else:
            new = fresh.is_new(function, left)
        if new and fresh.is_tensor(function, right):
            add = import_reference("gnnscript.ops.fused", "add_to", "add_to")
            statement.value = ast.Call(add, [left, right], [])


def _ends(statement: ast.Assign | ast.Return, name: str) -> bool:
    """Whether a variable has no value of its own behind a statement."""
    if isinstance(statement, ast.Return):
        return True
    return [getattr(target, "id", None) for target in statement.targets] == [name]


class _Fresh:
    """Tells tensors that nothing but an expression, or a variable, holds."""

    def __init__(self) -> None:
        self.uses = Uses()
        self._functions: dict[int, bool] = {}

    def is_new(self, function: Specialized, node: ast.expr) -> bool:
        """Whether the value of an expression is a tensor made by it."""
        if isinstance(node, ast.BinOp):
            sides = (node.left, node.right)
            names = [getattr(side, "id", "") for side in sides]
            known = any(function.types.get(name) == TENSOR for name in names)
            return known or any(self.is_new(function, side) for side in sides)
        if not isinstance(node, ast.Call):
            return False
        target = callee(node)
        if target is not None:
            return self._returns_new(target)
        kind, name = Reader(self.uses, function, set()).kind(node.func)
        if kind == "op":
            return name in _OPS
        if kind in ("torch", "method") and isinstance(node.func, ast.Attribute):
            given = any(keyword.arg in ("out", "inplace") for keyword in node.keywords)
            return returns_new(name) and not given
        return False

    def is_tensor(self, function: Specialized, node: ast.expr) -> bool:
        """Whether the value of an expression is known to be a tensor."""
        if isinstance(node, ast.Name):
            return function.types.get(node.id) == TENSOR
        if isinstance(node, ast.BinOp):
            return any(self.is_tensor(function, side) for side in (node.left, node.right))
        reader = Reader(self.uses, function, set())
        if isinstance(node, ast.Attribute):
            return isinstance(reader.object(node), torch.Tensor)
        if not isinstance(node, ast.Call):
            return False
        target = callee(node)
        if target is not None:
            return static_type(target.value) == TENSOR
        layer = reader.object(node.func)
        return isinstance(layer, torch.nn.Linear) or self.is_new(function, node)

    def is_own(self, function: Specialized, body: list[ast.stmt], at: int, name: str) -> bool:
        """Whether a variable holds, before a statement of a block, a new tensor, and alone."""
        for place in range(at - 1, -1, -1):
            bound = {
                n.id
                for n in ast.walk(body[place])
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            }
            if name not in bound:
                continue
            made = body[place]
            if function.types.get(name) not in (TENSOR, optional(TENSOR)):
                return False
            if not isinstance(made, ast.Assign) or not self.is_new(function, made.value):
                return False
            if [getattr(target, "id", None) for target in made.targets] != [name]:
                return False
            reader = Reader(self.uses, function, {name})
            reader.block(body[place + 1 : at])
            return reader.names <= {name} and not reader.stored and not reader.returned
        return False

    def _returns_new(self, function: Specialized) -> bool:
        key = id(function)
        if key not in self._functions:
            self._functions[key] = False  # recursion
            watched = False
            if function.owner is not None:
                watched = has_forward_hooks(function.owner.ref.module)
            self._functions[key] = not watched and self._all_new(function, function.node.body)
        return self._functions[key]

    def _all_new(self, function: Specialized, body: list[ast.stmt]) -> bool:
        """Whether all that a block returns is new."""
        for at, statement in enumerate(body):
            if isinstance(statement, ast.Return):
                value = statement.value
                if isinstance(value, ast.Name) and not hasattr(value, "target_"):
                    if not self.is_own(function, body, at, value.id):
                        return False
                elif value is None or not self.is_new(function, value):
                    return False
            for inner in ("body", "orelse"):
                nested = getattr(statement, inner, None)
                if isinstance(nested, list) and not self._all_new(function, nested):
                    return False
        return True
