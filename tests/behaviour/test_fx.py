"""``gnnscript.fx.symbolic_trace``: what the graph holds, asserts, shares and refuses."""

from __future__ import annotations

import io
import math
import operator
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import (
    GAT,
    DeepGCNLayer,
    GATConv,
    GCNConv,
    MessagePassing,
    SAGEConv,
    TAGConv,
    TransformerConv,
)
from torch_geometric.utils import cumsum

import gnnscript.fx
from behaviour.models import Projecting
from conformance.forms import Attention, Plain
from conformance.graphs import GRAPHS, IN, OUT
from gnnscript import UnsupportedError
from gnnscript.ops import portable
from gnnscript.testing import BareProcess

# What torch says of every GraphModule that is scripted: GraphModule's own __init__ is annotated so.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The TorchScript type system doesn't support instance-level annotations:UserWarning"
)
FIRST, SECOND = ((g.x, g.edge_index) for g in GRAPHS)


def targets(graph: torch.fx.GraphModule) -> list[Any]:
    return [node.target for node in graph.graph.nodes]


def compare(model: nn.Module, graph: nn.Module, *calls: tuple[Any, ...]) -> None:
    for call in calls or (FIRST, SECOND):
        torch.testing.assert_close(graph(*call), model(*call))


def test_gather_and_reduction_are_nodes_and_no_conv_is_left(bare: BareProcess) -> None:
    model = GAT(IN, 8, 2, OUT, heads=2, v2=True, norm="BatchNorm").eval()
    graph = gnnscript.fx.symbolic_trace(model, FIRST)
    assert {portable.gather, portable.scatter, portable.softmax} <= set(targets(graph))
    assert not [m for m in graph.modules() if isinstance(m, MessagePassing)]
    compare(model, graph)
    scripted = torch.jit.script(graph)
    compare(model, scripted)
    for call, got in zip((FIRST, SECOND), bare.run(scripted, [FIRST, SECOND]), strict=True):
        torch.testing.assert_close(got, model(*call).detach())


def test_examples_are_not_needed_where_nothing_is_to_decide() -> None:
    for conv in (GCNConv(IN, OUT), SAGEConv(IN, OUT), TAGConv(IN, OUT)):
        compare(conv, gnnscript.fx.symbolic_trace(conv))


def test_parameters_are_shared_and_gradients_reach_them() -> None:
    model = GCNConv(IN, OUT)
    graph = gnnscript.fx.symbolic_trace(model, FIRST)
    assert dict(graph.named_parameters()) == dict(model.named_parameters())
    graph(*SECOND).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model(*SECOND).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


def test_the_mode_is_read_when_the_graph_runs() -> None:
    model = GCNConv(IN, OUT)
    network = Dropping(model).eval()
    graph = gnnscript.fx.symbolic_trace(network, FIRST)
    assert not graph.training
    compare(network, graph)
    graph.train()
    torch.manual_seed(3)
    dropped = graph(*FIRST)
    assert (dropped == 0).sum() > 0
    network.train()
    torch.manual_seed(3)
    torch.testing.assert_close(network(*FIRST), dropped)


class Dropping(nn.Module):
    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return F.dropout(self.conv(x, edge_index), 0.5, self.training)


class ByRank(Projecting):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if x.dim() == 1:
            x = x.unsqueeze(-1).expand(-1, 8)
        return self.propagate(edge_index, x=self.lin(x))


def test_what_the_examples_decide_is_asserted() -> None:
    model = ByRank()
    graph = gnnscript.fx.symbolic_trace(model, FIRST)
    assert torch._assert in targets(graph)
    compare(model, graph)
    with pytest.raises(AssertionError, match=r"test_fx\.py:\d+: the graph was traced where"):
        graph(torch.ones(7), FIRST[1])
    scripted = torch.jit.script(graph)
    compare(model, scripted)
    with pytest.raises(torch.jit.Error, match="the graph was traced where"):
        scripted(torch.ones(7), FIRST[1])


def test_without_examples_it_says_what_it_needs() -> None:
    with pytest.raises(UnsupportedError) as caught:
        gnnscript.fx.symbolic_trace(ByRank())
    assert "pass example_inputs" in caught.value.remedy
    assert caught.value.location is not None
    assert caught.value.location.code == "if x.dim() == 1:"


class ByValue(Projecting):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if float(x.max()) > 3:
            x = x / x.max()
        return self.propagate(edge_index, x=self.lin(x))


class Checking(Projecting):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if bool(x.isnan().any()):
            raise ValueError("nan")
        assert int(edge_index.max()) < x.size(0)
        return self.propagate(edge_index, x=self.lin(x))


def test_branches_on_values_are_refused_with_their_line() -> None:
    with pytest.raises(UnsupportedError, match="values that a tensor holds") as caught:
        gnnscript.fx.symbolic_trace(ByValue(), FIRST)
    assert caught.value.location.code == "if float(x.max()) > 3:"


