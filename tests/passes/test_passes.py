"""What the passes make of messages: fused where it can be, and equal to PyG's eager code."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

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
    assert re.search(r"\bedge_aggregate(_layers)?\(", text)
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
    inputs = graph(9, 40)
    with torch.no_grad():
        for _ in range(3):
            scripted(*inputs)
        plan = torch.jit.last_executed_optimized_graph()
    assert str(plan).count("gnnscript::csr") == 1  # for the softmax and for the sum


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
