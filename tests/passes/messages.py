"""Messages of classes that no list of ours names: how each is to be rewritten."""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import ELU, BatchNorm1d, Dropout, Linear, Parameter, ReLU, Sequential, Tanh
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import softmax

WIDTH = 6


class Base(MessagePassing):
    """Takes node features, an edge index, edge features and edge weights."""

    def __init__(self, aggr: str = "sum", node_dim: int = -2) -> None:
        super().__init__(aggr=aggr, node_dim=node_dim)

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor, w: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, e=e, w=w)


class Weighted(Base):
    def message(self, x_j: Tensor, w: Tensor) -> Tensor:
        return w.view(-1, 1) * x_j


class Gated(Base):
    def message(self, x_i: Tensor, x_j: Tensor, e: Tensor) -> Tensor:
        gate = torch.sigmoid(x_i - 2 * x_j + e)
        return gate * F.leaky_relu(x_j, 0.1) / (1.0 + x_i.abs())


class Scaled(Base):
    """A parameter of the model is shared by all edges."""

    def __init__(self, aggr: str = "mean") -> None:
        super().__init__(aggr)
        self.scale = Parameter(torch.rand(WIDTH))

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return torch.exp(-torch.square(x_i - x_j) * self.scale)


class Powered(Base):
    """An exponent that is learned is no number of the edge program."""

    def __init__(self) -> None:
        super().__init__("mean")
        self.p = Parameter(torch.tensor(1.5))

    def message(self, x_j: Tensor) -> Tensor:
        return (x_j.abs() + 0.1).pow(self.p)


class Perceptron(Base):
    """The first layer moves to the nodes, the last behind the sum."""

    def __init__(self, aggr: str = "sum") -> None:
        super().__init__(aggr)
        self.net = Sequential(Linear(3 * WIDTH, 8), ELU(), Linear(8, 5))

    def message(self, x_i: Tensor, x_j: Tensor, e: Tensor) -> Tensor:
        return self.net(torch.cat([x_i, x_j - x_i, e], dim=-1))


class Lifted(Base):
    """Edge features go through layers of their own before they meet those of the nodes."""

    def __init__(self, aggr: str = "sum") -> None:
        super().__init__(aggr)
        self.lift = Linear(WIDTH, WIDTH)
        self.gate = Linear(WIDTH, WIDTH, bias=False)

    def message(self, x_i: Tensor, x_j: Tensor, e: Tensor, w: Tensor) -> Tensor:
        return (x_j + self.lift(e)).relu() * torch.sigmoid(x_i + self.gate(e)) * w.view(-1, 1)


class Products(Base):
    """Layers of both, whose types alone decide that of the message."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = Linear(WIDTH, WIDTH)
        self.gate = Linear(WIDTH, WIDTH)

    def message(self, x_j: Tensor, e: Tensor) -> Tensor:
        return self.lift(x_j) * self.gate(e)


class Squashed(Base):
    """The maximum of a rising function is the function of the maximum."""

    def __init__(self) -> None:
        super().__init__("max")
        self.net = Sequential(Linear(2 * WIDTH, 8), ReLU(), Linear(8, 5), Tanh())

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return self.net(torch.cat([x_i, x_j], dim=1))


class Normed(Base):
    """Batch norm and dropout see every edge: what follows them stays on the edges."""

    def __init__(self) -> None:
        super().__init__("sum")
        self.net = Sequential(
            Linear(2 * WIDTH, 8), BatchNorm1d(8), ReLU(inplace=True), Dropout(0.5), Linear(8, 5)
        )

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return self.net(torch.cat([x_i, x_j], dim=-1))


class Attention(Base):
    """Scores, a softmax over the edges of a node, a weighted sum."""

    def __init__(self) -> None:
        super().__init__("sum", node_dim=0)
        self.att = Parameter(torch.rand(1, 2, WIDTH // 2))

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor, w: Tensor) -> Tensor:
        h = x.view(-1, 2, WIDTH // 2)
        return self.propagate(edge_index, x=h, e=e, w=w).flatten(1)

    def message(
        self, x_i: Tensor, x_j: Tensor, index: Tensor, size_i: Optional[int], w: Tensor
    ) -> Tensor:
        score = (torch.tanh(x_i + x_j) * self.att).sum(dim=-1) / 2.0
        alpha = softmax(score, index, num_nodes=size_i) * w.view(-1, 1)
        return alpha.unsqueeze(-1) * x_j


class Matrices(Base):
    """A matrix for each edge, made by the last of several layers."""

    def __init__(self, aggr: str = "sum", left: bool = False) -> None:
        super().__init__(aggr)
        self.left = left
        self.net = Sequential(Linear(WIDTH, 4), ReLU(), Linear(4, 3 * WIDTH))

    def message(self, x_j: Tensor, e: Tensor) -> Tensor:
        if self.left:
            return (self.net(e).view(-1, 3, WIDTH) @ x_j.unsqueeze(-1)).squeeze(-1)
        return torch.matmul(x_j.unsqueeze(1), self.net(e).view(-1, WIDTH, 3)).squeeze(1)


class Conditional(Base):
    """The message depends on an argument that may be missing."""

    def forward(
        self, x: Tensor, edge_index: Tensor, e: Tensor, w: Optional[Tensor] = None
    ) -> Tensor:
        return self.propagate(edge_index, x=x, e=e, w=w)

    def message(self, x_j: Tensor, e: Tensor, w: Optional[Tensor]) -> Tensor:
        out = (x_j + e).relu()
        return out if w is None else out * w.view(-1, 1)


class Changing(Base):
    """A message that changes a tensor in place is left as it is."""

    def message(self, x_j: Tensor, e: Tensor) -> Tensor:
        out = x_j * 2
        out.add_(e)
        return out


class Numbers(Base):
    """Bounds and exponents below zero, positions with ``None`` in them."""

    def message(self, x_j: Tensor, x_i: Tensor, w: Tensor) -> Tensor:
        near = torch.clamp(x_j - x_i, min=-1, max=0.5)
        return near * (x_j.abs() + 0.5) ** -1 * w[:, None] + F.leaky_relu(x_i, -0.1)


class Bounded(Base):
    """A layer of bounded values is a layer of the nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = Linear(WIDTH, 4)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return self.lin(x_j.clamp(min=-1, max=0.5)) * self.lin(x_i.clamp(-0.3, 1)).tanh()


