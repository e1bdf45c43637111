"""Random graphs with all that published models ask for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Graph:
    """Two graphs in a batch.

    Attributes:
        x: Node features, [num_nodes, 8].
        z: Atomic numbers, [num_nodes], int64 below 9.
        pos: Positions, [num_nodes, 3].
        batch: Which graph a node is in, [num_nodes].
        edge_index: Edges, [2, num_edges].
        edge_attr: Edge features, [num_edges, 3].
        edge_weight: Positive weights, [num_edges].
        edge_type: Types, [num_edges], int64 below 4.
        time: Times of the edges, [num_edges], rising.
    """

    x: Tensor
    z: Tensor
    pos: Tensor
    batch: Tensor
    edge_index: Tensor
    edge_attr: Tensor
    edge_weight: Tensor
    edge_type: Tensor
    time: Tensor

    @property
    def num_edges(self) -> int:
        return self.edge_index.size(1)


def _make(num_nodes: int, num_edges: int, seed: int) -> Graph:
    random = torch.Generator().manual_seed(seed)
    source = torch.randint(num_nodes, (num_edges,), generator=random)
    step = torch.randint(1, num_nodes, (num_edges,), generator=random)
    return Graph(
        x=torch.randn(num_nodes, 8, generator=random),
        z=torch.randint(1, 9, (num_nodes,), generator=random),
        pos=torch.randn(num_nodes, 3, generator=random),
        batch=(torch.arange(num_nodes) >= num_nodes // 2).long(),
        edge_index=torch.stack([source, (source + step) % num_nodes]),
        edge_attr=torch.randn(num_edges, 3, generator=random),
        edge_weight=torch.rand(num_edges, generator=random) + 0.5,
        edge_type=torch.randint(4, (num_edges,), generator=random),
        time=torch.rand(num_edges, generator=random).sort()[0],
    )


GRAPHS = (_make(7, 19, seed=3), _make(11, 34, seed=4))


def on(*names: str) -> tuple[tuple[Tensor, ...], ...]:
    """The named values of both graphs, as two calls."""
    return tuple(tuple(getattr(graph, name) for name in names) for graph in GRAPHS)
