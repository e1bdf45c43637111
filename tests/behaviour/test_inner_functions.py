"""Inner functions that are handed on, and layers whose parameters are computed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch_geometric.nn import GCNConv, MessagePassing, SAGEConv
from torch_geometric.utils import add_random_edge, negative_sampling

from conformance.graphs import EDGE, GRAPHS, IN, OUT

pytestmark = pytest.mark.usefixtures("auto")


class Copying(MessagePassing):
    def run(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)


def applied(function, x, **kwargs):
    return function(x, **kwargs)


def wrapper(*args, **kwargs):
    return repeated(*args, **kwargs)


def repeated(x, times, step=None):
    for _ in range(times):
        x = x * 0.5
        if step is not None:
            x = step(x)
    return x


class HandsOn(Copying):
    """Functions that use variables around them reach others by position, keyword and `**kwargs`."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(IN, IN)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        start = self.lin(x)
        factor = x.size(0) / 10

        def again(value):
            value = value + factor
            return value * start

        def plain(value, by: float = 2.0):
            return value * by + start

        x = applied(plain, x, by=0.5) + applied(lambda v: v - start, x)
        x = wrapper(x, 2, step=again) + repeated(x, 1)
        return self.run(x, edge_index)


def test_inner_functions_are_handed_on(check) -> None:
    check(HandsOn())


class Attributes(Copying):
    """What may be missing is given to `torch.cat`, and is there."""

    def forward(self, x: Tensor, edge_index: Tensor, attr: Tensor | None = None) -> Tensor:
        if attr is not None:
            x = torch.cat([x, self.summed(attr, edge_index, x.size(0))], 1)
        return self.run(x, edge_index)

    def summed(self, attr, edge_index, size: int):
        held = attr if size > 0 else None
        padded = torch.cat([held, attr[:, :1]], dim=1)
        return torch.zeros(size, EDGE + 1).index_add(0, edge_index[1], padded)


class Attributed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = Attributes()

    def forward(self, x: Tensor, edge_index: Tensor, attr: Tensor) -> Tensor:
        return self.conv(x, edge_index, attr)


def test_lists_of_what_may_be_missing(check) -> None:
    check(Attributed(), *[(g.x, g.edge_index, g.attr) for g in GRAPHS])


class Half(nn.Module):
    """A parametrization of the user's own."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.tanh() * 0.5


class Computed(Copying):
    """Torch's own layers, whose parameters are computed in three ways."""

    def __init__(self) -> None:
        super().__init__()
        self.first = parametrizations.weight_norm(nn.Linear(IN, IN))
        self.second = nn.Linear(IN, IN)
        nn.utils.parametrize.register_parametrization(self.second, "weight", Half())
        nn.utils.parametrize.register_parametrization(self.second, "weight", Half())
        self.third = parametrizations.spectral_norm(nn.Linear(IN, OUT))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.third(self.run(self.first(x).relu(), edge_index) + self.second(x))


def test_computed_parameters(check) -> None:
    # In training mode each call improves the estimate of the norm that it uses.
    check(Computed(), modes=("eval",))


def test_computed_parameters_of_convs() -> None:
    conv = SAGEConv(IN, OUT)
    conv.lin_l = parametrizations.weight_norm(conv.lin_l)
    gcn = GCNConv(IN, OUT)
    nn.utils.parametrize.register_parametrization(gcn.lin, "weight", Half())
    for module in (conv, gcn):
        scripted = torch.jit.script(module)
        for graph in GRAPHS:
            out = module(graph.x, graph.edge_index)
            torch.testing.assert_close(scripted(graph.x, graph.edge_index), out)
        expected = torch.autograd.grad(out.square().sum(), list(module.parameters()))
        scripted(graph.x, graph.edge_index).square().sum().backward()
        found = [parameter.grad for parameter in module.parameters()]
        torch.testing.assert_close(found, list(expected))


class Rounded(Copying):
    def forward(self, x: Tensor, edge_index: Tensor):
        half = edge_index.size(1) * 0.5
        count = round(half)
        return self.run(x, edge_index)[:count], count, round(2.5 * x.size(0))


def test_rounding_gives_integers(check) -> None:
    check(Rounded())


class Drawn(nn.Module):
    def __init__(self, **options) -> None:
        super().__init__()
        self.options = options

    def forward(self, edge_index: Tensor, size: int):
        added = add_random_edge(edge_index, 0.5, num_nodes=size, **self.options)
        negative = negative_sampling(edge_index, (12, 12), 6, method="dense")
        return added[0], added[1], negative


@pytest.mark.parametrize("undirected", [False, True])
def test_edges_that_are_drawn(undirected) -> None:
    model = Drawn(force_undirected=undirected)
    scripted = torch.jit.script(model)
    for graph in GRAPHS:
        edges = set(map(tuple, graph.edge_index.t().tolist()))
        size = graph.x.size(0)
        whole, added, negative = scripted(graph.edge_index, size)
        assert whole.tolist() == torch.cat([graph.edge_index, added], 1).tolist()
        assert added.size(1) == model(graph.edge_index, size)[1].size(1) > 0
        assert negative.size() == (2, 6)
        for drawn, limit in ((added, size), (negative, 12)):
            pairs = list(map(tuple, drawn.t().tolist()))
            # Undirected ones are drawn above the diagonal, whatever is there below.
            assert not edges & {(a, b) for a, b in pairs if a < b or not undirected}
            assert len(set(pairs)) == len(pairs)
            assert all(0 <= node < limit for pair in pairs for node in pair)
        if undirected:
            assert {(b, a) for a, b in added.t().tolist()} == set(map(tuple, added.t().tolist()))
