"""Signed and hyper-graphs, own aggregations, abstract, generic and local classes, ``match``."""

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
    NamedTuple,
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


class SignedGraphConv(MessagePassing):
    """Friends and foes, balanced and unbalanced paths."""

    def __init__(
        self, in_channels: int, out_channels: int, first_aggr: bool, bias: bool = True, **kwargs
    ):
        kwargs.setdefault("aggr", "mean")
        super().__init__(**kwargs)
        self.in_channels, self.out_channels, self.first_aggr = in_channels, out_channels, first_aggr
        width = in_channels * (2 if first_aggr else 3)
        self.lin_b, self.lin_u = (
            nn.Linear(width, out_channels, bias),
            nn.Linear(width, out_channels, bias),
        )

    def forward(self, x: Union[Tensor, PairTensor], pos_edge_index: Adj, neg_edge_index: Adj):
        if self.first_aggr:
            pos = self.propagate(pos_edge_index, x=x)
            neg = self.propagate(neg_edge_index, x=x)
            return torch.cat(
                [self.lin_b(torch.cat([pos, x], -1)), self.lin_u(torch.cat([neg, x], -1))], -1
            )
        F_in = self.in_channels
        b, u = x[..., :F_in], x[..., F_in:]
        out_b = self.lin_b(
            torch.cat(
                [self.propagate(pos_edge_index, x=b), self.propagate(neg_edge_index, x=u), b], -1
            )
        )
        out_u = self.lin_u(
            torch.cat(
                [self.propagate(pos_edge_index, x=u), self.propagate(neg_edge_index, x=b), u], -1
            )
        )
        return torch.cat([out_b, out_u], dim=-1)

    def message(self, x_j: Tensor) -> Tensor:
        return x_j

    def message_and_aggregate(self, adj_t: SparseTensor, x: Tensor) -> Tensor:
        adj_t = adj_t.set_value(None, layout=None)
        return torch_sparse.matmul(adj_t, x, reduce=self.aggr)


class SignedNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = SignedGraphConv(8, 4, first_aggr=True)
        self.convs = nn.ModuleList([SignedGraphConv(4, 4, first_aggr=False) for _ in range(2)])

    def forward(self, x, edge_index, edge_weight):
        sign = edge_weight > 1.0
        pos, neg = edge_index[:, sign], edge_index[:, ~sign]
        z = torch.tanh(self.conv1(x, pos, neg))
        for conv in self.convs:
            z = torch.tanh(conv(z, pos, neg))
        return z


class HypergraphAttention(MessagePassing):
    """From nodes to hyperedges and back, two signatures of propagate."""

    def __init__(self, dim=8, out=3, heads=2):
        super().__init__(aggr="add", node_dim=0)
        self.heads, self.out = heads, out
        self.lin = nn.Linear(dim, heads * out, bias=False)
        self.att = nn.Parameter(torch.randn(1, heads, 2 * out) * 0.3)

    def forward(self, x, hyperedge_index, hyperedge_weight=None):
        num_nodes = x.size(0)
        num_edges = int(hyperedge_index[1].max()) + 1 if hyperedge_index.numel() > 0 else 0
        if hyperedge_weight is None:
            hyperedge_weight = x.new_ones(num_edges)
        x = self.lin(x).view(-1, self.heads, self.out)
        he = scatter(x[hyperedge_index[0]], hyperedge_index[1], 0, num_edges, reduce="mean")
        both = torch.cat([x[hyperedge_index[0]], he[hyperedge_index[1]]], dim=-1)
        alpha = softmax(
            F.leaky_relu((both * self.att).sum(dim=-1), 0.2),
            hyperedge_index[0],
            num_nodes=num_nodes,
        )
        D = scatter(
            hyperedge_weight[hyperedge_index[1]], hyperedge_index[0], 0, num_nodes, reduce="sum"
        )
        D = torch.where(D > 0, 1.0 / D, torch.zeros_like(D))
        B = 1.0 / degree(hyperedge_index[1], num_edges, x.dtype)
        B[B == float("inf")] = 0
        out = self.propagate(hyperedge_index, x=x, norm=B, alpha=alpha, size=(num_nodes, num_edges))
        out = self.propagate(
            hyperedge_index.flip([0]), x=out, norm=D, alpha=alpha, size=(num_edges, num_nodes)
        )
        return out.flatten(1)

    def message(self, x_j: Tensor, norm_i: Tensor, alpha: Tensor) -> Tensor:
        return norm_i.view(-1, 1, 1) * alpha.unsqueeze(-1) * x_j


