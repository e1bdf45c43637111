"""What the passes make of messages: fused where it can be, and equal to PyG's eager code."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, GraphConv, SAGEConv, TransformerConv

import gnnscript
from gnnscript.testing import BareProcess, assert_scripts_like_eager
from passes import messages
from passes.messages import CHANGING, FUSED, OTHERS, WIDTH

pytestmark = pytest.mark.usefixtures("native")


def graph(nodes: int, edges: int, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(nodes, WIDTH, generator=generator)
    edge_index = torch.randint(max(nodes - 2, 1), (2, edges), generator=generator)
    return (
        x,
        edge_index,
        torch.randn(edges, WIDTH, generator=generator),
        torch.rand(edges, generator=generator),
    )


def propagate_of(model: nn.Module) -> str:
    """The text of ``propagate``."""
    text = gnnscript.source(model)
    return text.split("def propagate(")[1].split("    # ")[0]


@pytest.mark.parametrize("name", [*FUSED, *OTHERS, *CHANGING])
def test_scripted_like_eager(name: str, bare: BareProcess) -> None:
    cls: Callable[[], nn.Module] = gnnscript.scriptable({**FUSED, **OTHERS, **CHANGING}[name])
    assert_scripts_like_eager(cls(), graph(9, 40), graph(5, 0), graph(12, 31, 1), reload=bare)


@pytest.mark.parametrize("name", FUSED)
def test_fused_messages_have_no_edge_tensors(name: str) -> None:
    text = propagate_of(gnnscript.scriptable(FUSED[name])())
    assert re.search(r"\bedge_(aggregate(_layers)?|attend)\(", text)
    assert not re.search(r"\b(gather|scatter)\(", text)


@pytest.mark.parametrize("aggr", ["sum", "mean", "min", "max", "mul"])
def test_each_reduction(aggr: str) -> None:
    cls = gnnscript.scriptable(messages.Gated)
    model = cls(aggr).double()
    assert f"reduce='{aggr}'" in propagate_of(model) or aggr == "sum"
    graphs = [
        tuple(t.double() if t.is_floating_point() else t for t in graph(*size))
        for size in ((7, 30), (9, 12))
    ]
    assert_scripts_like_eager(model, *graphs)


def test_linear_layers_leave_the_edges() -> None:
    text = propagate_of(gnnscript.scriptable(messages.Perceptron)())
    assert "'elu(i0 + j1 + e2, 1.0)'" in text
    assert "self.net[2].weight)" in text.split("edge_aggregate_layers(")[1]  # behind the sum
    assert "self.net(" not in text


@pytest.mark.parametrize("aggr", ["sum", "mean", "max"])
def test_layers_of_edge_features_run_on_some_edges_at_a_time(aggr: str) -> None:
    model = gnnscript.scriptable(messages.Lifted)(aggr).double().eval()
    text = propagate_of(model)
    assert "'relu(j0 + (e1 + s5)) * sigmoid(i2 + e3) * e4'" in text
    given = [t.double() if t.is_floating_point() else t for t in graph(900, 40_000)]
    given[1][1, 100:20_000] = 3  # a hub that is more than a block
    scripted = torch.jit.script(model)
    with torch.no_grad():
        expected = model(*given)
        for _ in range(3):
            torch.testing.assert_close(scripted(*given), expected)
        assert str(torch.jit.last_executed_optimized_graph()).count("prim::Loop") > 0


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("aggr", ["sum", "mean", "max"])
def test_no_edge_has_a_matrix_of_its_own(aggr: str, left: bool) -> None:
    model = gnnscript.scriptable(messages.Matrices)(aggr, left).double()
    text = propagate_of(model)
    assert ("edge_products('j0', [x], " in text) == (aggr != "max")
    assert ("self.net(" in text or "matmul" in text or " @ " in text) == (aggr == "max")
    graphs = [
        tuple(t.double() if t.is_floating_point() else t for t in graph(*size))
        for size in ((7, 30), (9, 12))
    ]
    assert_scripts_like_eager(model, *graphs)


def test_a_maximum_is_taken_before_what_rises() -> None:
    text = propagate_of(gnnscript.scriptable(messages.Squashed)())
    assert "self.net[3](" in text
    assert text.index("scatter(") > text.index("edge_values('relu(i0 + j1)'")


def test_what_sees_every_edge_stays() -> None:
    text = propagate_of(gnnscript.scriptable(messages.Normed)())
    assert "edge_values('i0 + j1'" in text
    assert "self.net[1](values)" in text
    assert "self.net[3](" in text


def test_changes_in_place_are_left_alone() -> None:
    text = propagate_of(gnnscript.scriptable(messages.Changing)())
    assert "gather(" in text
    assert "edge_aggregate(" not in text


def test_portable_scripts_have_none_of_it() -> None:
    with gnnscript.kernels("portable"):
        text = gnnscript.source(gnnscript.scriptable(messages.Weighted)())
    assert "gnnscript.ops.portable" in text
    assert "native" not in text
    assert "fused" not in text


def test_a_layer_sorts_the_edges_once() -> None:
    scripted = torch.jit.script(gnnscript.scriptable(messages.Attention)())
    with torch.no_grad():  # for the softmax and for the sum
        assert [sorts(scripted, *graph(9, 40)) for _ in range(3)] == [1] * 3


class Layers(nn.Module):
    """Layers of several kinds, on the edges that they are given."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, edge_index).relu()
        return x


