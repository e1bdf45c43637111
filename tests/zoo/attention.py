"""Attention and gating: transformers over graphs, gates, relations, layers that look at each other."""

import copy
import enum
import functools
import math
import warnings
from collections import namedtuple
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple, Union

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn import GCNConv, MessagePassing, aggr
from torch_geometric.nn.inits import glorot, zeros
from torch_geometric.utils import add_self_loops, degree, remove_self_loops, scatter, softmax

from zoo.graphs import on


class GraphTransformerLayer(MessagePassing):
    """Multi-head attention whose edges have features that are updated too."""

    def __init__(
        self,
        in_dim,
        out_dim,
        num_heads,
        edge_dim,
        use_bias=False,
        residual=True,
        layer_norm=False,
        batch_norm=True,
        clip=5,
    ):
        super().__init__(aggr="add", node_dim=0)
        self.in_channels, self.out_channels, self.num_heads = in_dim, out_dim, num_heads
        self.d = out_dim // num_heads
        self.residual, self.layer_norm, self.batch_norm = residual, layer_norm, batch_norm
        self.clip = clip
        for name in ["Q", "K", "V"]:
            setattr(self, name, nn.Linear(in_dim, out_dim, bias=use_bias))
        self.E = nn.Linear(edge_dim, out_dim, bias=use_bias)
        self.O_h, self.O_e = nn.Linear(out_dim, out_dim), nn.Linear(out_dim, edge_dim)
        self.norms = nn.ModuleDict()
        if self.layer_norm:
            self.norms["h"] = nn.LayerNorm(out_dim)
        if self.batch_norm:
            self.norms["bn"] = nn.BatchNorm1d(out_dim)

    def forward(self, h, edge_index, e):
        H, D = self.num_heads, self.d
        Q_h, K_h, V_h = [getattr(self, n)(h).view(-1, H, D) for n in ("Q", "K", "V")]
        E_h = self.E(e).view(-1, H, D)
        self._edge_out = None
        wV, z = self.propagate(edge_index, Q=Q_h, K=K_h, V=V_h, E=E_h)
        out = (wV / (z + 1e-6)).view(-1, H * D)
        e_out = self._edge_out
        out = self.O_h(out)
        if self.residual:
            out = h + out
        for key in self.norms:
            out = self.norms[key](out)
        return out, e + self.O_e(e_out)

    def message(self, Q_i, K_j, V_j, E):
        score = K_j * Q_i / math.sqrt(self.d)
        score = score * E
        self._edge_out = score.flatten(1)
        score = torch.exp(score.sum(-1, keepdim=True).clamp(-self.clip, self.clip))
        return V_j * score, score

    def aggregate(self, inputs, index, dim_size=None):
        msg, score = inputs
        return (
            scatter(msg, index, dim=0, dim_size=dim_size, reduce="sum"),
            scatter(score, index, dim=0, dim_size=dim_size, reduce="sum"),
        )

    def update(self, aggr_out):
        return aggr_out


class GraphTransformer(nn.Module):
    def __init__(self, depth=2, **kwargs):
        super().__init__()
        layer = GraphTransformerLayer(8, 8, 2, 3, **kwargs)
        self.layers = nn.ModuleList([copy.deepcopy(layer) for _ in range(depth)])

    def forward(self, x, edge_index, edge_attr):
        for layer in self.layers:
            x, edge_attr = layer(x, edge_index, edge_attr)
        return x, edge_attr


class Activation(enum.Enum):
    RELU = "relu"
    TANH = "tanh"
    SWISH = "swish"

    def __call__(self, x):
        if self is Activation.RELU:
            return F.relu(x)
        elif self is Activation.TANH:
            return torch.tanh(x)
        return x * torch.sigmoid(x)


class ResidualGate(MessagePassing):
    """Edge gates; an enum decides on the activation, a dict of functions on the gate."""

    GATES = {"sigmoid": torch.sigmoid, "hard": lambda x: F.hardtanh(x, 0.0, 1.0)}

    def __init__(self, channels, activation=Activation.RELU, gate="sigmoid", eps: float = 1e-6):
        super().__init__(aggr="add")
        self.A, self.B, self.U, self.V = (nn.Linear(channels, channels) for _ in range(4))
        self.C = nn.Linear(3, channels)
        self.activation = activation
        self.gate = gate
        self.eps = eps

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Optional[Tensor] = None) -> Tensor:
        assert self.gate in self.GATES, f"unknown gate {self.gate!r}"
        num, den = self.propagate(edge_index, a=self.A(x), b=self.B(x), v=self.V(x), e=edge_attr)
        return x + self.activation(self.U(x) + num / (den + self.eps))

    def message(self, a_i, b_j, v_j, e):
        logits = a_i + b_j
        if e is not None:
            logits += self.C(e)
        eta = self.GATES[self.gate](logits)
        return eta * v_j, eta

    def aggregate(self, inputs, index, ptr=None, dim_size=None):
        parts = []
        for part in inputs:
            parts.append(super().aggregate(part, index, ptr, dim_size))
        return parts[0], parts[1]

    def update(self, out):
        return out


