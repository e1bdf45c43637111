"""The functions of ``torch_scatter`` on our ops: same names, arguments and results.

They are drop-in replacements, differentiable, and ``torch.jit.script`` compiles them. An index of
one dimension counts along `dim`; one of several is expanded to `src` from its first dimensions on,
and may differ from feature to feature. Two things differ from ``torch_scatter``: ties in a minimum
or maximum share the gradient evenly, and `scatter_std` and `scatter_logsumexp` take no `out`.
"""

import torch
from torch import Tensor

from gnnscript.ops.chosen import scatter as _scatter
from gnnscript.ops.chosen import segment_reduce as _segment_reduce
from gnnscript.ops.chosen import softmax as _softmax
from gnnscript.ops.portable import _count_nodes, _sized, _wrap_dim
from gnnscript.ops.rows import segment_reduce as _segment_integers

__all__ = [
    "gather_coo",
    "gather_csr",
    "scatter",
    "scatter_add",
    "scatter_log_softmax",
    "scatter_logsumexp",
    "scatter_max",
    "scatter_mean",
    "scatter_min",
    "scatter_mul",
    "scatter_softmax",
    "scatter_std",
    "scatter_sum",
    "segment_coo",
    "segment_csr",
]


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduce the values of equal index; `reduce` is sum, add, mul, mean, min or max.

    Args:
        src: Values, any shape.
        index: The row of each value along `dim`; int32 or int64, of one dimension or of the first
            dimensions of `src`.
        dim: Dimension that is reduced.
        out: Tensor that takes the result in place, together with what it holds: a sum is added to
            it, of a mean it is one more summand (but not counted), and so on.
        dim_size: Size of the result at `dim`; None for that of `out`, or largest index plus one.
        reduce: The reduction.

    Returns:
        Reduced values, with `dim_size` at `dim`; 0 where there are none, 1 for `mul`. Means of
        integers are rounded down.

    Raises:
        ValueError: If `reduce` is unknown.
        IndexError: If a value of `index` is out of range; `RuntimeError` from the portable op.

    Source: ``torch_scatter.scatter``.
    """
    dim = _wrap_dim(dim, src.dim())
    if reduce not in ["sum", "add", "mul", "mean", "min", "max"]:
        raise ValueError(
            f"expected reduce to be one of sum, add, mul, mean, min and max, got '{reduce}'"
        )
    if reduce == "mean" and (out is not None or not src.is_floating_point()):
        return _mean(src, index, dim, out, dim_size)
    if out is None:
        return _reduce(src, index, dim, dim_size, reduce)
    if reduce in ["min", "max"]:
        return _extremum(src, index, dim, out, dim_size, reduce)[0]
    result = _reduce(src, index, dim, out.size(dim), reduce)
    return out.mul_(result) if reduce == "mul" else out.add_(result)


def scatter_sum(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """Add the values of equal index; see `scatter`."""
    return scatter(src, index, dim, out, dim_size, "sum")


def scatter_add(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """Add the values of equal index; see `scatter`."""
    return scatter(src, index, dim, out, dim_size, "sum")


def scatter_mul(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """Multiply the values of equal index; see `scatter`."""
    return scatter(src, index, dim, out, dim_size, "mul")


def scatter_mean(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """Average the values of equal index; see `scatter`."""
    return scatter(src, index, dim, out, dim_size, "mean")


def scatter_min(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the smallest value of equal index, and the position of the first one.

    Returns:
        The minima as `scatter` returns them, and their positions along `dim`, int64; the size of
        `src` at `dim` where there is no value, or none below that of `out`.
    """
    return _extremum(src, index, dim, out, dim_size, "min")


