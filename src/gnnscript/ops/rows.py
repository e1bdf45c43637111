"""Portable ops over rows of sorted edges, ``ptr, perm = csr(index, N)``, and over ends of edges.

They are made of ATen calls only, like those in ``portable``, and have a tensor of all edges where
the native ones have none.
"""

import torch
from torch import Tensor

from gnnscript.ops.portable import _check_ptr, scatter, softmax

__all__ = ["edge_softmax", "gspmm", "sddmm", "segment_reduce", "segment_reduces"]


def segment_reduce(src: Tensor, ptr: Tensor, perm: Tensor | None, reduce: str) -> Tensor:
    """Reduce the edge values of each node over `ptr, perm = csr(index, N)`.

    Args:
        src: Edge values, `[E, ...]`, in their given order; floating-point.
        ptr: Where the edges of each node begin and end in `perm`, `[N + 1]`, int64.
        perm: The edges in sorted order, `[E]`, int64; None where `src` is sorted.
        reduce: `sum`, `mean`, `min`, `max`, `mul`, `any`, `var`, `std` (both of the values as a
            population) or `logsumexp`.

    Returns:
        Node values, `[N, ...]`, of the dtype of `src`. A node without edges holds 0, 1 for `mul`,
        negative infinity for `logsumexp`.

    Raises:
        ValueError: If `ptr` is no vector, decreases or leaves `[0, E]`, or `reduce` is unknown.
        IndexError: If a value of `perm` is out of range.
    """
    row = _rows(ptr, _count(src, perm))
    if perm is not None:
        src = src.index_select(0, perm)
    return scatter(src, row, 0, ptr.size(0), reduce).narrow(0, 0, ptr.size(0) - 1)


def segment_reduces(
    src: Tensor, ptr: Tensor, perm: Tensor | None, reduces: list[str]
) -> list[Tensor]:
    """Reduce the edge values of each node in several ways.

    Args:
        src: As in `segment_reduce`.
        ptr: As in `segment_reduce`.
        perm: As in `segment_reduce`.
        reduces: Reductions of `segment_reduce`.

    Returns:
        Node values of each reduction, as `segment_reduce` returns them.
    """
    return [segment_reduce(src, ptr, perm, reduce) for reduce in reduces]


def edge_softmax(src: Tensor, ptr: Tensor, perm: Tensor | None) -> Tensor:
    """Normalise the edge values of each node by a softmax over `ptr, perm = csr(index, N)`.

    Args:
        src: Edge values, `[E, ...]`, in their given order; floating-point.
        ptr: As in `segment_reduce`.
        perm: As in `segment_reduce`.

    Returns:
        Weights of the shape and dtype of `src`, in the order of `src`; 0 for an edge of no row.

    Raises:
        ValueError: As in `segment_reduce`.
        IndexError: As in `segment_reduce`.
    """
    row = _rows(ptr, _count(src, perm))
    none = ptr.size(0) - 1
    if perm is not None:
        row = torch.full([src.size(0)], none, device=src.device).index_copy(0, perm, row)
    weight = softmax(src, row, None, none + 1, 0)
    outside = (row == none).view([-1] + [1] * (src.dim() - 1))
    return weight.masked_fill(outside, 0)


def gspmm(
    index: Tensor,
    other: Tensor,
    x: Tensor,
    num_nodes: int,
    weight: Tensor | None = None,
    op: str = "mul",
    reduce: str = "sum",
) -> Tensor:
    """Reduce the values of neighbours, weighted by edge: generalised sparse-dense product.

    Args:
        index: The node that each edge is reduced to, `[E]`; int32 or int64, values in
            `[0, num_nodes)`.
        other: The node whose values each edge carries, `[E]`; int32 or int64, values in `[0, M)`.
        x: Node values, `[M, ...]`; float64, float32, float16 or bfloat16.
        num_nodes: Number of nodes `N` to reduce to.
        weight: Edge values, `[E]`, or `[E, H]` for `x` of shape `[M, H, ...]`, and so on; None
            takes `x` as it is.
        op: How `x` and `weight` combine: `mul`, `add`, `sub` or `div`, in this order.
        reduce: `sum`, `mean`, `min`, `max` or `mul`.

    Returns:
        Node values, `[N, ...]`.

    Raises:
        ValueError: If `op` or `reduce` is unknown, or shapes or dtypes do not fit.
        IndexError: If an index value is out of range; `RuntimeError` from the portable op.

    Source: DGL's ``gspmm``; for `sum` and `mul` the product of a sparse matrix and `x`.
    """
    values = x.index_select(0, other)
    if weight is not None:
        for _ in range(x.dim() - weight.dim()):
            weight = weight.unsqueeze(-1)
        values = _combine(_aligned(values, weight.dim()), weight, op)
    return scatter(values, index, 0, num_nodes, reduce)


def sddmm(index: Tensor, other: Tensor, a: Tensor, b: Tensor, op: str = "dot") -> Tensor:
    """Combine the values at both ends of each edge: sampled dense-dense product.

    Args:
        index: The node at one end of each edge, `[E]`; int32 or int64, values in `[0, N)`.
        other: The node at the other end, `[E]`; int32 or int64, values in `[0, M)`.
        a: Values of the nodes at `index`, `[N, ..., F]`; float64, float32, float16 or bfloat16.
        b: Values of the nodes at `other`, `[M, ..., F]`.
        op: `dot`, the product summed over `F`, or `mul`, `add`, `sub` or `div`.

    Returns:
        Edge values: `[E, ...]` for `dot`, else `[E, ..., F]`.

    Raises:
        ValueError: If `op` is unknown, or shapes or dtypes do not fit.
        IndexError: If an index value is out of range.

    Source: DGL's ``gsddmm``.
    """
    left = _aligned(a.index_select(0, index), b.dim())
    right = _aligned(b.index_select(0, other), a.dim())
    if op == "dot":
        return (left * right).sum(-1)
    return _combine(left, right, op)


def _combine(left: Tensor, right: Tensor, op: str) -> Tensor:
    if op == "mul":
        return left * right
    if op == "add":
        return left + right
    if op == "sub":
        return left - right
    if op == "div":
        return left / right
    raise ValueError(f"expected op to be one of mul, add, sub and div, got '{op}'")


def _aligned(values: Tensor, dims: int) -> Tensor:
    """Insert dimensions behind that of the edges, so that features broadcast from the right."""
    for _ in range(dims - values.dim()):
        values = values.unsqueeze(1)
    return values


def _count(src: Tensor, perm: Tensor | None) -> int:
    return src.size(0) if perm is None else perm.size(0)


def _rows(ptr: Tensor, edges: int) -> Tensor:
    """Return the node of each sorted edge, `[E]`; the number of nodes for an edge of no row."""
    if ptr.dim() != 1 or ptr.size(0) == 0:
        raise ValueError(f"expected ptr of shape [N + 1], got shape {list(ptr.size())}")
    if not ptr.is_cuda:  # there, reading a result back would stall the stream
        _check_ptr(ptr, edges)
    row = torch.searchsorted(ptr, torch.arange(edges, device=ptr.device), right=True) - 1
    return torch.where(row < 0, ptr.size(0) - 1, row)
