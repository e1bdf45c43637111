"""Portable ops: ATen calls only, so a file that holds them loads wherever torch loads.

``torch.jit.script`` compiles these functions into the saved program. They are therefore written in
the part of Python that TorchScript knows, with every type stated and values as in eager PyG.
"""

from typing import Any

import torch
from torch import Tensor


def gather(src: Tensor, index: Tensor, dim: int) -> Tensor:
    """Return, for every edge, the slice of `src` that its node holds.

    Args:
        src: Node values, `[..., N, ...]` with `N` at `dim`; any dtype.
        index: Node of each edge, `[E]`; int32 or int64, values in `[0, N)`.
        dim: Dimension of `src` that counts nodes; may be negative.

    Returns:
        Edge values, `[..., E, ...]` with `E` at `dim`, of the dtype of `src`.

    Raises:
        IndexError: If `dim` or a value of `index` is out of range, or `index` is no vector of
            int32 or int64.

    Source: the lifting of ``x_i`` and ``x_j`` in ``torch_geometric.nn.MessagePassing``.
    """
    return src.index_select(dim, index)


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = 0,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduce the edge values of each node.

    Args:
        src: Edge values, `[..., E, ...]` with `E` at `dim`; any dtype that ATen reduces.
        index: Node of each edge, `[E]`; int32 or int64, in any order, values in `[0, N)`.
        dim: Dimension of `src` that counts edges; may be negative.
        dim_size: Number of nodes `N`; None stands for the largest index plus one.
        reduce: `sum` (or `add`), `mean`, `mul`, `min` (or `amin`), `max` (or `amax`), `any`,
            which keeps one unspecified edge value per node, `var` or `std` of the values as a
            population, or `logsumexp`.

    Returns:
        Node values, `[..., N, ...]` with `N` at `dim`, of the dtype of `src` (`mean` of integers:
        the default float dtype). A node without edges holds 0, 1 for `mul`, negative infinity for
        `logsumexp`.

    Raises:
        ValueError: If `index` is not one-dimensional, `dim` is out of range, or `reduce` unknown.
        RuntimeError: If a value of `index` is out of range or its dtype is not an index dtype.

    Source: ``torch_geometric.utils.scatter``.
    """
    if index.dim() != 1:
        raise ValueError(f"expected a one-dimensional index, got {index.dim()} dimensions")
    dim = _wrap_dim(dim, src.dim())
    index = _as_int64(index)
    if dim_size is None:
        dim_size = _count_nodes(index)

    if reduce in ["sum", "add"]:
        return _scatter_sum(src, index, dim, dim_size)
    if reduce == "mean":
        return _scatter_mean(src, index, dim, dim_size)
    if reduce in ["min", "amin"]:
        return _scatter_extremum(src, index, dim, dim_size, "amin")
    if reduce in ["max", "amax"]:
        return _scatter_extremum(src, index, dim, dim_size, "amax")
    if reduce == "mul":
        return _scatter_mul(src, index, dim, dim_size)
    if reduce == "any":
        return _scatter_any(src, index, dim, dim_size)
    if reduce == "var":
        return _scatter_var(src, index, dim, dim_size)
    if reduce == "std":
        return _root(_scatter_var(src, index, dim, dim_size))
    if reduce == "logsumexp":
        return _scatter_logsumexp(src, index, dim, dim_size)
    raise ValueError(
        "expected reduce to be one of sum, add, mean, mul, min, amin, max, amax, any, var, std and "
        f"logsumexp, got '{reduce}'"
    )


def segment(src: Tensor, ptr: Tensor, reduce: str = "sum") -> Tensor:
    """Reduce the edge values of each node, where the edges are sorted by node.

    Args:
        src: Edge values, `[..., E, ...]` with `E` at dimension `ptr.dim() - 1`; float64, float32,
            float16 or bfloat16.
        ptr: Where the edges of each node begin and end, `[N + 1]` or, to reduce dimension `d`,
            `[1, ..., 1, N + 1]` with `d` leading ones; int32 or int64, never decreasing,
            within `[0, E]`.
        reduce: `sum` (or `add`), `mean`, `min` (or `amin`), `max` (or `amax`) or `prod`.

    Returns:
        Node values, `[..., N, ...]` with `N` in place of `E`, of the dtype of `src`. A node
        without edges holds 0, or 1 for `prod`. As in PyG, an infinite minimum or maximum
        becomes 0.

    Raises:
        ValueError: If `ptr` has a shape other than the above, `reduce` is unknown, or, on CPU,
            the values of `ptr` decrease or leave `[0, E]`.

    Source: ``torch_geometric.utils.segment``; for leading ones ``torch_scatter.segment_csr``.
    """
    dim = ptr.dim() - 1
    if dim < 0 or dim >= src.dim() or ptr.numel() != ptr.size(dim) or ptr.numel() == 0:
        raise ValueError(
            f"expected ptr of shape [N + 1] with at most {src.dim() - 1} leading ones, "
            f"got shape {list(ptr.size())}"
        )
    ptr = ptr.reshape([-1])
    if not src.is_cuda:  # there, reading a result back would stall the stream
        _check_ptr(ptr, src.size(dim))

    # Along an axis other than 0 `segment_reduce` returns wrong gradients for min and max.
    src = src.transpose(0, dim)
    return _segment_rows(src, ptr, reduce).transpose(0, dim).contiguous()


def softmax(
    src: Tensor,
    index: Tensor | None = None,
    ptr: Tensor | None = None,
    num_nodes: int | None = None,
    dim: int = 0,
) -> Tensor:
    """Normalise the edge values of each node by a softmax (edge softmax).

    Args:
        src: Edge values, `[..., E, ...]` with `E` at `dim`; floating-point.
        index: Node of each edge, `[E]`; int32 or int64, in any order, values in `[0, N)`.
        ptr: If given, the edges are sorted by node and `ptr` bounds them as in `segment`, `[N + 1]`
            for every `dim`; `index` is then not read.
        num_nodes: Number of nodes `N`; None stands for the largest index plus one.
        dim: Dimension of `src` that counts edges; may be negative.

    Returns:
        Weights of the shape and dtype of `src`, in `[0, 1]`; they add up to one over the edges of
        each node, less the rounding and the 1e-16 that guards the division.

    Raises:
        NotImplementedError: If neither `index` nor `ptr` is given.
        ValueError: If `dim` is out of range, or as in `scatter` and `segment`.

    Source: ``torch_geometric.utils.softmax``.
    """
    dim = _wrap_dim(dim, src.dim())
    if ptr is not None and (ptr.dim() == 1 or index is None):
        return _softmax_segments(src, ptr, dim)
    if index is not None:
        return _softmax_groups(src, index, dim, num_nodes)
    raise NotImplementedError("expected index or ptr to say which edges a softmax runs over")


def csr(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Sort edges by node: compressed rows of an edge list.

    Args:
        index: Node of each edge, `[E]`; int32 or int64, values in `[0, size)`.
        size: Number of nodes.

    Returns:
        ptr: Where the edges of each node begin and end among the sorted edges, `[size + 1]`, int64.
        perm: The edges in sorted order, those of one node in their given order, `[E]`, int64;
            `index[perm]` never decreases.

    Raises:
        ValueError: If `index` is not one-dimensional or `size` is negative.
        RuntimeError: If a value of `index` is out of range or its dtype is not an index dtype.

    Source: ``torch_geometric.index.index2ptr`` and a stable argsort.
    """
    if index.dim() != 1:
        raise ValueError(f"expected a one-dimensional index, got {index.dim()} dimensions")
    if size < 0:
        raise ValueError(f"expected a number of nodes, got size {size}")
    # Counting through scatter_add_ has ATen check the range of the index, on CUDA without a wait.
    one = torch.ones([1], dtype=torch.int64, device=index.device)
    zero = torch.zeros([1], dtype=torch.int64, device=index.device)
    degree = zero.new_zeros([size]).scatter_add_(0, _as_int64(index), one.expand(index.size(0)))
    ptr = torch.cat([zero, degree.cumsum(0)])
    return ptr, torch.argsort(index, stable=True)


