"""Vectors of edges times matrices of edges, where a linear layer makes the matrices.

The matrix of an edge is ``W h + b`` with the edge's features ``h``, so what it makes of a vector
``x`` is linear in the outer product of both. A sum over edges adds up those products, each of
``len(h) * len(x)`` numbers, and the layer acts once for each node: no matrix is made for an edge.
"""

from __future__ import annotations

import ast

import torch

from gnnscript.passes.expressions import (
    Code,
    Const,
    Expression,
    Gather,
    Linear,
    Matrix,
    Product,
    hole,
)
from gnnscript.passes.hoist import regathered
from gnnscript.passes.rewriting import Rewriting
from gnnscript.specialize.tree import clone

__all__ = ["Products"]


class Products(Rewriting):
    """The part of a tracer that knows matrix products."""

    def product(self, code: ast.expr, left: Expression, right: Expression) -> Expression | None:
        """``left @ right``, if one of them is a parameter or a matrix for each edge."""
        for matrix, vector, is_left in ((right, left, False), (left, right, True)):
            if isinstance(matrix, Matrix):
                operand = _unwrapped(vector, 2 if is_left else 1)
                if operand is None or not operand.per_edge:
                    return None
                return Product(code=code, operand=operand, matrix=matrix, left=is_left)
        weight = getattr(right, "value", None)
        if not left.per_edge or not isinstance(weight, torch.Tensor) or weight.dim() != 2:
            return None
        turned = Code(code=ast.Call(ast.Attribute(hole(right), "t", ast.Load()), [], []))
        return Linear(code=code, operand=left, weight=turned, bias=None)

    def as_matrix(self, name: str, kept: Code, owner: Expression) -> Matrix | None:
        """``linear.view(-1, rows, columns)``."""
        if not isinstance(owner, Linear) or name not in ("view", "reshape"):
            return None
        sizes = _numbers(kept.code)
        if sizes is None or len(sizes) != 3 or sizes[0] != -1 or min(sizes[1:]) < 1:
            return None
        return Matrix(code=kept.code, linear=owner, rows=sizes[1], columns=sizes[2])

    def without_unit(self, name: str, kept: Code, owner: Product) -> Product | None:
        """``product.squeeze(dim)``, of the dimension that made the vectors matrices."""
        numbers = _numbers(kept.code)
        dims = ([2], [-1]) if owner.left else ([1], [-2])
        if name != "squeeze" or not owner.unit or numbers not in dims:
            return None
        return Product(
            code=kept.code,
            operand=owner.operand,
            matrix=owner.matrix,
            left=owner.left,
            unit=False,
        )


def _unwrapped(vector: Expression, unit: int) -> Expression | None:
    """What ``vector`` is with a dimension of size one at ``unit``."""
    if isinstance(vector, Gather):
        inner = _unwrapped(vector.source, unit) if vector.dim == 0 else None
        return regathered(vector, inner) if inner is not None else None
    call = vector.code
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return None
    places = ([unit], [-1]) if unit == 2 else ([unit], [-2])
    if call.func.attr != "unsqueeze" or _numbers(call) not in places:
        return None
    inner = getattr(call.func.value, "hole_", None)
    return inner if isinstance(inner, Expression) else None


def _numbers(call: ast.expr) -> list[int] | None:
    """The arguments of a call, if all are integers; a list of them counts as they do."""
    if not isinstance(call, ast.Call) or call.keywords:
        return None
    args = call.args
    first = args[0] if len(args) == 1 else None
    listed = getattr(getattr(first, "hole_", None), "code", first)
    if isinstance(listed, (ast.Tuple, ast.List)):
        args = listed.elts
    numbers: list[int] = []
    for argument in args:
        held = getattr(argument, "hole_", None)
        try:
            value = held.value if isinstance(held, Const) else ast.literal_eval(clone(argument))
        except ValueError:
            return None
        if type(value) is not int:
            return None
        numbers.append(value)
    return numbers
