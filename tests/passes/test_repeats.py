"""Layers that compute the same of one graph: once in a scripted model, and never wrongly so."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    APPNP,
    ARMAConv,
    ChebConv,
    GATConv,
    GCNConv,
    MessagePassing,
    SGConv,
    TAGConv,
)
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.typing import OptTensor
from torch_geometric.utils import add_self_loops, degree, dropout_edge, remove_self_loops, scatter

import gnnscript
from gnnscript.testing import BareProcess, assert_scripts_like_eager
from passes.threads import right_in_threads

pytestmark = pytest.mark.usefixtures("native", "auto")

WIDTH = 4


def graph(nodes: int, edges: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(nodes, WIDTH, generator=generator),
        torch.randint(max(nodes - 2, 1), (2, edges), generator=generator),
        torch.rand(edges, generator=generator) + 0.1,
    )


GRAPHS = [graph(9, 40), graph(5, 0), graph(12, 31, 1)]


class Layers(nn.Module):
    """Layers on the edges that they are given."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, edge_index: Tensor, weight: OptTensor = None) -> Tensor:
        for layer in self.layers:
            x = layer(x, edge_index, weight).relu()
        return x


class Unweighted(Layers):
    """Layers that take no weights."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self.layers:
            x = layer(x, edge_index).relu()
        return x


def kept(model: nn.Module, *given: Tensor) -> int:
    """How many times a call keeps what it computes, and so how often it is computed."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        model(*given)
    return sum(e.name == "gnnscript::keep_known" for e in profile.events())


# Layers #######################################################################


class Weighted(MessagePassing):
    """What the layers below have in common."""

    def __init__(self, **options: Any) -> None:
        super().__init__(aggr="add", **options)
        self.lin = nn.Linear(WIDTH, WIDTH)

    def message(self, x_j: Tensor, norm: Tensor) -> Tensor:
        return norm.view(-1, 1) * x_j


class Written(Weighted):
    """Everything in ``forward``, between what it does with features."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: OptTensor = None) -> Tensor:
        edge_index, _ = add_self_loops(edge_index, num_nodes=x.size(0))
        x = self.lin(x)
        row, col = edge_index
        deg = degree(col, x.size(0), dtype=x.dtype)
        root = deg.pow(-0.5)
        root[root == float("inf")] = 0
        return self.propagate(edge_index, x=x, norm=root[row] * root[col])


def transition(edge_index: Tensor, weight: OptTensor, size: int, like: Tensor) -> Tensor:
    """Weights that add up to one at each node; what is made here is changed here."""
    if weight is None:
        weight = torch.ones(edge_index.size(1), dtype=like.dtype)
    total = scatter(weight, edge_index[1], 0, size, "sum")
    total.clamp_(min=1e-6)
    share = weight.clone()
    share /= total[edge_index[1]]
    return share


class Helped(Weighted):
    """A helper of the user's own, which is given node features and looks at their type alone."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: OptTensor = None) -> Tensor:
        norm = transition(edge_index, weight, x.size(0), x)
        return self.propagate(edge_index, x=self.lin(x), norm=norm)


class Selected(Weighted):
    """Branches and loops around the edges."""

    def __init__(self, hops: int) -> None:
        super().__init__()
        self.hops = hops

    def edges_of(self, edge_index: Tensor, size: int) -> Tensor:
        edge_index, _ = remove_self_loops(edge_index)
        if edge_index.size(1) > 3:
            edge_index = edge_index[:, edge_index[0] < size - 1]
        return edge_index

    def forward(self, x: Tensor, edge_index: Tensor, weight: OptTensor = None) -> Tensor:
        edges = self.edges_of(edge_index, x.size(0))
        norm = 1.0 / degree(edges[1], x.size(0)).clamp(min=1)[edges[1]]
        for _ in range(self.hops):
            x = self.propagate(edges, x=x, norm=norm)
        return self.lin(x)


