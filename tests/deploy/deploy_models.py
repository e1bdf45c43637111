"""Models of every form that a runtime without Python may meet, each with two example calls."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    GATConv,
    GCNConv,
    HeteroConv,
    MessagePassing,
    SAGEConv,
    global_add_pool,
    global_mean_pool,
)


def edges(sources: int, targets: int, count: int) -> Tensor:
    return torch.stack([torch.randint(sources, (count,)), torch.randint(targets, (count,))])


class Node(nn.Module):
    """Node classification; `edge_weight` and `flag` are optional."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(4, 3)
        self.drop = nn.Dropout(0.5)

    def forward(
        self, x: Tensor, edge_index: Tensor, edge_weight: Optional[Tensor] = None
    ) -> Tensor:
        return self.drop(self.conv(x, edge_index, edge_weight))


class Edge(MessagePassing):
    """One logit per edge, two reductions, of a class no library has."""

    def __init__(self) -> None:
        super().__init__(aggr="max")
        self.lin = nn.Linear(8, 1)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        h = self.propagate(edge_index, x=x, edge_attr=edge_attr)
        return self.lin(torch.cat([h[edge_index[0]], h[edge_index[1]]], dim=1)).squeeze(1)

    def message(self, x_i: Tensor, x_j: Tensor, edge_attr: Tensor) -> Tensor:
        return (x_j - x_i) * edge_attr


class Graph(nn.Module):
    """Regresses one number per graph, and returns the loss-like mean, a scalar, besides."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GATConv(4, 6)
        self.lin = nn.Linear(6, 1)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tuple[Tensor, Tensor]:
        energy = self.lin(global_mean_pool(self.conv(x, edge_index), batch))
        return energy, energy.mean()


class Hetero(nn.Module):
    """Tuples and dictionaries in and out, a number, a list."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv((4, 6), 5)

    def forward(
        self,
        x_dict: Dict[str, Tensor],
        edge_index: Tensor,
        scales: List[Tensor],
        power: int,
        mask: Optional[Tensor] = None,
    ) -> Dict[str, Tensor]:
        h = self.conv((x_dict["source"], x_dict["target"]), edge_index)
        for scale in scales:
            h = h * scale**power
        if mask is not None:
            h = h * mask.view(-1, 1)
        return {"target": h, "total": h.sum()}


class Typed(nn.Module):
    """Node and edge types as PyG has them, and no annotations."""

    def __init__(self) -> None:
        super().__init__()
        convs = {BUYS: SAGEConv((4, 6), 5), ("item", "rev", "user"): SAGEConv((6, 4), 5)}
        self.conv = HeteroConv(convs)

    def forward(self, x_dict, edge_index_dict):
        return self.conv(x_dict, edge_index_dict)


BUYS = ("user", "buys", "item")


def typed_call(users: int, items: int, count: int) -> tuple[Any, ...]:
    x_dict = {"user": torch.randn(users, 4), "item": torch.randn(items, 6)}
    back = edges(items, users, count // 2)
    return x_dict, {BUYS: edges(users, items, count), ("item", "rev", "user"): back}


class Unannotated(nn.Module):
    """A pair, which the example alone tells from a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv((4, 6), 5)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index)


def pair_call(sources: int, targets: int, count: int) -> dict[str, Any]:
    x = (torch.randn(sources, 4), torch.randn(targets, 6))
    return {"edge_index": edges(sources, targets, count), "x": x}


class Fields(NamedTuple):
    score: Tensor
    count: int


class Named(nn.Module):
    """Returns a named tuple with a number."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Fields:
        return Fields(self.lin(x), x.size(0))


class Words(nn.Module):
    """Arguments with names that Python has uses for, one without dimensions; writes to `len`."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(4, 2)

    def forward(
        self,
        len: Tensor,  # noqa: A002
        t: Tensor,
        int: int,  # noqa: A002
        float: float,  # noqa: A002
        model: bool,
    ) -> Tuple[List[Tensor], int]:
        len.mul_(float)
        h = self.model(len) * t
        return ([h, h * int] if model else [h, h]), int


class Forces(nn.Module):
    """Energies of graphs and, by a gradient inside, the forces on their nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(1, 8), nn.SiLU(), nn.Linear(8, 1))

    def forward(self, pos: Tensor, edge_index: Tensor, batch: Tensor) -> Tuple[Tensor, Tensor]:
        with torch.enable_grad():
            pos = pos.detach().requires_grad_(True)
            squares = (pos[edge_index[0]] - pos[edge_index[1]]).pow(2).sum(-1, keepdim=True)
            energy = global_add_pool(self.energy(squares), batch[edge_index[0]])
            gradient = torch.autograd.grad([energy.sum()], [pos])[0]
        assert gradient is not None
        return energy, -gradient


def words_call(nodes: int) -> tuple[Any, ...]:
    return torch.randn(nodes, 4), torch.tensor(0.3), 3, 0.5, True


def node_call(nodes: int, count: int) -> tuple[Any, ...]:
    return torch.randn(nodes, 4), edges(nodes, nodes, count)


def edge_call(nodes: int, count: int) -> tuple[Any, ...]:
    return torch.randn(nodes, 4), edges(nodes, nodes, count), torch.rand(count, 1)


def graph_call(nodes: int, count: int) -> tuple[Any, ...]:
    batch = torch.arange(nodes) * 3 // nodes
    return torch.randn(nodes, 4), edges(nodes, nodes, count), batch


def hetero_call(sources: int, targets: int, count: int) -> dict[str, Any]:
    return {
        "x_dict": {"source": torch.randn(sources, 4), "target": torch.randn(targets, 6)},
        "edge_index": edges(sources, targets, count),
        "scales": [torch.rand(5), torch.rand(1, 5)],
        "power": 2,
    }
