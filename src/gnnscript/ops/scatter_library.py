"""The reductions of ``portable`` on ``torch_scatter``, to compare it with ours.

What it has not is computed by the portable ops. The module can be imported where torch_scatter is.
"""

# What torch_scatter returns is not typed.
# mypy: disable-error-code="no-any-return"

import torch_scatter
from torch import Tensor

from gnnscript.ops import portable
from gnnscript.ops.portable import _as_int64, _wrap_dim

__all__ = ["scatter", "segment", "softmax"]


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = 0,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduce the edge values of each node; see `portable.scatter`."""
    name = reduce[1:] if reduce in ["amin", "amax"] else reduce
    if name not in ["sum", "add", "mul", "mean", "min", "max"] or index.dim() != 1:
        return portable.scatter(src, index, dim, dim_size, reduce)
    dim = _wrap_dim(dim, src.dim())
    return torch_scatter.scatter(src, _as_int64(index), dim, None, dim_size, name)


def segment(src: Tensor, ptr: Tensor, reduce: str = "sum") -> Tensor:
    """Reduce the edge values of each node, the edges sorted; see `portable.segment`."""
    name = reduce[1:] if reduce in ["amin", "amax"] else reduce
    if name not in ["sum", "add", "mean", "min", "max"]:
        return portable.segment(src, ptr, reduce)
    return torch_scatter.segment_csr(src, _as_int64(ptr), None, name)


def softmax(
    src: Tensor,
    index: Tensor | None = None,
    ptr: Tensor | None = None,
    num_nodes: int | None = None,
    dim: int = 0,
) -> Tensor:
    """Normalise the edge values of each node by a softmax; see `portable.softmax`."""
    if index is None or ptr is not None or index.dim() != 1:
        return portable.softmax(src, index, ptr, num_nodes, dim)
    dim = _wrap_dim(dim, src.dim())
    return torch_scatter.scatter_softmax(src, _as_int64(index), dim, num_nodes)