class Spoiling(Weighted):
    """Changes in its own call what it has made of the edges."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: OptTensor = None) -> Tensor:
        edges, norm = gcn_norm(edge_index, None, x.size(0))
        norm *= x.mean()
        edges[0] = edges[0].flip(0)
        return self.lin(self.propagate(edges, x=x, norm=norm))


class SpoilingMessage(Weighted):
    """The same, in a hook."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: OptTensor = None) -> Tensor:
        _, norm = gcn_norm(edge_index, None, x.size(0), add_self_loops=False)
        return self.lin(self.propagate(edge_index, x=x, norm=norm))

    def message(self, x_j: Tensor, norm: Tensor) -> Tensor:
        return norm.mul_(0.5).view(-1, 1) * x_j


class Random(Weighted):
    """Drops edges, others in each call."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: OptTensor = None) -> Tensor:
        edges, _ = dropout_edge(edge_index, p=0.5, training=self.training)
        norm = 1.0 / degree(edges[1], x.size(0)).clamp(min=1)[edges[1]]
        return self.lin(self.propagate(edges, x=x, norm=norm))


class Telling(Weighted):
    """Returns the weights, which the caller may change."""

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        edges, norm = gcn_norm(edge_index, None, x.size(0))
        assert norm is not None
        return self.lin(self.propagate(edges, x=x, norm=norm)), norm


class Told(nn.Module):
    """Changes what a layer has returned."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Telling(), Telling()

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, first = self.first(x, edge_index)
        first.zero_()
        x, second = self.second(x, edge_index)
        return x, first, second


# Tests ########################################################################


@pytest.mark.parametrize(
    ("layers", "times"),
    [
        ([GCNConv(WIDTH, WIDTH) for _ in range(3)], 1),
        ([GCNConv(WIDTH, WIDTH), GCNConv(WIDTH, WIDTH, improved=True)] * 2, 2),
        ([ChebConv(WIDTH, WIDTH, 3), ChebConv(WIDTH, WIDTH, 2)], 1),
        ([TAGConv(WIDTH, WIDTH), ARMAConv(WIDTH, WIDTH), TAGConv(WIDTH, WIDTH)], 1),
        ([SGConv(WIDTH, WIDTH, K=2), APPNP(3, 0.1), GCNConv(WIDTH, WIDTH)], 1),
        ([Helped() for _ in range(3)], 1),
    ],
    ids=["gcn", "two kinds", "cheb", "tag and arma", "sg, appnp and gcn", "helped"],
)
@pytest.mark.filterwarnings("ignore:.*profil:UserWarning")
def test_layers_compute_of_the_edges_once(
    layers: list[nn.Module], times: int, tmp_path: Path
) -> None:
    model = Layers(*layers)
    scripted = torch.jit.script(model)
    torch.jit.save(scripted, tmp_path / "model.pt")
    x, edge_index, weight = GRAPHS[0]
    for ready in (scripted, torch.jit.load(tmp_path / "model.pt")):
        for given in ((x, edge_index), (x, edge_index, weight)):
            for gradients in (False, True):
                with torch.set_grad_enabled(gradients):
                    assert [kept(ready, *given) for _ in range(3)] == [times] * 3
    torch.testing.assert_close(scripted(x, edge_index, weight), model(x, edge_index, weight))


@pytest.mark.parametrize(
    ("layers", "times"),
    [
        ([Written() for _ in range(3)], 2),  # what stands before and behind the linear layer
        ([GATConv(WIDTH, WIDTH), GATConv(WIDTH, WIDTH, edge_dim=None)], 1),
        ([Selected(2), Selected(1)], 1),
    ],
    ids=["written", "gat", "selected"],
)
@pytest.mark.filterwarnings("ignore:.*profil:UserWarning")
def test_what_stands_in_forward_is_computed_once(layers: list[nn.Module], times: int) -> None:
    scripted = torch.jit.script(Unweighted(*layers))
    assert [kept(scripted, *GRAPHS[0][:2]) for _ in range(3)] == [times] * 3


