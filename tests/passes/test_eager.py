"""Eager calls under ``import gnnscript.auto``: faster, and otherwise as if it were not there."""

from __future__ import annotations

import copy
import dataclasses
import enum
import io
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv, GCNConv, GINEConv, MessagePassing, SAGEConv

import gnnscript
from gnnscript.script import eager
from passes.messages import CHANGING, FUSED, OTHERS
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


def runs_native(model: nn.Module, *inputs: Tensor) -> bool:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        model(*inputs)
    return any(event.name.startswith("gnnscript::") for event in profile.events() or ())


def results(model: nn.Module, *inputs: Tensor) -> list[Tensor]:
    leaves = [t.clone().requires_grad_(t.is_floating_point()) for t in inputs]
    torch.manual_seed(1)
    out = model(*leaves)
    if not out.requires_grad:  # messages of integers
        return [out]
    parameters = [*(t for t in leaves if t.requires_grad), *model.parameters()]
    gradients = torch.autograd.grad(out.square().sum(), parameters, allow_unused=True)
    return [out, *(g if g is not None else out.new_zeros(()) for g in gradients)]


def assert_same(model: nn.Module, *inputs: Tensor) -> None:
    with gnnscript.kernels("portable"):
        expected = results(model, *inputs)
    for a, b in zip(results(model, *inputs), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*FUSED, *OTHERS, *CHANGING])
def test_same_results_and_gradients(name: str, outcomes: list[bool]) -> None:
    model = {**FUSED, **OTHERS, **CHANGING}[name]().eval()
    for inputs in (graph(9, 40), graph(12, 31, 1), graph(5, 0)):
        assert_same(model, *inputs)
    assert outcomes == [name not in CHANGING] * 3


@pytest.mark.parametrize("name", [*FUSED, *OTHERS])
def test_autocast_leads_to_the_same_dtype(name: str) -> None:
    model = {**FUSED, **OTHERS}[name]().eval()
    inputs = graph(9, 40)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        with gnnscript.kernels("portable"):
            expected = model(*inputs)
        found = model(*inputs)
    assert found.dtype == expected.dtype
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02 * scale)


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


SLOPE = 0.5


class Kind(enum.Enum):
    PLAIN = 0
    SQUARED = 1


@dataclasses.dataclass
class Config:
    slope: float = 0.5
    kind: Kind = Kind.PLAIN


class Configured(MessagePassing):
    """Configuration in every place that Python has for it."""

    offset = 0.5

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.options = {"scale": 2.0}
        self.kind = Kind.PLAIN
        self.limit = np.float32(1.5)
        self.dtype = torch.float32
        self.register_buffer("bound", None)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)

    def factor(self) -> float:
        return 1.0

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        out = F.leaky_relu(x_j - x_i, self.config.slope) * self.options["scale"] * SLOPE
        out = (out + self.offset) * self.factor() * float(self.limit)
        if Kind.SQUARED in (self.kind, self.config.kind):
            out = out * out
        if self.bound is not None:
            out = out * self.bound
        return out.to(self.dtype)


CHANGES: dict[str, Any] = {
    "field": lambda conv: setattr(conv.config, "slope", 0.1),
    "object": lambda conv: setattr(conv, "config", Config(kind=Kind.SQUARED)),
    "dict": lambda conv: conv.options.update(scale=3.0),
    "enum": lambda conv: setattr(conv, "kind", Kind.SQUARED),
    "number": lambda conv: setattr(conv, "limit", np.float32(0.5)),
    "dtype": lambda conv: setattr(conv, "dtype", torch.float64),
    "buffer": lambda conv: setattr(conv, "bound", torch.rand(6)),
}


@pytest.mark.parametrize("name", [*CHANGES, "global", "class", "method"])
def test_changed_configuration_is_seen_wherever_it_stands(
    name: str, outcomes: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Configured(Config())
    x, edge_index, _, _ = graph(9, 40)
    before = model(x, edge_index)
    assert outcomes == [True]
    if name == "global":
        monkeypatch.setitem(globals(), "SLOPE", 0.7)
    elif name == "class":
        monkeypatch.setattr(Configured, "offset", 0.1)
    elif name == "method":
        monkeypatch.setattr(Configured, "factor", lambda self: 3.0)
    else:
        CHANGES[name](model)
    assert_same(model, x, edge_index)
    after = model(x, edge_index)
    assert after.dtype != before.dtype or not torch.allclose(after, before)


def test_convs_of_one_class_and_other_objects_have_their_own_code() -> None:
    x, edge_index, _, _ = graph(9, 40)
    for config in (Config(0.1), Config(0.9), Config(0.9, Kind.SQUARED)):
        assert_same(Configured(config), x, edge_index)


def test_watched_calls_run_as_pyg_has_them(outcomes: list[bool]) -> None:
    x, edge_index, _, _ = graph(9, 40)
    model = SAGEConv(6, 4)
    seen = []
    handle = model.register_message_forward_hook(lambda *_: seen.append(1))
    model(x, edge_index)
    assert seen == [1]
    assert outcomes == []
    handle.remove()
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


@pytest.mark.parametrize("make", [
    lambda: SAGEConv(-1, 4), lambda: SAGEConv((-1, -1), 4), lambda: GATv2Conv(-1, 4),
])  # fmt: skip
def test_lazy_layers_find_their_shape(make: Any) -> None:
    conv = make()
    x, edge_index = torch.randn(5, 8), torch.randint(5, (2, 9))
    out = conv(x, edge_index)
    with gnnscript.kernels("portable"):
        torch.testing.assert_close(out, conv(x, edge_index))
    torch.testing.assert_close(conv(x, edge_index), out)
    assert not any(torch.nn.parameter.is_lazy(p) for p in conv.parameters())


def test_small_calls_are_left_to_pyg_unless_native_ops_are_asked_for() -> None:
    """What is small depends on the values on edges, and on what PyG does with each."""
    x, few, _, _ = graph(9, 40)
    many, most = graph(9, 8_000)[1], graph(9, 24_000)[1]
    total, largest = SAGEConv(6, 4), SAGEConv(6, 4, aggr="max")
    with gnnscript.kernels(None), torch.no_grad():
        assert not runs_native(total, x, few)
        assert not runs_native(total, x, many)
        assert runs_native(total, x, most)
        assert runs_native(largest, x, many)
    with gnnscript.kernels(None):
        assert not runs_native(total, x, most)  # gradients have a price of their own
    assert runs_native(total, x, few)