class Rewired(Layers):
    """The edges are written to between two layers, and so are other edges."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        edge_index = edge_index.clone()
        for layer in self.layers:
            x = layer(x, edge_index)
            edge_index[1] = edge_index[1].roll(1)
        return x


def sorts(model: nn.Module, *given: Tensor) -> int:
    """How many times a call sorts edges: what it finds sorted takes no memory."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        model(*given)
    calls = [e for e in profile.events() if e.name in ("gnnscript::csr", "gnnscript::shared_csr")]
    return sum(any("empty" in child.name for child in call.cpu_children) for call in calls)


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize(
    ("layers", "distinct"),
    [
        ([SAGEConv(4, 4), SAGEConv(4, 4, "max"), GraphConv(4, 4), TransformerConv(4, 4)] * 2, 1),
        ([GCNConv(4, 4, add_self_loops=False)] * 3, 1),
        ([GCNConv(4, 4), GCNConv(4, 4), GCNConv(4, 4)], 1),  # self-loops are added once
        ([GATConv(4, 2, 2, add_self_loops=False), GATConv(4, 2, 2, add_self_loops=False)], 1),
    ],
    ids=["mixed", "gcn", "self-loops", "gat"],
)
@pytest.mark.filterwarnings("ignore:.*profil:UserWarning")
def test_layers_sort_the_same_edges_once(
    layers: list[nn.Module], distinct: int, tmp_path: Path
) -> None:
    model = Layers(*layers)
    given = torch.randn(9, 4), torch.randint(9, (2, 40))
    scripted = torch.jit.script(model)
    scripted.save(tmp_path / "model.pt")
    frozen = torch.jit.freeze(torch.jit.script(model.eval()))
    for ready in (scripted, torch.jit.load(tmp_path / "model.pt"), frozen):
        for gradients in (False, True):
            with torch.set_grad_enabled(gradients):
                assert [sorts(ready, *given) for _ in range(3)] == [distinct] * 3
    torch.testing.assert_close(scripted(*given), model(*given))


@pytest.mark.usefixtures("auto")
def test_edges_that_are_written_to_are_sorted_again(bare: BareProcess) -> None:
    model = Rewired(GraphConv(4, 4), SAGEConv(4, 4), GraphConv(4, 4))
    graphs = [(torch.randn(n, 4), torch.randint(n, (2, e))) for n, e in ((9, 40), (5, 0), (12, 31))]
    scripted = assert_scripts_like_eager(model, *graphs, gradients=False, reload=bare)
    with torch.inference_mode():  # where tensors have no versions
        torch.testing.assert_close(scripted(*graphs[0]), model(*graphs[0]))


def test_what_is_sorted_is_forgotten_behind_a_forward() -> None:
    index = torch.tensor([1, 0, 1])
    ops = torch.ops.gnnscript
    for active in (True, False):
        ops.share_plans(torch.empty(0), active)
        first, second, longer = (ops.shared_csr(index, size) for size in (2, 2, 3))
        assert (first[1].data_ptr() == second[1].data_ptr()) == active
        assert longer[0].tolist() == [0, 1, 3, 3]
    with pytest.raises(IndexError, match="index"):
        ops.shared_csr(index, 1)


class Force(nn.Module):
    """The gradient of an energy, as force fields compute it inside of their forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(3, 2)

    def forward(self, pos: Tensor, edge_index: Tensor) -> Tensor:
        with torch.enable_grad():
            pos = pos.detach().requires_grad_(True)
            energy = self.conv(pos, edge_index).square().sum()
            (force,) = torch.autograd.grad([energy], [pos])
        assert force is not None
        return -force


@pytest.mark.usefixtures("auto")
def test_models_that_take_gradients_do_so_where_there_is_no_python(bare: BareProcess) -> None:
    model = Force()
    call = torch.randn(6, 3), torch.randint(6, (2, 20))
    scripted = torch.jit.script(model)
    torch.testing.assert_close(scripted(*call), model(*call))
    torch.testing.assert_close(bare.run(scripted, [call])[0], model(*call))
