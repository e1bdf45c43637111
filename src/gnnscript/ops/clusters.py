"""Sampling and clustering of points and nodes, in calls that TorchScript compiles.

Each op has the signature of the op of the same name in ``pyg_lib``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fps(src: Tensor, ptr: Tensor, ratio: float = 0.5, random_start: bool = True) -> Tensor:
    """Sample points of each example, each next one the farthest from those sampled before.

    Args:
        src: Points, `[N, D]`; floating-point.
        ptr: Where the examples begin and end, `[B + 1]`; int32 or int64.
        ratio: Part of the points of an example to sample, in `(0, 1]`; rounded up.
        random_start: Whether the first point is drawn; else it is the first of the example.

    Returns:
        Positions in `src`, `[K]`, int64: example after example, in the order of sampling.

    Raises:
        ValueError: If `src` is not two-dimensional, or `ratio` not in `(0, 1]`.

    Source: "PointNet++: Deep Hierarchical Feature Learning on Point Sets in a Metric Space";
        ``pyg_lib.ops.fps``, ``torch_geometric.nn.fps``.
    """
    src = _samplable(src, ratio)
    ptr = ptr.to(torch.int64)
    bounds: list[int] = ptr.tolist()
    counts: list[int] = _samples(ptr.diff(), ratio).tolist()
    sampled: list[Tensor] = []
    for example in range(len(counts)):
        begin, count = bounds[example], counts[example]
        points = src[begin : bounds[example + 1]]
        if count == 0:
            continue
        chosen = torch.zeros([count], dtype=torch.int64, device=src.device)
        if random_start:
            chosen[0] = torch.randint(points.size(0), [], device=src.device)
        distance = torch.full([points.size(0)], float("inf"), dtype=src.dtype, device=src.device)
        for step in range(1, count):
            newest = points.index_select(0, chosen[step - 1 : step])
            distance = torch.minimum(distance, (points - newest).square().sum(1))
            chosen[step] = distance.argmax()
        sampled.append(chosen + begin)
    if len(sampled) == 0:
        return torch.zeros([0], dtype=torch.int64, device=src.device)
    return torch.cat(sampled)


def _samplable(src: Tensor, ratio: float) -> Tensor:
    if src.dim() != 2:
        raise ValueError(f"expected points of shape [N, D], got shape {list(src.size())}")
    if not 0 < ratio <= 1:
        raise ValueError(f"expected ratio to lie in (0, 1], got {ratio}")
    half = src.dtype in (torch.float16, torch.bfloat16)
    return src.detach().to(torch.float32) if half else src.detach()


def _samples(size: Tensor, ratio: float) -> Tensor:
    """Return how many points of each example are sampled."""
    # In float32, as PyG counts: 0.1 of 30 points are 3, which in float64 would round up to 4.
    return torch.ceil(size.to(torch.float32) * ratio).to(torch.int64)


def graclus_cluster(rowptr: Tensor, col: Tensor, weight: Tensor | None = None) -> Tensor:
    """Match each node, in random order, with a free neighbour: the first, or the heaviest.

    Args:
        rowptr: Where the edges of each node begin and end in `col`, `[N + 1]`.
        col: The other node of each edge, `[E]`; values in `[0, N)`.
        weight: Weight of each edge, `[E]`; of equal ones the last wins; edges of negative weight
            do not match.

    Returns:
        Cluster of each node, `[N]`, int64: the lower one of the two matched nodes, or the node
        itself. The order is drawn by ``torch.randperm``.

    Source: "Weighted Graph Cuts without Eigenvectors: A Multilevel Approach";
        ``pyg_lib.ops.graclus_cluster``, ``torch_geometric.nn.graclus``.
    """
    bounds: list[int] = rowptr.to(torch.int64).tolist()
    others: list[int] = col.to(torch.int64).tolist()
    given = torch.zeros([0]) if weight is None else weight.detach()
    weights: list[float] = given.to(torch.float64).tolist()
    order: list[int] = torch.randperm(len(bounds) - 1).tolist()
    cluster = [-1] * (len(bounds) - 1)
    for node in order:
        if cluster[node] >= 0:
            continue
        match, heaviest = node, 0.0
        for edge in range(bounds[node], bounds[node + 1]):
            other = others[edge]
            if cluster[other] >= 0:
                continue
            if weight is None:
                match = other
                break
            if weights[edge] >= heaviest:
                match, heaviest = other, weights[edge]
        cluster[node] = min(node, match)
        cluster[match] = min(node, match)
    return torch.tensor(cluster, dtype=torch.int64, device=rowptr.device)


def connected_components(row: Tensor, col: Tensor, num_nodes: int) -> tuple[int, Tensor]:
    """Number the components of a graph, in the order of their first nodes.

    The smallest node of each component spreads along the edges, and by what it has reached.

    Args:
        row: One node of each edge, `[E]`, int64; values in `[0, num_nodes)`.
        col: The other node of each edge, `[E]`, int64.
        num_nodes: How many nodes there are, N.

    Returns:
        The number of components, and the component of each node, `[N]`, int64.

    Source: ``scipy.sparse.csgraph.connected_components`` of an undirected graph.
    """
    label = torch.arange(num_nodes, device=row.device)
    changed = True
    while changed:
        spread = spread_least(label, row, col)
        changed = not torch.equal(spread, label)
        label = spread
    first, place = torch.unique(label, return_inverse=True)
    return first.numel(), place


def spread_least(label: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Have both nodes of each edge take the lesser label of the two, and each what that one has.

    Args:
        label: For each node one of its component, not above itself, `[N]`, int64.
        row: One node of each edge, `[E]`, int64.
        col: The other node of each edge, `[E]`, int64.

    Returns:
        Labels of the same kind, `[N]`; equal ones once each is the least node of its component.
    """
    low = torch.minimum(label[row], label[col])
    spread = label.scatter_reduce(0, row, low, "amin").scatter_reduce(0, col, low, "amin")
    return spread[spread]


def grid_cluster(
    pos: Tensor, size: Tensor, start: Tensor | None = None, end: Tensor | None = None
) -> Tensor:
    """Number the voxel of a regular grid that each point lies in.

    Args:
        pos: Points, `[N, D]`.
        size: Edge lengths of a voxel, `[D]`, in the units of `pos`.
        start: Lower corner of the grid, `[D]`; None stands for the least coordinates of `pos`.
        end: Upper corner of the grid, `[D]`; None stands for the greatest coordinates of `pos`.

    Returns:
        Voxel of each point, `[N]`, int64; the first dimension counts fastest.

    Source: ``pyg_lib.ops.grid_cluster``, ``torch_geometric.nn.voxel_grid``.
    """
    if pos.size(0) == 0:
        return torch.zeros([0], dtype=torch.int64, device=pos.device)
    low = pos.amin(0) if start is None else start
    high = pos.amax(0) if end is None else end
    voxels = torch.div(high - low, size, rounding_mode="trunc").to(torch.int64) + 1
    stride = torch.cat([torch.ones_like(voxels[:1]), voxels.cumprod(0)[:-1]])
    position = torch.div(pos - low, size, rounding_mode="trunc").to(torch.int64)
    return (position * stride).sum(1)