class LearnedScalers(Aggregation):
    """Several reductions, each scaled by learned powers of the degree."""

    def __init__(self, reduces=("mean", "max", "std"), channels=8):
        super().__init__()
        self.reduces = list(reduces)
        self.power = nn.Parameter(torch.linspace(-0.5, 0.5, len(reduces)))
        self.mix = nn.Parameter(torch.ones(len(reduces), channels))

    def forward(
        self,
        x: Tensor,
        index: Optional[Tensor] = None,
        ptr: Optional[Tensor] = None,
        dim_size: Optional[int] = None,
        dim: int = -2,
    ) -> Tensor:
        self.assert_index_present(index)
        deg = degree(index, dim_size, dtype=x.dtype).clamp_(min=1).unsqueeze(-1)
        out = x.new_zeros(1)
        for i, reduce in enumerate(self.reduces):
            if reduce == "std":
                mean = self.reduce(x, index, ptr, dim_size, dim, reduce="mean")
                square = self.reduce(x * x, index, ptr, dim_size, dim, reduce="mean")
                part = (square - mean * mean).relu().add(1e-5).sqrt()
            else:
                part = self.reduce(x, index, ptr, dim_size, dim, reduce=reduce)
            out = out + self.mix[i] * part * deg.pow(self.power[i])
        return out


class ScaledConv(MessagePassing):
    def __init__(self):
        super().__init__(aggr=aggr.MultiAggregation([LearnedScalers(), "min"], mode="sum"))
        self.pre = nn.Linear(16, 8)

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)

    def message(self, x_i, x_j):
        return self.pre(torch.cat([x_i, x_j], dim=-1))


T = TypeVar("T", bound=nn.Module)


class Wrapper(nn.Module, Generic[T]):
    """Residual, norm and dropout around any conv."""

    def __init__(self, conv: T, dim: int, norm: Optional[str] = "layer"):
        super().__init__()
        self.conv = conv
        self.norm = nn.LayerNorm(dim) if norm == "layer" else None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        h = self.conv(x, *args, **kwargs)
        if self.norm is not None:
            h = self.norm(h)
        return x + F.relu(h)


class ScoreConv(MessagePassing, abc.ABC):
    """Sums weighted by a score that subclasses define."""

    temperature: ClassVar[float] = 1.0

    def __init__(self, dim: int):
        super().__init__(aggr="add")
        self.value = nn.Linear(dim, dim)

    @abc.abstractmethod
    def score(self, q: Tensor, k: Tensor) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor: ...
    def forward(self, x, edge_index, edge_weight=None):
        return self.propagate(edge_index, x=x, v=self.value(x), edge_weight=edge_weight)

    def message(self, x_i, x_j, v_j, edge_weight, index, size_i):
        alpha = self.score(x_i, x_j) / self.temperature
        if edge_weight is not None:
            alpha = alpha + edge_weight.log().view(-1, 1)
        return v_j * softmax(alpha, index, num_nodes=size_i)


class DotScore(ScoreConv):
    temperature = math.sqrt(8)

    def score(self, q, k):
        return (q * k).sum(-1, keepdim=True)


class AdditiveScore(ScoreConv):
    def __init__(self, dim):
        super().__init__(dim)
        self.w = nn.ParameterDict({side: nn.Parameter(torch.randn(dim, 1) * 0.3) for side in "qk"})

    def score(self, q, k):
        return torch.tanh(torch.mm(q, self.w["q"]) + torch.mm(k, self.w["k"]))


class GenericStack(nn.Module):
    def __init__(self):
        super().__init__()
        layers = [("dot", DotScore(8)), ("add", AdditiveScore(8)), ("gcn", GCNConv(8, 8))]
        self.layers = nn.ModuleDict(OrderedDict((k, Wrapper(v, 8)) for k, v in layers))
        self.last: Wrapper[DotScore] = Wrapper(DotScore(8), 8, norm=None)

    def forward(self, x, edge_index, edge_weight):
        for name, layer in self.layers.items():
            weight = {"edge_weight": edge_weight} if name != "dot" else {}
            x = layer(x, edge_index, **weight)
        return self.last(x, edge_index)


def make_conv(reduce: str, *acts: Callable[[Tensor], Tensor]):
    """A class of its own for each choice."""
    post = functools.partial(functools.reduce, lambda h, act: act(h))

    class LocalConv(MessagePassing):
        def __init__(self, dim: int):
            super().__init__(aggr=reduce)
            self.eps = nn.Parameter(torch.zeros(1))
            self.dim = dim

        def forward(self, x, edge_index):
            return (1 + self.eps) * x + self.propagate(edge_index, x=x)

        def message(self, x_j):
            return post(acts, x_j)

    return LocalConv


