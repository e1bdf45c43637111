"""Eager calls under ``import gnnscript.auto``: faster, and otherwise as if it were not there."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.nn import GATv2Conv, GCNConv, GINEConv, SAGEConv

import gnnscript
from gnnscript.script import eager
from passes.messages import FUSED, OTHERS
from passes.test_passes import graph

pytestmark = pytest.mark.usefixtures("native", "auto")


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each eager call, whether it ran on the native ops."""
    seen: list[bool] = []
    find = eager._find

    def spy(*args: Any) -> Any:
        found = find(*args)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(eager, "_find", spy)
    return seen


def results(model: nn.Module, *inputs: Tensor) -> list[Tensor]:
    leaves = [t.clone().requires_grad_(t.is_floating_point()) for t in inputs]
    torch.manual_seed(1)
    out = model(*leaves)
    parameters = [*(t for t in leaves if t.requires_grad), *model.parameters()]
    gradients = torch.autograd.grad(out.square().sum(), parameters, allow_unused=True)
    return [out, *(g if g is not None else out.new_zeros(()) for g in gradients)]


def assert_same(model: nn.Module, *inputs: Tensor) -> None:
    with gnnscript.kernels("portable"):
        expected = results(model, *inputs)
    for a, b in zip(results(model, *inputs), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*FUSED, *OTHERS])
def test_same_results_and_gradients(name: str, outcomes: list[bool]) -> None:
    model = {**FUSED, **OTHERS}[name]().eval()
    for inputs in (graph(9, 40), graph(12, 31, 1), graph(5, 0)):
        assert_same(model, *inputs)
    assert outcomes == [name != "changing"] * 3


@pytest.mark.parametrize(
    "make",
    [lambda: GCNConv(6, 4), lambda: SAGEConv(6, 4, aggr="max"), lambda: GATv2Conv(6, 4, heads=2)],
    ids=["GCNConv", "SAGEConv", "GATv2Conv"],
)
def test_convs_of_pyg(make: Any, outcomes: list[bool]) -> None:
    x, edge_index, _, _ = graph(9, 40)
    assert_same(make(), x, edge_index)
    assert outcomes
    assert all(outcomes)


def test_configuration_that_changes_is_seen() -> None:
    model = GATv2Conv(6, 4, negative_slope=0.2)
    x, edge_index, _, _ = graph(9, 40)
    model(x, edge_index)
    model.negative_slope = 0.9
    assert_same(model, x, edge_index)
    net = GINEConv(nn.Sequential(nn.Linear(6, 4), nn.ReLU()), edge_dim=6)
    e = graph(9, 40)[2]
    assert_same(net, x, edge_index, e)
    net.nn = nn.Sequential(nn.Linear(6, 3))
    assert_same(net, x, edge_index, e)


def test_watched_calls_run_as_pyg_has_them(outcomes: list[bool]) -> None:
    x, edge_index, _, _ = graph(9, 40)
    model = SAGEConv(6, 4)
    seen = []
    handle = model.register_message_forward_hook(lambda *_: seen.append(1))
    model(x, edge_index)
    assert seen == [1]
    assert outcomes == []
    handle.remove()
    model(x, EdgeIndex(edge_index, sparse_size=(9, 9)))
    assert outcomes == []
    model(x, edge_index)
    assert outcomes == [True]


def test_errors_are_those_of_pyg() -> None:
    x, edge_index, _, _ = graph(9, 40)
    edge_index[0, 3] = 99
    model = SAGEConv(6, 4)
    with gnnscript.kernels("portable"), pytest.raises(IndexError) as expected:
        model(x, edge_index)
    with pytest.raises(IndexError) as found:
        model(x, edge_index)
    assert str(found.value) == str(expected.value)


def test_models_are_copied_and_pickled_as_before() -> None:
    x, edge_index, _, _ = graph(9, 40)
    model = SAGEConv(6, 4)
    before = model(x, edge_index)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        torch.testing.assert_close(other(x, edge_index), before)


def test_second_gradients() -> None:
    x, edge_index, e, w = graph(6, 14)
    model = FUSED["gated"]().double()
    leaf = x.double().requires_grad_()

    def energy(h: Tensor) -> Tensor:
        return model(h, edge_index, e.double(), w.double())

    assert torch.autograd.gradgradcheck(energy, (leaf,))
