"""Elementwise expressions over edges as edge programs, and calls of the ops that run them."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any

from gnnscript.passes.expressions import Code, Const, Expression, Gather, Map, Scatter
from gnnscript.specialize.helpers import import_reference

__all__ = ["Program", "build", "fused_call", "program_of", "typed"]

_LEVEL = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3}
_COMPARISONS = ("==", "<", "<=", ">", ">=")
_MOST_OPERANDS = 10


@dataclass
class Program:
    """An edge program and its operands.

    Args:
        text: The program.
        operands: What its letters stand for: node values that it gathers, values per edge.
        indices: The two ends of the edges that it reads: ``i``, then ``j``.
        dim: The dimension that counts nodes or edges.
        gathers: How many of the operands are gathered.
        typed: The places of the operands that decide the type of the result; those that are only
            compared do not.
    """

    indices: list[Expression]
    text: str = ""
    operands: list[Expression] = field(default_factory=list)
    dim: int = 0
    gathers: int = 0
    typed: set[int] = field(default_factory=set)
    _letters: dict[tuple[int, int], str] = field(default_factory=dict)

    def ends(self) -> tuple[Expression, Expression]:
        """The index of each letter; the first where the second is not read."""
        return self.indices[0], self.indices[-1]

    def letter(self, leaf: Expression, *, typed: bool = True) -> str:
        """The name of an operand."""
        gather = leaf if isinstance(leaf, Gather) else None
        if gather is not None and self._side(gather) is None:
            gather = None
        value = gather.source if gather is not None else leaf
        key = (id(value), id(gather.index) if gather is not None else 0)
        if key not in self._letters:
            side = self._side(gather) if gather is not None else None
            if side is None:
                side = "s" if isinstance(leaf, Code) and leaf.shared else "e"
            self.gathers += gather is not None
            self._letters[key] = f"{side}{len(self.operands)}"
            self.operands.append(value)
        letter = self._letters[key]
        if typed:
            self.typed.add(int(letter[1:]))
        return letter

    def _side(self, gather: Gather | None) -> str | None:
        if gather is None or gather.dim != self.dim:
            return None
        if gather.index not in self.indices:
            if len(self.indices) == 2:
                return None
            self.indices.append(gather.index)
        return "ij"[self.indices.index(gather.index)]


def build(expression: Expression, scatter: Scatter | None) -> Program | None:
    """The program of an elementwise expression.

    Args:
        expression: The expression.
        scatter: The reduction that follows; its index is the end ``i`` of the edges.
    """
    gathers = _gathers(expression)
    if not gathers:
        return None
    targets = [g.index for g in gathers if g.index.hint == "edge_index_i"]
    index = scatter.index if scatter is not None else [*targets, gathers[0].index][0]
    return program_of(expression, [index], scatter.dim if scatter is not None else None)


def program_of(
    expression: Expression, indices: list[Expression], dim: int | None = None
) -> Program | None:
    """The program of an elementwise expression, gathered values in it or not.

    Args:
        expression: The expression.
        indices: The ends of the edges that are known: ``i``, then ``j``; a second one that the
            expression reads is added.
        dim: The dimension that counts edges; by default that of the first gathered value.
    """
    program = Program(indices)
    gathers = _gathers(expression)
    program.dim = dim if dim is not None else gathers[0].dim if gathers else 0
    program.text = _text(expression, program, 0)
    return program if len(program.operands) <= _MOST_OPERANDS else None


def _gathers(expression: Expression) -> list[Gather]:
    if isinstance(expression, Gather):
        return [expression]
    if isinstance(expression, Map):
        return [gather for operand in expression.operands for gather in _gathers(operand)]
    return []


def _text(expression: Expression, program: Program, level: int, typed: bool = True) -> str:
    if isinstance(expression, Const):
        value = expression.value
        return repr(value) if value >= 0 or level == 0 else f"({value!r})"
    if not isinstance(expression, Map):
        return program.letter(expression, typed=typed)
    operator, operands = expression.operator, expression.operands
    own = _LEVEL.get(operator)
    if operator == "neg":
        text = "-" + _text(operands[0], program, 3, typed)
    elif operator in _COMPARISONS:
        text = f" {operator} ".join(_text(o, program, 1, False) for o in operands)
        own = 0
    elif own is not None:
        left, right = operands
        text = f"{_text(left, program, own, typed)} {operator} "
        text += _text(right, program, own + 1, typed)
    else:
        chooses = operator == "where"  # by its first operand
        texts = (
            _text(o, program, 0, typed and not (chooses and number == 0))
            for number, o in enumerate(operands)
        )
        return f"{operator}({', '.join(texts)})"
    return f"({text})" if own < level else text  # type: ignore[operator]


def typed(program: Program, more: int = 0) -> dict[str, tuple[Any, Any]]:
    """Which operands decide the type of the result, where it is not all of them, or none.

    Args:
        program: The program.
        more: How many operands follow its own, and decide nothing.
    """
    partial = 0 < len(program.typed) < len(program.operands) + more
    return {"typed": (sorted(program.typed), None)} if partial else {}


def fused_call(
    name: str,
    args: list[ast.expr],
    options: dict[str, tuple[Any, Any]],
    module: str = "gnnscript.ops.fused",
) -> ast.Call:
    """A call of one of the native ops; options that are the default are left out."""
    keywords = [
        ast.keyword(key, _literal(value))
        for key, (value, default) in options.items()
        if value != default
    ]
    return ast.Call(import_reference(module, name, name), args, keywords)


def _literal(value: Any) -> ast.expr:
    if isinstance(value, ast.expr):
        return value
    if isinstance(value, list):
        return ast.List([_literal(item) for item in value], ast.Load())
    if isinstance(value, int) and value < 0:
        return ast.UnaryOp(ast.USub(), ast.Constant(-value))
    return ast.Constant(value)