def check_edge_index(edge_index: Tensor) -> None:
    """Make sure that a tensor can be read as an edge list.

    Args:
        edge_index: Source and target node of each edge, `[2, E]`; uint8, int8, int16, int32 or
            int64.

    Raises:
        ValueError: If it is sparse, or the dtype, the number of dimensions or the first size is
            another.

    Source: the input check of ``torch_geometric.nn.MessagePassing.propagate``.
    """
    integers = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
    if edge_index.layout != torch.strided:
        raise ValueError(
            "expected edge_index to be an integer tensor of shape [2, E], got a matrix of layout "
            f"{_describe_layout(edge_index)}: give the model the edges of it, for adj_t of shape "
            "[targets, sources] adj_t.to_sparse_coo().coalesce().indices().flip(0), and its "
            "values() as edge weights"
        )
    if edge_index.dtype not in integers:
        raise ValueError(
            "expected edge_index to be an integer tensor of shape [2, E], "
            f"got {_describe_dtype(edge_index)}"
        )
    if edge_index.dim() != 2:
        raise ValueError(
            "expected edge_index to be two-dimensional, of shape [2, E], "
            f"got {edge_index.dim()} dimensions"
        )
    if edge_index.size(0) != 2:
        raise ValueError(
            "expected edge_index to have size 2 in its first dimension, shape [2, E], "
            f"got shape {list(edge_index.size())}"
        )


