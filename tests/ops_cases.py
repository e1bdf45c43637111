"""Inputs on which the tests of the ops run: shapes, memory layouts, dtypes, and node indices."""

from __future__ import annotations

import torch
from torch import Tensor

REDUCTIONS = ("sum", "add", "mean", "mul", "min", "max", "amin", "amax", "any")
SEGMENT_REDUCTIONS = ("sum", "mean", "min", "max", "amin", "amax", "prod")
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
INDEX_DTYPES = (torch.int64, torch.int32)
LAYOUTS = ("contiguous", "transposed", "expanded")

NUM_NODES = 7
# Unsorted and with duplicates; nodes 2 and 6 have no edge.
INDEX = [5, 0, 3, 3, 1, 5, 0, 4, 5, 1, 3, 5, 0]
SORTED_INDEX = sorted(INDEX)
# Where the edges of each node begin and end in SORTED_INDEX.
PTR = [0, 3, 5, 5, 8, 9, 13, 13]


def shape_with(size: int, dim: int) -> list[int]:
    """A shape of three dimensions, of which `dim` has the given size."""
    shape = [3, 2, 4]
    shape[dim] = size
    return shape


def leaf(shape: list[int], dim: int, dtype: torch.dtype, layout: str) -> tuple[Tensor, Tensor]:
    """Make random values.

    Args:
        shape: The shape wanted.
        dim: The dimension that counts edges; it is never the expanded one.
        dtype: A floating-point dtype.
        layout: One of LAYOUTS.

    Returns:
        The leaf that gradients flow to, and the tensor of the wanted shape and layout made from it.
    """
    if layout == "contiguous":
        base = torch.randn(shape).to(dtype).requires_grad_()
        return base, base
    if layout == "transposed":
        base = torch.randn(shape[::-1]).to(dtype).requires_grad_()
        src = base.permute(list(range(len(shape)))[::-1])
        assert not src.is_contiguous() or src.numel() == 0
        return base, src
    stored = list(shape)
    stored[(dim + 1) % len(shape)] = 1
    base = torch.randn(stored).to(dtype).requires_grad_()
    src = base.expand(shape)
    assert 0 in src.stride()
    return base, src


def values_and_gradient(out: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
    """Return an output and what flows back from it for a fixed, uneven gradient."""
    upstream = torch.linspace(-1, 2, out.numel()).view(out.shape).to(out.dtype)
    (grad,) = torch.autograd.grad(out, base, upstream)
    return out.detach(), grad


def assert_identical(actual: Tensor, expected: Tensor) -> None:
    """Fail unless shape, dtype and every bit are equal (NaN equals NaN)."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)
