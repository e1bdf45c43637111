"""Convs, models and comparisons that several files of behaviour tests share."""

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import EdgeConv, GATConv, MessagePassing, SAGEConv

from conformance.forms import Plain
from conformance.graphs import GRAPHS, IN, OUT


class Projecting(MessagePassing):
    """Base of most classes here: a linear layer before the messages."""

    def __init__(self, **kwargs):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        self.lin = nn.Linear(IN, OUT)


class Picklable(MessagePassing):
    def __init__(self) -> None:
        super().__init__(aggr="mean")
        self.lin = nn.Linear(IN, OUT)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=self.lin(x))

    def message(self, x_j: Tensor, x_i: Tensor) -> Tensor:
        return x_j - x_i


class Deep(nn.Module):
    """Convs at several depths, one of them shared."""

    def __init__(self) -> None:
        super().__init__()
        self.first = GATConv(IN, IN)
        self.blocks = nn.ModuleList([Plain(Plain(Picklable())), Plain(SAGEConv(IN, OUT))])
        self.named = nn.ModuleDict({"edge": EdgeConv(nn.Linear(2 * OUT, OUT))})
        self.again = self.first

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.again(self.first(x, edge_index), edge_index)
        out = torch.zeros(x.size(0), OUT)
        for block in self.blocks:
            out = out + block(x, edge_index)
        return self.named["edge"](out, edge_index)


def same(first: nn.Module, second: nn.Module, rtol: float = 0.0) -> None:
    """Both modules give equal outputs on both graphs."""
    for g in GRAPHS:
        torch.testing.assert_close(
            first(g.x, g.edge_index), second(g.x, g.edge_index), rtol=rtol, atol=rtol
        )


def everything(model: nn.Module) -> list[tuple[str, Any]]:
    """All there is to an eager model: objects, types and the entries of their dictionaries."""
    found: list[tuple[str, Any]] = []
    for path, module in model.named_modules(remove_duplicate=False):
        found += [(path, module), (f"{path} type", type(module))]
        for name, value in vars(module).items():
            if name == "__overloads__":  # torch's own mark
                continue
            found.append((f"{path} {name}", value))
            if isinstance(value, dict):
                found += [(f"{path} {name} {key}", item) for key, item in value.items()]
    return found