def _describe_layout(value: Tensor) -> str:
    """Name the layout of a sparse tensor."""
    if value.layout == torch.sparse_coo:
        return "torch.sparse_coo"
    return "torch.sparse_csr" if value.layout == torch.sparse_csr else "torch.sparse_csc or blocked"


def as_int(value: Tensor) -> int:
    """Return the number that a tensor holds, for a size that the values decide.

    Args:
        value: One element, of any shape; a floating-point number is rounded towards zero.

    Returns:
        What ``int(value)`` is. Under ``torch.export``, where that would be a constant, a size that
        is known when the program runs.

    Raises:
        RuntimeError: If the tensor has not exactly one element.

    Source: ``torch.Tensor.item``.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return int(value)
    number: Any = value.item()
    return number if isinstance(number, torch.SymInt) else int(number)  # type: ignore[return-value]


def as_bool(value: Tensor) -> bool:
    """Return the truth of what a tensor holds.

    Args:
        value: One element, of any shape.

    Returns:
        What ``bool(value)`` is; under ``torch.export`` a value that the program computes, which is
        decided only where something branches on it.

    Raises:
        RuntimeError: If the tensor has not exactly one element.

    Source: ``torch.Tensor.item``.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return bool(value)
    truth: Any = value.ne(0).item()
    return truth if isinstance(truth, torch.SymBool) else bool(truth)  # type: ignore[return-value]


def differ(size: int, other: int) -> bool:
    """Whether sizes differ that have to be equal; a program in which values decide asserts it."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return size != other
    if torch.compiler.is_compiling():
        torch._check(size == other)  # type: ignore[no-untyped-call]
        return False
    return size != other


def _wrap_dim(dim: int, dims: int) -> int:
    """Return the dimension counted from the front."""
    if dim < -dims or dim >= dims:
        raise ValueError(f"expected dim to lie within [{-dims}, {dims - 1}], got {dim}")
    return dim + dims if dim < 0 else dim


def _describe_dtype(tensor: Tensor) -> str:
    """Name what a tensor holds; TorchScript would print its dtype as a number."""
    if tensor.dtype == torch.bool:
        return "a boolean tensor"
    if tensor.is_floating_point():
        return "a floating-point tensor"
    if tensor.is_complex():
        return "a complex tensor"
    return "a tensor of another dtype"


def _as_int64(index: Tensor) -> Tensor:
    """Widen an int32 index, which ATen's gather misreads in the gradient of a scatter on CPU."""
    return index.to(torch.int64) if index.dtype == torch.int32 else index


def _count_nodes(index: Tensor) -> int:
    return as_int(index.max()) + 1 if index.numel() > 0 else 0


def _expand_at(vector: Tensor, other: Tensor, dim: int) -> Tensor:
    """View a vector along `dim` of the shape of another tensor."""
    shape = [1] * other.dim()
    shape[dim] = -1
    return vector.view(shape).expand_as(other)


def _sized(src: Tensor, dim: int, size: int) -> list[int]:
    """Return the shape of `src` with another size at `dim`."""
    shape = list(src.size())
    shape[dim] = size
    return shape


def _scatter_sum(src: Tensor, index: Tensor, dim: int, size: int) -> Tensor:
    out = src.new_zeros(_sized(src, dim, size))
    return out.scatter_add_(dim, _expand_at(index, src, dim), src)


