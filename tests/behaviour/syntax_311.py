"""Models in syntax that came with Python 3.11."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from conformance.graphs import IN


class StarredIndices(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(IN, IN)
        self.part = (0, slice(1, 3))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        row, ends = (0, slice(None)), (edge_index[0], edge_index[1] % 4)
        half = x.size(0) // 2
        h = self.conv(x, edge_index) + x[*row] + x[*ends].sum() + x[*(slice(0, half), 1)].sum()
        h = h * x[*self.part].sum() + h[None, ..., *row[1:]][0]
        h = h + torch.stack([x, h]).view(2, -1, IN)[*[1, 2]]
        out = h.clone()
        out[*self.part] = 3.0
        out[*self.part] += h[*row][1]
        return out
