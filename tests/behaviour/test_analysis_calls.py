"""The calls of propagate: comments, dictionaries, several calls, and who receives what."""

# Classes stand here as users write them.
# ruff: noqa: RUF012

import typing
from typing import Dict, List, Optional, Tuple, Union

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, MessagePassing
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, PairTensor, Size
from torch_geometric.utils import remove_self_loops, scatter

from conformance.graphs import EDGE, GRAPHS, IN, OUT

pytestmark = pytest.mark.usefixtures("auto")


class Comment(MessagePassing):
    """The comment alone says that `scale` and `shape` are no tensors."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(IN, OUT)

    def forward(self, x, edge_index, weight: OptTensor = None):
        # propagate_type: (x: Tensor, scale: float, shape: List[int], weight: OptTensor)
        return self.propagate(edge_index, x=self.lin(x), scale=0.5, shape=[-1, OUT], weight=weight)

    def message(self, x_j, scale: float, shape: List[int], weight: OptTensor):
        out = (x_j * scale).view(shape)
        return out if weight is None else out * weight.view(-1, 1)


class LongComment(MessagePassing):
    def __init__(self):
        super().__init__(aggr="mean")

    def forward(self, x: Union[Tensor, OptPairTensor], edge_index: Adj, size: Size = None):
        if isinstance(x, Tensor):
            x = (x, x)
        # propagate_type: (x: OptPairTensor,
        #                  factors: Tuple[float, float],
        #                  power: int)
        return self.propagate(edge_index, x=x, factors=(0.5, 2.0), power=2, size=size)

    def message(
        self, x_j: Tensor, x_i: OptTensor, factors: Tuple[float, float], power: int
    ) -> Tensor:
        out = factors[0] * x_j**power
        return out if x_i is None else out + factors[1] * x_i


class Dictionary(MessagePassing):
    propagate_type = {"x": OptPairTensor, "scale": float, "weight": Optional[Tensor]}

    def __init__(self):
        super().__init__()

    def forward(self, x: Tensor, edge_index: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        pair: OptPairTensor = (x, None)
        size = (x.size(0), x.size(0))
        return self.propagate(edge_index, x=pair, scale=1.5, weight=weight, size=size)

    def message(self, x_j: Tensor, scale: float, weight: Optional[Tensor]) -> Tensor:
        return x_j * scale if weight is None else x_j * weight.view(-1, 1)


class DictionaryOfStrings(MessagePassing):
    propagate_type = {"x": "Tensor", "hops": "int"}

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, hops=3)

    def message(self, x_j: Tensor, hops: int) -> Tensor:
        return x_j / hops


class Positional(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        num_nodes = x.size(0)
        return self.propagate(edge_index, (num_nodes, num_nodes), x=x)


class PositionalNone(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, None, x=x)


class KeywordEdgeIndex(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(x=x, edge_index=edge_index)


class OtherNames(MessagePassing):
    """The edges have another name, and an expression is passed for them."""

    def __init__(self):
        super().__init__(aggr="max")

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        forward = self.propagate(edges, h=nodes)
        backward = self.propagate(edges.flip([0]), h=nodes)
        return torch.cat([forward, backward], dim=-1)

    def message(self, h_j: Tensor) -> Tensor:
        return F.elu(h_j)


class Diffusion(MessagePassing):
    """Propagates in a loop, and collects."""

    def __init__(self, steps: int = 3):
        super().__init__(aggr="mean")
        self.steps = steps
        self.lins = nn.ModuleList([nn.Linear(IN, OUT) for _ in range(steps + 1)])

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        outs = [self.lins[0](x)]
        for lin in self.lins[1:]:
            x = self.propagate(edge_index, x=x)
            outs.append(lin(x))
        return torch.stack(outs, dim=-1).mean(dim=-1)


class WhileLoop(MessagePassing):
    def __init__(self, tolerance: float = 0.05):
        super().__init__(aggr="mean")
        self.tolerance = tolerance

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        difference = 1.0
        steps = 0
        while difference > self.tolerance and steps < 10:
            smoothed = 0.5 * (x + self.propagate(edge_index, x=x))
            difference = float((smoothed - x).detach().abs().max())
            x = smoothed
            steps += 1
        return x


class Branches(MessagePassing):
    def __init__(self, bidirectional: bool):
        super().__init__(aggr="add")
        self.bidirectional = bidirectional

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if self.bidirectional:
            both = torch.cat([edge_index, edge_index.flip([0])], dim=1)
            return self.propagate(both, x=x)
        if x.size(0) > 10:
            return 2 * self.propagate(edge_index, x=x)
        return self.propagate(edge_index, x=x.relu())


class TwoTypes(MessagePassing):
    """One keyword, a tensor in one call and a pair in the other."""

    def __init__(self):
        super().__init__(aggr="mean")

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.propagate(edge_index, x=x, scale=None)
        return self.propagate(edge_index, x=(x, h), scale=h.mean(0, keepdim=True))

    def message(self, x_j: Tensor, x_i: Tensor, scale: OptTensor) -> Tensor:
        out = x_j - x_i
        return out if scale is None else out * scale


class Helper(MessagePassing):
    """Propagates in a method of its own."""

    def __init__(self, hops: int = 2):
        super().__init__(aggr="add")
        self.hops = hops
        self.lin = nn.Linear(IN, OUT)

    def step(self, x: Tensor, edge_index: Tensor, weight: OptTensor) -> Tensor:
        out = self.propagate(edge_index, x=x, weight=weight)
        return out / (1.0 + x.norm())

    def forward(self, x: Tensor, edge_index: Tensor, weight: OptTensor = None) -> Tensor:
        for _ in range(self.hops):
            x = self.step(x, edge_index, weight)
        return self.lin(x)

    def message(self, x_j: Tensor, weight: OptTensor) -> Tensor:
        return x_j if weight is None else x_j * weight.view(-1, 1)


class Untouched(MessagePassing):
    """Receives an argument it does not lift, and one that no hook reads."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, mean=x.mean(0), unused=x.sum())

    def message(self, x_j: Tensor, mean: Tensor) -> Tensor:
        return x_j - mean