def _scatter_mean(src: Tensor, index: Tensor, dim: int, size: int) -> Tensor:
    degree = src.new_zeros([size])
    degree.scatter_add_(0, index, src.new_ones([src.size(dim)]))
    total = _scatter_sum(src, index, dim, size)
    return total / _expand_at(degree.clamp(min=1), total, dim)


def _scatter_extremum(src: Tensor, index: Tensor, dim: int, size: int, reduce: str) -> Tensor:
    out = src.new_zeros(_sized(src, dim, size))
    return out.scatter_reduce_(dim, _expand_at(index, src, dim), src, reduce, include_self=False)


def _scatter_mul(src: Tensor, index: Tensor, dim: int, size: int) -> Tensor:
    out = src.new_ones(_sized(src, dim, size))
    return out.scatter_reduce_(dim, _expand_at(index, src, dim), src, "prod", include_self=True)


def _scatter_any(src: Tensor, index: Tensor, dim: int, size: int) -> Tensor:
    out = src.new_zeros(_sized(src, dim, size))
    return out.scatter_(dim, _expand_at(index, src, dim), src)


def _scatter_var(src: Tensor, index: Tensor, dim: int, size: int) -> Tensor:
    mean = _scatter_mean(src, index, dim, size)
    return _scatter_mean((src - mean.index_select(dim, index)).square(), index, dim, size)


def _root(variance: Tensor) -> Tensor:
    """The square root, whose gradient at 0 is 0."""
    flat = variance == 0
    return torch.where(flat, 0, torch.where(flat, 1, variance).sqrt())


def _scatter_logsumexp(src: Tensor, index: Tensor, dim: int, size: int) -> Tensor:
    largest = _scatter_extremum(src.detach(), index, dim, size, "amax")
    shift = torch.where(largest.isfinite(), largest, 0)
    total = _scatter_sum((src - shift.index_select(dim, index)).exp(), index, dim, size)
    return total.log() + shift


def _check_ptr(ptr: Tensor, edges: int) -> None:
    """Refuse bounds that would have ATen read outside of the edge values."""
    outside = (ptr[0] < 0) | (ptr[-1] > edges) | (ptr[1:] < ptr[:-1]).any()
    if torch.jit.is_scripting() or not torch.compiler.is_compiling():  # type: ignore[attr-defined]
        if bool(outside):
            raise ValueError(f"expected ptr never to decrease and to lie within [0, {edges}]")
    else:  # an exported graph cannot branch on a value
        torch._assert_async(~outside, "expected ptr never to decrease and to lie within [0, E]")


def _segment_rows(src: Tensor, ptr: Tensor, reduce: str) -> Tensor:
    if reduce in ["sum", "add"]:
        return torch.segment_reduce(src, "sum", offsets=ptr)
    if reduce == "mean":
        return torch.segment_reduce(src, "mean", offsets=ptr, initial=0)
    if reduce in ["min", "amin"]:
        return _finite_or_zero(torch.segment_reduce(src, "amin", offsets=ptr))
    if reduce in ["max", "amax"]:
        return _finite_or_zero(torch.segment_reduce(src, "amax", offsets=ptr))
    if reduce == "prod":
        return torch.segment_reduce(src, "prod", offsets=ptr)
    raise ValueError(
        "expected reduce to be one of sum, add, mean, min, amin, max, amax and prod, "
        f"got '{reduce}'"
    )


def _finite_or_zero(out: Tensor) -> Tensor:
    return torch.where(out.isinf(), 0, out)


def _softmax_segments(src: Tensor, ptr: Tensor, dim: int) -> Tensor:
    degree = ptr.reshape([-1]).diff()
    edges = src.size(dim)
    ptr = ptr.view([1] * dim + [-1])
    shift = segment(src.detach(), ptr, "max")
    out = (src - shift.repeat_interleave(degree, dim=dim, output_size=edges)).exp()
    total = segment(out, ptr, "sum") + 1e-16
    return out / total.repeat_interleave(degree, dim=dim, output_size=edges)


def _softmax_groups(src: Tensor, index: Tensor, dim: int, num_nodes: int | None) -> Tensor:
    index = _as_int64(index)
    size = num_nodes if num_nodes is not None else _count_nodes(index)
    shift = scatter(src.detach(), index, dim, size, "max")
    out = (src - shift.index_select(dim, index)).exp()
    total = scatter(out, index, dim, size, "sum") + 1e-16
    return out / total.index_select(dim, index)
