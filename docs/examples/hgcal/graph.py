"""Calorimeter hits of one endcap, and the graph EdgeNet sees of them.

Real events (`hgcal.events`) and generated ones (`hgcal.generator`) both end in `Hits`, so the
graph is built by the same code for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch_geometric.data import Data

CATEGORIES = ("invalid", "hadronic", "electromagnetic", "MIP")
INVALID, HADRONIC, ELECTROMAGNETIC, MIP = range(len(CATEGORIES))

NEIGHBOURS = 26
"""Neighbours of a hit in space: as many as a cell has in a cubic lattice."""

FEATURES = ("x", "y", "layer", "time", "energy")
SCALES = np.array([1 / 500, 1 / 500, 1 / 54, 1 / 25, 1 / 1000], dtype=np.float32)
"""What the published EdgeNet multiplies `FEATURES` by."""


@dataclass(frozen=True)
class Cluster:
    """One true shower or track.

    Attributes:
        hits: int64 [number of its hits], positions in the arrays of `Hits`, without repetition.
        category: `HADRONIC`, `ELECTROMAGNETIC` or `MIP`.
    """

    hits: NDArray[np.int64]
    category: int


@dataclass(frozen=True)
class Hits:
    """Reconstructed hits of one endcap; a hit in no cluster is noise.

    Attributes:
        x, y, z: float32 [N], position in cm.
        layer: int64 [N], 1 (front) to 52 (back).
        time: float32 [N], in ns, -1 where the hit was too small to be timed.
        energy: float32 [N], in GeV.
        clusters: the true showers. A hit may belong to several.

    Raises:
        ValueError: If the arrays differ in length, hold a value that is not finite, or a cluster
            names a hit or a category that does not exist.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    z: NDArray[np.float32]
    layer: NDArray[np.int64]
    time: NDArray[np.float32]
    energy: NDArray[np.float32]
    clusters: Sequence[Cluster] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name == "clusters":
                continue
            values = getattr(self, field.name)
            if values.shape != self.x.shape or values.ndim != 1:
                raise ValueError(
                    f"hits: expected '{field.name}' of shape {self.x.shape} like 'x', "
                    f"got {values.shape}; give one value per hit"
                )
            if not np.isfinite(values).all():
                raise ValueError(
                    f"hits: '{field.name}' holds NaN or infinity; leave those hits out"
                )
        for number, cluster in enumerate(self.clusters):
            if cluster.category not in (HADRONIC, ELECTROMAGNETIC, MIP):
                raise ValueError(
                    f"hits: cluster {number} has category {cluster.category}, expected 1, 2 or 3 "
                    f"({', '.join(CATEGORIES[1:])})"
                )
            if len(cluster.hits) and not (
                cluster.hits.min() >= 0 and cluster.hits.max() < len(self)
            ):
                raise ValueError(
                    f"hits: cluster {number} names hits {cluster.hits.min()} to "
                    f"{cluster.hits.max()}, expected 0 to {len(self) - 1}"
                )

    def __len__(self) -> int:
        return len(self.x)

    @property
    def position(self) -> NDArray[np.float32]:
        """float32 [N, 3]: x, y, z in cm."""
        return np.stack([self.x, self.y, self.z], axis=1)


def neighbour_edges(position: NDArray[np.float32], neighbours: int) -> NDArray[np.int64]:
    """Joins every point with its nearest others, in both directions.

    Args:
        position: float32 [N, D].
        neighbours: How many others each point looks for; all of them where there are fewer.

    Returns:
        int64 [2, E], sorted by source then target, without self loops or repetitions.
    """
    number = len(position)
    wanted = min(neighbours, number - 1)
    if wanted < 1:
        return np.zeros((2, 0), dtype=np.int64)
    _, found = cKDTree(position).query(position, k=wanted + 1)
    own = np.arange(number)[:, None]
    other = found != own
    # A point finds itself first, unless more than `wanted` others lie exactly on it.
    other[other.all(axis=1), -1] = False
    source = np.repeat(np.arange(number), wanted)
    target = found[other]
    # One integer per edge makes union and coalescing a single sort.
    keys = np.unique(np.concatenate([source * number + target, target * number + source]))
    return np.stack(np.divmod(keys, number))