@pytest.mark.parametrize(
    "layers",
    [
        [Written(), Written()],
        [Helped(), Helped(), Helped()],
        [Selected(2), Selected(1)],
        [Spoiling(), Spoiling()],
        [SpoilingMessage(), SpoilingMessage()],
        [GCNConv(WIDTH, WIDTH), GCNConv(WIDTH, WIDTH, improved=True), GCNConv(WIDTH, WIDTH)],
        [Written(), Written(flow="target_to_source"), Helped(), Spoiling(), Helped()],
    ],
    ids=["written", "helped", "selected", "spoiling", "hook", "options", "mixed"],
)
def test_scripted_like_eager(layers: list[nn.Module], bare: BareProcess) -> None:
    weighted = not any(isinstance(layer, Selected) for layer in layers)
    graphs = GRAPHS if weighted else [(x, edges) for x, edges, _ in GRAPHS]
    # The weights of the edges take gradients, too.
    model = Layers(*layers) if weighted else Unweighted(*layers)
    for gradients in (False, True):
        if not gradients or not any(isinstance(layer, Spoiling) for layer in layers):
            assert_scripts_like_eager(model, *graphs, gradients=gradients, reload=bare)


@pytest.mark.parametrize("cls", [Spoiling, SpoilingMessage])
def test_what_a_layer_changes_is_its_own(cls: type[nn.Module]) -> None:
    text = gnnscript.source(Layers(cls(), cls()))
    assert "norm = known" not in text


def test_what_is_returned_is_the_callers(bare: BareProcess) -> None:
    assert_scripts_like_eager(Told(), *[g[:2] for g in GRAPHS], gradients=False, reload=bare)


def test_random_edges_are_drawn_in_each_layer() -> None:
    model = Layers(Random(), Random())
    assert "find_known" not in gnnscript.source(model).split("dropout_edge(")[0]
    scripted = torch.jit.script(model)
    for _ in range(3):
        torch.manual_seed(3)
        expected = model(*GRAPHS[0])
        torch.manual_seed(3)
        torch.testing.assert_close(scripted(*GRAPHS[0]), expected)


class Rewired(Layers):
    """Edges and weights are written to between two layers."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: OptTensor = None) -> Tensor:
        edge_index = edge_index.clone()
        assert weight is not None
        weight = weight.clone()
        for layer in self.layers:
            x = layer(x, edge_index, weight)
            edge_index[1] = edge_index[1].roll(1)
            weight *= 2
        return x


def test_edges_that_are_written_to_are_looked_at_again(bare: BareProcess) -> None:
    model = Rewired(GCNConv(WIDTH, WIDTH), GCNConv(WIDTH, WIDTH), Helped(), Helped())
    scripted = assert_scripts_like_eager(model, *GRAPHS, gradients=False, reload=bare)
    with torch.inference_mode():
        torch.testing.assert_close(scripted(*GRAPHS[0]), model(*GRAPHS[0]))


class Uncounted(Layers):
    """Weights are written to in a way that torch does not count."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: OptTensor = None) -> Tensor:
        assert weight is not None
        weight = weight.clone()
        for layer in self.layers:
            x = layer(x, edge_index, weight)
            weight.data[:4] *= 3.0
        return x


def test_writes_that_are_not_counted_are_seen(bare: BareProcess) -> None:
    model = Uncounted(GCNConv(WIDTH, WIDTH), GCNConv(WIDTH, WIDTH))
    assert_scripts_like_eager(model, *GRAPHS, gradients=False, reload=bare)


class Pooled(Layers):
    """Another number of nodes in each layer, on the same edges."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: OptTensor = None) -> Tensor:
        for layer in self.layers:
            x = layer(x, edge_index, weight)
            x = torch.cat([x, x[:2]])
        return x


def test_another_number_of_nodes_is_another_graph(bare: BareProcess) -> None:
    model = Pooled(GCNConv(WIDTH, WIDTH), GCNConv(WIDTH, WIDTH), Helped())
    assert_scripts_like_eager(model, *GRAPHS, reload=bare)


class Precise(Layers):
    """Two precisions in one call."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: OptTensor = None) -> Tensor:
        first = self.layers[0](x, edge_index).double()
        return self.layers[1](first, edge_index)


