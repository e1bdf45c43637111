"""Neighbour search in memory-bounded blocks: exact, in ATen calls that TorchScript compiles.

Points of several examples stand one after the other; ``ptr`` bounds them, as in a CSR matrix. Each
op has the signature of the op of the same name in ``pyg_lib``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gnnscript.ops.portable import differ


def knn(
    x: Tensor,
    y: Tensor,
    ptr_x: Tensor | None,
    ptr_y: Tensor | None,
    k: int,
    cosine: bool = False,
    num_workers: int = 1,  # noqa: ARG001
) -> Tensor:
    """Find the `k` nearest points in `x` of every point in `y`, within the same example.

    Args:
        x: Points that are found, `[N, D]` or `[N]`; any real dtype.
        y: Points that search, `[M, D]` or `[M]`, of the dtype of `x`.
        ptr_x: Where the examples begin and end in `x`, `[B + 1]`; None stands for one example.
        ptr_y: The same for `y`; given exactly if `ptr_x` is.
        k: Number of neighbours.
        cosine: Whether to compare by cosine distance in place of Euclidean distance.
        num_workers: Ignored; it is there for the signature.

    Returns:
        `[2, K]`, int64: positions in `y` (ascending), and in `x` (nearest first, of equal ones the
        lowest). A point has fewer than `k` neighbours where its example has fewer points whose
        distance is finite.

    Raises:
        ValueError: If a shape is another, `k` is negative, or just one `ptr` is given.

    Source: ``pyg_lib.ops.knn``, ``torch_geometric.nn.knn``.
    """
    x, y = _points(x, y)
    if k < 0:
        raise ValueError(f"expected k to be no less than 0, got {k}")
    if cosine:
        x = torch.nn.functional.normalize(x, dim=-1)
        y = torch.nn.functional.normalize(y, dim=-1)
    of_x, of_y = _examples(ptr_x, x.size(0), "x"), _examples(ptr_y, y.size(0), "y")
    found: list[Tensor] = []
    for block in _blocks(ptr_x, ptr_y, x.size(0), y.size(0)):
        distance = _distances(x, y, of_x, of_y, block, cosine)
        row, col = _nearest_first(distance, distance < float("inf"), k)
        found.append(torch.stack([row + block[2], col + block[0]]))
    return _joined(found, x.device)


def radius(
    x: Tensor,
    y: Tensor,
    ptr_x: Tensor | None,
    ptr_y: Tensor | None,
    r: float,
    max_num_neighbors: int | None = None,
    num_workers: int = 1,  # noqa: ARG001
    ignore_same_index: bool = False,
) -> Tensor:
    """Find the points in `x` nearer than `r` to every point in `y`, within the same example.

    Args:
        x: Points that are found, `[N, D]` or `[N]`; any real dtype.
        y: Points that search, `[M, D]` or `[M]`, of the dtype of `x`.
        ptr_x: Where the examples begin and end in `x`, `[B + 1]`; None stands for one example.
        ptr_y: The same for `y`; given exactly if `ptr_x` is.
        r: The radius, in the units of the points; a distance equal to it does not count.
        max_num_neighbors: How many neighbours of a point to keep: the nearest (``pyg_lib`` keeps
            those it meets first); None stands for all.
        num_workers: Ignored; it is there for the signature.
        ignore_same_index: Whether a point is no neighbour of the point at the same position.

    Returns:
        `[2, K]`, int64: positions in `y`, and in `x`, both ascending.

    Raises:
        ValueError: If a shape is another or just one `ptr` is given.

    Source: ``pyg_lib.ops.radius``, ``torch_geometric.nn.radius``.
    """
    x, y = _points(x, y)
    of_x, of_y = _examples(ptr_x, x.size(0), "x"), _examples(ptr_y, y.size(0), "y")
    found: list[Tensor] = []
    for block in _blocks(ptr_x, ptr_y, x.size(0), y.size(0)):
        distance = _distances(x, y, of_x, of_y, block, False)
        near = distance < r
        if ignore_same_index:
            rows = torch.arange(block[2], block[3], device=x.device)
            cols = torch.arange(block[0], block[1], device=x.device)
            near = near & (rows.unsqueeze(1) != cols.unsqueeze(0))
        if max_num_neighbors is not None:
            near = _nearest(distance, near, max_num_neighbors)
        found.append(near.nonzero().t() + torch.tensor([[block[2]], [block[0]]], device=x.device))
    return _joined(found, x.device)


def nearest(x: Tensor, y: Tensor, ptr_x: Tensor | None, ptr_y: Tensor | None) -> Tensor:
    """Find for every point in `x` the nearest point in `y`, within the same example.

    Args:
        x: Points that search, `[N, D]` or `[N]`; any real dtype.
        y: Points that are found, `[M, D]` or `[M]`, of the dtype of `x`.
        ptr_x: Where the examples begin and end in `x`, `[B + 1]`; None stands for one example.
        ptr_y: The same for `y`; given exactly if `ptr_x` is.

    Returns:
        `[N]`, int64: positions in `y`; of equally near ones the lowest.

    Raises:
        ValueError: If a shape is another, just one `ptr` is given, or a point in `x` has no point
            in `y` at a finite distance.

    Source: ``pyg_lib.ops.nearest``, ``torch_geometric.nn.nearest``.
    """
    found = knn(y, x, ptr_y, ptr_x, 1)
    _check_found(found, x)
    return found[1]


def _check_found(found: Tensor, x: Tensor) -> None:
    if differ(found.size(1), x.size(0)):
        raise ValueError(
            "expected every point in x to have a point in y of its own example at a finite "
            f"distance, got {x.size(0) - found.size(1)} points in x without one"
        )


def _points(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x = x.unsqueeze(-1) if x.dim() == 1 else x
    y = y.unsqueeze(-1) if y.dim() == 1 else y
    if x.dim() != 2 or y.dim() != 2 or x.size(1) != y.size(1):
        raise ValueError(
            "expected points of shapes [N, D] and [M, D], "
            f"got x of shape {list(x.size())} and y of shape {list(y.size())}"
        )
    # An ordering has no gradient. Half precision would merge points that are close to each other.
    if x.dtype in (torch.float16, torch.bfloat16):
        return x.detach().to(torch.float32), y.detach().to(torch.float32)
    if not x.is_floating_point():
        return x.to(torch.float64), y.to(torch.float64)
    return x.detach(), y.detach().to(x.dtype)


def _examples(ptr: Tensor | None, size: int, name: str) -> Tensor | None:
    """Return the example of each point."""
    if ptr is None:
        return None
    if ptr.dim() != 1 or ptr.numel() == 0 or int(ptr[0]) != 0 or int(ptr[-1]) != size:
        raise ValueError(
            f"expected ptr_{name} of shape [B + 1] to run from 0 to the {size} points of {name}, "
            f"got shape {list(ptr.size())}"
        )
    number = torch.arange(ptr.numel() - 1, device=ptr.device)
    return torch.repeat_interleave(number, ptr.diff().to(torch.int64), output_size=size)


def _bounds(ptr: Tensor | None, size: int) -> list[int]:
    if ptr is None:
        return [0, size]
    bounds: list[int] = ptr.to(torch.int64).tolist()
    return bounds


def _blocks(
    ptr_x: Tensor | None, ptr_y: Tensor | None, num_x: int, num_y: int, limit: int = 1 << 22
) -> list[tuple[int, int, int, int]]:
    """Part `y` into blocks of `limit` distances: small examples together, large ones in parts.

    A block is the range of `x` and the range of `y`: first, after the last, first, after the last.
    """
    if (ptr_x is None) != (ptr_y is None):
        raise ValueError("expected both of ptr_x and ptr_y or none, got one")
    xs, ys = _bounds(ptr_x, num_x), _bounds(ptr_y, num_y)
    while len(xs) < len(ys):  # the last examples of one may be empty, and not be counted
        xs.append(num_x)
    while len(ys) < len(xs):
        ys.append(num_y)
    blocks: list[tuple[int, int, int, int]] = []
    first = 0
    while first < len(xs) - 1:
        last = first + 1
        while (
            last < len(xs) - 1 and (xs[last + 1] - xs[first]) * (ys[last + 1] - ys[first]) <= limit
        ):
            last += 1
        width = xs[last] - xs[first]
        rows = max(1, limit // max(1, width))
        start = ys[first]
        while start < ys[last] and width > 0:
            stop = min(start + rows, ys[last])
            blocks.append((xs[first], xs[last], start, stop))
            start = stop
        first = last
    return blocks


def _distances(
    x: Tensor,
    y: Tensor,
    of_x: Tensor | None,
    of_y: Tensor | None,
    block: tuple[int, int, int, int],
    cosine: bool,
) -> Tensor:
    """Return the distances from a block of `y` (rows) to its `x` (columns)."""
    xs, ys = x[block[0] : block[1]], y[block[2] : block[3]]
    if cosine:
        distance = 1 - ys @ xs.t()
    else:  # through a matrix product the distances of close points would be mostly rounding
        distance = torch.cdist(ys, xs, p=2.0, compute_mode="donot_use_mm_for_euclid_dist")
    if of_x is not None and of_y is not None:
        apart = of_y[block[2] : block[3]].unsqueeze(1) != of_x[block[0] : block[1]].unsqueeze(0)
        distance = distance.masked_fill(apart, float("inf"))
    return distance


def _nearest(distance: Tensor, candidate: Tensor, count: int) -> Tensor:
    """Return which candidates of a row are the nearest, of equally near ones the first."""
    count = min(count, distance.size(1))
    if count <= 0:
        return torch.zeros_like(candidate)
    distance = distance.masked_fill(~candidate, float("inf"))
    limit = distance.topk(count, dim=1, largest=False).values[:, -1:]
    below = distance < limit
    tied = candidate & (distance == limit)
    free = count - below.sum(1, keepdim=True)
    return below | (tied & (tied.cumsum(1) <= free))


def _nearest_first(distance: Tensor, candidate: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return row and column of the nearest candidates of each row, sorted by distance."""
    row, col = _nearest(distance, candidate, count).nonzero().unbind(1)
    by_distance = distance[row, col].argsort(stable=True)
    order = by_distance[row[by_distance].argsort(stable=True)]
    return row[order], col[order]


def _joined(found: list[Tensor], device: torch.device) -> Tensor:
    if len(found) == 0:
        return torch.zeros([2, 0], dtype=torch.int64, device=device)
    return torch.cat(found, dim=1)
