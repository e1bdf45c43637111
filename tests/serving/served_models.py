"""Models that the tests serve: small, untrained, each of another form."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor
from torch.nn import Linear
from torch_geometric.nn import (
    EdgeConv,
    GCNConv,
    HeteroConv,
    MessagePassing,
    SAGEConv,
    global_add_pool,
)

Graph = Tuple[Tensor, Tensor]


def graph(nodes: int, edges: int, seed: int = 0, features: int = 5) -> Graph:
    """A random graph: float32 [nodes, features] and int64 [2, edges]."""
    generator = torch.Generator().manual_seed(seed + 1000 * nodes + edges)
    x = torch.randn(nodes, features, generator=generator)
    if nodes == 0:
        return x, torch.empty(2, 0, dtype=torch.int64)
    return x, torch.randint(nodes, (2, edges), generator=generator)


class Edges(torch.nn.Module):
    """Classifies edges, as EdgeNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = EdgeConv(Linear(10, 8), aggr="max")
        self.classifier = Linear(16, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.conv(x, edge_index).relu()
        return self.classifier(torch.cat([h[edge_index[0]], h[edge_index[1]]], dim=1))


class Graphs(torch.nn.Module):
    """One result a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(5, 8)
        self.out = Linear(8, 3)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        return self.out(global_add_pool(self.conv(x, edge_index).relu(), batch))


class Centred(torch.nn.Module):
    """Looks at all nodes at once: graphs cannot run as one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(5, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tuple[Tensor, Tensor]:
        h = self.conv(x - x.mean(dim=0), edge_index)
        return h, h.sum()


class Weigh(MessagePassing):
    """Sums weighted messages from one kind of nodes to another."""

    def __init__(self) -> None:
        super().__init__(aggr="add")

    def forward(self, x: Tuple[Tensor, Tensor], edge_index: Tensor, weight: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, weight=weight)

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        return weight.view(-1, 1) * x_j


class Bipartite(torch.nn.Module):
    """Takes a pair and an optional weight, returns a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Weigh()

    def forward(
        self, x: Tuple[Tensor, Tensor], edge_index: Tensor, edge_weight: Optional[Tensor] = None
    ) -> Dict[str, Tensor]:
        if edge_weight is None:
            edge_weight = torch.ones(edge_index.size(1))
        return {"sums": self.conv(x, edge_index, edge_weight), "weights": edge_weight}


class Typed(torch.nn.Module):
    """Of two node types and two edge types."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = HeteroConv({BUYS: SAGEConv((5, 3), 4), SOLD: SAGEConv((3, 5), 4)})

    def forward(self, x_dict, edge_index_dict):
        return self.conv(x_dict, edge_index_dict)


BUYS, SOLD = ("user", "buys", "item"), ("item", "sold", "user")


def typed_graph(users: int, items: int, edges: int):
    """Features and edges by their types."""
    x_dict = {"user": torch.randn(users, 5), "item": torch.randn(items, 3)}
    ends = [torch.randint(size, (edges,)) for size in (users, items, items, users)]
    return x_dict, {BUYS: torch.stack(ends[:2]), SOLD: torch.stack(ends[2:])}


class Settings(torch.nn.Module):
    """Takes numbers and a text, returns what is nested and has no dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(5, 4)

    def forward(
        self, x: Tensor, edge_index: Tensor, hops: int, relu: bool = True, mode: str = "mean"
    ) -> Tuple[Tensor, Dict[str, Tensor], float]:
        h = self.conv(x, edge_index)
        for _ in range(hops):
            h = h + 1.0
        if relu:
            h = h.relu()
        total = h.mean() if mode == "mean" else h.sum()
        return total, {"nodes": h, "norms": h.norm(dim=1)}, 2.5


class Ends(NamedTuple):
    """Of nodes."""

    weight: Tensor


class Lists(torch.nn.Module):
    """Takes lists of tensors and of numbers, and a named tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = torch.nn.ModuleList([SAGEConv(5, 4) for _ in range(2)])

    def forward(
        self,
        edge_index: Tensor,
        xs: List[Tensor],
        factors: List[int],
        powers: List[float],
        ends: Ends,
    ) -> List[Tensor]:
        out = []
        for i, conv in enumerate(self.convs):
            h = conv(xs[i], edge_index) * factors[0] * powers[i]
            out.append(h * ends.weight.unsqueeze(-1))
        return out


class Kinds(torch.nn.Module):
    """Arguments and results of every dtype, with names that Python has uses for.

    The scores are written to, the labels are numbers of nodes, and `table` is for no node at all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = Weigh()
        self.table = torch.nn.Parameter(torch.randn(2, 3))

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        weight: Tensor,
        seed: Tensor,
        int: int,  # noqa: A002
        scale: float,
    ) -> Dict[str, Tensor]:
        x.mul_(scale)
        index = edge_index.long()
        h = self.conv((x, x), index, weight.float()) * int
        label = torch.arange(x.size(0)).scatter_reduce(0, index[1], index[0], "amax")
        return {
            "x": h,
            "flags": seed.logical_and(h[:, 0] > 0),
            "half": h.half(),
            "brain": h.bfloat16(),
            "bytes": h.argmax(1).byte(),
            "label": label.masked_fill(seed, -1),
            "table": self.table * scale,
        }


def kinds(nodes: int, edges: int, seed: int = 0) -> Tuple[Tensor, ...]:
    """What `Kinds` takes, without its settings."""
    x, edge_index = graph(nodes, edges, seed)
    weight = torch.linspace(0.1, 1, edges, dtype=torch.bfloat16)
    return x, edge_index.int(), weight, torch.arange(nodes) % 3 == 0
