"""What a written-out ``propagate`` computes, as a graph of expressions.

Every expression knows the code that it came from. That code is its meaning; a rewrite adds a
cheaper way to compute the same.
"""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass, field
from typing import Any

import torch

from gnnscript.specialize.tree import clone

__all__ = [
    "TENSORS",
    "Cat",
    "Code",
    "Const",
    "Dropped",
    "Expression",
    "Gather",
    "Linear",
    "Map",
    "Matrix",
    "Part",
    "Product",
    "Scatter",
    "Softmax",
    "Stack",
    "Total",
    "Weights",
    "filled",
    "hole",
]


# How the type of a tensor is written, where it may be absent, too.
TENSORS = ("Tensor", "Optional[Tensor]")


def hole(expression: Expression) -> ast.expr:
    """A place in a piece of code that an expression fills."""
    name = ast.Name("_", ast.Load())
    name.hole_ = expression  # type: ignore[attr-defined]
    return name


@dataclass(eq=False, kw_only=True)
class Expression:
    """One value.

    Args:
        code: The code that computes it; holes stand for other expressions.
        hint: The name that it has in the user's code.
        tensor: Whether it is known to be a tensor.
    """

    code: ast.expr
    hint: str = ""
    tensor: bool = True

    @property
    def parts(self) -> list[Expression]:
        """The expressions that its code needs."""
        return holes(self.code)

    @property
    def per_edge(self) -> bool:
        """Whether it has a row for each edge because it depends on gathered values."""
        return any(part.per_edge for part in self.parts)


def holes(node: ast.AST) -> list[Expression]:
    """The expressions that a piece of code needs."""
    found = [getattr(child, "hole_", None) for child in ast.walk(node)]
    return [expression for expression in found if expression is not None]


@dataclass(eq=False, kw_only=True)
class Code(Expression):
    """Anything that no rewrite needs to look into.

    Args:
        value: The object itself where it is known: a module of the model, a parameter.
        declared: Its type, where the code says it.
        bounds: For a number: what it lies between, as far as that is known.
    """

    value: Any = None
    declared: ast.expr | None = None
    bounds: tuple[float, float] = (-math.inf, math.inf)

    @property
    def shared(self) -> bool:
        """Whether it is made of the model's parameters alone, so that all edges share it."""
        if isinstance(self.value, torch.Tensor):
            return True
        parts = self.parts
        return bool(parts) and all(isinstance(p, Code) and p.shared for p in parts)


@dataclass(eq=False, kw_only=True)
class Const(Expression):
    """A number, or another literal."""

    value: Any
    tensor: bool = False


@dataclass(eq=False, kw_only=True)
class Gather(Expression):
    """``source`` at one end of each edge."""

    source: Expression
    index: Expression
    dim: int

    @property
    def per_edge(self) -> bool:
        """It has."""
        return True


@dataclass(eq=False, kw_only=True)
class Map(Expression):
    """An elementwise operation of the edge program."""

    operator: str
    operands: list[Expression]


@dataclass(eq=False, kw_only=True)
class Total(Expression):
    """The sum over the last ``dims`` dimensions."""

    operand: Expression
    dims: int


@dataclass(eq=False, kw_only=True)
class Linear(Expression):
    """``operand @ weight.T + bias`` over the last dimension."""

    operand: Expression
    weight: Expression
    bias: Expression | None


@dataclass(eq=False, kw_only=True)
class Matrix(Expression):
    """A linear layer's values as a matrix for each edge: ``linear.view(-1, rows, columns)``."""

    linear: Linear
    rows: int
    columns: int


@dataclass(eq=False, kw_only=True)
class Product(Expression):
    """A vector for each edge times its matrix.

    Args:
        operand: The vectors, ``[E, rows]``; ``[E, columns]`` if the matrix is on the left.
        matrix: The matrices.
        left: Whether the matrix is on the left.
        unit: Whether the result still has the dimension of size one that made the vectors
            matrices: dimension 1, or 2 if the matrix is on the left.
    """

    operand: Expression
    matrix: Matrix
    left: bool
    unit: bool = True


@dataclass(eq=False, kw_only=True)
class Cat(Expression):
    """Operands beside each other in the last dimension."""

    operands: list[Expression]


@dataclass(eq=False, kw_only=True)
class Part(Expression):
    """``operand[:, at]``."""

    operand: Expression
    at: int


@dataclass(eq=False, kw_only=True)
class Stack(Expression):
    """Operands along a new dimension 1."""

    operands: list[Expression]


@dataclass(eq=False, kw_only=True)
class Softmax(Expression):
    """A softmax over the edges of each node."""

    operand: Expression
    index: Expression
    size: Expression
    dim: int

    @property
    def per_edge(self) -> bool:
        """It has."""
        return True


@dataclass(eq=False, kw_only=True)
class Weights(Expression):
    """A softmax, viewed so that it fits messages.

    Args:
        softmax: The softmax.
        ones: Where dimensions of one were put in, one after the other; or
        sizes: The sizes that it is viewed as, without that of the edges.
    """

    softmax: Softmax
    ones: list[int] = field(default_factory=list)
    sizes: list[int] | None = None

    @property
    def per_edge(self) -> bool:
        """It has."""
        return True


@dataclass(eq=False, kw_only=True)
class Dropped(Map):
    """A softmax, some of whose weights are dropped: times a mask of its shape, viewed alike."""


@dataclass(eq=False, kw_only=True)
class Scatter(Expression):
    """A reduction over the edges of each node."""

    operand: Expression
    index: Expression
    size: Expression
    reduce: str
    dim: int
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def per_edge(self) -> bool:
        """A row for each node."""
        return False


def filled(code: ast.expr, fill: Any) -> Any:
    """A copy of a piece of code with its holes filled by ``fill(expression)``."""
    if getattr(code, "hole_", None) is not None:
        return fill(code.hole_)  # type: ignore[attr-defined]
    return _copy(code, fill)


def _copy(node: Any, fill: Any) -> Any:
    if isinstance(node, list):
        return [_copy(item, fill) for item in node]
    if not isinstance(node, ast.AST):
        return node
    if getattr(node, "hole_", None) is not None:
        return fill(node.hole_)  # type: ignore[attr-defined]
    if isinstance(node, ast.Name):
        return clone(node)
    fields = {name: _copy(value, fill) for name, value in ast.iter_fields(node)}
    copied = type(node)(**fields)
    for extra in ("target_", "origin", "comment_", "annotation_"):
        if hasattr(node, extra):
            setattr(copied, extra, getattr(node, extra))
    return copied
