"""Classes without annotations, and the names that hooks and forward refer to."""

# Classes stand here as users write them.
# ruff: noqa: RET504

import math
from typing import Tuple

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.typing import Adj, OptTensor, PairTensor, Size
from torch_geometric.utils import add_self_loops, degree, softmax

from behaviour.models import Projecting
from conformance.graphs import EDGE, GRAPHS, IN, OUT

pytestmark = pytest.mark.usefixtures("auto")

EPSILON = 1e-6


class TutorialGCN(MessagePassing):
    """The layer of PyG's tutorial: no annotation anywhere."""

    def __init__(self, in_channels, out_channels):
        super().__init__(aggr="add")
        self.lin = nn.Linear(in_channels, out_channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x, edge_index):
        # x has shape [N, in_channels], edge_index has shape [2, E]
        edge_index, _ = add_self_loops(edge_index, num_nodes=x.size(0))
        x = self.lin(x)
        row, col = edge_index
        deg = degree(col, x.size(0), dtype=x.dtype)
        deg_inv_sqrt = deg.pow(-0.5)
        deg_inv_sqrt[deg_inv_sqrt == float("inf")] = 0
        norm = deg_inv_sqrt[row] * deg_inv_sqrt[col]
        out = self.propagate(edge_index, x=x, norm=norm)
        out = out + self.bias
        return out

    def message(self, x_j, norm):
        return norm.view(-1, 1) * x_j


class TutorialEdgeConv(MessagePassing):
    def __init__(self, in_channels, out_channels):
        super().__init__(aggr="max")
        self.mlp = nn.Sequential(
            nn.Linear(2 * in_channels, out_channels),
            nn.ReLU(),
            nn.Linear(out_channels, out_channels),
        )

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)

    def message(self, x_i, x_j):
        tmp = torch.cat([x_i, x_j - x_i], dim=1)
        return self.mlp(tmp)


class HalfAnnotated(Projecting):
    def forward(self, x, edge_index: Tensor, edge_attr: OptTensor = None):
        return self.propagate(edge_index, x=self.lin(x), edge_attr=edge_attr)

    def message(self, x_i, x_j: Tensor, edge_attr: OptTensor):
        out = x_i - x_j
        return out if edge_attr is None else out * edge_attr.sum(-1, keepdim=True)

    def update(self, aggr_out, x):
        return aggr_out + x


@pytest.mark.parametrize(
    "conv", [TutorialGCN(IN, OUT), TutorialEdgeConv(IN, OUT), HalfAnnotated()], ids=str
)
def test_without_annotations(conv, check_conv):
    check_conv(conv)


def test_half_annotated_with_attr(check):
    check(HalfAnnotated(), *[(g.x, g.edge_index, g.attr) for g in GRAPHS])


# -- names that hooks and forward refer to --------------------------------------------------------


def radial_basis(distance: Tensor, count: int) -> Tensor:
    centres = torch.linspace(0.0, 2.0, count, device=distance.device)
    return torch.exp(-((distance.view(-1, 1) - centres) ** 2))


def length(vector):
    return (vector * vector).sum(dim=-1).clamp(min=EPSILON).sqrt()


class Continuous(MessagePassing):
    """Positions, a helper of the module, constants and a library function in one message."""

    scale = 0.5

    def __init__(self, num_basis: int = EDGE):
        super().__init__(aggr="mean")
        self.num_basis = num_basis
        self.filter = nn.Linear(num_basis, IN)
        self.lin = nn.Linear(IN, OUT)

    def forward(self, x: Tensor, edge_index: Tensor, pos: OptTensor = None, size: Size = None):
        if pos is None:
            pos = x[:, :3]
        return self.propagate(edge_index, x=x, pos=pos, size=size)

    def message(self, x_j: Tensor, pos_i: Tensor, pos_j: Tensor, index: Tensor) -> Tensor:
        distance = length(pos_j - pos_i) / math.sqrt(2.0)
        gate = softmax(-distance * self.scale, index)
        return gate.view(-1, 1) * self.filter(radial_basis(distance, self.num_basis)) * x_j

    def update(self, inputs: Tensor) -> Tensor:
        return self.lin(inputs)


def test_helpers_constants_and_libraries(check, check_conv):
    check_conv(Continuous())
    check(Continuous(), *[(g.x, g.edge_index, g.x[:, 3:6]) for g in GRAPHS])


class PairAliases(MessagePassing):
    def __init__(self) -> None:
        super().__init__(aggr="mean")
        self.lin_l = nn.Linear(IN, OUT)
        self.lin_r = nn.Linear(IN, OUT, bias=False)

    def forward(self, x: PairTensor, edge_index: Adj, size: Size = None) -> Tensor:
        return self.propagate(edge_index, x=x, size=size)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return self.lin_l(x_j) + self.lin_r(x_i).tanh()


def test_pair_that_is_no_union(check):
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = PairAliases()

        def forward(self, x: Tuple[Tensor, Tensor], edge_index: Tensor) -> Tensor:
            return self.conv(x, edge_index, size=(x[0].size(0), x[1].size(0)))

    inputs = [((g.x, g.x_dst), g.bipartite) for g in GRAPHS]
    check(PairAliases(), *inputs)
    check(Nested(), *inputs)