class Factories(nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(
            [
                make_conv("sum", torch.tanh, lambda h: h * 2)(8),
                make_conv("max", F.elu)(8),
                make_conv("mean")(8),
            ]
        )

    def forward(self, x, edge_index):
        for conv in self.convs:
            x = conv(x, edge_index)
        return x


class Hyperboloid(nn.Module):
    """A manifold as an object with methods."""

    def __init__(self, c: float = 1.0, eps: float = 1e-5):
        super().__init__()
        self.c = nn.Parameter(torch.tensor(c))
        self.eps = eps

    def expmap0(self, u):
        n = u.norm(dim=-1, p=2, keepdim=True).clamp_min(self.eps)
        k = self.c.abs().sqrt()
        return torch.tanh(k * n) * u / (k * n)

    def logmap0(self, y):
        n = y.norm(dim=-1, p=2, keepdim=True).clamp_min(self.eps)
        k = self.c.abs().sqrt()
        return torch.atanh((k * n).clamp(max=1 - self.eps)) * y / (k * n)


class HyperbolicConv(MessagePassing):
    def __init__(self, dim, manifold, out=4):
        super().__init__(aggr="mean")
        self.manifold = manifold
        self.weight = nn.Parameter(torch.randn(dim, out) * 0.3)

    def forward(self, x, edge_index):
        h = self.manifold.logmap0(x) @ self.weight
        edge_index, _ = add_remaining_self_loops(edge_index, num_nodes=x.shape[0])
        return self.manifold.expmap0(self.propagate(edge_index, h=h))

    def message(self, h_j):
        return h_j


class HyperbolicNet(nn.Module):
    def __init__(self):
        super().__init__()
        manifold = Hyperboloid(0.7)
        self.manifold = manifold
        self.convs = nn.ModuleList([HyperbolicConv(8, manifold), HyperbolicConv(4, manifold)])

    def forward(self, x, edge_index):
        x = self.manifold.expmap0(0.1 * x)
        for conv in self.convs:
            x = conv(x, edge_index)
        return self.manifold.logmap0(x)


class TreeOfConvs(nn.Module):
    """A module that holds modules of its own class."""

    def __init__(self, depth: int, dim: int = 8):
        super().__init__()
        self.conv = SAGEConv(dim, dim, aggr="mean" if depth % 2 else "max")
        self.down = TreeOfConvs(depth - 1, dim) if depth > 0 else None

    def forward(self, x, edge_index, depth: int = 0):
        h = torch.tanh(self.conv(x, edge_index))
        if self.down is None:
            return h
        return h + self.down(h, edge_index, depth + 1) / (depth + 1)


class Matched(MessagePassing):
    """``match`` on options, named tuples with replaced fields, products by ``spmm``."""

    class State(NamedTuple):
        h: Tensor
        norm: Optional[Tensor] = None

    def __init__(self, norm: str = "sym", how: Tuple[str, int] = ("power", 2)):
        super().__init__(aggr="add")
        self.norm, self.how = norm, how

    def message_and_aggregate(self, adj_t: Adj, h: Tensor) -> Tensor:
        return spmm(adj_t, h, reduce=self.aggr)

    def forward(self, x, edge_index):
        state = self.State(x)
        deg = degree(edge_index[1], x.size(0), x.dtype).clamp(min=1)
        match self.norm:
            case "sym":
                state = state._replace(norm=deg.rsqrt()[edge_index[0]] * deg.rsqrt()[edge_index[1]])
            case "row" | "mean":
                state = state._replace(norm=deg.reciprocal()[edge_index[1]])
            case None:
                pass
            case other:
                raise ValueError(f"unknown norm {other!r}")
        out = self.propagate(edge_index, **state._asdict())
        match self.how:
            case ("power", int() as exponent):
                out = out**exponent
            case _:
                out = out.exp()
        return out

    def message(self, h_j, norm):
        return h_j if norm is None else h_j * norm.unsqueeze(-1)


XE, XEW = on("x", "edge_index"), on("x", "edge_index", "edge_weight")
MODELS = {
    "signed": (SignedNet, XEW),
    "hypergraph": (HypergraphAttention, XE),
    "learned-scalers": (ScaledConv, XE),
    "generic": (GenericStack, XEW),
    "factories": (Factories, XE),
    "hyperbolic": (HyperbolicNet, XE),
    "tree": (lambda: TreeOfConvs(3), XE),
    "matched": (Matched, XE),
    "matched-row": (lambda: Matched("row", ("exp", 0)), XE),
    "matched-none": (lambda: Matched(None), XE),
}
