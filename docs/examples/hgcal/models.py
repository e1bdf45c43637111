"""The other networks of the application, in plain PyTorch Geometric.

- `HitGAT` tells the category of each hit (node classification).
- `EnergyNet` regresses the energy of each shower; it builds its graphs itself, in feature space,
  anew in each layer (a dynamic graph), and pools them down to one number.
- `TrackNet` tells which pairs of hits belong to one track: an interaction network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import ELU, Linear, ReLU, Sequential
from torch_geometric.nn import (
    DynamicEdgeConv,
    GATConv,
    MessagePassing,
    fps,
    global_max_pool,
    global_mean_pool,
    nearest,
)
from torch_geometric.utils import scatter


class HitGAT(torch.nn.Module):
    """Graph attention, Velickovic et al. (2018), that classifies hits.

    Args:
        in_channels: Number of features per hit.
        out_channels: Number of categories.
        hidden_channels: Width of a head.
        heads: Number of attention heads.
    """

    def __init__(
        self, in_channels: int = 5, out_channels: int = 4, hidden_channels: int = 16, heads: int = 4
    ) -> None:
        super().__init__()
        width = hidden_channels * heads
        self.encoder = Linear(in_channels, width)
        self.conv1 = GATConv(width, hidden_channels, heads, dropout=0.1)
        self.conv2 = GATConv(width, hidden_channels, heads, dropout=0.1)
        self.classifier = Linear(2 * width, out_channels)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Classifies the hits.

        Args:
            x: float32 [N, in_channels].
            edge_index: int64 [2, E].

        Returns:
            float32 [N, out_channels], logits.
        """
        h = F.elu(self.encoder(x))
        skip = h
        h = F.elu(self.conv1(h, edge_index))
        h = F.elu(self.conv2(h, edge_index))
        return self.classifier(torch.cat([h, skip], dim=1))


class EnergyNet(torch.nn.Module):
    """Dynamic-graph regression: neighbours in feature space, EdgeConv, pooling, EdgeConv.

    After Wang et al. (2019), "Dynamic graph CNN for learning on point clouds", with a pooling step
    between its layers, like the dynamic reduction networks for calorimeters.

    Args:
        in_channels: Number of features per hit.
        hidden_channels: Width of the hidden state.
        k: Neighbours each hit looks for.
    """

    def __init__(self, in_channels: int = 5, hidden_channels: int = 32, k: int = 8) -> None:
        super().__init__()
        self.encoder = Sequential(Linear(in_channels, hidden_channels), ELU())
        self.conv1 = DynamicEdgeConv(_mlp(2 * hidden_channels, hidden_channels), k, aggr="mean")
        self.conv2 = DynamicEdgeConv(_mlp(2 * hidden_channels, hidden_channels), k, aggr="max")
        self.head = Sequential(
            Linear(2 * hidden_channels + 1, hidden_channels), ELU(), Linear(hidden_channels, 1)
        )

    def forward(self, x: Tensor, batch: Tensor) -> Tensor:
        """Regresses the energies.

        Args:
            x: float32 [N, in_channels], the hits of one shower after the other; the last feature
                is the energy, scaled.
            batch: int64 [N], ascending: the shower of each hit.

        Returns:
            float32 [showers], energies, scaled like the feature.
        """
        h = self.encoder(x)
        h = self.conv1(h, batch)
        # Pool onto a quarter of the hits, spread evenly over the shower.
        kept = fps(x, batch, ratio=0.25, random_start=False)
        assigned = nearest(x, x[kept], batch, batch[kept])
        h = scatter(h, assigned, 0, kept.size(0), reduce="max")
        h = self.conv2(h, batch[kept])
        seen = scatter(x[:, -1:], batch, 0, reduce="sum")
        pooled = [global_mean_pool(h, batch[kept]), global_max_pool(h, batch[kept]), seen]
        correction = self.head(torch.cat(pooled, dim=1)).squeeze(1)
        return seen.squeeze(1) * (1 + correction)


class Interaction(MessagePassing):
    """One step of an interaction network, Battaglia et al. (2016): edges, then nodes, are updated.

    Args:
        channels: Width of node and edge states.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(aggr="sum")
        self.relation = _mlp(3 * channels, channels)
        self.object = _mlp(2 * channels, channels)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> tuple[Tensor, Tensor]:
        """Updates the states.

        Args:
            x: float32 [N, channels].
            edge_index: int64 [2, E].
            edge_attr: float32 [E, channels].

        Returns:
            The new states of nodes and edges.
        """
        edge_attr = edge_attr + self.edge_updater(edge_index, x=x, edge_attr=edge_attr)
        received = self.propagate(edge_index, edge_attr=edge_attr, size=(x.size(0), x.size(0)))
        return x + self.object(torch.cat([x, received], dim=1)), edge_attr

    def edge_update(self, x_i: Tensor, x_j: Tensor, edge_attr: Tensor) -> Tensor:
        """What an edge learns from its ends."""
        return self.relation(torch.cat([x_i, x_j, edge_attr], dim=1))

    def message(self, edge_attr: Tensor) -> Tensor:
        """What a node learns from an edge."""
        return edge_attr


class TrackNet(torch.nn.Module):
    """An interaction network for charged-particle tracking, as in DeZoort et al. (2021).

    Args:
        in_channels: Number of features per hit.
        edge_channels: Number of features per edge.
        hidden_channels: Width of the states.
        steps: How often the edges and hits are updated.
    """

    def __init__(
        self,
        in_channels: int = 3,
        edge_channels: int = 4,
        hidden_channels: int = 32,
        steps: int = 2,
    ) -> None:
        super().__init__()
        self.node_encoder = _mlp(in_channels, hidden_channels)
        self.edge_encoder = _mlp(edge_channels, hidden_channels)
        self.steps = torch.nn.ModuleList(Interaction(hidden_channels) for _ in range(steps))
        self.classifier = Sequential(_mlp(3 * hidden_channels, hidden_channels), ReLU())
        self.score = Linear(hidden_channels, 1)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Scores the edges.

        Args:
            x: float32 [N, in_channels].
            edge_index: int64 [2, E], from the inner to the outer hit.
            edge_attr: float32 [E, edge_channels].

        Returns:
            float32 [E], logits: greater than 0 where both ends are of one track.
        """
        h, e = self.node_encoder(x), self.edge_encoder(edge_attr)
        for step in self.steps:
            h, e = step(h, edge_index, e)
        ends = torch.cat([h[edge_index[0]], h[edge_index[1]], e], dim=1)
        return self.score(self.classifier(ends)).squeeze(1)


def _mlp(in_channels: int, out_channels: int) -> Sequential:
    return Sequential(Linear(in_channels, out_channels), ReLU(), Linear(out_channels, out_channels))
