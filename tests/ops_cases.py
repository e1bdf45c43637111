"""Inputs on which the tests of the ops run: shapes, memory layouts, dtypes, and node indices."""

from __future__ import annotations

import torch
from torch import Tensor

REDUCTIONS = ("sum", "add", "mean", "mul", "min", "max", "amin", "amax", "any")
SEGMENT_REDUCTIONS = ("sum", "mean", "min", "max", "amin", "amax", "prod")
# What the native segment ops reduce by.
REDUCES = ("sum", "mean", "min", "max", "mul", "any", "var", "std", "logsumexp")
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


def by_sorting(src: Tensor, index: Tensor, nodes: int, reduce: str) -> Tensor:
    """The reference: dense reductions of the rows, in float64."""
    src = src.double()
    out = src.new_full([nodes, *src.shape[1:]], {"mul": 1, "logsumexp": -torch.inf}.get(reduce, 0))
    order = torch.sort(index.long(), stable=True)
    bounds = torch.unique_consecutive(order.values, return_counts=True)
    for node, rows in zip(
        bounds[0].tolist(), src[order.indices].split(bounds[1].tolist()), strict=True
    ):
        out[node] = {
            "sum": lambda x: x.sum(0),
            "mean": lambda x: x.mean(0),
            "min": lambda x: x.amin(0),
            "max": lambda x: x.amax(0),
            "mul": lambda x: x.prod(0),
            "any": lambda x: x[-1],
            "var": lambda x: x.var(0, correction=0),
            "std": lambda x: x.std(0, correction=0),
            "logsumexp": lambda x: x.logsumexp(0),
        }[reduce](rows)
    return out


def values_and_gradient(out: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
    """Return an output and what flows back from it for a fixed, uneven gradient."""
    upstream = torch.linspace(-1, 2, out.numel()).view(out.shape).to(out.dtype)
    (grad,) = torch.autograd.grad(out, base, upstream)
    return out.detach(), grad


def assert_identical(actual: Tensor, expected: Tensor) -> None:
    """Fail unless shape, dtype and every bit are equal (NaN equals NaN)."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)
