"""Models for the libtorch backend: every form of arguments and results, and the application's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv, MessagePassing, SAGEConv, TransformerConv, global_add_pool

from gnnscript.deploy.structure import Call
from hgcal.edgenet import EdgeNet
from hgcal.models import HitGAT, TrackNet
from serving.served_models import Bipartite, Centred, Settings, Typed, graph, typed_graph


class Dtypes(nn.Module):
    """Every dtype that the backend has; a mask of odd length comes first, `x` is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(5, 4)

    def forward(
        self, mask: Tensor, x: Tensor, edge_index: Tensor, wide: Tensor, code: Tensor, half: Tensor
    ) -> Dict[str, Tensor]:
        index = edge_index.long()
        h = self.conv(x * mask.view(-1, 1), index)
        x.mul_(2.0)
        return {
            "h": h,
            "transposed": h.t(),
            "mask": mask.logical_not(),
            "degree": torch.bincount(index[1], minlength=x.size(0)),
            "index": edge_index,
            "short": code.short() - 300,
            "char": (code // 2).char(),
            "code": code,
            "half": half * 2,
            "wide": wide * 2,
            "none": x[:0],
        }


def dtypes(nodes: int, edges: int) -> Call:
    x, edge_index = graph(nodes, edges)
    code = torch.arange(3 * nodes, dtype=torch.uint8).view(nodes, 3)
    wide = torch.linspace(0, 1, nodes, dtype=torch.float64)
    return torch.arange(nodes) % 2 == 0, x, edge_index.int(), wide, code, x[:, 0].half()


class Attention(nn.Module):
    """Two kinds of attention with features of edges."""

    def __init__(self) -> None:
        super().__init__()
        self.first = GATv2Conv(5, 4, heads=2, edge_dim=2)
        self.second = TransformerConv(8, 4, heads=2, edge_dim=2)

    def forward(self, edge_index: Tensor, edge_attr: Tensor, x: Tensor) -> Tensor:
        h = self.first(x, edge_index, edge_attr).relu()
        return self.second(h, edge_index, edge_attr)


def attention(nodes: int, edges: int) -> Call:
    x, edge_index = graph(nodes, edges)
    return {"edge_index": edge_index, "edge_attr": torch.rand(edges, 2), "x": x}


class Dynamic(nn.Module):
    """Makes its graph itself, and one result for each graph of `batch`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(5, 4)

    def forward(self, x: Tensor, batch: Tensor) -> Tensor:
        apart = batch.view(-1, 1) != batch.view(1, -1)
        distances = torch.cdist(x, x).masked_fill(apart, float("inf"))
        sources = distances.topk(min(2, x.size(0)), largest=False).indices
        targets = torch.arange(x.size(0)).view(-1, 1).expand_as(sources)
        edge_index = torch.stack([sources.flatten(), targets.flatten()])
        return global_add_pool(self.conv(x, edge_index), batch)


class Messages(MessagePassing):
    """A class that no library has: two aggregations, arguments of both ends."""

    def __init__(self) -> None:
        super().__init__(aggr=["max", "mean"])
        self.lin = nn.Linear(10, 3)

    def forward(
        self, x: Tensor, edge_index: Tensor, weight: Optional[Tensor] = None
    ) -> Tuple[Tensor, Tensor]:
        h = self.propagate(edge_index, x=x, weight=weight)
        return self.lin(h), h

    def message(self, x_i: Tensor, x_j: Tensor, weight: Optional[Tensor]) -> Tensor:
        message = (x_j - x_i).relu()
        return message if weight is None else message * weight.view(-1, 1)


class Forces(nn.Module):
    """A gradient inside, of a conv."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(5, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            energy = self.conv(x, edge_index).pow(2).sum()
            gradient = torch.autograd.grad([energy], [x])[0]
        assert gradient is not None
        return energy, -gradient


def dynamic(nodes: int, _edges: int) -> Call:
    return graph(nodes, 1)[0], torch.arange(nodes) * 2 // max(nodes, 1)


def bipartite(nodes: int, edges: int) -> Call:
    x, edge_index = graph(nodes, edges)
    return (x, graph(nodes, edges, seed=1)[0]), edge_index, torch.rand(edges)


def track(nodes: int, edges: int) -> Call:
    x, edge_index = graph(nodes, edges)
    return x[:, :3].contiguous(), edge_index, torch.rand(edges, 4)


@dataclass(frozen=True)
class Case:
    """A model, and its call of given numbers of nodes and edges."""

    make: Callable[[], nn.Module]
    call: Callable[[int, int], Call]
    options: dict[str, Any]
    empty: bool = True


def case(
    make: Callable[[], nn.Module],
    call: Callable[[int, int], Call] = graph,
    *,
    empty: bool = True,
    **options: Any,
) -> Case:
    return Case(make, call, options, empty)


CASES = {
    "edgenet": case(lambda: EdgeNet(hidden_channels=16, num_layers=2), instances=3),
    "gat": case(lambda: HitGAT(hidden_channels=4), instances=2),
    "track": case(lambda: TrackNet(hidden_channels=8), track),
    "dtypes": case(Dtypes, dtypes),
    "attention": case(Attention, attention),
    "dynamic": case(Dynamic, dynamic, empty=False),
    "messages": case(Messages),
    "weighted": case(Messages, lambda n, e: (*graph(n, e), torch.rand(e)), threads=2),
    "forces": case(Forces),
    "centred": case(Centred),
    "bipartite": case(Bipartite, bipartite),
    "typed": case(Typed, lambda n, e: typed_graph(max(n, 1), max(n - 1, 1), e)),
    "settings": case(Settings, lambda n, e: (*graph(n, e), 2, True)),
}
