"""EdgeNet: which edges of a graph of calorimeter hits lie within one shower, and of what kind.

The network published with the calorimeter-clustering code hgcal_ldrd: six EdgeConv layers, then
a classifier of edges. Nothing but PyTorch and PyTorch Geometric is used here.
"""

import torch
from torch import Tensor
from torch.nn import ELU, Linear, ModuleList, Sequential, Tanh
from torch_geometric.nn import EdgeConv


class EdgeNet(torch.nn.Module):
    """Six EdgeConv layers and an edge classifier.

    Args:
        in_channels: Number of features per hit.
        hidden_channels: Width of the hidden state.
        out_channels: Number of edge categories.
        num_layers: Number of EdgeConv layers.
        aggr: How a hit combines the messages of its neighbours; the default is EdgeConv's own.
    """

    def __init__(
        self,
        in_channels: int = 5,
        hidden_channels: int = 64,
        out_channels: int = 4,
        num_layers: int = 6,
        aggr: str = "max",
    ) -> None:
        super().__init__()
        width = in_channels + hidden_channels
        self.encoder = Sequential(Linear(in_channels, hidden_channels), Tanh())
        self.convs = ModuleList(
            EdgeConv(
                Sequential(
                    Linear(2 * width, hidden_channels),
                    ELU(),
                    Linear(hidden_channels, hidden_channels),
                    Tanh(),
                ),
                aggr=aggr,
            )
            for _ in range(num_layers)
        )
        self.classifier = Sequential(
            Linear(2 * width, hidden_channels),
            ELU(),
            Linear(hidden_channels, hidden_channels),
            ELU(),
            Linear(hidden_channels, out_channels),
        )

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Classifies the edges.

        Args:
            x: float32 [N, in_channels], the scaled features of the hits.
            edge_index: int64 [2, E].

        Returns:
            float32 [E, out_channels], logits.
        """
        h = torch.cat([self.encoder(x), x], dim=1)
        for conv in self.convs:
            h = torch.cat([conv(h, edge_index), x], dim=1)
        ends = torch.cat([h[edge_index[0]], h[edge_index[1]]], dim=1)
        return self.classifier(ends)
