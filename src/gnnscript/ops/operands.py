"""The operands of edge programs: rows first, of one dtype, and safe from what follows the call."""

# What torch.ops returns is typed by the schema, which mypy does not read.
# mypy: disable-error-code="no-any-return"

from typing import List, Optional, Tuple  # noqa: UP035  TorchScript reads these

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import guard_or_false

__all__ = [
    "are_gathered",
    "as_rows",
    "number_of_nodes",
    "own_copy",
    "own_operands",
    "read_by_gradients",
    "result_dtype",
]


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
    return program, rows, at


def own_copy(x: Tensor, always: bool = True) -> Tensor:
    """Copy what a gradient reads, at the latest when somebody writes to it (see ``copies``).

    Args:
        x: The caller's tensor, or a result that is kept.
        always: Whether to copy it now where that cannot wait.

    Returns:
        The copy; where no gradient is asked for, or it is not to be copied now, `x`.
    """
    if not torch.is_grad_enabled():
        return x
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if torch.compiler.is_compiling():  # changes nothing in place
            return x
    return torch.ops.gnnscript.own_copy(x, always)


def own_operands(
    rows: List[Tensor],  # noqa: UP006
    read: List[bool],  # noqa: UP006
    gathered: List[bool],  # noqa: UP006
) -> List[Tensor]:  # noqa: UP006
    """Copy the operands that gradients read; those that are the same as one copy.

    Args:
        rows: The operands.
        read: Which of them gradients read (`read_by_gradients`).
        gathered: Which of them hold nodes (`are_gathered`): they are copied now where that cannot
            wait. Edge features are large, and kept as they are then.

    Returns:
        The operands and copies.
    """
    copies: List[Tensor] = []  # noqa: UP006
    for number, row in enumerate(rows):
        if read[number]:
            same = -1
            for place, other in enumerate(rows[:number]):  # x_i and x_j are gathered from one
                if read[place] and _is_same(other, row):
                    same = place
            copies.append(own_copy(row, gathered[number]) if same < 0 else copies[same])
        else:
            copies.append(row)
    return copies


def read_by_gradients(
    program: str,
    rows: List[Tensor],  # noqa: UP006
    reduce: str,
) -> List[bool]:  # noqa: UP006
    """Tell the operands that gradients of an edge program may read."""
    linear = reduce in ["sum", "add", "mean"]
    several = "/" in program or "(" in program or not linear
    differentiable = 0
    if torch.is_grad_enabled() and (several or "*" in program):
        for row in rows:
            differentiable += int(row.requires_grad)
    read: List[bool] = []  # noqa: UP006
    for number, row in enumerate(rows):
        uses = 0
        for letter in ["i", "j", "e", "s"]:
            uses += program.count(f"{letter}{number}")
        others = differentiable - int(row.requires_grad)
        read.append(differentiable > 0 and (several or uses > 1 or others > 0))
    return read


def are_gathered(program: str, count: int) -> List[bool]:  # noqa: UP006
    """Tell which of so many operands of an edge program are gathered from nodes."""
    gathered: List[bool] = []  # noqa: UP006
    for number in range(count):
        gathered.append(f"i{number}" in program or f"j{number}" in program)  # noqa: PERF401
    return gathered


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