def edge_categories(
    edges: NDArray[np.int64], clusters: Sequence[Cluster], number: int
) -> NDArray[np.int64]:
    """Labels every edge with the category of the cluster that holds both its ends.

    Args:
        edges: int64 [2, E].
        clusters: The true clusters; where an edge lies in several, the last one counts.
        number: How many hits there are.

    Returns:
        int64 [E], `INVALID` where no cluster holds both ends.
    """
    categories = np.full(edges.shape[1], INVALID, dtype=np.int64)
    for cluster in clusters:
        inside = np.zeros(number, dtype=bool)
        inside[cluster.hits] = True
        categories[inside[edges[0]] & inside[edges[1]]] = cluster.category
    return categories


def hit_labels(hits: Hits) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels every hit; where it lies in several clusters, the last one counts.

    Args:
        hits: The hits of one endcap.

    Returns:
        The category of each hit, int64 [N], `INVALID` for noise; and its cluster, int64 [N],
        position in `hits.clusters`, -1 for noise.
    """
    category = np.full(len(hits), INVALID, dtype=np.int64)
    cluster = np.full(len(hits), -1, dtype=np.int64)
    for number, true in enumerate(hits.clusters):
        category[true.hits] = true.category
        cluster[true.hits] = number
    return category, cluster


def build_graph(hits: Hits, neighbours: int = NEIGHBOURS) -> Data:
    """Builds the graph of one endcap.

    Args:
        hits: The hits of one endcap.
        neighbours: Nearest hits in space each hit is joined with.

    Returns:
        A graph with `x` float32 [N, 5] (`FEATURES`, scaled), `pos` float32 [N, 3] in cm,
        `edge_index` int64 [2, E] (symmetric, coalesced, without self loops), `edge_label`
        int64 [E] and `hit_label` int64 [N] (positions in `CATEGORIES`), and `cluster` int64 [N]
        (the true cluster, -1 for noise).

    Raises:
        ValueError: If there are no hits or `neighbours` is not positive.
    """
    if len(hits) == 0:
        raise ValueError("graph: expected at least one hit, got none; skip empty endcaps")
    if neighbours < 1:
        raise ValueError(f"graph: expected at least one neighbour, got {neighbours}")
    features = np.stack([getattr(hits, name) for name in FEATURES], axis=1)
    edges = neighbour_edges(hits.position, neighbours)
    category, cluster = hit_labels(hits)
    return Data(
        x=torch.from_numpy(features.astype(np.float32) * SCALES),
        pos=torch.from_numpy(hits.position),
        edge_index=torch.from_numpy(edges),
        edge_label=torch.from_numpy(edge_categories(edges, hits.clusters, len(hits))),
        hit_label=torch.from_numpy(category),
        cluster=torch.from_numpy(cluster),
    )


def wedges(graph: Data, count: int) -> list[Data]:
    """Cuts an endcap into azimuthal wedges of equally many hits, as mini-batches for training.

    Args:
        graph: What `build_graph` returns.
        count: How many wedges to cut, at most the number of nodes.

    Returns:
        The induced subgraphs, with the same attributes as `graph`. Edges across a cut are lost.

    Raises:
        ValueError: If `count` is not between 1 and the number of nodes.
    """
    if not 1 <= count <= graph.num_nodes:
        raise ValueError(f"wedges: expected a count from 1 to {graph.num_nodes}, got {count}")
    azimuth = torch.atan2(graph.pos[:, 1], graph.pos[:, 0])
    return [graph.subgraph(nodes.sort().values) for nodes in azimuth.argsort().tensor_split(count)]
