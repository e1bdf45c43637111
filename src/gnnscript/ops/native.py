"""Native ops: the functions of ``portable`` on our library's kernels, and those that only it has.

``torch.jit.script`` compiles these functions; what is left in the saved program are calls of
``torch.ops.gnnscript``, for which the process that loads it must have loaded the library.
"""

# What torch.ops returns is typed by the schema, which mypy does not read.
# mypy: disable-error-code="no-any-return"

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import guard_or_false

from gnnscript.ops import library, portable
from gnnscript.ops.edge import _csr, edge_attention, edge_map, edge_reduce, gspmm, sddmm
from gnnscript.ops.native_neighbors import fps, knn, nearest, radius
from gnnscript.ops.operands import own_copy
from gnnscript.ops.portable import _count_nodes, _wrap_dim, check_edge_index

__all__ = [
    "check_edge_index",
    "csr",
    "edge_attention",
    "edge_map",
    "edge_reduce",
    "edge_softmax",
    "fps",
    "gather",
    "gspmm",
    "knn",
    "nearest",
    "radius",
    "scatter",
    "sddmm",
    "segment",
    "segment_reduce",
    "segment_reduces",
    "softmax",
]

library.load()


def gather(src: Tensor, index: Tensor, dim: int) -> Tensor:
    """Return, for every edge, the slice of `src` that its node holds.

    Args:
        src: Node values, `[..., N, ...]` with `N` at `dim`; any dtype.
        index: Node of each edge, `[E]`; int32 or int64, values in `[0, N)`.
        dim: Dimension of `src` that counts nodes; may be negative.

    Returns:
        Edge values, `[..., E, ...]` with `E` at `dim`, of the dtype of `src`.

    Raises:
        IndexError: If `dim` or a value of `index` is out of range.
        ValueError: If `index` is no vector of int32 or int64.
    """
    if dim < -src.dim() or dim >= src.dim():
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-src.dim()}, {src.dim() - 1}], "
            f"but got {dim})"
        )
    if src.is_complex():  # its gradient is a sum of complex numbers
        return portable.gather(src, index, dim)
    dim = _wrap_dim(dim, src.dim())
    if dim == 0:
        return torch.ops.gnnscript.gather(src, index)
    return torch.ops.gnnscript.gather(src.transpose(0, dim), index).transpose(0, dim).contiguous()


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = 0,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduce the edge values of each node.

    Args:
        src: Edge values, `[..., E, ...]` with `E` at `dim`; floating-point on the library's
            kernels, other dtypes through ATen.
        index: Node of each edge, `[E]`; int32 or int64, in any order, values in `[0, N)`.
        dim: Dimension of `src` that counts edges; may be negative.
        dim_size: Number of nodes `N`; None stands for the largest index plus one.
        reduce: `sum` (or `add`), `mean`, `mul`, `min` (or `amin`), `max` (or `amax`), `any`,
            which keeps the last edge value of each node, `var`, `std` or `logsumexp`.

    Returns:
        Node values, `[..., N, ...]` with `N` at `dim`, of the dtype of `src`.

    Raises:
        ValueError: If `index` is not one-dimensional or of another size than `src` at `dim`, `dim`
            is out of range, or `reduce` unknown.
        IndexError: If a value of `index` is out of range.
    """
    if index.dim() != 1:
        raise ValueError(f"expected a one-dimensional index, got {index.dim()} dimensions")
    dim = _wrap_dim(dim, src.dim())
    if portable.differ(index.size(0), src.size(dim)):
        raise ValueError(
            f"expected an index of size {src.size(dim)}, that of src at {dim}, got {index.size(0)}"
        )
    if not src.is_floating_point():
        return portable.scatter(src, index, dim, dim_size, reduce)
    size = dim_size if dim_size is not None else _count_nodes(index)
    rows = src.transpose(0, dim)
    if _is_unsorted(rows, reduce):
        out = torch.ops.gnnscript.scatter_reduce(rows, index, size, reduce)
    else:
        ptr, perm = csr(index, size)
        out = segment_reduce(rows, ptr, perm, reduce)
    return out.transpose(0, dim).contiguous()


def _is_unsorted(rows: Tensor, reduce: str) -> bool:
    """Whether there are so few values per edge that to sort the edges would take longer."""
    if rows.is_cuda or reduce in ["var", "std", "logsumexp"]:
        return False
    width = 1
    for dim in range(1, rows.dim()):
        width *= rows.size(dim)
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return width <= 2
    return guard_or_false(width <= 2)


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
        Node values, `[..., N, ...]` with `N` in place of `E`, of the dtype of `src`. As in PyG, an
        infinite minimum or maximum becomes 0.

    Raises:
        ValueError: If `ptr` has a shape or values other than the above, or `reduce` is unknown.
    """
    dim = ptr.dim() - 1
    if dim < 0 or dim >= src.dim() or ptr.numel() != ptr.size(dim) or ptr.numel() == 0:
        raise ValueError(
            f"expected ptr of shape [N + 1] with at most {src.dim() - 1} leading ones, "
            f"got shape {list(ptr.size())}"
        )
    if reduce not in ["sum", "add", "mean", "min", "amin", "max", "amax", "prod"]:
        raise ValueError(
            "expected reduce to be one of sum, add, mean, min, amin, max, amax and prod, "
            f"got '{reduce}'"
        )
    out = segment_reduce(src.transpose(0, dim), ptr.reshape([-1]).long(), None, reduce)
    if reduce in ["min", "amin", "max", "amax"]:
        out = torch.where(out.isinf(), 0, out)
    return out.transpose(0, dim).contiguous()


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
        Weights of the shape and dtype of `src`.

    Raises:
        NotImplementedError: If neither `index` nor `ptr` is given.
        ValueError: If `dim` is out of range, or as in `scatter` and `segment`.
    """
    dim = _wrap_dim(dim, src.dim())
    if ptr is not None and (ptr.dim() == 1 or index is None):
        rows = ptr.reshape([-1]).long()
        return edge_softmax(src.transpose(0, dim), rows, None).transpose(0, dim).contiguous()
    if index is not None:
        if index.dim() != 1:
            raise ValueError(f"expected a one-dimensional index, got {index.dim()} dimensions")
        size = num_nodes if num_nodes is not None else _count_nodes(index)
        rows, perm = csr(index, size)
        return edge_softmax(src.transpose(0, dim), rows, perm).transpose(0, dim).contiguous()
    raise NotImplementedError("expected index or ptr to say which edges a softmax runs over")


def csr(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Sort edges by node: compressed rows of an edge list.

    In eager calls the result is kept as long as the index lives unchanged, so that layers and
    gradients sort the edges once; in a scripted model on CPU, until its `forward` ends.

    Args:
        index: Node of each edge, `[E]`; int32 or int64, values in `[0, size)`.
        size: Number of nodes.

    Returns:
        ptr: Where the edges of each node begin and end among the sorted edges, `[size + 1]`, int64.
        perm: The edges in sorted order, those of one node in their given order, `[E]`, int64.

    Raises:
        ValueError: If `index` is no vector of int32 or int64, or `size` is negative.
        IndexError: If a value of `index` is out of range.
    """
    return _csr(index, size)


def segment_reduce(src: Tensor, ptr: Tensor, perm: Tensor | None, reduce: str) -> Tensor:
    """Reduce the edge values of each row in one pass, as `rows.segment_reduce`."""
    return torch.ops.gnnscript.segment_reduce(src, ptr, perm, reduce)


def segment_reduces(
    src: Tensor, ptr: Tensor, perm: Tensor | None, reduces: list[str]
) -> list[Tensor]:
    """Reduce in several ways, in one pass where that is possible, as `rows.segment_reduces`."""
    return torch.ops.gnnscript.segment_reduces(src, ptr, perm, reduces)


def edge_softmax(src: Tensor, ptr: Tensor, perm: Tensor | None) -> Tensor:
    """Normalise the edge values of each row by a softmax, as `rows.edge_softmax`."""
    out = torch.ops.gnnscript.edge_softmax(src, ptr, perm)
    return own_copy(out, False) if out.requires_grad else out  # of what its gradient reads
