"""Several aggregations of one message, and scatters into tensors that the code has made."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing, PNAConv
from torch_geometric.nn.aggr import DegreeScalerAggregation
from torch_geometric.utils import degree

import gnnscript
from gnnscript.testing import BareProcess, assert_scripts_like_eager

pytestmark = pytest.mark.usefixtures("native", "auto")

WIDTH = 4


def graph(nodes: int, edges: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(nodes)
    x = torch.randn(nodes, WIDTH, generator=generator)
    edge_index = torch.randint(max(nodes - 2, 1), (2, edges), generator=generator)
    return x, edge_index, torch.rand(edges, generator=generator)


class Several(MessagePassing):
    """A list of aggregations: fused by PyG for matrices, one by one for more dimensions."""

    def __init__(self, aggr: list[str], heads: int = 0) -> None:
        super().__init__(aggr=aggr, node_dim=0 if heads else -2)
        self.heads = heads

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        if self.heads > 0:
            x = x.view(-1, self.heads, WIDTH // self.heads)
        return self.propagate(edge_index, x=x, weight=weight)

    def message(self, x_i: Tensor, x_j: Tensor, weight: Tensor) -> Tensor:
        weight = weight.view(-1, 1, 1) if self.heads > 0 else weight.view(-1, 1)
        return (x_i - x_j).relu() * weight


class Layered(Several):
    """The message is a layer of both ends."""

    def __init__(self, aggr: list[str]) -> None:
        super().__init__(aggr)
        self.lin = nn.Linear(2 * WIDTH, WIDTH)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return self.lin(torch.cat([x_i, x_j], dim=-1)).tanh()


class Scaled(Several):
    """Several aggregations, scaled by degrees."""

    def __init__(self) -> None:
        super().__init__(["mean"])
        scalers = ["identity", "amplification", "linear"]
        histogram = torch.tensor([0, 3, 4, 2])
        self.aggr_module = DegreeScalerAggregation(["mean", "max", "std"], scalers, histogram)


class Counted(Several):
    """Degrees counted in the code itself, in three ways."""

    def __init__(self) -> None:
        super().__init__(["sum"])

    def aggregate(self, inputs: Tensor, index: Tensor, dim_size: int) -> Tensor:
        ones = torch.ones_like(index, dtype=inputs.dtype)
        counts = inputs.new_zeros(dim_size)
        counts.scatter_add_(0, index, ones)
        counts = counts.clamp_(min=1)
        others = torch.zeros(dim_size, dtype=inputs.dtype).index_add_(0, index, ones)
        known = degree(index, dim_size, dtype=inputs.dtype)
        total = super().aggregate(inputs, index, dim_size=dim_size)
        return total / counts.view(-1, 1) + others.view(-1, 1) * known.view(-1, 1)


class Kept(Several):
    """What is scattered into has another name, a view, or is read before."""

    def __init__(self) -> None:
        super().__init__(["sum"])

    def aggregate(self, inputs: Tensor, index: Tensor, dim_size: int) -> Tensor:
        ones = torch.ones_like(index, dtype=inputs.dtype)
        first = inputs.new_zeros(dim_size)
        named = first
        first.scatter_add_(0, index, ones)
        second = inputs.new_zeros(dim_size)
        viewed = second.view(-1, 1)
        second.scatter_add_(0, index, ones)
        third = inputs.new_zeros(dim_size)
        before = third + 1
        third.scatter_add_(0, index, ones)
        third.clamp_(min=2)
        listed = [inputs.new_zeros(dim_size)]
        listed[0].scatter_add_(0, index, ones)
        total = super().aggregate(inputs, index, dim_size=dim_size)
        counts = named + viewed.view(-1) + before + third + listed[0]
        return total * counts.view(-1, 1)


EVERY = ["sum", "mean", "min", "max", "var", "std", "mul"]
SCALERS = ["identity", "amplification", "attenuation"]
MODELS = {
    "three": lambda: Several(["mean", "max", "std"]),
    "every": lambda: Several(EVERY),
    "of heads": lambda: Several(["mean", "min", "std"], heads=2),
    "layered": lambda: Layered(["sum", "max", "std"]),
    "scaled": Scaled,
    "counted": Counted,
    "kept": Kept,
}


@pytest.mark.parametrize("name", MODELS)
def test_scripted_like_eager(name: str, bare: BareProcess) -> None:
    model = MODELS[name]()
    calls = graph(9, 40), graph(5, 0), graph(12, 31)
    assert_scripts_like_eager(model, *calls, reload=bare, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("towers", [1, 2])
def test_principal_neighbourhoods(towers: int, eager: bool) -> None:
    aggregators = ["mean", "min", "max", "std"]
    deg = torch.tensor([0, 2, 3, 5])
    model = PNAConv(WIDTH, WIDTH, aggregators, SCALERS, deg, towers=towers).double()
    for nodes, edges in ((9, 40), (12, 700)):
        x, edge_index, _ = graph(nodes, edges)
        x = x.double().requires_grad_()
        values = [x, *model.parameters()]
        with gnnscript.kernels("portable"):
            out = model(x, edge_index)
            expected = out, *torch.autograd.grad(out.square().sum(), values)
        out = (model if eager else torch.jit.script(model))(x, edge_index)
        found = out, *torch.autograd.grad(out.square().sum(), values)
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["three", "every", "of heads", "layered", "scaled", "counted"])
def test_no_message_is_stored(name: str) -> None:
    source = gnnscript.source(MODELS[name]())
    assert "edge_aggregate(" in source
    assert "edge_values(" not in source
    assert "gather(" not in source


def test_what_others_hold_is_written_to_as_it_was() -> None:
    source = gnnscript.source(Kept())
    assert "first.scatter_add_(" in source
    assert "second.scatter_add_(" in source
    assert "listed[0].scatter_add_(" in source


def test_the_dtype_of_degrees_is_that_of_the_message() -> None:
    x, edge_index, weight = graph(9, 600)
    model = Several(["mean", "std"])
    for kind in (torch.float64, torch.bfloat16):
        call = x.to(kind), edge_index, weight.to(kind)
        with gnnscript.kernels("portable"):
            expected = model(*call)
        found = model(*call)
        assert found.dtype == kind
        wide = kind == torch.float64
        torch.testing.assert_close(found, expected, **({} if wide else {"rtol": 0.1, "atol": 0.1}))
