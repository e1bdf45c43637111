"""What stands in programs of ``torch.compile`` and ``torch.export`` for what they cannot hold.

They have no branches, so a check of values is an assertion in them. Scripted code keeps its checks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import guard_or_false, guard_or_true

__all__ = ["coo_to_csr", "holds", "refused", "take_along_dim"]


def holds(condition: Any, message: str) -> Any:
    """Assert a condition where only values tell it; answer it where that can be.

    Args:
        condition: A tensor of one element, a ``SymBool`` or a plain value.
        message: What the assertion says when it fails.

    Returns:
        True for what is asserted; another condition as it is.

    Raises:
        RuntimeError: The program runs on values for which an assertion fails.
    """
    if isinstance(condition, Tensor):
        torch._assert_async(condition, message)
        return True
    if not isinstance(condition, (bool, torch.SymBool)):
        return condition
    if guard_or_false(condition) is guard_or_true(condition):  # known
        return guard_or_false(condition)
    torch._check(condition, lambda: message)  # type: ignore[no-untyped-call]
    return True


def refused(condition: Any, message: str) -> Any:
    """Assert that a condition does not hold; see :func:`holds`.

    Args:
        condition: As in :func:`holds`.
        message: As in :func:`holds`.

    Returns:
        False for what is asserted; another condition as it is.

    Raises:
        RuntimeError: As in :func:`holds`.
    """
    if isinstance(condition, Tensor):
        torch._assert_async(condition.logical_not(), message)
        return False
    if not isinstance(condition, (bool, torch.SymBool)):
        return condition
    if guard_or_false(condition) is guard_or_true(condition):
        return guard_or_false(condition)
    torch._check(torch.sym_not(condition), lambda: message)  # type: ignore[no-untyped-call]
    return False


def coo_to_csr(index: Tensor, size: int, out_int32: bool = False) -> Tensor:
    """Turn sorted positions into pointers, for sizes that vary: torch's own fixes them.

    Args:
        index: Positions in ascending order, below `size`, `[E]`.
        size: How many positions there are.
        out_int32: Whether pointers are int32; int64 otherwise.

    Returns:
        Where the entries of each position begin, and the end, `[size + 1]`.

    Source: ``torch._convert_indices_from_coo_to_csr``.
    """
    positions = torch.arange(size + 1, dtype=index.dtype, device=index.device)
    return torch.searchsorted(index.contiguous(), positions, out_int32=out_int32)


def take_along_dim(values: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """Take values along a dimension, for sizes that vary: torch's own fixes them.

    Args:
        values: Values, of any shape.
        indices: int64 positions along `dim`, of a shape that broadcasts with that of `values`.
        dim: The dimension; None takes from the flattened values.

    Returns:
        The values taken, of the shape of `indices` broadcast.

    Source: ``torch.take_along_dim``.
    """
    if dim is None:
        return values.flatten().gather(0, indices.flatten())
    dim = dim % values.dim()

    def shape(tensor: Tensor, size: int) -> tuple[int, ...]:
        return (*tensor.shape[:dim], size, *tensor.shape[dim + 1 :])

    common = torch.broadcast_shapes(shape(values, 1), shape(indices, 1))  # type: ignore[no-untyped-call]
    before, after = common[:dim], common[dim + 1 :]
    spread = values.expand((*before, values.size(dim), *after))
    return spread.gather(dim, indices.expand((*before, indices.size(dim), *after)))