def test_checks_of_values_become_assertions() -> None:
    model = Checking()
    graph = gnnscript.fx.symbolic_trace(model, FIRST)
    compare(model, graph)
    compare(model, torch.jit.script(graph))
    with pytest.raises(AssertionError, match="traced where"):
        graph(FIRST[0] * torch.nan, FIRST[1])
    with pytest.raises(AssertionError, match="traced where"):
        graph(FIRST[0][:3], FIRST[1])


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(IN, OUT)
        self.calls = {"all": 0}

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.calls["all"] += 1
        return self.conv(x, edge_index) * self.calls["all"]


def test_caches_are_those_of_the_example() -> None:
    conv = GCNConv(IN, OUT, cached=True)
    graph = gnnscript.fx.symbolic_trace(conv, FIRST)
    assert conv._cached_edge_index is None  # the eager model is not called
    for x in (FIRST[0], FIRST[0] * 2):
        torch.testing.assert_close(graph(x, FIRST[1]), conv(x, FIRST[1]))
    torch.testing.assert_close(torch.jit.script(graph)(*FIRST), conv(*FIRST))


def test_state_is_refused_and_passing_notes_are_not() -> None:
    with pytest.raises(UnsupportedError, match="'calls' is kept from one call") as caught:
        gnnscript.fx.symbolic_trace(Counting(), FIRST)
    assert caught.value.location.code == 'self.calls["all"] += 1'
    conv = TransformerConv(IN, OUT)  # keeps attention weights while it runs
    compare(conv, gnnscript.fx.symbolic_trace(conv, FIRST))


def test_options_are_fixed_by_the_examples() -> None:
    conv = GATConv(IN, OUT)
    call = {"x": FIRST[0], "edge_index": FIRST[1], "return_attention_weights": True}
    graph = gnnscript.fx.symbolic_trace(conv, call)
    assert [n.target for n in graph.graph.find_nodes(op="placeholder")] == ["x", "edge_index"]
    torch.testing.assert_close(graph(*SECOND), conv(*SECOND, return_attention_weights=True))
    torch.testing.assert_close(torch.jit.script(graph)(*SECOND), graph(*SECOND))
    model = Attention(conv)
    compare(model, gnnscript.fx.symbolic_trace(model, FIRST))


def test_arguments_that_are_no_tensors_stay_arguments() -> None:
    conv = SAGEConv((IN, IN), OUT)
    g, h = GRAPHS
    graph = gnnscript.fx.symbolic_trace(
        conv, ((g.x, g.x_dst), g.bipartite, (g.x.size(0), g.x_dst.size(0)))
    )
    call = ((h.x, h.x_dst), h.bipartite, (h.x.size(0), h.x_dst.size(0)))
    compare(conv, graph, call)
    compare(conv, torch.jit.script(graph), call)


class InPlace(Projecting):
    """Writes into tensors in all ways that conv code does."""

    def forward(self, x: Tensor, edge_index: Tensor, scale: int) -> Dict[str, Tensor]:
        out = torch.zeros(x.size(0), 8)
        out += x * scale
        out[:, 0] = 1
        out[1] = x[0]
        out[out > 2] = 2.0
        out[out[:, 1] < 0] = 0.5
        out[edge_index[0]] = x[edge_index[1]]
        columns = torch.tensor([2, 5])
        out[edge_index[0], 1:3] = x[edge_index[1], :2] * 2
        out[out[:, 3] < 0, 4:] = 0.25
        out[..., columns] = 1.5
        out[2:, columns] = x[2:, :2]
        out[1, columns] = 0.75
        count = x.size(0)
        total = count
        total += 1
        out -= count / total
        with torch.no_grad():
            norm = out.norm(dim=-1, keepdim=True)
        return {"out": self.propagate(edge_index, x=self.lin(out) / norm), "norm": norm}


def test_tensors_are_written_in_place_and_examples_are_not() -> None:
    model = InPlace()
    before = [tensor.clone() for tensor in FIRST]
    graph = gnnscript.fx.symbolic_trace(model, (*FIRST, 2))
    torch.testing.assert_close(list(FIRST), before)
    # With edges that name each target once: index_put_ keeps any of several values.
    ring = torch.stack([torch.arange(9), torch.arange(9).roll(1)])
    call = (torch.randn(9, IN), ring, 3)
    compare(model, graph, call)
    compare(model, torch.jit.script(graph), call)
    assert not graph(*call)["norm"].requires_grad
    assert operator.iadd in targets(graph)


class Shapes(nn.Module):
    """Puts shapes together from tuples, lists and other shapes, and writes into slices."""

    def forward(self, x: Tensor, index: Tensor, size: Optional[int] = None) -> Tensor:
        shape = x.size()[:1] + (x.size(1) + 1,) + x.size()[2:]  # noqa: RUF005
        out = x.new_zeros(shape)
        out[:, index] = 1.0
        out[:, -1] = x.new_ones((size or 0,)).sum()
        view = (1,) * (x.dim() - 1) + (-1,) + x.shape[2:]
        weight = cumsum(x[0]).view(view)
        out = out * weight / math.sqrt(x.size(-1))
        return out.reshape([-1] + list(x.size()[1:1]))  # noqa: RUF005


