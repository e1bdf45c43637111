"""GAT: a graph attention network that classifies nodes, in plain PyTorch Geometric."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import GATConv


class GAT(torch.nn.Module):
    """Two attention layers with dropout, as in Velickovic et al. (2018).

    Args:
        in_channels: Number of features per node.
        out_channels: Number of classes.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = GATConv(in_channels, 8, heads=8, dropout=0.6)
        self.conv2 = GATConv(8 * 8, out_channels, dropout=0.6)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Classifies the nodes.

        Args:
            x: float32 [N, in_channels].
            edge_index: int64 [2, E].

        Returns:
            float32 [N, out_channels], logarithms of the class probabilities.
        """
        x = F.dropout(x, p=0.6, training=self.training)
        x = F.elu(self.conv1(x, edge_index))
        x = F.dropout(x, p=0.6, training=self.training)
        x = self.conv2(x, edge_index)
        return F.log_softmax(x, dim=1)
