"""A variable that is a number on one path and a tensor on another, and is only calculated with."""

from __future__ import annotations

import ast

from gnnscript.analyze.types import FLOAT, INT, TENSOR
from gnnscript.specialize.folding.base import Binding, Folding
from gnnscript.specialize.helpers import torch_name
from gnnscript.specialize.values import Dyn, literal, static_type

__all__ = ["as_tensors"]

_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div)


def as_tensors(frame: Folding, name: str, bindings: list[Binding]) -> list[Binding] | None:
    """Makes the numbers tensors without dimensions, which count like them in arithmetic.

    Args:
        frame: The function.
        name: The variable.
        bindings: What holds it on each path.

    Returns:
        The bindings, all tensors; ``None`` where something else than ``+``, ``-``, ``*`` and ``/``
        reads the variable, which could tell the difference.
    """
    types = {static_type(binding.value) for binding in bindings}
    if TENSOR not in types or not types <= {TENSOR, INT, FLOAT}:
        return None
    reads = operands = 0
    for node in ast.walk(frame.source.node):
        if isinstance(node, ast.BinOp) and isinstance(node.op, _ARITHMETIC):
            sides = (node.left, node.right)
            operands += sum(isinstance(side, ast.Name) and side.id == name for side in sides)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            if node.target.id == name:
                return None  # in place for a tensor
            operands += isinstance(node.value, ast.Name) and node.value.id == name
        elif isinstance(node, ast.Name) and node.id == name:
            reads += isinstance(node.ctx, ast.Load)
    if reads != operands:
        return None
    return [_as_tensor(frame, binding) for binding in bindings]


def _as_tensor(frame: Folding, binding: Binding) -> Binding:
    t = static_type(binding.value)
    if t == TENSOR:
        return binding
    number = frame.needed(binding.value, binding.read or literal(binding.value))
    dtype = torch_name("torch.float64" if t == FLOAT else "torch.int64")
    made = ast.Call(torch_name("torch.tensor"), [number], [ast.keyword("dtype", dtype)])
    return Binding(Dyn(TENSOR), None, made)
