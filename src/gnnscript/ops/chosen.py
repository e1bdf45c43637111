"""The ops as one calls them: in eager calls on the implementation that is chosen.

``torch.jit.script`` compiles them to the portable ones: whoever wants native ops in a script of
their own names ``ops.native``. Models that gnnscript specialises follow ``gnnscript.kernels``.
"""

from typing import Any

import torch
from torch import Tensor

from gnnscript.ops import portable
from gnnscript.ops.library import implementation

__all__ = ["csr", "gather", "scatter", "segment", "softmax"]


def _chosen(name: str) -> Any:
    if implementation() == "portable":
        return getattr(portable, name)
    from gnnscript.ops import native

    return getattr(native, name)


def gather(src: Tensor, index: Tensor, dim: int) -> Tensor:
    """Return, for every edge, the slice of `src` that its node holds; see `portable.gather`."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _chosen("gather")(src, index, dim)  # type: ignore[no-any-return]
    return portable.gather(src, index, dim)


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = 0,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduce the edge values of each node; see `portable.scatter`."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _chosen("scatter")(src, index, dim, dim_size, reduce)  # type: ignore[no-any-return]
    return portable.scatter(src, index, dim, dim_size, reduce)


def segment(src: Tensor, ptr: Tensor, reduce: str = "sum") -> Tensor:
    """Reduce the edge values of each node, the edges sorted; see `portable.segment`."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _chosen("segment")(src, ptr, reduce)  # type: ignore[no-any-return]
    return portable.segment(src, ptr, reduce)


def softmax(
    src: Tensor,
    index: Tensor | None = None,
    ptr: Tensor | None = None,
    num_nodes: int | None = None,
    dim: int = 0,
) -> Tensor:
    """Normalise the edge values of each node by a softmax; see `portable.softmax`."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _chosen("softmax")(src, index, ptr, num_nodes, dim)  # type: ignore[no-any-return]
    return portable.softmax(src, index, ptr, num_nodes, dim)


def csr(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Sort edges by node; see `portable.csr`."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _chosen("csr")(index, size)  # type: ignore[no-any-return]
    return portable.csr(index, size)


for _function in (gather, scatter, segment, softmax, csr):
    _function.__doc__ = getattr(portable, _function.__name__).__doc__
