"""Parameters, buffers and submodules are those of the eager module."""

# Classes stand here as users write them.
# ruff: noqa: B905, RUF007

from typing import List

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    GATConv,
    MessagePassing,
)

from conformance.forms import Plain
from conformance.graphs import GRAPHS, IN, OUT

pytestmark = pytest.mark.usefixtures("auto")


class Parts(MessagePassing):
    def __init__(self) -> None:
        super().__init__(aggr=["mean", "softmax"], aggr_kwargs={
            "aggrs_kwargs": [{}, {"learn": True}]})  # fmt: skip
        self.lin = nn.Linear(IN, IN)
        self.tied = self.lin
        self.layers = nn.ModuleList([nn.Linear(2 * IN, OUT), nn.BatchNorm1d(OUT)])
        self.table = nn.ModuleDict({"a": nn.Linear(OUT, OUT)})
        self.scale = nn.Parameter(torch.ones(1))
        self.register_parameter("nothing", None)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.steps.add_(1)
        out = self.propagate(edge_index, x=self.tied(self.lin(x)))
        for layer in self.layers:
            out = layer(out)
        return self.table["a"](out) * self.scale


def test_parameters_buffers_and_submodules_are_shared(check_conv):
    check_conv(Parts())
    for model in (Parts(), Plain(Parts())):
        scripted = torch.jit.script(model)
        assert list(scripted.state_dict()) == list(model.state_dict())
        eager = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        shared = {**dict(scripted.named_parameters()), **dict(scripted.named_buffers())}
        assert eager.keys() == shared.keys()
        for name, value in eager.items():
            assert shared[name] is value, name


def test_training_the_eager_model_trains_the_scripted_one():
    g = GRAPHS[0]
    model = Plain(Parts())
    scripted = torch.jit.script(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = scripted(g.x, g.edge_index)
    for module in (model, scripted):
        optimizer.zero_grad()
        module(g.x, g.edge_index).square().mean().backward()
        optimizer.step()
    assert not torch.allclose(scripted(g.x, g.edge_index), before)
    model.eval()
    scripted.eval()
    torch.testing.assert_close(scripted(g.x, g.edge_index), model(g.x, g.edge_index))
    assert int(model.conv.steps) == 6


def test_state_dict_goes_both_ways():
    g = GRAPHS[0]
    first, second = Plain(Parts()).eval(), Plain(Parts()).eval()
    scripted = torch.jit.script(first)
    expected = second(g.x, g.edge_index)
    scripted.load_state_dict(second.state_dict())
    torch.testing.assert_close(scripted(g.x, g.edge_index), expected)
    torch.testing.assert_close(first(g.x, g.edge_index), expected)
    Plain(Parts()).load_state_dict(scripted.state_dict())


def test_conversion_of_the_scripted_model():
    g = GRAPHS[0]
    model = Plain(GATConv(IN, OUT, heads=2)).eval()
    scripted = torch.jit.script(model).double()
    x = g.x.double()
    torch.testing.assert_close(scripted(x, g.edge_index), model.double()(x, g.edge_index))


def test_frozen_and_optimized_for_inference():
    model = Plain(GATConv(IN, OUT)).eval()
    frozen = torch.jit.freeze(torch.jit.script(model))
    fast = torch.jit.optimize_for_inference(torch.jit.script(model))
    for g in GRAPHS:
        expected = model(g.x, g.edge_index)
        torch.testing.assert_close(frozen(g.x, g.edge_index), expected)
        torch.testing.assert_close(fast(g.x, g.edge_index), expected)


class ListAttributes(MessagePassing):
    """Configuration in lists that code loops over."""

    def __init__(self, channels: List[int]) -> None:
        super().__init__()
        self.channels = channels
        self.lins = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(channels[:-1], channels[1:], strict=True)
        )
        self.names = ["relu"] * (len(channels) - 2) + ["none"]

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for i, (lin, name) in enumerate(zip(self.lins, self.names)):
            x = self.propagate(edge_index, x=lin(x)) / self.channels[i]
            if name == "relu":
                x = x.relu()
        return x


@pytest.mark.parametrize("channels", [[IN, OUT], [IN, 5, OUT], [IN, 5, 6, OUT]], ids=str)
def test_lists_of_configuration(channels, check_conv):
    check_conv(ListAttributes(channels))