@pytest.mark.usefixtures("auto")
def test_shapes_are_put_together_at_every_door() -> None:
    calls = [(g.x, torch.tensor([0, 2]), g.x.size(0)) for g in GRAPHS]
    report = gnnscript.check(Shapes(), calls)
    assert report.ok, str(report)


def test_arguments_that_are_passed_on_have_the_names_of_those_that_take_them() -> None:
    layer = DeepGCNLayer(SAGEConv(IN, IN), nn.LayerNorm(IN), nn.ReLU(), block="res+")
    graph = gnnscript.fx.symbolic_trace(layer.eval(), FIRST)
    assert [n.target for n in graph.graph.find_nodes(op="placeholder")] == ["x", "edge_index"]
    compare(layer, graph)


def test_running_the_example_changes_no_statistics() -> None:
    model = Normed()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    graph = gnnscript.fx.symbolic_trace(model, FIRST)
    torch.testing.assert_close(model.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), state)
    compare(model.eval(), graph.eval())


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(IN, OUT)
        self.head = nn.Sequential(nn.BatchNorm1d(OUT), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, x: Tensor, edge_index: Tensor, scale: Optional[Tensor] = None) -> Tensor:
        out = self.head(self.conv(x, edge_index))
        return out if scale is None else out * scale


def test_an_optional_argument_is_there_if_the_example_has_it() -> None:
    model = Normed().eval()
    compare(model, gnnscript.fx.symbolic_trace(model))
    scaled = gnnscript.fx.symbolic_trace(model, (*FIRST, torch.ones(OUT)))
    compare(model, scaled, (*SECOND, torch.rand(OUT)))
    with pytest.raises(TypeError):
        gnnscript.fx.symbolic_trace(model)(*FIRST, torch.ones(OUT))


def test_graphs_are_saved_and_loaded(tmp_path: Path) -> None:
    model = Plain(GATConv(IN, OUT, heads=2)).eval()
    graph = gnnscript.fx.symbolic_trace(model, FIRST)
    torch.save(graph, tmp_path / "graph.pt")
    compare(model, torch.load(tmp_path / "graph.pt", weights_only=False))
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(graph), file)
    file.seek(0)
    compare(model, torch.jit.load(file))


def test_passes_of_torch_work_on_the_graph() -> None:
    model = Normed().eval()
    graph = gnnscript.fx.symbolic_trace(model, FIRST)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    compare(model, graph)
    replaced = torch.fx.subgraph_rewriter.replace_pattern(
        graph, lambda x: x.relu() + 0, lambda x: x.sigmoid() + 0
    )
    assert isinstance(replaced, list)
    shapes = torch.fx.passes.shape_prop.ShapeProp(graph)
    shapes.propagate(*FIRST)
    assert all("tensor_meta" in n.meta for n in graph.graph.nodes if n.target is portable.gather)


class PairModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(IN, OUT)

    def forward(self, x: Tuple[Tensor, Tensor], edge_index: Tensor) -> Tensor:
        first, second = x
        return self.conv((first, second), edge_index)


def test_tuples_are_unpacked_without_examples() -> None:
    model = PairModel()
    g = GRAPHS[1]
    call = ((g.x, g.x_dst), g.bipartite)
    compare(model, gnnscript.fx.symbolic_trace(model, call), call)


class Pairs(nn.Module):
    """Works on the pairs of edges that meet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(IN, OUT)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        meet = edge_index[1].unsqueeze(1) == edge_index[0]
        first, second = meet.nonzero(as_tuple=True)
        x = self.conv(x, edge_index)
        return x[edge_index[0, first]] - x[edge_index[1, second]]


def test_as_many_indices_as_dimensions_are_unpacked() -> None:
    """Though how many there are in each depends on values."""
    model = Pairs()
    compare(model, gnnscript.fx.symbolic_trace(model, FIRST))


def test_a_model_without_pyg_is_traced_too() -> None:
    model = nn.Sequential(nn.Linear(IN, 4), nn.ReLU())
    compare(model, gnnscript.fx.symbolic_trace(model), (FIRST[0],))


class Scores(nn.Module):
    """Takes what a plain module gives, which does not say of what type that is, as an entry."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = SAGEConv(IN, 4), Head()

    def forward(self, x: Tensor, edge_index: Tensor) -> Dict[str, Tensor]:
        return {"score": self.head(self.conv(x, edge_index))}


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 1)

    def forward(self, x):
        return self.lin(x).view(-1)


def test_plain_modules_are_traced_where_their_type_is_needed() -> None:
    model = Scores()
    compare(model, gnnscript.fx.symbolic_trace(model, FIRST))
