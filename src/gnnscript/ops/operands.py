"""The operands of edge programs: rows first, of one dtype, and safe from what follows the call."""

from typing import List, Optional, Tuple  # noqa: UP035  TorchScript reads these

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import guard_or_false

__all__ = ["as_rows", "number_of_nodes", "own_copy", "result_dtype"]


def number_of_nodes(index: Tensor, size: Optional[int]) -> int:  # noqa: UP045
    """The number of nodes, by the largest one with an edge where it is not given."""
    if size is not None:
        return size
    return int(index.max()) + 1 if index.numel() > 0 else 0


def result_dtype(
    program: str,
    operands: List[Tensor],  # noqa: UP006
    reduce: str,
    typed: Optional[List[int]],  # noqa: UP006, UP045
) -> torch.dtype:
    """Type of the result, by torch's rules of promotion."""
    if typed is not None:
        operands = [operands[place] for place in typed]
    one = operands[0]
    for operand in operands:
        if operand.dtype != one.dtype:
            dtype = torch.result_type(one, operand)
            one = torch.empty([0] * max(one.dim(), operand.dim()), dtype=dtype)
        elif operand.dim() > one.dim():
            one = operand
    if one.is_floating_point() or one.is_complex():
        return one.dtype
    for word in ["relu", "abs", "sign", "square", "pow", "where"]:
        program = program.replace(word + "(", "(")
    for word in ["maximum", "minimum", "clamp_min", "clamp_max"]:
        program = program.replace(word, "")
    floats = reduce == "mean"
    # A quotient, a decimal point, or letters of another function: those that name operands (e, i,
    # j, s) and intermediate values (t) are not all that a function's name consists of.
    for mark in "/.abcdfghklmnopqruvwxyz":
        floats = floats or mark in program
    return torch.result_type(one, 1.0) if floats else one.dtype


def as_rows(
    program: str,
    operands: List[Tensor],  # noqa: UP006
    dim: int,
) -> Tuple[str, List[Tensor], int]:  # noqa: UP006
    """Bring operands into the form of the edge program; tell where rows are, from the right."""
    dims = 0
    dtype = operands[0].dtype
    same = True
    for operand in operands:
        dims = max(dims, operand.dim())
        if operand.is_complex():
            raise ValueError(
                "native ops compute messages of real numbers, got complex ones: script the model "
                "under gnnscript.kernels('portable')"
            )
        if operand.dtype != dtype:
            same = False
            dtype = torch.promote_types(dtype, operand.dtype)
    for operand in operands:
        if not (operand.is_floating_point() or operand.is_complex()):
            # Integers up to 2^53 and what is made of them are exact in double precision.
            if operand.dtype != torch.bool or operand.dtype == dtype:
                dtype = torch.promote_types(dtype, torch.float64)
                same = False
    at = dim if dim < 0 else dim - dims
    plain = same and at == -dims
    rows: List[Tensor] = []  # noqa: UP006
    for number, operand in enumerate(operands):
        value = operand if same else operand.to(dtype)
        if not plain or operand.dim() < dims or _is_one(operand.size(0)):
            program, value = _row(program, number, value, at, dims if dim >= 0 else 0)
        elif f"s{number}" in program:
            program = _lettered(program, "s", "e", number)
        rows.append(value)
    return program, _copied(program, rows), at


def own_copy(x: Tensor) -> Tensor:
    """Copy what a gradient reads.

    It is the caller's own, who may change it in place before the gradient is computed: PyG, which
    gathers a copy for each edge, allows it.
    """
    if not torch.is_grad_enabled():
        return x
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if torch.compiler.is_compiling():  # changes nothing in place
            return x
    return x.clone()


def _copied(program: str, rows: List[Tensor]) -> List[Tensor]:  # noqa: UP006
    """Copy the gathered values that a gradient reads."""
    if not torch.is_grad_enabled() or not ("*" in program or "/" in program or "(" in program):
        return rows
    several = "/" in program or "(" in program
    differentiable = 0
    for row in rows:
        differentiable += int(row.requires_grad)
    copies: List[Tensor] = []  # noqa: UP006
    for number, row in enumerate(rows):
        gathered = f"i{number}" in program or f"j{number}" in program
        others = differentiable - int(row.requires_grad)
        squared = program.count(f"i{number}") + program.count(f"j{number}") > 1
        if gathered and differentiable > 0 and (several or squared or others > 0):
            same = -1
            for place, other in enumerate(rows[:number]):  # x_i and x_j are gathered from one
                if _is_same(other, row):
                    same = place
            copies.append(own_copy(row) if same < 0 else copies[same])
        else:
            copies.append(row)
    return copies


def _is_one(size: int) -> bool:
    """Whether there is one row; not so of a size that only values decide, where torch exports."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return size == 1
    return guard_or_false(size == 1)


def _row(program: str, number: int, operand: Tensor, at: int, dims: int) -> Tuple[str, Tensor]:  # noqa: UP006
    """One operand with its rows first; without rows if all edges share it."""
    gathered = f"i{number}" in program or f"j{number}" in program
    if gathered:
        if operand.dim() < dims or operand.dim() < -at:
            raise ValueError(
                f"expected gathered values of {max(dims, -at)} dimensions, as the message has, "
                f"got {operand.dim()}"
            )
        return program, operand.movedim(at, 0)
    if operand.dim() < -at:
        return _lettered(program, "e", "s", number), operand
    if _is_one(operand.size(at)):
        return _lettered(program, "e", "s", number), operand.squeeze(at)
    return _lettered(program, "s", "e", number), operand.movedim(at, 0)


def _lettered(program: str, old: str, new: str, number: int) -> str:
    """Write another letter for an operand."""
    return program.replace(f"{old}{number}", f"{new}{number}")


def _is_same(a: Tensor, b: Tensor) -> bool:
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return a.is_set_to(b)
    return a is b
