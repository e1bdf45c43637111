"""Sizes stay dynamic in programs, also where torch's own functions fix them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim
from torch_geometric.nn import MedianAggregation

from conformance.graphs import GRAPHS

pytestmark = pytest.mark.usefixtures("auto")

NODES = Dim("nodes")


class Pointing(nn.Module):
    """Calls functions of torch's for which torch.export fixes sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.median = MedianAggregation()

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        pointers = torch._convert_indices_from_coo_to_csr(index, x.size(0))
        order = x.argsort(dim=0)
        taken = torch.take_along_dim(x, order, dim=0) + x.take_along_dim(order[:1], 0)
        size = x.size(0)
        near = torch.cdist(x, x).fill_diagonal_(0.0) * torch.eye(size)
        row, col = torch.triu_indices(size, size, 1)
        pairs = torch.combinations(torch.arange(size))
        far = (x[row] - x[col]).abs().sum() + near.sum()
        far = far + (x[pairs[:, 0]] - x[pairs[:, 1]]).abs().sum()
        groups = F.one_hot(index, size).to(x.dtype) @ x
        return self.median(taken, index, dim_size=size) + pointers[1:, None] + groups * far


def test_sizes_stay_dynamic() -> None:
    model = Pointing()
    calls = [(g.x, torch.arange(g.x.size(0)) // 2) for g in GRAPHS]
    shapes = {"x": {0: NODES}, "index": {0: NODES}}
    program = torch.export.export(model, calls[0], dynamic_shapes=shapes)
    fast = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    for call in calls:
        torch.testing.assert_close(program.module()(*call), model(*call))
        torch.testing.assert_close(fast(*call), model(*call))