class TupleMessages(MessagePassing):
    """Messages, aggregates and results are tuples: features and coordinates of an EGNN."""

    def __init__(self):
        super().__init__(aggr="add")
        self.edge_mlp = nn.Sequential(nn.Linear(2 * IN + 1, 6), nn.SiLU())
        self.coord_mlp = nn.Sequential(nn.Linear(6, 6), nn.SiLU(), nn.Linear(6, 1, bias=False))
        self.node_mlp = nn.Sequential(nn.Linear(IN + 6, IN), nn.SiLU())

    def forward(self, x: Tensor, edge_index: Tensor, pos: Tensor) -> Tuple[Tensor, Tensor]:
        x, pos = self.propagate(edge_index, x=x, pos=pos)
        return x, pos

    def message(
        self, x_i: Tensor, x_j: Tensor, pos_i: Tensor, pos_j: Tensor
    ) -> Tuple[Tensor, Tensor]:
        difference = pos_i - pos_j
        squared = difference.pow(2).sum(dim=-1, keepdim=True)
        hidden = self.edge_mlp(torch.cat([x_i, x_j, squared], dim=-1))
        return hidden, difference * self.coord_mlp(hidden)

    def aggregate(
        self, inputs: Tuple[Tensor, Tensor], index: Tensor, dim_size: Optional[int] = None
    ) -> Tuple[Tensor, Tensor]:
        hidden = scatter(inputs[0], index, dim=0, dim_size=dim_size, reduce="sum")
        moves = scatter(inputs[1], index, dim=0, dim_size=dim_size, reduce="mean")
        return hidden, moves

    def update(
        self, inputs: Tuple[Tensor, Tensor], x: Tensor, pos: Tensor
    ) -> Tuple[Tensor, Tensor]:
        hidden, moves = inputs
        return x + self.node_mlp(torch.cat([x, hidden], dim=-1)), pos + moves


class DictMessages(MessagePassing):
    def __init__(self):
        super().__init__(aggr=None)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)

    def message(self, x_j: Tensor, x_i: Tensor) -> Dict[str, Tensor]:
        return {"value": x_j, "gate": (x_i * x_j).sum(-1, keepdim=True).sigmoid()}

    def aggregate(
        self, inputs: Dict[str, Tensor], index: Tensor, dim_size: Optional[int]
    ) -> Tensor:
        return scatter(inputs["value"] * inputs["gate"], index, 0, dim_size, reduce="sum")