class BasisRelational(MessagePassing):
    """Relations by basis decomposition, with a loop over them that masks edges."""

    def __init__(
        self,
        in_feats,
        out_feats,
        num_rels,
        num_bases=None,
        self_loop=True,
        bias=True,
        activation=None,
        dropout=0.0,
    ):
        super(BasisRelational, self).__init__(aggr="mean")
        self.in_feats, self.out_feats = in_feats, out_feats
        self.num_rels = num_rels
        self.num_bases = num_bases if num_bases and 0 < num_bases <= num_rels else num_rels
        self.weight = Parameter(torch.Tensor(self.num_bases, in_feats, out_feats))
        if self.num_bases < self.num_rels:
            self.w_comp = Parameter(torch.Tensor(num_rels, self.num_bases))
            nn.init.xavier_uniform_(self.w_comp, gain=nn.init.calculate_gain("relu"))
        nn.init.xavier_uniform_(self.weight)
        if self_loop:
            self.loop_weight = Parameter(torch.empty(in_feats, out_feats))
            glorot(self.loop_weight)
        self.self_loop = self_loop
        self.h_bias = Parameter(torch.zeros(out_feats)) if bias else None
        self.activation = activation
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, edge_index, edge_type):
        if self.num_bases < self.num_rels:
            weight = torch.einsum("rb,bio->rio", self.w_comp, self.weight)
        else:
            weight = self.weight
        out = 0
        for r in range(self.num_rels):
            mask = edge_type == r
            h = self.propagate(edge_index[:, mask], x=x, size=(x.size(0), x.size(0)))
            out = out + h @ weight[r]
        if self.self_loop:
            out = out + torch.mm(x, self.loop_weight)
        if self.h_bias is not None:
            out += self.h_bias
        if self.activation:
            out = self.activation(out)
        return self.dropout(out)


class NeighborAttention(MessagePassing):
    """GAT in the original style: names broken with backslashes, softmax by hand."""

    def __init__(
        self,
        in_channels,
        out_channels,
        heads=1,
        concat=True,
        negative_slope=0.2,
        dropout=0,
        bias=True,
        **kwargs,
    ):
        super(NeighborAttention, self).__init__(aggr="add", **kwargs)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.concat = concat
        self.negative_slope = negative_slope
        self.dropout = dropout
        self.weight = Parameter(torch.Tensor(in_channels, heads * out_channels))
        self.att = Parameter(torch.Tensor(1, heads, 2 * out_channels))
        if bias and concat:
            self.bias = Parameter(torch.Tensor(heads * out_channels))
        elif bias and not concat:
            self.bias = Parameter(torch.Tensor(out_channels))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self):
        glorot(self.weight)
        glorot(self.att)
        zeros(self.bias)

    def forward(self, x, edge_index, size=None):
        """"""
        if size is None and torch.is_tensor(x):
            edge_index, _ = remove_self_loops(edge_index)
            edge_index, _ = add_self_loops(edge_index, num_nodes=x.size(0))

        if torch.is_tensor(x):
            x = torch.matmul(x, self.weight)
        else:
            x = (
                None if x[0] is None else torch.matmul(x[0], self.weight),
                None if x[1] is None else torch.matmul(x[1], self.weight),
            )

        return self.propagate(edge_index, size=size, x=x)

    def message(self, edge_index_i, x_i, x_j, size_i):
        # Compute attention coefficients.
        x_j = x_j.view(-1, self.heads, self.out_channels)
        if x_i is None:
            alpha = (x_j * self.att[:, :, self.out_channels :]).sum(dim=-1)
        else:
            x_i = x_i.view(-1, self.heads, self.out_channels)
            alpha = (torch.cat([x_i, x_j], dim=-1) * self.att).sum(dim=-1)
        alpha = F.leaky_relu(alpha, self.negative_slope)
        alpha = alpha - scatter(alpha.detach(), edge_index_i, 0, size_i, "max")[edge_index_i]
        alpha = alpha.exp()
        alpha = alpha / (scatter(alpha, edge_index_i, 0, size_i, "sum")[edge_index_i] + 1e-16)

        # Sample attention coefficients stochastically.
        alpha = F.dropout(alpha, p=self.dropout, training=self.training)
        return (x_j * alpha.view(-1, self.heads, 1)).view(-1, self.heads * self.out_channels)

    def update(self, aggr_out):
        if self.concat is True:
            aggr_out = aggr_out.view(-1, self.heads * self.out_channels)
        else:
            aggr_out = aggr_out.view(-1, self.heads, self.out_channels).mean(dim=1)
        if self.bias is not None:
            aggr_out = aggr_out + self.bias
        return aggr_out

    def __repr__(self):
        return "{}({}, {}, heads={})".format(
            self.__class__.__name__, self.in_channels, self.out_channels, self.heads
        )