class Comparing(Base):
    """Truth values are no numbers before torch makes them some."""

    def message(self, x_i: Tensor, x_j: Tensor, w: Tensor) -> Tensor:
        above = x_j > x_i
        both = (above & (x_j > 0)).float() + (above + (x_i > 0)) * 0.5
        far = x_i.masked_fill(above, 2.0) * (x_j <= x_i).sum(-1, keepdim=True)
        return both + far * (~above) + torch.where(w.view(-1, 1) > 0.5, 1.0, 0.0)


class Counting(Base):
    """Counts are sums of integers, means of them are not."""

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor, w: Tensor) -> Tensor:
        x = (10 * x).long() + 1_700_000_000
        return self.propagate(edge_index, x=x, e=e, w=w)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return (x_j - x_i) * 3 + torch.maximum(x_j, x_i).clamp(max=7)


class CountingMeans(Counting):
    def __init__(self) -> None:
        super().__init__("mean")


class Elapsed(Counting):
    """Differences of large integers, multiplied by floating-point numbers."""

    def message(self, x_i: Tensor, x_j: Tensor, e: Tensor) -> Tensor:
        return (x_j - x_i) * e / 2


class ChangingModule(Base):
    """Modules that change what they are given, where it is read again and where it is not."""

    def __init__(self) -> None:
        super().__init__()
        self.act = ReLU(inplace=True)
        self.res = Residual()

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        h = x_j - x_i
        return h * self.res(h) + self.act(x_i * 2)


class Residual(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Sequential(ReLU(inplace=True), Linear(WIDTH, WIDTH))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.net(h)


class ChangingHelper(Base):
    """A method of the author's that changes what it is given."""

    def shifted(self, h: Tensor) -> Tensor:
        h += 1
        return h

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        h = x_i - x_j
        return h * self.shifted(h)


class Joined(Base):
    """Values of other widths and types, brought together by subtraction and concatenation."""

    def __init__(self, aggr: str = "mean") -> None:
        super().__init__(aggr)
        self.layer = Sequential(Linear(2 * WIDTH + 1, WIDTH), ReLU(inplace=True))

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor, w: Tensor) -> Tensor:
        count = (3 * x[:, :1]).long()
        return self.propagate(
            edge_index, x=x, first=x[:, :1], pair=(x, x[:, 1:2]), count=count, w=w
        )

    def message(
        self, x_j: Tensor, first_j: Tensor, pair_i: Tensor, pair_j: Tensor, count_j: Tensor
    ) -> Tensor:
        return self.layer(torch.cat([first_j - x_j, pair_j - pair_i, count_j], dim=-1))


class Totalled(Base):
    """Sums over features that keep their dimension, fused or not."""

    def message(self, x_i: Tensor, x_j: Tensor, e: Tensor) -> Tensor:
        near = (x_i - x_j).square().sum(-1, keepdim=True)
        return near.cumsum(-1).sum(dim=-1, keepdim=True) * e.sum(-1, True)


class Compared(Base):
    """What is only compared does not decide the type of the message."""

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor, w: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, limit=x.double() / 2, e=e)

    def message(self, x_j: Tensor, limit_i: Tensor, e: Tensor) -> Tensor:
        return torch.where(limit_i < e, x_j, 0.5) * (limit_i > 0)


FUSED = {
    "joined": Joined,
    "compared": Compared,
    "weighted": Weighted,
    "gated": Gated,
    "scaled": Scaled,
    "perceptron": Perceptron,
    "lifted": Lifted,
    "products": Products,
    "attention": Attention,
    "conditional": Conditional,
    "numbers": Numbers,
    "bounded": Bounded,
    "elapsed": Elapsed,
}
OTHERS = {
    "powered": Powered,
    "squashed": Squashed,
    "normed": Normed,
    "matrices": Matrices,
    "totalled": Totalled,
    "comparing": Comparing,
    "counting": Counting,
    "counting-means": CountingMeans,
}
CHANGING = {
    "changing": Changing,
    "changing-module": ChangingModule,
    "changing-helper": ChangingHelper,
}
