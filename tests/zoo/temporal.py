"""Graphs in time, recommendation, flows: hidden states, lists and dictionaries of tensors."""

from __future__ import annotations

import abc
import enum
import functools
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import (
    Any,
    Callable,
    ClassVar,
    Dict,
    Generic,
    List,
    Optional,
    Tuple,
    TypeVar,
    Union,
    overload,
)

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import ChebConv, GCNConv, MessagePassing, SAGEConv, aggr
from torch_geometric.nn.aggr import Aggregation
from torch_geometric.typing import Adj, OptTensor, PairTensor, Size, SparseTensor, torch_sparse
from torch_geometric.utils import add_remaining_self_loops, degree, scatter, softmax, spmm

from zoo.graphs import GRAPHS, on


class ChebGRU(nn.Module):
    """A GRU whose products are graph convolutions; the hidden state may be given or not."""

    def __init__(self, in_channels: int, out_channels: int, K: int, bias: bool = True):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        for gate in "zrh":
            setattr(self, f"conv_x_{gate}", ChebConv(in_channels, out_channels, K=K, bias=bias))
            setattr(self, f"conv_h_{gate}", ChebConv(out_channels, out_channels, K=K, bias=bias))

    def _set_hidden_state(self, X, H):
        if H is None:
            H = torch.zeros(X.shape[0], self.out_channels).to(X.device)
        return H

    def _calculate_update_gate(self, X, edge_index, edge_weight, H):
        Z = self.conv_x_z(X, edge_index, edge_weight)
        Z = Z + self.conv_h_z(H, edge_index, edge_weight)
        return torch.sigmoid(Z)

    def forward(
        self,
        X: torch.FloatTensor,
        edge_index: torch.LongTensor,
        edge_weight: torch.FloatTensor = None,
        H: torch.FloatTensor = None,
    ) -> torch.FloatTensor:
        H = self._set_hidden_state(X, H)
        Z = self._calculate_update_gate(X, edge_index, edge_weight, H)
        R = torch.sigmoid(
            self.conv_x_r(X, edge_index, edge_weight) + self.conv_h_r(H, edge_index, edge_weight)
        )
        H_tilde = torch.tanh(
            self.conv_x_h(X, edge_index, edge_weight)
            + self.conv_h_h(H * R, edge_index, edge_weight)
        )
        return Z * H + (1 - Z) * H_tilde


class TrafficForecast(nn.Module):
    """Snapshots in a list, two layers of cells, attention over the periods."""

    def __init__(self, periods: int = 3, layers: int = 2):
        super().__init__()
        sizes = [8] + [6] * layers
        self.cells = nn.ModuleList([ChebGRU(a, b, K=2) for a, b in zip(sizes, sizes[1:])])
        self.attention = nn.Parameter(torch.linspace(-1, 1, periods))
        self.head = nn.Linear(6, 2)

    def forward(self, xs: List[Tensor], edge_index: Tensor, edge_weight: Tensor) -> Tensor:
        states: List[Optional[Tensor]] = [None for _ in self.cells]
        total = 0.0
        weights = torch.softmax(self.attention, dim=0)
        for t, x in enumerate(xs):
            for layer, cell in enumerate(self.cells):
                state = cell(x, edge_index, edge_weight, states[layer])
                states[layer] = state
                x = state
            total = total + weights[t] * x
        return self.head(total)