def test_another_dtype_is_other_work(bare: BareProcess) -> None:
    model = Precise(GCNConv(WIDTH, WIDTH), GCNConv(WIDTH, WIDTH).double())
    assert_scripts_like_eager(model, *GRAPHS, reload=bare)


class Twice(Layers):
    """What two layers say, one by one."""

    def forward(  # type: ignore[override]
        self, x: Tensor, edge_index: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self.layers[0](x, edge_index, weight), self.layers[1](x, edge_index, weight)


def test_each_layer_has_a_graph_of_gradients_of_its_own() -> None:
    model = Twice(GCNConv(WIDTH, WIDTH), GCNConv(WIDTH, WIDTH))
    scripted = torch.jit.script(model)
    x, edge_index, weight = GRAPHS[0]
    for _ in range(3):
        found = []
        for call in (model, scripted):
            leaf = weight.clone().requires_grad_()
            first, second = call(x, edge_index, leaf)
            first.square().sum().backward()
            second.square().sum().backward()  # the first has freed what it went through
            found.append(leaf.grad)
        torch.testing.assert_close(found[0], found[1])


class PartlyLearned(Layers):
    """Gradients are off in the first layer."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: OptTensor = None) -> Tensor:
        with torch.no_grad():
            x = self.layers[0](x, edge_index, weight)
        return self.layers[1](x, edge_index, weight)


def test_what_is_made_without_gradients_is_not_taken_with_them(bare: BareProcess) -> None:
    model = PartlyLearned(GCNConv(WIDTH, WIDTH), GCNConv(WIDTH, WIDTH))
    assert_scripts_like_eager(model, *GRAPHS, reload=bare)


class Failing(Layers):
    """Raises between two layers."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: OptTensor = None) -> Tensor:
        x = self.layers[0](x, edge_index, weight)
        if bool(x.sum() > 1e6):
            raise ValueError("too large")
        return self.layers[1](x, edge_index, weight)


def test_after_an_exception_the_next_call_starts_anew() -> None:
    model = Failing(GCNConv(WIDTH, WIDTH), GCNConv(WIDTH, WIDTH))
    with torch.no_grad():
        model.layers[0].lin.weight.fill_(1.0)
    scripted = torch.jit.script(model)
    x, edge_index, weight = GRAPHS[0]
    edges = edge_index.clone()
    for _ in range(3):
        with pytest.raises(torch.jit.Error, match="too large"):
            scripted(x.abs() + 1e8, edges, weight)
        edges.copy_(edges.roll(1))
        torch.testing.assert_close(
            scripted(-x.abs(), edges, weight), model(-x.abs(), edges, weight)
        )


def test_threads_keep_apart() -> None:
    model = Layers(*[GCNConv(WIDTH, WIDTH) for _ in range(3)]).eval()
    scripted = torch.jit.script(model)
    graphs = [graph(8 + seed, 30 + seed, seed) for seed in range(4)]
    with torch.no_grad():
        expected = [model(*given) for given in graphs]

    def run(given: tuple[Tensor, ...]) -> list[Tensor]:
        with torch.no_grad():
            return [scripted(*given) for _ in range(40)]

    assert right_in_threads([functools.partial(run, given) for given in graphs], expected)


def test_what_is_known_ends_with_forward() -> None:
    ops = torch.ops.gnnscript
    unknown, index = torch.empty(0), torch.arange(4)
    none = [None] * 3

    def find(key: str = "key", numbers: tuple[int, ...] = (4,), given: Tensor = index) -> Any:
        return ops.find_known(unknown, key, numbers, given, *none)

    for active in (True, False):
        ops.share_plans(unknown, active)
        assert find() == []
        made = torch.ones(2)
        assert ops.keep_known(unknown, "key", [4], index, *none, made, *none)
        assert [m.data_ptr() for m in find()] == ([made.data_ptr()] if active else [])
        assert find("other") == find(numbers=(5,)) == find(given=index[:3]) == []
        assert find(given=index.view(2, 2)) == find(given=index.clone()) == []
        index.add_(1)
        assert find() == []
    assert find(given=index.to("meta")) == []
