"""Models in syntax that came with Python 3.11."""

from __future__ import annotations

from typing import Generic, NamedTuple, Optional, TypeVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, MessagePassing

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


T = TypeVar("T")


class Held(NamedTuple, Generic[T]):
    """A generic one: each type of what it holds makes another class in TorchScript."""

    value: T
    extra: Optional[Tensor] = None

    @property
    def total(self):
        return self.value.sum() + 1

    def scaled(self, factor):
        return self._replace(value=self.value * factor)


class Generics(MessagePassing):
    def hold(self, value: T, extra=None) -> Held[T]:
        return Held(value, extra)

    def forward(self, x: Tensor, edge_index: Tensor):
        held = self.hold(self.propagate(edge_index, x=x))
        count = Held[int](x.size(0), x)
        value, _ = held.scaled(2.0)
        return held.value + value * count.value + count.extra + held.total, held
