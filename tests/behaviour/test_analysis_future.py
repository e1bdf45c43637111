"""Annotations that are strings because the module says ``from __future__ import annotations``."""

from __future__ import annotations

from typing import TYPE_CHECKING, List, NamedTuple, Optional, Tuple, Union

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, MessagePassing
from torch_geometric.nn.inits import glorot
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, Size
from torch_geometric.utils import softmax

from conformance.graphs import EDGE, GRAPHS, IN, OUT

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.usefixtures("auto")

Features = Union[Tensor, OptPairTensor]


class Modern(MessagePassing):
    """New-style unions throughout, on every hook."""

    def __init__(self, channels: Sequence[int] = (IN, OUT), heads: int = 2) -> None:
        super().__init__(aggr="add", node_dim=0)
        self.heads = heads
        self.lin = nn.Linear(channels[0], heads * channels[1])
        self.att = nn.Parameter(torch.empty(1, heads, channels[1]))
        glorot(self.att)

    def forward(
        self, x: Tensor | tuple[Tensor, Tensor | None], edge_index: Tensor, scale: float = 1.0
    ) -> Tensor:
        if isinstance(x, Tensor):
            x = (x, x)
        x_src, x_dst = x
        h_src = self.lin(x_src).view(-1, self.heads, OUT)
        h_dst = None
        if x_dst is not None:
            h_dst = self.lin(x_dst).view(-1, self.heads, OUT)
        size = None if x_dst is None else (x_src.size(0), x_dst.size(0))
        out = self.propagate(edge_index, h=(h_src, h_dst), scale=scale, size=size)
        return out.mean(dim=1)

    def message(
        self, h_j: Tensor, h_i: Tensor | None, scale: float, index: Tensor, dim_size: int | None
    ) -> Tensor:
        logits = h_j if h_i is None else h_j + h_i
        alpha = softmax(scale * (logits * self.att).sum(-1), index, num_nodes=dim_size)
        return h_j * alpha.unsqueeze(-1)

    def update(self, inputs: Tensor) -> Tensor:
        return inputs.relu()


class Classic(MessagePassing):
    def __init__(self) -> None:
        super().__init__(aggr="mean")
        self.lin = nn.Linear(IN, OUT)
        self.edge_lin = nn.Linear(EDGE, IN)

    def forward(
        self, x: Features, edge_index: Adj, edge_attr: OptTensor = None, size: Size = None
    ) -> Tensor:
        if isinstance(x, Tensor):
            x = (x, x)
        # propagate_type: (x: OptPairTensor, edge_attr: OptTensor, dims: List[int])
        out = self.propagate(edge_index, x=x, edge_attr=edge_attr, dims=[-1], size=size)
        return self.lin(out)

    def message(self, x_j: Tensor, edge_attr: Optional[Tensor], dims: List[int]) -> Tensor:
        if edge_attr is not None:
            x_j = x_j + self.edge_lin(edge_attr)
        return x_j - x_j.mean(dims, keepdim=True)


class Child(GCNConv):
    """Its parent's module evaluates annotations eagerly, this one does not."""

    def message(self, x_j: Tensor, edge_weight: Tensor | None) -> Tensor:
        return super().message(x_j, edge_weight).tanh()


class PairModel(nn.Module):
    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tuple[Tensor, Tensor], edge_index: Tensor) -> Tensor:
        return self.conv(x, edge_index) + self.conv((x[0], x[1]), edge_index)


class Output(NamedTuple):
    """What a model may return."""

    nodes: Tensor
    edges: Optional[Tensor]


class NamedModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = Classic()

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Optional[Tensor] = None) -> Output:
        return Output(nodes=self.conv(x, edge_index, edge_attr), edges=edge_attr)


def test_modern(check, check_conv):
    check_conv(Modern())
    check(PairModel(Modern()), *[((g.x, g.x_dst), g.bipartite) for g in GRAPHS])


def test_classic(check, check_conv):
    check_conv(Classic())
    check(Classic(), *[(g.x, g.edge_index, g.attr) for g in GRAPHS])
    check(PairModel(Classic()), *[((g.x, g.x_dst), g.bipartite) for g in GRAPHS])


def test_child_of_a_class_with_evaluated_annotations(check, check_conv):
    check_conv(Child(IN, OUT))
    check(Child(IN, OUT), *[(g.x, g.edge_index, g.weight) for g in GRAPHS])


def test_named_tuple(check):
    check(NamedModel(), *[(g.x, g.edge_index, g.attr) for g in GRAPHS])
