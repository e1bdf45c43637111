"""Layers of the values at the ends of edges, outside of convs: moved to the nodes, and equal."""

from __future__ import annotations

import re
from typing import Tuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GCNConv
from torch_geometric.nn import Linear as PyGLinear

import gnnscript
from gnnscript.ops.ends import edge_layer, has_edge_layer
from gnnscript.testing import BareProcess, assert_scripts_like_eager

pytestmark = pytest.mark.usefixtures("native", "auto")


class Base(nn.Module):
    """A conv, so that the model is specialised, and what the classes below make of its values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(3, 4)
        self.encode = nn.Linear(2, 3)
        self.spread = nn.Linear(3, 4)
        self.lin = nn.Linear(8, 5)
        self.wide = nn.Linear(11, 5, bias=False)
        self.plain = PyGLinear(8, 5)
        self.mlp = nn.Sequential(nn.Linear(8, 5), nn.ELU(), nn.Linear(5, 2), nn.ReLU(inplace=True))
        self.normed = nn.Sequential(nn.Linear(8, 5), nn.BatchNorm1d(5), nn.Tanh())


class Classifier(Base):
    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
        h = self.conv(x, edge_index)
        ends = torch.cat([h[edge_index[0]], h[edge_index[1]]], dim=1)
        return self.mlp(ends)


class Named(Base):
    """Names for all, one of them used again, and a layer of edge features in between."""

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tuple[Tensor, Tensor]:
        x = self.conv(x, edge_index).relu()
        row, col = edge_index
        src, dst = x[row], x[col]
        x = torch.cat((src, self.encode(e), dst), dim=-1)
        x = self.wide(x).tanh()
        return x, src


class Inline(Base):
    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
        row, col = edge_index[0], edge_index[1]
        a = self.normed(torch.cat([self.spread(x)[row], self.spread(x)[col]], -1))
        return a + self.plain(torch.cat([x[row], x[row, 1:], x[col]], dim=1))


class Functional(Base):
    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
        h = self.conv(x, edge_index)
        z = torch.cat([h[edge_index[1]], h[edge_index[1]]], dim=1)
        return F.linear(z, self.lin.weight, self.lin.bias)


class Choosing(Base):
    """A block of its own, and values that are read twice."""

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
        h = self.conv(x, edge_index)
        if h.size(0) > 7:
            z = torch.cat([h[edge_index[0]], h[edge_index[1]]], dim=1)
            out = self.lin(z)
        else:
            z = torch.cat([h[edge_index[1]], h[edge_index[0]]], dim=1)
            out = self.lin(z) + z[:, :5]
        for _ in range(2):
            z = torch.cat([h[edge_index[0]], h[edge_index[1]]], dim=1)
            z = self.lin(z)
            out = out + z
        return out


class Masked(Base):
    """What stands in the brackets is a mask: as many rows as there are true values."""

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
        h = self.conv(x, edge_index)
        mask = x[:, 0] > 0
        return self.lin(torch.cat([h[mask], h[mask]], dim=1))


class Negative(Base):
    """Indices that count from the last, and tensors of more dimensions."""

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tuple[Tensor, Tensor]:
        h = self.conv(x, edge_index)
        back = -1 - edge_index[0]
        first = self.lin(torch.cat([h[back], h[edge_index[1]]], dim=1))
        deep = h.unsqueeze(1)
        return first, self.lin(torch.cat([deep[edge_index[0]], deep[edge_index[1]]], dim=-1))


class Changing(Base):
    """The values change before the layer reads what was made of them."""

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
        h = self.conv(x, edge_index).detach()
        row, col = edge_index[0], edge_index[1]
        ends = torch.cat([h[row], h[col]], dim=1)
        h.mul_(2.0)
        first = self.lin(ends)
        ends = torch.cat([h[row], h[col]], dim=1)
        h += 1.0
        second = self.lin(ends)
        ends = torch.cat([h[row], h[col]], dim=1)
        row = col
        return first + second + self.lin(ends) + h[row].sum()


MOVED = {"Classifier": 1, "Named": 1, "Inline": 1, "Functional": 1, "Choosing": 1}
KEPT = {"Masked": 1, "Negative": 2, "Changing": 0}
MODELS = (Classifier, Named, Inline, Functional, Choosing, Masked, Negative, Changing)


def graph(nodes: int, edges: int, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(nodes, (2, edges), generator=generator)
    x = torch.randn(nodes, 3, generator=generator)
    return x, edge_index, torch.randn(edges, 2, generator=generator)


@pytest.mark.parametrize("cls", MODELS)
def test_scripted_like_eager(cls: type[nn.Module], bare: BareProcess) -> None:
    graphs = graph(9, 40), graph(6, 31, 1), graph(12, 5, 2), graph(5, 0)
    if cls is Inline:
        graphs = graphs[:2]  # its BatchNorm refuses less than two edges while it trains
    given = [tuple(t.double() if t.is_floating_point() else t for t in call) for call in graphs]
    assert_scripts_like_eager(cls().double(), *given, reload=bare)


@pytest.mark.parametrize("cls", MODELS)
def test_what_is_moved(cls: type[nn.Module]) -> None:
    text = gnnscript.source(cls()).split("def forward(")[1].split("class ")[0]
    assert len(re.findall(r"\bedge_layer\(", text)) == {**MOVED, **KEPT}[cls.__name__]


def test_what_is_moved_is_gathered_nowhere() -> None:
    text = gnnscript.source(Named()).split("def forward(")[1].split("class ")[0]
    assert "src = x[row]" in text  # read again
    assert "dst = " not in text


def test_layers_with_hooks_see_the_edges() -> None:
    model = Classifier()
    seen: list[tuple[int, ...]] = []
    model.mlp[0].register_forward_hook(lambda _, given, __: seen.append(tuple(given[0].shape)))
    text = gnnscript.source(model)
    assert "edge_layer" not in text
    assert "edge_layer" in gnnscript.source(Classifier())


def test_parametrized_layers_stay() -> None:
    model = Classifier()
    nn.utils.parametrizations.weight_norm(model.mlp[0])
    assert "edge_layer" not in gnnscript.source(model)
    assert_scripts_like_eager(model, graph(9, 40), graph(6, 31, 1))


def test_portable_scripts_have_none_of_it() -> None:
    with gnnscript.kernels("portable"):
        assert "edge_layer" not in gnnscript.source(Classifier())


def test_nothing_is_computed_for_each_edge_twice() -> None:
    scripted = torch.jit.script(Classifier().eval())
    x, edge_index, e = graph(30, 400)
    with torch.no_grad(), torch.profiler.profile(record_shapes=True) as profile:
        scripted(x, edge_index, e)
    names = ("aten::linear", "gnnscript::linear")
    layers = [event.input_shapes for event in profile.events() if event.name in names]
    assert [400, 5] in [shapes[0] for shapes in layers]  # the second layer
    assert [400, 8] not in [shapes[0] for shapes in layers]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("indices", [torch.int32, torch.int64])
def test_the_op_is_the_layer(dtype: torch.dtype, indices: torch.dtype) -> None:
    x, edge_index, e = graph(7, 30)
    x, e, edge_index = x.to(dtype), e.to(dtype), edge_index.to(indices)
    weight, bias = torch.randn(4, 11).to(dtype), torch.randn(4).to(dtype)
    row, col = edge_index[0], edge_index[1] - 7
    operands = [x, e, x, x]
    together = torch.cat([x[row], e, x[col], x[row]], 1)
    assert has_edge_layer("ieji", operands, weight, row, col)
    found = edge_layer("relu(i0 + j1 + e2)", "ieji", operands, weight, bias, row, col)
    expected = F.linear(together.double(), weight.double(), bias.double()).relu().to(dtype)
    tolerance = 50 * torch.finfo(dtype).eps
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_gradients_of_the_op() -> None:
    x, edge_index, e = (t.double() if t.is_floating_point() else t for t in graph(4, 9))
    weight = torch.randn(3, 8, dtype=torch.float64)
    given = [t.requires_grad_() for t in (x, e, weight, torch.randn(3, dtype=torch.float64))]

    def layer(x: Tensor, e: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ends = edge_index[0], edge_index[1]
        return edge_layer("tanh(i0 + j1 + e2)", "ije", [x, x, e], weight, bias, *ends)

    assert torch.autograd.gradcheck(layer, given)
    assert torch.autograd.gradgradcheck(layer, given)


def test_an_index_out_of_range_is_refused() -> None:
    x, edge_index, e = graph(6, 20)
    scripted = torch.jit.script(Classifier().eval())
    for wrong in (6, -7):
        edge_index[0, 3] = wrong
        with pytest.raises((IndexError, RuntimeError), match=r"range|bounds"):
            scripted(x, edge_index, e)


def test_exported_for_all_sizes() -> None:
    model = Classifier().eval()
    x, edge_index, e = graph(9, 40)
    sizes = {
        "x": {0: torch.export.Dim("N", min=2, max=1000)},
        "edge_index": {1: torch.export.Dim("E", min=2, max=10_000)},
        "e": {0: torch.export.Dim("E", min=2, max=10_000)},
    }
    exported = torch.export.export(model, (x, edge_index, e), dynamic_shapes=sizes).module()
    for call in (graph(9, 40), graph(50, 7, 1)):
        torch.testing.assert_close(exported(*call), model(*call))
