"""Neighbour search and sampling on our library's kernels, with the signatures of the portable ops.

On CPU a tree of bounding boxes stands over blocks of sixteen points; on CUDA all points of an
example are compared. Where the library has no kernels for a device, the portable ops run. Results
are those of the portable ops, except that distances equal to the last digit may be told apart.
"""

# What torch.ops returns is typed by the schema, which mypy does not read.
# mypy: disable-error-code="no-any-return"

import torch
from torch import Tensor

from gnnscript.ops import clusters, library, neighbors

__all__ = ["fps", "knn", "nearest", "radius"]

library.load()


def knn(
    x: Tensor,
    y: Tensor,
    ptr_x: Tensor | None,
    ptr_y: Tensor | None,
    k: int,
    cosine: bool = False,
    num_workers: int = 1,
) -> Tensor:
    """Find the `k` nearest points in `x` of every point in `y`, as ``gnnscript.ops.knn`` does."""
    if cosine or not _has_kernels(x):
        return neighbors.knn(x, y, ptr_x, ptr_y, k, cosine, num_workers)
    x, y = neighbors._points(x, y)
    of_x, of_y = _bounds(ptr_x, ptr_y, x, y)
    return torch.ops.gnnscript.knn(x, y, of_x, of_y, k)


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
    """Find the points in `x` nearer than `r` to those in `y`, as ``gnnscript.ops.radius`` does."""
    if not _has_kernels(x):
        return neighbors.radius(
            x, y, ptr_x, ptr_y, r, max_num_neighbors, num_workers, ignore_same_index
        )
    x, y = neighbors._points(x, y)
    of_x, of_y = _bounds(ptr_x, ptr_y, x, y)
    return torch.ops.gnnscript.radius(x, y, of_x, of_y, r, max_num_neighbors, ignore_same_index)


def nearest(x: Tensor, y: Tensor, ptr_x: Tensor | None, ptr_y: Tensor | None) -> Tensor:
    """Find for every point in `x` the nearest in `y`, as ``gnnscript.ops.nearest`` does."""
    found = knn(y, x, ptr_y, ptr_x, 1)
    neighbors._check_found(found, x)
    return found[1]


def fps(src: Tensor, ptr: Tensor, ratio: float = 0.5, random_start: bool = True) -> Tensor:
    """Sample the farthest points of each example, as ``gnnscript.ops.fps`` does."""
    if not _has_kernels(src):
        return clusters.fps(src, ptr, ratio, random_start)
    src = clusters._samplable(src, ratio)
    size = ptr.diff()
    first = torch.zeros_like(size)
    if random_start:
        # Below the size: rand is below 1.
        first = (torch.rand(size.size(0), device=size.device) * size).to(ptr.dtype)
    return torch.ops.gnnscript.fps(src, ptr, clusters._samples(size, ratio), first)


def _has_kernels(points: Tensor) -> bool:
    if points.is_cpu:
        return True
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return library.has_kernels(points.device.type)
    return points.is_cuda  # a script on CUDA needs the library's kernels there for all its ops


def _bounds(
    ptr_x: Tensor | None, ptr_y: Tensor | None, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    if ptr_x is not None and ptr_y is not None:
        return ptr_x, ptr_y
    if ptr_x is not None or ptr_y is not None:
        raise ValueError("expected both of ptr_x and ptr_y or none, got one")
    return torch.tensor([0, x.size(0)]), torch.tensor([0, y.size(0)])
