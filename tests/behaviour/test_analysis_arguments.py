"""Where values come from: flow, node_dim, aggr, size, lifted pairs and the special arguments."""

from typing import List, Optional, Tuple, Union

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.aggr import (
    Aggregation,
    MaxAggregation,
    MeanAggregation,
    MultiAggregation,
    PowerMeanAggregation,
    SoftmaxAggregation,
    SumAggregation,
)
from torch_geometric.typing import OptPairTensor, OptTensor, PairTensor, Size
from torch_geometric.utils import scatter

from conformance.graphs import GRAPHS, IN, OUT

pytestmark = pytest.mark.usefixtures("auto")


class Difference(MessagePassing):
    """Sees which end is which."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return 2 * x_i - x_j.relu()


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize("aggr", ["add", "max"])
def test_flow(flow, aggr, check_conv):
    check_conv(Difference(aggr=aggr, flow=flow))


class Bipartite(MessagePassing):
    def forward(self, x: PairTensor, edge_index: Tensor, size: Size = None) -> Tensor:
        return self.propagate(edge_index, x=x, size=size)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return x_i * x_j


def test_flow_of_pairs(check):
    check(Bipartite(aggr="mean"), *[((g.x, g.x_dst), g.bipartite) for g in GRAPHS])
    # Both sets of nodes are of one size here, but not the same.
    inputs = [((g.x, g.x.flip(0)), g.edge_index) for g in GRAPHS]
    check(Bipartite(), *inputs)
    check(Bipartite(flow="target_to_source"), *inputs)


@pytest.mark.parametrize("node_dim", [0, -3, 1, -2])
@pytest.mark.parametrize("aggr", ["mean", "max"])
def test_node_dim(node_dim, aggr, check):
    inputs = []
    for g in GRAPHS:
        x = g.x.view(-1, 2, IN // 2)  # [N, 2, F]
        inputs.append((x if node_dim in {0, -3} else x.transpose(0, 1).contiguous(), g.edge_index))
    check(Difference(aggr=aggr, node_dim=node_dim), *inputs)


def test_node_dim_last(check):
    check(
        Difference(aggr="add", node_dim=-1),
        *[(g.x.t().contiguous(), g.edge_index) for g in GRAPHS],
    )


# -- aggregation ----------------------------------------------------------------------------------


class Share(Aggregation):
    """A user's aggregation: each message counts by its share of the largest."""

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.scale = nn.Parameter(torch.ones(1))

    def forward(
        self,
        x: Tensor,
        index: Optional[Tensor] = None,
        ptr: Optional[Tensor] = None,
        dim_size: Optional[int] = None,
        dim: int = -2,
    ) -> Tensor:
        assert index is not None
        top = self.reduce(x, index, ptr, dim_size, dim, reduce="max")
        share = torch.exp((x - top.index_select(dim, index)) / self.temperature)
        return self.reduce(self.scale * share * x, index, ptr, dim_size, dim, reduce="sum")


@pytest.mark.parametrize(
    "aggr",
    [
        "add", "sum", "mean", "max", "min", "mul", "std", "var", "median", "softmax",
        ["add", "max"], ["mean", "min", "std"], ("sum", "var"), ["median"],
        SumAggregation(), MeanAggregation(), SoftmaxAggregation(t=0.5),
        SoftmaxAggregation(learn=True), PowerMeanAggregation(p=2.0), Share(),
        MultiAggregation(["mean", MaxAggregation()]),
        MultiAggregation(["mean", "max", Share(1.0)], mode="sum"),
        MultiAggregation(["mean", "std"], mode="proj",
                         mode_kwargs={"in_channels": IN, "out_channels": OUT}),
    ],
    ids=str,
)  # fmt: skip
def test_aggr(aggr, check_conv):
    check_conv(Difference(aggr=aggr))


def test_aggr_kwargs(check_conv):
    kwargs = [{}, {"learn": True, "t": 0.3}]
    check_conv(Difference(aggr=["mean", "softmax"], aggr_kwargs={"aggrs_kwargs": kwargs}))


