"""Modules, parameters and options that an index or a name of run time picks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, MessagePassing, SAGEConv

import gnnscript
from conformance.graphs import GRAPHS, IN, OUT

pytestmark = pytest.mark.usefixtures("auto")


class Held(nn.Module):
    """Picked first, and called later; of several classes."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([SAGEConv(IN, IN), GCNConv(IN, IN)])
        self.norms = nn.Sequential(nn.LayerNorm(IN), nn.Identity())
        self.acts = nn.ModuleDict({"small": nn.ReLU(), "large": nn.Tanh()})

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for turn in range(x.size(0) // 3):
            conv, norm = self.convs[turn % 2], self.norms[-1 - turn % 2]
            x = norm(conv(x, edge_index))
        act = self.acts["small" if x.size(0) < 10 else "large"]
        return act(x)


class Named(MessagePassing):
    def __init__(self) -> None:
        super().__init__()
        for position, width in enumerate((3, 4, 5)):
            setattr(
                self, f"lin_{position}", nn.Sequential(nn.Linear(IN, width), nn.Linear(width, IN))
            )
            self.register_parameter(f"scale_{position}", nn.Parameter(torch.randn(IN)))
        self.link_0 = nn.Bilinear(2, 3, 4)  # has other arguments, and another name

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        layers = x.size(0) % 3 + 1
        for layer in range(layers):
            x = F.relu(getattr(self, f"lin_{layer}")(x)) * getattr(self, "scale_%d" % layer)  # noqa: UP031
        last = getattr(self, "lin_" + str(layers - 1))
        return self.propagate(edge_index, x=x) + last[0].weight.sum() + last[1].out_features


@pytest.mark.parametrize("module", [Held(), Named()], ids=lambda module: type(module).__name__)
def test_picked_at_run_time(module, check) -> None:
    check(module)


class Mixed(Named):
    """Options that differ: the first layers are of other widths."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        width = getattr(self, f"lin_{x.size(0) % 3}")[0].out_features
        return self.propagate(edge_index, x=x[:, :width])


def test_options_of_what_is_picked(check) -> None:
    check(Mixed())


def test_an_index_out_of_range_raises() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList([GCNConv(IN, OUT), GCNConv(IN, OUT)])

        def forward(self, x: Tensor, edge_index: Tensor, layer: int) -> Tensor:
            return self.convs[layer](x, edge_index)

    model = Model()
    scripted = torch.jit.script(model)
    graph = GRAPHS[0]
    for layer in (0, 1, -1, -2):
        expected = model(graph.x, graph.edge_index, layer)
        torch.testing.assert_close(scripted(graph.x, graph.edge_index, layer), expected)
    with pytest.raises(torch.jit.Error, match="'convs' has no such item"):
        scripted(graph.x, graph.edge_index, 2)


class Unnamed(Named):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return getattr(self, f"other_{x.size(0)}")(x)


def test_no_candidate() -> None:
    with pytest.raises(gnnscript.UnsupportedError, match="a name that is known only at run time"):
        torch.jit.script(Unnamed())