class EdgeModel(MessagePassing):
    """Updates edges first, then nodes from the new edges."""

    def __init__(self):
        super().__init__(aggr="mean")
        self.edge_lin = nn.Linear(2 * IN + EDGE, EDGE)
        self.lin = nn.Linear(EDGE, OUT)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tuple[Tensor, Tensor]:
        edge_attr = edge_attr + self.edge_updater(edge_index, x=x, edge_attr=edge_attr)
        out = self.propagate(edge_index, edge_attr=edge_attr, size=(x.size(0), x.size(0)))
        return out, edge_attr

    def edge_update(self, x_i: Tensor, x_j: Tensor, edge_attr: Tensor) -> Tensor:
        return self.edge_lin(torch.cat([x_i, x_j, edge_attr], dim=-1)).relu()

    def message(self, edge_attr: Tensor) -> Tensor:
        return self.lin(edge_attr)


class EdgeModelWithComment(MessagePassing):
    def __init__(self):
        super().__init__(aggr="add", flow="target_to_source")

    def forward(self, x: Union[Tensor, PairTensor], edge_index: Adj, slope: float = 0.1) -> Tensor:
        if isinstance(x, Tensor):
            x = (x, x)
        # edge_updater_type: (x: PairTensor, slope: float)
        score = self.edge_updater(edge_index, x=x, slope=slope)
        # propagate_type: (x: PairTensor, score: Tensor)
        return self.propagate(edge_index, x=x, score=score)

    def edge_update(self, x_i: Tensor, x_j: Tensor, slope: float, index: Tensor) -> Tensor:
        score = F.leaky_relu((x_i * x_j).sum(-1), slope)
        return score / (1 + index.to(score.dtype))

    def message(self, x_j: Tensor, score: Tensor) -> Tensor:
        return score.unsqueeze(-1) * x_j


class ConvInConv(MessagePassing):
    """A conv that owns another one."""

    def __init__(self):
        super().__init__(aggr="max")
        self.inner = GCNConv(IN, OUT)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        edge_index, _ = remove_self_loops(edge_index)
        return self.propagate(edge_index, x=self.inner(x, edge_index).relu())


class Gated(MessagePassing):
    """A recurrent cell, a buffer, a parameter list and a batch norm."""

    def __init__(self, steps: int = 2):
        super().__init__(aggr="add")
        self.steps = steps
        self.weights = nn.ParameterList([nn.Parameter(torch.eye(IN)) for _ in range(steps)])
        self.cell = nn.GRUCell(IN, IN)
        self.norm = nn.BatchNorm1d(IN)
        self.register_buffer("scale", torch.tensor(0.5))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for weight in self.weights:
            messages = self.propagate(edge_index, x=x @ weight)
            x = self.cell(messages * self.scale, x)
        return self.norm(x)


CALLS = [
    Comment, LongComment, Dictionary, DictionaryOfStrings, Positional, PositionalNone,
    KeywordEdgeIndex, OtherNames, Diffusion, WhileLoop, TwoTypes, Helper, Untouched, DictMessages,
    EdgeModelWithComment, ConvInConv, Gated,
]  # fmt: skip


@pytest.mark.parametrize("cls", CALLS)
def test_call(cls, check, check_conv):
    if "nodes" in typing.get_type_hints(cls.forward):
        check(cls())
    else:
        check_conv(cls())


@pytest.mark.parametrize("cls", [Comment, Dictionary, Helper])
def test_optional_argument_of_call(cls, check):
    check(cls(), *[(g.x, g.edge_index, g.weight) for g in GRAPHS])


@pytest.mark.parametrize("bidirectional", [True, False])
def test_calls_in_branches(bidirectional, check_conv):
    check_conv(Branches(bidirectional))


def test_two_results(check):
    check(TupleMessages(), *[(g.x, g.edge_index, g.x[:, :3]) for g in GRAPHS])
    check(EdgeModel(), *[(g.x, g.edge_index, g.attr) for g in GRAPHS])


class TwoResultsModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([TupleMessages(), TupleMessages()])
        self.edges = EdgeModel()

    def forward(
        self, x: Tensor, edge_index: Tensor, pos: Tensor, edge_attr: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        for conv in self.convs:
            x, pos = conv(x, edge_index, pos)
        x, edge_attr = self.edges(x, edge_index, edge_attr)
        return x, pos, edge_attr


def test_two_results_inside_a_model(check):
    inputs = [(g.x, g.edge_index, g.x[:, :3], g.attr) for g in GRAPHS]
    check(TwoResultsModel(), *inputs)