class OwnAggregate(MessagePassing):
    """Aggregates by itself, without an aggregation module."""

    def __init__(self) -> None:
        super().__init__(aggr=None)
        self.lin = nn.Linear(2 * IN, OUT)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.lin(self.propagate(edge_index, x=x))

    def aggregate(self, inputs: Tensor, index: Tensor, dim_size: Optional[int] = None) -> Tensor:
        total = scatter(inputs, index, dim=self.node_dim, dim_size=dim_size, reduce="sum")
        top = scatter(inputs, index, dim=self.node_dim, dim_size=dim_size, reduce="max")
        return torch.cat([total, top], dim=-1)


class PlainTorchAggregate(MessagePassing):
    """Reduces with torch alone, and reads the name of its own aggregation."""

    def __init__(self, aggr: str) -> None:
        super().__init__(aggr=aggr)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, num_nodes=x.size(0))

    def aggregate(self, inputs: Tensor, index: Tensor, num_nodes: int) -> Tensor:
        out = inputs.new_zeros(num_nodes, inputs.size(1)).index_add(0, index, inputs)
        if self.aggr == "mean":
            count = torch.bincount(index, minlength=num_nodes).clamp(min=1)
            out = out / count.unsqueeze(-1)
        return out


def test_own_aggregate(check_conv):
    check_conv(OwnAggregate())
    check_conv(PlainTorchAggregate("mean"))
    check_conv(PlainTorchAggregate("sum"))


# -- size -----------------------------------------------------------------------------------------


class Sized(MessagePassing):
    def forward(
        self,
        x: Union[Tensor, OptPairTensor],
        edge_index: Tensor,
        size: Optional[Tuple[int, int]] = None,
    ) -> Tensor:
        if isinstance(x, Tensor):
            x = (x, x)
        return self.propagate(edge_index, x=x, size=size)

    def message(self, x_j: Tensor, x_i: OptTensor, size: List[Optional[int]]) -> Tensor:
        rows = size[0]
        assert rows is not None
        out = x_j / rows
        return out if x_i is None else out + x_i


class SizedModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = Sized(aggr="mean")

    def forward(self, x_src: Tensor, x_dst: Tensor, edge_index: Tensor) -> Tensor:
        n, m = x_src.size(0), x_dst.size(0)
        a = self.conv((x_src, None), edge_index, size=(n, m))
        b = self.conv((x_src, None), edge_index, (n, m + 1))
        c = self.conv((x_src, x_dst), edge_index)
        return a + b[:-1] + c


class SizeVariable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = Sized()

    def forward(
        self, x: Tensor, edge_index: Tensor, size: Optional[Tuple[int, int]] = None
    ) -> Tensor:
        return self.conv(x, edge_index, size=size)


def test_size(check, check_conv):
    check_conv(Sized())
    check(SizedModel(), *[(g.x, g.x_dst, g.bipartite) for g in GRAPHS])
    check(SizeVariable())
    check(SizeVariable(), *[(g.x, g.edge_index, (g.x.size(0), g.x.size(0))) for g in GRAPHS])


class OnlyEdges(MessagePassing):
    """Nothing is lifted, so the size has to be given."""

    def forward(self, edge_attr: Tensor, edge_index: Tensor, num_nodes: int) -> Tensor:
        return self.propagate(edge_index, edge_attr=edge_attr, size=(num_nodes, num_nodes))

    def message(self, edge_attr: Tensor) -> Tensor:
        return edge_attr.exp()


def test_nothing_lifted(check):
    check(OnlyEdges(), *[(g.attr, g.edge_index, g.x.size(0)) for g in GRAPHS])


def test_wrong_size_is_refused_as_in_eager():
    g = GRAPHS[0]
    model = SizeVariable()
    scripted = torch.jit.script(model)
    for module in (model, scripted):
        with pytest.raises(Exception, match="but expected size 3"):
            module(g.x, g.edge_index, (3, 3))


# -- lifted pairs with None -----------------------------------------------------------------------


class PairWithNone(MessagePassing):
    def forward(
        self,
        x: Tuple[Tensor, Optional[Tensor]],
        edge_index: Tensor,
        bias: Tuple[Optional[Tensor], Tensor],
    ) -> Tensor:
        n = bias[1].size(0)
        return self.propagate(edge_index, x=x, bias=bias, size=(x[0].size(0), n))

    def message(self, x_j: Tensor, x_i: OptTensor, bias_i: Tensor, bias_j: OptTensor) -> Tensor:
        out = x_j + bias_i
        if x_i is not None:
            out = out - x_i
        if bias_j is not None:
            out = out * bias_j
        return out


class PairWithNoneModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = PairWithNone()

    def forward(self, x: Tensor, y: Tensor, edge_index: Tensor) -> Tensor:
        out = self.conv((x, None), edge_index, (None, y))
        out = out + self.conv((x, y), edge_index, (None, y))
        return out + self.conv((x, y), edge_index, (x, y))


def test_pairs_with_none(check):
    check(PairWithNoneModel(), *[(g.x, g.x_dst, g.bipartite) for g in GRAPHS])
    check(PairWithNone(), *[((g.x, None), g.bipartite, (None, g.x_dst)) for g in GRAPHS])


# -- special arguments ----------------------------------------------------------------------------


class Everything(MessagePassing):
    """Every hook asks for every special argument there is for edge indices."""

    def __init__(self) -> None:
        super().__init__(aggr="add")

    def forward(self, x: PairTensor, edge_index: Tensor) -> Tensor:
        score = self.edge_updater(edge_index, x=x)
        return self.propagate(edge_index, x=x, score=score)

    def edge_update(
        self,
        x_j: Tensor,
        x_i: Tensor,
        index: Tensor,
        ptr: OptTensor,
        dim_size: Optional[int],
        size_i: Optional[int],
        size_j: Optional[int],
        edge_index_i: Tensor,
        edge_index_j: Tensor,
    ) -> Tensor:
        assert ptr is None
        assert dim_size is not None
        assert size_i is not None
        assert size_j is not None
        position = edge_index_i / size_i + edge_index_j / size_j + index / dim_size
        return position.unsqueeze(-1) * (x_i + x_j)

    def message(
        self,
        x_j: Tensor,
        score: Tensor,
        edge_index: Tensor,
        edge_index_i: Tensor,
        edge_index_j: Tensor,
        index: Tensor,
        size: List[Optional[int]],
        size_i: Optional[int],
        size_j: int,
    ) -> Tensor:
        assert size_i is not None
        first = size[0]
        assert first is not None
        weight = (edge_index[0] + 2 * edge_index[1]) / (size_i + 3 * size_j + 5 * first)
        weight = weight + (edge_index_i - edge_index_j + index) / size_i
        return x_j * weight.unsqueeze(-1) + score

    def aggregate(
        self,
        inputs: Tensor,
        index: Tensor,
        ptr: OptTensor = None,
        dim_size: Optional[int] = None,
        size_j: Optional[int] = None,
    ) -> Tensor:
        assert size_j is not None
        return scatter(inputs / size_j, index, dim=0, dim_size=dim_size, reduce="sum")

    def update(
        self, inputs: Tensor, x: PairTensor, dim_size: Optional[int], size_i: Optional[int]
    ) -> Tensor:
        assert dim_size is not None
        assert size_i is not None
        return inputs / dim_size + x[1] * size_i


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
def test_special_arguments(flow, check):
    if flow == "source_to_target":
        check(Everything(), *[((g.x, g.x_dst), g.bipartite) for g in GRAPHS])
    conv = Everything()
    conv.flow = flow
    check(conv, *[((g.x, g.x), g.edge_index) for g in GRAPHS])


class DegreeScaled(MessagePassing):
    """Update reads arguments that messages do not."""

    def forward(self, x: Tensor, edge_index: Tensor, alpha: float = 0.2) -> Tensor:
        return self.propagate(edge_index, x=x, x0=x.detach(), alpha=alpha)

    def message(self, x_j: Tensor, index: Tensor, dim_size: Optional[int]) -> Tensor:
        ones = torch.ones_like(index, dtype=x_j.dtype)
        degree = scatter(ones, index, dim=0, dim_size=dim_size, reduce="sum")
        return x_j / degree[index].unsqueeze(-1)

    def update(self, inputs: Tensor, x0: Tensor, alpha: float) -> Tensor:
        return (1 - alpha) * inputs + alpha * x0


def test_arguments_of_update(check, check_conv):
    check_conv(DegreeScaled())
    check(DegreeScaled(), *[(g.x, g.edge_index, 0.5) for g in GRAPHS])
