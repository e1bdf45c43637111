"""Random graphs of different size, and the values that calls on them take."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

IN, OTHER, OUT, EDGE, RELATIONS = 8, 6, 4, 3, 3


@dataclass(frozen=True)
class Graph:
    """One random graph, seen both as homogeneous and as bipartite.

    Attributes:
        x: Node features, [num_nodes, IN]; also those of the source nodes.
        x_dst: Features of the destination nodes, [num_dst, IN].
        x_other: The same nodes with features of another width, [num_dst, OTHER].
        edge_index: Edges between nodes, [2, num_edges]; with a self loop, a duplicate and a node
            without edges.
        bipartite: Edges from source to destination nodes, [2, num_edges].
        weight: Positive edge weights, [num_edges].
        attr: Edge features, [num_edges, EDGE].
        wide_attr: Edge features as wide as the nodes', [num_edges, IN].
        kind: Edge types, [num_edges], int64 below RELATIONS.
        batch: Which of two graphs a node is in, [num_nodes].
    """

    x: Tensor
    x_dst: Tensor
    x_other: Tensor
    edge_index: Tensor
    bipartite: Tensor
    weight: Tensor
    attr: Tensor
    wide_attr: Tensor
    kind: Tensor
    batch: Tensor

    @property
    def sorted_edge_index(self) -> Tensor:
        """The edges in order of their destination, as the LSTM aggregation asks for."""
        return self.edge_index[:, self.edge_index[1].argsort(stable=True)]

    @property
    def wide_start(self) -> Tensor:
        """Node features of an earlier layer, [num_nodes, IN]."""
        return self.x.roll(1, 0) - 0.5

    @property
    def layers(self) -> Tensor:
        """Node features of three layers, [num_nodes, 3, IN]."""
        return torch.stack([self.x, self.wide_start, self.x.flip(1)], dim=1)

    @property
    def pos(self) -> Tensor:
        """Positions of the source nodes, [num_nodes, 3]."""
        return self.x[:, :3]

    @property
    def pos_dst(self) -> Tensor:
        """Positions of the destination nodes, [num_dst, 3]."""
        return self.x_dst[:, 3:6]

    @property
    def mesh(self) -> Tensor:
        """Four ordered neighbours of each node, [2, 4 * num_nodes]."""
        nodes = torch.arange(self.x.size(0)).repeat_interleave(4)
        steps = torch.arange(4 * self.x.size(0)) % 4 + 1
        return torch.stack([(nodes + steps) % self.x.size(0), nodes])

    @property
    def hyperedges(self) -> int:
        """The number of hyperedges where `bipartite` is read as (node, hyperedge) pairs."""
        return int(self.bipartite[1].max()) + 1


def make_graph(num_nodes: int, num_dst: int, num_edges: int, seed: int) -> Graph:
    """Makes a graph from a seed; the last node has no edge, so sizes cannot be read off edges."""
    random = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=random)

    def below(limit: int) -> Tensor:
        return torch.randint(limit, (num_edges,), generator=random)

    edge_index = torch.stack([below(num_nodes - 1), below(num_nodes - 1)])
    edge_index[:, 0] = torch.tensor([1, 1])
    edge_index[:, 2] = edge_index[:, 1]
    return Graph(
        x=normal(num_nodes, IN),
        x_dst=normal(num_dst, IN),
        x_other=normal(num_dst, OTHER),
        edge_index=edge_index,
        bipartite=torch.stack([below(num_nodes - 1), below(num_dst - 1)]),
        weight=torch.rand(num_edges, generator=random) + 0.5,
        attr=normal(num_edges, EDGE),
        wide_attr=normal(num_edges, IN),
        kind=below(RELATIONS),
        batch=(torch.arange(num_nodes) >= num_nodes // 2).long(),
    )


GRAPHS = (make_graph(7, 5, 16, seed=1), make_graph(12, 9, 31, seed=2))
