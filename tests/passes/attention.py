"""Attention of classes that no list of ours names, and what is no attention of this kind."""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Dropout, Linear, Parameter
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import softmax

HEADS, WIDTH = 2, 6


class Base(MessagePassing):
    """Takes node features, an edge index, and edge features."""

    def __init__(self, node_dim: int = 0, aggr: str = "add") -> None:
        super().__init__(aggr=aggr, node_dim=node_dim)

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, e=e)


class Updated(Base):
    """Scores of an edge update, by a layer of both ends and the edge; dropout as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.value = Linear(WIDTH, HEADS * 5)
        self.score = Linear(3 * WIDTH, HEADS)
        self.drop = Dropout(0.3)

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
        alpha = self.edge_updater(edge_index, x=x, e=e)
        v = self.value(x).view(-1, HEADS, 5)
        return self.propagate(edge_index, v=v, alpha=alpha).mean(dim=1)

    def edge_update(
        self, x_i: Tensor, x_j: Tensor, e: Tensor, index: Tensor, size_i: Optional[int]
    ) -> Tensor:
        score = F.elu(self.score(torch.cat([x_i, x_j, e], dim=-1)))
        return self.drop(softmax(score, index, num_nodes=size_i))

    def message(self, v_j: Tensor, alpha: Tensor) -> Tensor:
        return alpha[..., None] * v_j


class Joined(Updated):
    """The two calls one behind the other."""

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
        v = self.value(x).view(-1, HEADS, 5)
        alpha = self.edge_updater(edge_index, x=x, e=e)
        out = self.propagate(edge_index, v=v, alpha=alpha)
        return out.mean(dim=1)


class Distances(Base):
    """Scores from distances with a learned scale, messages that are differences with weights."""

    def __init__(self) -> None:
        super().__init__(node_dim=-2)
        self.scale = Parameter(torch.tensor(0.7))

    def message(
        self, x_i: Tensor, x_j: Tensor, e: Tensor, index: Tensor, dim_size: Optional[int]
    ) -> Tensor:
        score = -(x_i - x_j).square().sum(dim=-1) * self.scale
        alpha = softmax(score, index, num_nodes=dim_size)
        return alpha.view(-1, 1) * (x_j - x_i) * torch.sigmoid(e)


class Remembering(Base):
    """The weights are held for a while, and handed out where they are asked for."""

    _alpha: Optional[Tensor]

    def __init__(self, hand_out: bool = False) -> None:
        super().__init__()
        self.hand_out = hand_out
        self.query, self.key = Linear(WIDTH, HEADS * 3), Linear(WIDTH, HEADS * 3)
        self._alpha = None

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
        q, k = self.query(x).view(-1, HEADS, 3), self.key(x).view(-1, HEADS, 3)
        out = self.propagate(edge_index, q=q, k=k, v=x.view(-1, HEADS, WIDTH // HEADS), e=e)
        alpha = self._alpha
        assert alpha is not None
        self._alpha = None
        if self.hand_out:
            return torch.cat([out.flatten(), alpha.flatten()])
        return out.flatten(1)

    def message(
        self, q_i: Tensor, k_j: Tensor, v_j: Tensor, e: Tensor, index: Tensor, size_i: Optional[int]
    ) -> Tensor:
        score = (q_i * k_j).sum(-1) / 3**0.5 + e[:, :HEADS]
        alpha = softmax(score, index, num_nodes=size_i)
        self._alpha = alpha
        return v_j * torch.unsqueeze(F.dropout(alpha, 0.5, self.training), -1)


class SharedValues(Base):
    """All heads weight the same values."""

    def __init__(self) -> None:
        super().__init__()
        self.score = Linear(2 * WIDTH, HEADS)

    def message(self, x_i: Tensor, x_j: Tensor, index: Tensor, size_i: Optional[int]) -> Tensor:
        alpha = softmax(self.score(torch.cat([x_i, x_j], -1)), index, num_nodes=size_i)
        return alpha.unsqueeze(2) * x_j.unsqueeze(1)


class Squared(Base):
    """Weights that do not add up to one: not linear in the softmax."""

    def message(self, x_i: Tensor, x_j: Tensor, index: Tensor, size_i: Optional[int]) -> Tensor:
        alpha = softmax((x_i * x_j).sum(-1, keepdim=True), index, num_nodes=size_i)
        return alpha * (alpha * x_j)


class Outgoing(Base):
    """The softmax is over the edges that leave a node, the sum over those that reach it."""

    def message(
        self, x_i: Tensor, x_j: Tensor, edge_index_j: Tensor, size_j: Optional[int]
    ) -> Tensor:
        alpha = softmax((x_i - x_j).abs().sum(-1), edge_index_j, num_nodes=size_j)
        return alpha.view(-1, 1) * x_j


class Largest(Base):
    """The largest of the weighted messages."""

    def __init__(self) -> None:
        super().__init__(aggr="max")

    def message(self, x_i: Tensor, x_j: Tensor, index: Tensor, size_i: Optional[int]) -> Tensor:
        return softmax(x_i + x_j, index, num_nodes=size_i) * x_j


class PerFeature(Base):
    """A softmax for each feature, of a score that is none of gathered values alone."""

    def message(self, x_j: Tensor, e: Tensor, index: Tensor, size_i: Optional[int]) -> Tensor:
        alpha = softmax(F.softplus(e), index, num_nodes=size_i)
        return x_j / (1 + e.abs()) * alpha


class AddedTo(Joined):
    """A layer that adds to its result in place."""

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
        out = super().forward(x, edge_index, e)
        out += 0.5
        return out.mul_(2)


class Changed(Base):
    """Weights that are changed in place."""

    def message(self, x_i: Tensor, x_j: Tensor, index: Tensor, size_i: Optional[int]) -> Tensor:
        alpha = softmax((x_i * x_j).sum(-1), index, num_nodes=size_i)
        alpha[alpha < 0.1] = 0.0
        alpha *= 2
        return alpha.unsqueeze(-1) * x_j


class DroppedMean(MessagePassing):
    """The mean of weighted messages; dropout of the weights as a module."""

    def __init__(self) -> None:
        super().__init__(aggr="mean")
        self.lin = Linear(WIDTH, WIDTH)
        self.drop = Dropout(0.3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=self.lin(x))

    def message(self, x_i: Tensor, x_j: Tensor, index: Tensor, size_i: int) -> Tensor:
        alpha = softmax((x_i * x_j).sum(-1), index, num_nodes=size_i)
        return self.drop(alpha).unsqueeze(-1) * x_j


class AlwaysDropped(MessagePassing):
    """Weights are dropped in evaluation, too; in training messages after them, by other numbers."""

    def __init__(self) -> None:
        super().__init__(aggr="add")

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)

    def message(self, x_i: Tensor, x_j: Tensor, index: Tensor, size_i: int) -> Tensor:
        alpha = softmax((x_i * x_j).sum(-1), index, num_nodes=size_i)
        alpha = F.dropout(alpha, 0.4, True)
        return F.dropout(x_j, 0.2, self.training) * alpha.view(-1, 1)


ONE_PASS = {
    "added to": AddedTo,
    "joined": Joined,
    "distances": Distances,
    "remembering": Remembering,
    "shared values": SharedValues,
    "per feature": PerFeature,
}
OTHERS = {
    "changed": Changed,
    "updated": Updated,
    "handed out": lambda: Remembering(hand_out=True),
    "squared": Squared,
    "outgoing": Outgoing,
    "largest": Largest,
}


class Inspected(Remembering):
    """The weights stay, for whoever looks at the module afterwards."""

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
        q, k = self.query(x).view(-1, HEADS, 3), self.key(x).view(-1, HEADS, 3)
        v = x.view(-1, HEADS, WIDTH // HEADS)
        return self.propagate(edge_index, q=q, k=k, v=v, e=e).flatten(1)