def scatter_max(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the largest value of equal index, and the position of the first; see `scatter_min`."""
    return _extremum(src, index, dim, out, dim_size, "max")


def scatter_std(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    unbiased: bool = True,
) -> Tensor:
    """Compute the standard deviation of the values of equal index; see `scatter`."""
    dim = _wrap_dim(dim, src.dim())
    if out is not None:
        raise ValueError("expected no out: combine the result with out yourself")
    size = dim_size if dim_size is not None else _count_nodes(index)
    count = _reduce(torch.ones_like(src), index, dim, size, "sum")
    mean = _reduce(src, index, dim, size, "mean")
    deviation = src - mean.gather(dim, _expand(index, src, dim))
    count = (count - 1 if unbiased else count).clamp(min=1)
    return (_reduce(deviation * deviation, index, dim, size, "sum") / (count + 1e-6)).sqrt()


def scatter_logsumexp(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    eps: float = 1e-12,
) -> Tensor:
    """Compute the logarithm of the summed exponentials of equal index; 0 where there is none."""
    dim = _wrap_dim(dim, src.dim())
    if out is not None:
        raise ValueError("expected no out: combine the result with out yourself")
    size = dim_size if dim_size is not None else _count_nodes(index)
    shift = _reduce(src.detach(), index, dim, size, "max")
    shift = torch.where(shift.isinf(), 0, shift)
    terms = (src - shift.gather(dim, _expand(index, src, dim))).exp()
    total = _reduce(terms, index, dim, size, "sum")
    return torch.where(total == 0, 0, (total + eps).log() + shift)


def scatter_softmax(
    src: Tensor, index: Tensor, dim: int = -1, dim_size: int | None = None
) -> Tensor:
    """Normalise the values of equal index by a softmax; see `scatter`."""
    dim = _wrap_dim(dim, src.dim())
    if index.dim() == 1:
        return _softmax(src, index, None, dim_size, dim)
    size = dim_size if dim_size is not None else _count_nodes(index)
    where = _expand(index, src, dim)
    terms = (src - _reduce(src.detach(), index, dim, size, "max").gather(dim, where)).exp()
    return terms / _reduce(terms, index, dim, size, "sum").gather(dim, where)


def scatter_log_softmax(
    src: Tensor, index: Tensor, dim: int = -1, eps: float = 1e-12, dim_size: int | None = None
) -> Tensor:
    """Compute the logarithm of `scatter_softmax`; see there."""
    dim = _wrap_dim(dim, src.dim())
    size = dim_size if dim_size is not None else _count_nodes(index)
    where = _expand(index, src, dim)
    centered = src - _reduce(src.detach(), index, dim, size, "max").gather(dim, where)
    total = _reduce(centered.exp(), index, dim, size, "sum")
    return centered - (total + eps).log().gather(dim, where)


def segment_csr(
    src: Tensor, indptr: Tensor, out: Tensor | None = None, reduce: str = "sum"
) -> Tensor:
    """Reduce the rows that `indptr` bounds, along its last dimension.

    Args:
        src: Values, sorted by row along dimension `indptr.dim() - 1`.
        indptr: Where rows begin and end, `[N + 1]`, or of as many dimensions more as `src` has
            before the sorted one, each of that size or of size one.
        out: Tensor that the result is written to.
        reduce: sum, add, mean, min or max.

    Returns:
        Reduced values, with `N` in place of the sorted dimension; 0 for an empty row.

    Raises:
        ValueError: If `indptr` decreases, or `reduce` is unknown.
        IndexError: If `indptr` leaves the sorted dimension; `ValueError` where it is a vector.

    Source: ``torch_scatter.segment_csr``.
    """
    if reduce not in ["sum", "add", "mean", "min", "max"]:
        raise ValueError(
            f"expected reduce to be one of sum, add, mean, min and max, got '{reduce}'"
        )
    dim = indptr.dim() - 1
    if dim > 0:
        _check_values(indptr, "indptr", src.size(dim) + 1)
    ptr = _each_ptr(indptr, src)
    starts = torch.arange(ptr.size(0), device=src.device).unsqueeze(1) * src.size(dim)
    end = torch.full([1], ptr.size(0) * src.size(dim), device=src.device)
    # Behind the rows of each example one more, of the values that belong to none.
    bounds = torch.cat([(ptr + starts).flatten(), end])
    if src.is_floating_point():
        found = _segment_reduce(src.flatten(0, dim), bounds, None, reduce)
    else:
        found = _segment_integers(src.flatten(0, dim), bounds, None, reduce)
    found = found.view(_sized(src, dim, ptr.size(1))).narrow(dim, 0, ptr.size(1) - 1).contiguous()
    return found if out is None else out.copy_(found)


def segment_coo(
    src: Tensor,
    index: Tensor,
    out: Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduce the values of equal index along the last dimension of `index`; see `scatter`."""
    return scatter(src, index, index.dim() - 1, out, dim_size, reduce)


def gather_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Repeat the value of each row as often as `indptr` has entries for it; see `segment_csr`."""
    dim = indptr.dim() - 1
    ptr = _each_ptr(indptr, src)
    found = src.flatten(0, dim).repeat_interleave(ptr.diff().flatten(), dim=0)
    found = found.view(_sized(src, dim, found.size(0) // max(ptr.size(0), 1)))
    return found if out is None else out.copy_(found)


def gather_coo(src: Tensor, index: Tensor, out: Tensor | None = None) -> Tensor:
    """Take the value at each entry of `index`, along the last dimension of `index`."""
    dim = index.dim() - 1
    if dim == 0:
        found = src.index_select(0, index)
    else:
        shape = _sized(src, dim, index.size(dim))
        for _ in range(src.dim() - index.dim()):
            index = index.unsqueeze(-1)
        found = src.gather(dim, index.to(torch.int64).expand(shape))
    return found if out is None else out.copy_(found)


def _expand(index: Tensor, src: Tensor, dim: int) -> Tensor:
    """Expand an index to the shape of `src`, as int64."""
    index = index.to(torch.int64)
    if index.dim() == 1:
        for _ in range(dim):
            index = index.unsqueeze(0)
    for _ in range(src.dim() - index.dim()):
        index = index.unsqueeze(-1)
    return index.expand_as(src)


def _each_ptr(indptr: Tensor, src: Tensor) -> Tensor:
    """Return the `[N + 1]` of each example, where `src` has dimensions before the sorted one."""
    if indptr.dim() == 1:
        return indptr.to(torch.int64).unsqueeze(0)
    shape = _sized(src, indptr.dim() - 1, indptr.size(-1))[: indptr.dim()]
    return indptr.to(torch.int64).expand(shape).flatten(0, -2)


def _mean(src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None) -> Tensor:
    """Average, into what is given; those of integers are rounded down."""
    if out is not None:
        dim_size = out.size(dim)
    total = _reduce(src, index, dim, dim_size, "sum")
    ones = torch.ones_like(src, dtype=torch.int64)
    count = _reduce(ones, index, dim, total.size(dim), "sum").clamp(min=1)
    if out is not None:
        total = out.add_(total)
    if src.is_floating_point() or src.is_complex():
        found = total / count
    else:
        found = torch.div(total, count, rounding_mode="floor").to(total.dtype)
    return found if out is None else out.copy_(found)


def _extremum(
    src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None, reduce: str
) -> tuple[Tensor, Tensor]:
    """Find the smallest or largest values, and where each stands first."""
    dim = _wrap_dim(dim, src.dim())
    if out is not None:
        dim_size = out.size(dim)
    found = _reduce(src, index, dim, dim_size, reduce)
    place = _positions(found, src, index, dim)
    if out is None:
        return found, place
    better = found < out if reduce == "min" else found > out
    better = better & (place < src.size(dim))
    place = torch.where(better, place, src.size(dim))
    return out.copy_(torch.where(better, found, out)), place


def _reduce(src: Tensor, index: Tensor, dim: int, dim_size: int | None, reduce: str) -> Tensor:
    """Reduce as `scatter` does, with an index of any dimensions."""
    if index.dim() == 1:
        return _scatter(src, index, dim, dim_size, reduce)
    size = dim_size if dim_size is not None else _count_nodes(index)
    _check_values(index, "index", size)
    rows = src.transpose(0, dim)
    features = 1
    for number in range(1, rows.dim()):
        features *= rows.size(number)
    # Every feature has rows of its own.
    keys = _expand(index, src, dim).transpose(0, dim).reshape([rows.size(0), features])
    keys = keys * features + torch.arange(features, device=src.device)
    shape = _sized(rows, 0, size)
    out = _scatter(rows.reshape([-1]), keys.reshape([-1]), 0, size * features, reduce)
    return out.view(shape).transpose(0, dim).contiguous()


def _positions(found: Tensor, src: Tensor, index: Tensor, dim: int) -> Tensor:
    """Find where the value that a row was reduced to stands first."""
    count = src.size(dim)
    where = _expand(index, src, dim)
    shape = [1] * src.dim()
    shape[dim] = -1
    place = torch.arange(count, device=src.device).view(shape).expand_as(where)
    place = torch.where(src.detach() == found.detach().gather(dim, where), place, count)
    none = torch.full_like(found, count, dtype=torch.int64)
    return none.scatter_reduce(dim, where, place, "amin", include_self=True)


def _check_values(index: Tensor, name: str, size: int) -> None:
    """Refuse values that are out of range, where to read them back does not stall the stream."""
    if index.is_cuda or index.numel() == 0:
        return
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if torch.compiler.is_compiling() or torch._C._functorch.is_batchedtensor(index):
            return
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= size:
        raise IndexError(
            f"{name} out of range: {name} holds {low if low < 0 else high}, expected values in "
            f"[0, {size})"
        )
