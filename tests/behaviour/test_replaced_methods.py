"""Methods that are replaced on an object, and objects that lead back to their module."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, MessagePassing

import gnnscript
from conformance.forms import Plain
from conformance.graphs import GRAPHS, IN, OUT
from gnnscript.ops import library

pytestmark = pytest.mark.usefixtures("auto")


def raised(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs) + 1

    return inner


def wrapped() -> nn.Module:
    model = Plain(GCNConv(IN, OUT))
    model.conv.forward = raised(model.conv.forward)
    return model


def tripled() -> nn.Module:
    model = Plain(GCNConv(IN, OUT))
    before = model.conv.forward
    model.conv.forward = lambda *args, **kwargs: before(*args, **kwargs) * 3
    return model


def preset() -> nn.Module:
    model = Plain(GCNConv(IN, OUT))
    model.conv.forward = functools.partial(model.conv.forward, edge_weight=None)
    model.conv.forward = raised(model.conv.forward)
    return model


def sent() -> nn.Module:
    model = Plain(GCNConv(IN, OUT))
    model.conv.propagate = raised(model.conv.propagate)
    return model


class Called(GCNConv):
    def __call__(self, *args, **kwargs):
        return nn.Module.__call__(self, *args, **kwargs) + 7


@pytest.mark.parametrize("make", [wrapped, tripled, preset, sent, lambda: Plain(Called(IN, OUT))])
def test_replaced_methods_of_a_layer(make) -> None:
    model = make()
    scripted = torch.jit.script(model)
    for graph in GRAPHS:
        expected = model(graph.x, graph.edge_index)
        torch.testing.assert_close(scripted(graph.x, graph.edge_index), expected)


def test_a_root_whose_forward_is_no_method_is_refused() -> None:
    model = GCNConv(IN, OUT)
    model.forward = raised(model.forward)
    with pytest.raises(gnnscript.UnsupportedError, match="replaced by a function"):
        torch.jit.script(model)


class Engine:
    """What a module holds, and which knows its module."""

    def __init__(self, owner: nn.Module) -> None:
        self.owner, self.scale = owner, 2.0


class Owned(MessagePassing):
    def __init__(self) -> None:
        super().__init__(aggr="mean")
        self.engine = Engine(self)
        self.lin = nn.Linear(IN, OUT)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.lin(self.propagate(edge_index, x=x)) * self.engine.scale

    def message(self, x_j: Tensor) -> Tensor:
        return x_j.relu() * self.engine.scale


@pytest.mark.parametrize("kernels", ["portable", "native"])
def test_an_object_that_leads_back_to_its_module(kernels: str) -> None:
    if kernels == "native" and not library.paths():
        pytest.skip("there is no native library")
    conv, graph = Owned(), GRAPHS[0]
    with gnnscript.kernels(kernels):
        scripted = torch.jit.script(conv)
        expected = conv(graph.x, graph.edge_index)
    torch.testing.assert_close(scripted(graph.x, graph.edge_index), expected)
    conv.engine.scale = 3.0
    with gnnscript.kernels(kernels):
        torch.testing.assert_close(conv(graph.x, graph.edge_index), _by_hand(conv, graph))


def _by_hand(conv: Owned, graph) -> Tensor:
    row, col = graph.edge_index
    total = torch.zeros_like(graph.x).index_add(0, col, graph.x[row].relu() * 3)
    count = torch.zeros(graph.x.size(0)).index_add(0, col, torch.ones(col.size(0))).clamp(min=1)
    return conv.lin(total / count.view(-1, 1)) * 3