class DiffusionCell(MessagePassing):
    """Diffusion on both directions of a road network."""

    def __init__(self, dim: int, hidden: int, K: int = 2):
        super().__init__(aggr="add", flow="source_to_target")
        self.K, self.hidden = K, hidden
        self.weight = nn.Parameter(torch.empty(2, K + 1, dim + hidden, 3 * hidden))
        self.bias = nn.Parameter(torch.zeros(3 * hidden))
        nn.init.normal_(self.weight, std=0.2)

    def diffuse(self, x, edge_index, edge_weight):
        row, col = edge_index
        deg_out = scatter(edge_weight, row, 0, x.size(0), reduce="sum")
        deg_in = scatter(edge_weight, col, 0, x.size(0), reduce="sum")
        norms = (
            edge_weight / deg_out.clamp(min=1e-6)[row],
            edge_weight / deg_in.clamp(min=1e-6)[col],
        )
        out = x @ self.weight[0, 0] + x @ self.weight[1, 0]
        for side, (index, norm) in enumerate(zip((edge_index, edge_index.flip([0])), norms)):
            T_0, T_1 = x, self.propagate(index, x=x, norm=norm)
            out = out + torch.matmul(T_1, self.weight[side, 1])
            for k in range(2, self.K + 1):
                T_2 = 2.0 * self.propagate(index, x=T_1, norm=norm) - T_0
                out = out + torch.matmul(T_2, self.weight[side, k])
                T_0, T_1 = T_1, T_2
        return out + self.bias

    def forward(self, x, edge_index, edge_weight, state: Optional[Tuple[Tensor, Tensor]] = None):
        if state is None:
            h = x.new_zeros(x.size(0), self.hidden)
            c = torch.zeros_like(h)
        else:
            h, c = state
        i, f, g = self.diffuse(torch.cat([x, h], -1), edge_index, edge_weight).chunk(3, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.tanh(c), (torch.tanh(c), c)

    def message(self, x_j, norm):
        return norm.view(-1, 1) * x_j


class DiffusionNet(nn.Module):
    def __init__(self, steps=3):
        super().__init__()
        self.cell = DiffusionCell(8, 4)
        self.steps = steps

    def forward(self, x, edge_index, edge_weight):
        state, outs = None, []
        for step in range(self.steps):
            out, state = self.cell(x * (step + 1), edge_index, edge_weight, state)
            outs.append(out)
        return torch.stack(outs, dim=1), state[1]


class SpatioTemporalBlock(MessagePassing):
    """Gated convolutions in time around one in space; features [batch, time, nodes, channels]."""

    def __init__(self, channels=3, hidden=4, kernel=2):
        super().__init__(aggr="mean", node_dim=-2)
        self.time1 = nn.Linear(channels * kernel, 2 * hidden)
        self.time2 = nn.Linear(hidden * kernel, 2 * hidden)
        self.theta = nn.Linear(hidden, hidden)
        self.norm = nn.BatchNorm2d(hidden)

    @staticmethod
    def _glu(conv, x, kernel=2):
        p, q = conv(x.unfold(1, kernel, 1).flatten(-2)).chunk(2, dim=-1)
        return p * torch.sigmoid(q)

    def forward(self, pos, edge_index, edge_weight):
        x = torch.stack([pos, pos.cos()]).unsqueeze(1) * torch.arange(1.0, 5.0).view(1, -1, 1, 1)
        h = self._glu(self.time1, x)
        h = F.relu(self.propagate(edge_index, x=self.theta(h), w=edge_weight))
        h = self._glu(self.time2, h)
        return self.norm(h.transpose(1, 3)).transpose(1, 3)

    def message(self, x_j, w):
        return x_j * w[:, None]


class Side(str, enum.Enum):
    USER = "user"
    ITEM = "item"


@dataclass(frozen=True)
class RecommenderConfig:
    """Options of a recommender."""

    dim: int = 6
    layers: int = 2
    sides: Tuple[Side, ...] = (Side.USER, Side.ITEM)
    act: Callable[[Tensor], Tensor] = torch.tanh
    alpha: Union[float, str] = "mean"


class BipartiteConv(MessagePassing):
    def __init__(self, dim: int, normalize: bool = True):
        super().__init__(aggr="add")
        self.normalize = normalize
        self.lin = nn.Linear(dim, dim, bias=False)

    def forward(
        self, x: PairTensor, edge_index: Adj, rating: OptTensor = None, size: Size = None
    ) -> Tensor:
        x_src, x_dst = x
        if size is None:
            size = (x_src.size(0), x_dst.size(0))
        norm: OptTensor = None
        if self.normalize:
            d_src = degree(edge_index[0], size[0], x_src.dtype).clamp(min=1).rsqrt()
            d_dst = degree(edge_index[1], size[1], x_src.dtype).clamp(min=1).rsqrt()
            norm = d_src[edge_index[0]] * d_dst[edge_index[1]]
        return self.propagate(
            edge_index, x=(self.lin(x_src), None), norm=norm, rating=rating, size=size
        )

    def message(self, x_j: Tensor, norm: OptTensor, rating: OptTensor) -> Tensor:
        out = x_j if norm is None else norm.unsqueeze(-1) * x_j
        return out if rating is None else out * rating.unsqueeze(-1)


class Recommender(nn.Module):
    """Users and items in dictionaries; scores of pairs."""

    def __init__(self, config: RecommenderConfig):
        super().__init__()
        self.config = config
        self.proj = nn.ModuleDict({side.value: nn.Linear(8, config.dim) for side in config.sides})
        self.convs = nn.ModuleList(
            [
                nn.ModuleDict(
                    {side.value: BipartiteConv(config.dim, i % 2 == 0) for side in config.sides}
                )
                for i in range(config.layers)
            ]
        )

    def forward(
        self, x_dict: Dict[str, Tensor], edge_index: Tensor, rating: Tensor, pairs: Tensor
    ) -> Dict[str, Tensor]:
        h = {side.value: self.proj[side.value](x_dict[side.value]) for side in self.config.sides}
        layers = [h]
        for convs in self.convs:
            out: Dict[str, Tensor] = {}
            for dst, src in zip(self.config.sides, reversed(self.config.sides)):
                index = edge_index if dst is Side.ITEM else edge_index.flip(0)
                pair = (h[src.value], h[dst.value])
                weight = rating if dst == Side.USER else None
                out[dst.value] = self.config.act(convs[dst.value](pair, index, weight))
            h = out
            layers.append(h)
        final = {}
        for side in self.config.sides:
            stacked = torch.stack([layer[side.value] for layer in layers])
            final[side.value] = stacked.mean(0) if self.config.alpha == "mean" else stacked.sum(0)
        final["score"] = (final["user"][pairs[0]] * final["item"][pairs[1]]).sum(-1)
        return final


class CouplingBlock(MessagePassing):
    """One step of a normalising flow on graphs, and back."""

    def __init__(self, dim):
        super().__init__(aggr="mean")
        self.dim = dim
        self.net = nn.Sequential(nn.Linear(dim, 8), nn.Tanh(), nn.Linear(8, 2 * dim))

    def scale_shift(self, x, edge_index):
        s, t = self.net(self.propagate(edge_index, x=x)).split([self.dim, self.dim], dim=-1)
        return torch.tanh(s), t

    def forward(self, x1, x2, edge_index, reverse: bool = False):
        s, t = self.scale_shift(x1, edge_index)
        if not reverse:
            return x1, x2 * s.exp() + t, s.sum(dim=-1)
        return x1, (x2 - t) * (-s).exp(), -s.sum(dim=-1)

    def message(self, x_j):
        return x_j


class GraphFlow(nn.Module):
    def __init__(self, depth=3):
        super().__init__()
        self.blocks = nn.ModuleList(CouplingBlock(4) for _ in range(depth))
        self.register_buffer("log_2pi", torch.tensor(math.log(2 * math.pi)))

    def forward(self, x, edge_index):
        a, b = torch.chunk(x, 2, dim=-1)
        log_det = x.new_zeros(x.size(0))
        for i, block in enumerate(self.blocks):
            a, b = (b, a) if i % 2 else (a, b)
            a, b, ld = block(a, b, edge_index)
            log_det += ld
        z = torch.cat([a, b], -1)
        log_prob = -0.5 * (z**2 + self.log_2pi).sum(-1) + log_det
        for i, block in reversed(list(enumerate(self.blocks))):
            a, b, _ = block(a, b, edge_index, reverse=True)
            if i % 2:
                a, b = b, a
        return z, log_prob, torch.cat([a, b], -1)


def _snapshots(graph):
    return [graph.x, graph.x.roll(1, 0), graph.x * 0.5]


XE, XEW = on("x", "edge_index"), on("x", "edge_index", "edge_weight")
MODELS = {
    "traffic": (
        TrafficForecast,
        tuple((_snapshots(g), g.edge_index, g.edge_weight) for g in GRAPHS),
    ),
    "diffusion": (DiffusionNet, XEW),
    "spatio-temporal": (SpatioTemporalBlock, on("pos", "edge_index", "edge_weight")),
    "recommender": (
        lambda: Recommender(RecommenderConfig()),
        tuple(
            ({"user": g.x, "item": g.x.flip(0)}, g.edge_index, g.edge_weight, g.edge_index[:, :4])
            for g in GRAPHS
        ),
    ),
    "recommender-sum": (
        lambda: Recommender(RecommenderConfig(layers=1, alpha="sum", act=F.relu)),
        tuple(
            ({"user": g.x, "item": g.x.flip(0)}, g.edge_index, g.edge_weight, g.edge_index[:, :2])
            for g in GRAPHS
        ),
    ),
    "flow": (GraphFlow, XE),
}
