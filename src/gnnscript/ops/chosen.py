"""The ops as one calls them: in eager calls on the implementation that is chosen.

Derivatives that ``torch.func`` takes are those of the portable ops.

``torch.jit.script`` compiles them to the portable ones: whoever wants native ops in a script of
their own names ``ops.native``. Models that gnnscript specialises follow ``gnnscript.kernels``.
"""

from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType

from gnnscript.ops import clusters, neighbors, portable, rows
from gnnscript.ops.library import TORCH_SCATTER, implementation_on

__all__ = [
    "csr",
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

# Where the portable form of each op is; the native one is in ops.native.
_PORTABLE: dict[str, Any] = {
    "csr": portable,
    "edge_softmax": rows,
    "fps": clusters,
    "gather": portable,
    "gspmm": rows,
    "knn": neighbors,
    "nearest": neighbors,
    "radius": neighbors,
    "scatter": portable,
    "sddmm": rows,
    "segment": portable,
    "segment_reduce": rows,
    "segment_reduces": rows,
    "softmax": portable,
}


def _chosen(name: str, given: Tensor) -> Any:
    chosen = implementation_on(given.device.type)
    if chosen == "torch_scatter" and name in TORCH_SCATTER:
        from gnnscript.ops import scatter_library

        return getattr(scatter_library, name)
    if chosen != "native" or _is_differentiated():
        return getattr(_PORTABLE[name], name)
    from gnnscript.ops import native

    return getattr(native, name)


def _is_differentiated() -> bool:
    """Whether torch.func takes derivatives, which it knows of torch's own ops alone."""
    functorch = torch._C._functorch
    if torch.compiler.is_compiling() or functorch.peek_interpreter_stack() is None:
        return False
    derivatives = (TransformType.Grad, TransformType.Jvp)
    return any(one.key() in derivatives for one in functorch.get_interpreter_stack())


def gather(src: Tensor, index: Tensor, dim: int) -> Tensor:
    """Return, for every edge, the slice of `src` that its node holds; see `portable.gather`."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _chosen("gather", src)(src, index, dim)  # type: ignore[no-any-return]
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
        return _chosen("scatter", src)(src, index, dim, dim_size, reduce)  # type: ignore[no-any-return]
    return portable.scatter(src, index, dim, dim_size, reduce)


def segment(src: Tensor, ptr: Tensor, reduce: str = "sum") -> Tensor:
    """Reduce the edge values of each node, the edges sorted; see `portable.segment`."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _chosen("segment", src)(src, ptr, reduce)  # type: ignore[no-any-return]
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
        return _chosen("softmax", src)(src, index, ptr, num_nodes, dim)  # type: ignore[no-any-return]
    return portable.softmax(src, index, ptr, num_nodes, dim)


def csr(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Sort edges by node; see `portable.csr`."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _chosen("csr", index)(index, size)  # type: ignore[no-any-return]
    return portable.csr(index, size)


def segment_reduce(src: Tensor, ptr: Tensor, perm: Tensor | None, reduce: str) -> Tensor:
    """Reduce the edge values of each row; see `rows.segment_reduce`."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _chosen("segment_reduce", src)(src, ptr, perm, reduce)  # type: ignore[no-any-return]
    return rows.segment_reduce(src, ptr, perm, reduce)


def segment_reduces(
    src: Tensor, ptr: Tensor, perm: Tensor | None, reduces: list[str]
) -> list[Tensor]:
    """Reduce the edge values of each row in several ways; see `rows.segment_reduces`."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _chosen("segment_reduces", src)(src, ptr, perm, reduces)  # type: ignore[no-any-return]
    return rows.segment_reduces(src, ptr, perm, reduces)


def edge_softmax(src: Tensor, ptr: Tensor, perm: Tensor | None) -> Tensor:
    """Normalise the edge values of each row by a softmax; see `rows.edge_softmax`."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _chosen("edge_softmax", src)(src, ptr, perm)  # type: ignore[no-any-return]
    return rows.edge_softmax(src, ptr, perm)


def gspmm(
    index: Tensor,
    other: Tensor,
    x: Tensor,
    num_nodes: int,
    weight: Tensor | None = None,
    op: str = "mul",
    reduce: str = "sum",
) -> Tensor:
    """Reduce the values of neighbours, weighted by edge; see `rows.gspmm`."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _chosen("gspmm", x)(  # type: ignore[no-any-return]
            index, other, x, num_nodes, weight, op, reduce
        )
    return rows.gspmm(index, other, x, num_nodes, weight, op, reduce)


def sddmm(index: Tensor, other: Tensor, a: Tensor, b: Tensor, op: str = "dot") -> Tensor:
    """Combine the values at both ends of each edge; see `rows.sddmm`."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _chosen("sddmm", a)(index, other, a, b, op)  # type: ignore[no-any-return]
    return rows.sddmm(index, other, a, b, op)


def knn(
    x: Tensor,
    y: Tensor,
    ptr_x: Tensor | None,
    ptr_y: Tensor | None,
    k: int,
    cosine: bool = False,
    num_workers: int = 1,
) -> Tensor:
    """Find the nearest points; see `neighbors.knn`."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _chosen("knn", x)(  # type: ignore[no-any-return]
            x, y, ptr_x, ptr_y, k, cosine, num_workers
        )
    return neighbors.knn(x, y, ptr_x, ptr_y, k, cosine, num_workers)


def radius(
    x: Tensor,
    y: Tensor,
    ptr_x: Tensor | None,
    ptr_y: Tensor | None,
    r: float,
    max_num_neighbors: int | None = None,
    num_workers: int = 1,
    ignore_same_index: bool = False,
) -> Tensor:
    """Find the points within a distance; see `neighbors.radius`."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _chosen("radius", x)(  # type: ignore[no-any-return]
            x, y, ptr_x, ptr_y, r, max_num_neighbors, num_workers, ignore_same_index
        )
    return neighbors.radius(
        x, y, ptr_x, ptr_y, r, max_num_neighbors, num_workers, ignore_same_index
    )


def nearest(x: Tensor, y: Tensor, ptr_x: Tensor | None, ptr_y: Tensor | None) -> Tensor:
    """Find the nearest point of each; see `neighbors.nearest`."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _chosen("nearest", x)(x, y, ptr_x, ptr_y)  # type: ignore[no-any-return]
    return neighbors.nearest(x, y, ptr_x, ptr_y)


def fps(src: Tensor, ptr: Tensor, ratio: float = 0.5, random_start: bool = True) -> Tensor:
    """Sample the farthest points; see `clusters.fps`."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _chosen("fps", src)(src, ptr, ratio, random_start)  # type: ignore[no-any-return]
    return clusters.fps(src, ptr, ratio, random_start)


for _name, _module in _PORTABLE.items():
    globals()[_name].__doc__ = getattr(_module, _name).__doc__