class SetAttention(nn.Module):
    """A block of a set transformer."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = [nn.Linear(dim, dim) for _ in range(4)]

    def forward(self, X, Y, index_x, index_y):
        # dense attention within graphs, by masking
        B, H = X.shape[0], self.heads
        q = self.q(X).view(X.shape[0], H, -1)
        k, v = (f(Y).view(Y.shape[0], H, -1) for f in (self.k, self.v))
        score = torch.einsum("nhd,mhd->nmh", q, k) / np.sqrt(q.shape[-1])
        mask = index_x[:, None] != index_y[None, :]
        score = score.masked_fill(mask[..., None], -1e9).softmax(dim=1)
        out = torch.einsum("nmh,mhd->nhd", score, v).reshape(B, -1)
        return X + F.relu(self.o(out))


class LocalGlobal(nn.Module):
    """A conv beside global attention, mixed by a learned gate."""

    def __init__(self, dim=8, heads=2, num_layers=2):
        super().__init__()
        self.num_layers = num_layers
        for i in range(num_layers):
            self.add_module(f"local_{i}", NeighborAttention(dim, dim // heads, heads))
            self.add_module(f"global_{i}", SetAttention(dim, heads))
        self.gates = nn.ParameterList([nn.Parameter(torch.zeros(dim)) for _ in range(num_layers)])

    def forward(self, x, edge_index, batch):
        skips: List[Tensor] = []
        for i in range(self.num_layers):
            local = getattr(self, f"local_{i}")(x, edge_index)
            wide = getattr(self, f"global_{i}")(x, x, batch, batch)
            g = torch.sigmoid(self.gates[i])
            x = g * local + (1 - g) * wide
            skips.append(x)
        return torch.stack(skips, dim=0).mean(0)


class Output(NamedTuple):
    node: Tensor
    edge: Tensor
    gate: Optional[Tensor] = None


class EdgeGatedNamed(MessagePassing):
    """Returns a named tuple, with edge_updater."""

    def __init__(self, dim=8, edge_dim=3, with_gate: bool = True):
        super().__init__(aggr="mean")
        self.edge_lin = nn.Linear(2 * dim + edge_dim, edge_dim)
        self.node_lin = nn.Linear(dim + edge_dim, dim)
        self.with_gate = with_gate

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Output:
        edge_attr = self.edge_updater(edge_index, x=x, edge_attr=edge_attr)
        node = self.propagate(edge_index, x=x, edge_attr=edge_attr, size=None)
        if not self.with_gate:
            return Output(node, edge_attr)
        return Output(node=node, edge=edge_attr, gate=torch.sigmoid(edge_attr).mean(-1))

    def edge_update(self, x_i: Tensor, x_j: Tensor, edge_attr: Tensor) -> Tensor:
        return edge_attr + self.edge_lin(torch.cat([x_i, x_j, edge_attr], dim=-1)).tanh()

    def message(self, x_j: Tensor, edge_attr: Tensor) -> Tensor:
        return self.node_lin(torch.cat([x_j, edge_attr], dim=-1))


class NamedModel(nn.Module):
    def __init__(self, with_gate):
        super().__init__()
        self.conv1, self.conv2 = EdgeGatedNamed(with_gate=with_gate), EdgeGatedNamed()

    def forward(self, x, edge_index, edge_attr):
        first = self.conv1(x, edge_index, edge_attr)
        node, edge, gate = self.conv2(first.node.relu(), edge_index, first.edge)
        total = node.sum() + edge.sum()
        if first.gate is not None:
            total = total + first.gate.sum()
        return node, edge, gate, total


class MultiScale(MessagePassing):
    """Several signatures of propagate in one forward, in helpers and loops."""

    def __init__(self, dim=8, hops: int = 3, aggrs=("mean", "max")):
        super().__init__(aggr=None)
        self.hops = hops
        self.aggrs = [aggr.MeanAggregation(), aggr.MaxAggregation()]
        self.aggr_list = nn.ModuleList(self.aggrs)
        self.lins = nn.ModuleList([nn.Linear(dim, 4, bias=i == 0) for i in range(hops + 1)])
        self.which = 0

    def _norm(self, edge_index, num_nodes, dtype):
        row, col = edge_index[0], edge_index[1]
        deg = degree(col, num_nodes, dtype=dtype)
        return deg.clamp_(min=1).pow(-0.5)[row] * deg.pow(-0.5)[col]

    def hop(self, x, edge_index, norm, scale: float = 1.0):
        return self.propagate(
            edge_index, x=x, norm=norm, scale=scale, flag=True, offsets=[0.5, 1.0]
        )

    def forward(self, x, edge_index):
        norm = self._norm(edge_index, x.size(self.node_dim), x.dtype)
        out = self.lins[0](x)
        h = x
        for i, lin in enumerate(self.lins[1:]):
            h = self.hop(h, edge_index, norm, scale=1.0 / (i + 1))
            out = out + lin(h)
        tail = self.propagate(edge_index, x=x, norm=None, scale=2.0, flag=False, offsets=(1.0, 0.0))
        return out, tail

    def message(self, x_j, norm, scale: float, flag: bool, offsets):
        out = x_j * scale
        if norm is not None:
            out = norm.view(-1, 1) * out
        if flag:
            out = out + offsets[0]
        return out * offsets[1] if flag else out

    def aggregate(self, inputs, index, dim_size):
        return sum(a(inputs, index, dim_size=dim_size) for a in self.aggr_list)


class Config:
    """A plain object of options."""

    def __init__(self, **kwargs):
        self.hidden = 8
        self.heads = 2
        self.norm = "sym"
        self.act = F.elu
        self.jk = ["cat"]
        for k, v in kwargs.items():
            setattr(self, k, v)


class Configured(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.convs = nn.ModuleList(
            [NeighborAttention(cfg.hidden, cfg.hidden // cfg.heads, cfg.heads) for _ in range(2)]
        )
        self.acts = [cfg.act, None]
        self.norm_layer = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}.get(cfg.norm)
        if self.norm_layer is not None:
            self.norm = self.norm_layer(cfg.hidden)

    def forward(self, x, edge_index):
        hs = []
        for conv, act in zip(self.convs, self.acts):
            x = conv(x, edge_index)
            if hasattr(self, "norm"):
                x = self.norm(x)
            x = act(x) if act is not None else x
            hs += [x]
        if "cat" in self.cfg.jk:
            return torch.cat(hs, dim=-1)
        elif self.cfg.jk == ["max"]:
            return torch.stack(hs, dim=-1).max(dim=-1)[0]
        return hs[-1]


MODELS = {
    "graph-transformer": (GraphTransformer, on("x", "edge_index", "edge_attr")),
    "graph-transformer-layer-norm": (
        lambda: GraphTransformer(layer_norm=True, batch_norm=False, residual=False),
        on("x", "edge_index", "edge_attr"),
    ),
    "residual-gate": (lambda: ResidualGate(8), on("x", "edge_index", "edge_attr")),
    "residual-gate-hard": (
        lambda: ResidualGate(8, Activation.SWISH, "hard"),
        on("x", "edge_index", "edge_attr"),
    ),
    "basis": (
        lambda: BasisRelational(8, 4, 4, 2, activation=torch.tanh),
        on("x", "edge_index", "edge_type"),
    ),
    "basis-full": (
        lambda: BasisRelational(8, 4, 4, self_loop=False, bias=False),
        on("x", "edge_index", "edge_type"),
    ),
    "neighbor-attention": (lambda: NeighborAttention(8, 4, 2), on("x", "edge_index")),
    "neighbor-attention-mean": (
        lambda: NeighborAttention(8, 4, 2, concat=False, dropout=0.5),
        on("x", "edge_index"),
    ),
    "local-global": (LocalGlobal, on("x", "edge_index", "batch")),
    "named": (lambda: NamedModel(True), on("x", "edge_index", "edge_attr")),
    "named-default": (lambda: NamedModel(False), on("x", "edge_index", "edge_attr")),
    "multi-scale": (MultiScale, on("x", "edge_index")),
    "configured": (lambda: Configured(Config(act=F.gelu)), on("x", "edge_index")),
    "configured-max": (lambda: Configured(Config(norm="layer", jk=["max"])), on("x", "edge_index")),
    "configured-last": (lambda: Configured(Config(norm="batch", jk="none")), on("x", "edge_index")),
}
