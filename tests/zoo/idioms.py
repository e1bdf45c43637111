"""Small convs, each with a habit of Python that TorchScript does not share."""

import copy
import functools
import math
from typing import Any, Final, List, Optional, Tuple, Union

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import degree, scatter, softmax

from zoo.graphs import on

EPS = 1e-6
SCALES = {"a": 0.5, "b": 2.0}


class Lin(MessagePassing):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.lin = nn.Linear(8, 4)

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=self.lin(x))


class InnerDef(Lin):
    def forward(self, x, edge_index):
        scale = 2.0

        def block(h, shift=1.0):
            h = h * scale
            if shift > 0:
                h = h + shift
            return torch.relu(h)

        x = block(x)
        return self.propagate(edge_index, x=block(self.lin(x), shift=0.0))


class InnerDefBranch(Lin):
    def forward(self, x, edge_index):
        def pick(h):
            """Chooses at run time."""
            m = h.mean()
            if m > 0:
                out = h - m
            else:
                out = h + m
            return out

        return self.propagate(edge_index, x=self.lin(pick(x)))


class SetComprehension(Lin):
    NAMES = ("a", "b", "a")

    def forward(self, x, edge_index):
        total = 0.0
        for name in sorted({n for n in self.NAMES}):
            total = total + SCALES[name]
        count = len({n for n in self.NAMES})
        return self.propagate(edge_index, x=self.lin(x) * total / count)


class TryAttribute(Lin):
    def forward(self, x, edge_index):
        try:
            shift = self.shift
        except AttributeError:
            shift = 0.5
        try:
            scale = SCALES["c"]
        except KeyError:
            scale = 3.0
        finally:
            x = x + 1.0
        return self.propagate(edge_index, x=self.lin(x) * scale + shift)


class Finfo(Lin):
    def forward(self, x, edge_index):
        h = self.lin(x)
        tiny = torch.finfo(h.dtype).eps
        big = torch.finfo(h.dtype).max
        return self.propagate(edge_index, x=h.clamp(max=big) + tiny)


class LastDim(Lin):
    def forward(self, x, edge_index):
        *lead, last = x.shape
        h = x.reshape(*lead, 2, last // 2)
        first, *rest = h.shape
        assert first == x.shape[0], f"got {first} and {rest}"
        h = h.view(*h.shape[:-2], -1)
        return self.propagate(edge_index, x=self.lin(h) + float(len(rest)))


class Scaled(Lin):
    """Configuration as numpy numbers, enumerations of constants, Final."""

    factor: Final[float] = 0.5

    def __init__(self):
        super().__init__(aggr="add")
        self.temperature = np.sqrt(8)
        self.steps = np.int64(2)
        self.cutoff = np.float32(1.5)

    def forward(self, x, edge_index):
        h = self.lin(x) / self.temperature
        for _ in range(int(self.steps)):
            h = self.propagate(edge_index, x=h) * self.factor
        return torch.where(h > float(self.cutoff), h * np.pi, h / np.log(2.0))


class Partial(Lin):
    def __init__(self):
        super().__init__()
        self.act = functools.partial(F.leaky_relu, negative_slope=0.3)
        self.post = [torch.tanh, lambda t: t * 2, functools.partial(torch.clamp, min=-1.0)]
        self.reduce = functools.partial(torch.sum, dim=-1, keepdim=True)

    def forward(self, x, edge_index):
        h = self.act(self.lin(x))
        for fn in self.post:
            h = fn(h)
        return self.propagate(edge_index, x=h) + self.reduce(h)


class TypeComment(Lin):
    def forward(self, x, edge_index, w=None):
        # type: (Tensor, Tensor, Optional[Tensor]) -> Tensor
        x = self.lin(x)
        # propagate_type: (x: Tensor, weight: OptTensor, old: int)
        return self.propagate(edge_index, x=x, w=w)

    def message(self, x_j, w):
        # type: (Tensor, Optional[Tensor]) -> Tensor
        return x_j if w is None else x_j * w.view(-1, 1)


class TypeCommentModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = TypeComment()

    def forward(self, x, edge_index, edge_weight):
        return self.conv(x, edge_index) + self.conv(x, edge_index, edge_weight)


class WalrusAndChain(Lin):
    def forward(self, x, edge_index):
        n = size = x.size(0)
        if (deg := degree(edge_index[1], n)).max() > 1 and 0 < size <= 1000:
            x = x / deg.clamp(min=1).unsqueeze(-1)
        a, (b, c) = x[:, :2], (x[:, 2:4], x[:, 4:])
        x = torch.cat([c, a, b], dim=1)
        return self.propagate(edge_index, x=self.lin(x))


class DictOfTensors(Lin):
    def forward(self, x, edge_index):
        outs = {}
        for name, scale in SCALES.items():
            outs[name] = self.propagate(edge_index, x=self.lin(x) * scale)
        outs["sum"] = outs["a"] + outs["b"]
        return outs


class Mixin:
    def normalize_(self, x):
        return F.normalize(x, p=2.0, dim=-1)

    def message(self, x_j, **_):
        return x_j


class Base(MessagePassing):
    def __init__(self, dim=8, **kwargs):
        kwargs.setdefault("aggr", "max")
        super().__init__(**kwargs)
        self.dim = dim

    def message(self, x_i, x_j):
        return x_j - x_i

    def update(self, out, x):
        return out + x

    def aggregate(self, inputs, index, dim_size=None):
        return scatter(inputs, index, dim=self.node_dim, dim_size=dim_size, reduce="mean")


class Middle(Base):
    def message(self, x_i, x_j, edge_attr):
        m = super().message(x_i=x_i, x_j=x_j)
        return m * edge_attr.sum(-1, keepdim=True)


class Top(Middle):
    def forward(self, x, edge_index, edge_attr):
        return self.propagate(edge_index, x=x, edge_attr=edge_attr)

    def message(self, x_i, x_j, edge_attr):
        return super(Top, self).message(x_i, x_j, edge_attr).relu()

    def update(self, out, x):
        return Base.update(self, out, x) * 0.5

    def aggregate(self, inputs, index, dim_size=None):
        return super().aggregate(inputs, index, dim_size) + 1


class NormMixin:
    eps = EPS

    def norm(self, x):
        return x / (x.norm(dim=-1, keepdim=True) + self.eps)


class Mixed(NormMixin, Base):
    @property
    def half(self):
        return self.dim // 2

    @staticmethod
    def twice(t, times=2):
        return t * times

    @classmethod
    def label(cls):
        return cls.__name__

    def forward(self, x, edge_index):
        x = self.norm(x)[..., : self.half]
        if self.label() == "Mixed" and self.__class__.__name__.startswith("M"):
            x = self.twice(x, times=3)
        return self.propagate(edge_index, x=x)


class OneDimensional(MessagePassing):
    def __init__(self):
        super().__init__(aggr="add", node_dim=0)

    def forward(self, edge_index, edge_weight, batch):
        num = int(edge_index.max()) + 1
        score = torch.full((num,), 1.0 / num)
        for _ in range(3):
            new = self.propagate(edge_index, s=score, w=edge_weight, size=(num, num))
            score, old = 0.85 * new + 0.15 / num, score
        return score - old

    def message(self, s_j, w):
        return s_j * w


class TimeSeries(MessagePassing):
    """Features [batch, nodes, time, channels]."""

    def __init__(self):
        super().__init__(aggr="mean", node_dim=1)
        self.gru = nn.GRU(4, 6, batch_first=True)
        self.lin = nn.Linear(8, 4)

    def forward(self, x, edge_index):
        x = torch.stack([x, x.flip(0)]).unsqueeze(2).repeat(1, 1, 3, 1)
        x = self.propagate(edge_index, x=self.lin(x))
        b, n, t, c = x.shape
        h, _ = self.gru(x.reshape(b * n, t, c))
        return h.view(b, n, t, -1)[:, :, -1]


class MemoryCell(MessagePassing):
    """Keeps its state in an attribute; None at first."""

    def __init__(self):
        super().__init__(aggr="mean")
        self.cell = nn.GRUCell(8, 8)
        self.h: Optional[Tensor] = None
        self.calls = 0

    def reset(self):
        self.h = None

    def forward(self, x, edge_index):
        if self.h is None or self.h.size(0) != x.size(0):
            self.h = torch.zeros_like(x)
        m = self.propagate(edge_index, x=x)
        h = self.cell(m, self.h)
        self.h = h.detach()
        self.calls += 1
        return h


class Printing(Lin):
    verbose = False

    def forward(self, x, edge_index):
        if self.verbose:
            print("shapes", x.shape, edge_index.shape)
        assert x.dim() == 2, "got {} of {}".format(x.dim(), self.__class__.__name__)
        assert edge_index.size(0) == 2, f"edge_index has {edge_index.size(0):d} rows"
        return super().forward(x, edge_index)


class SloppyTypes(Lin):
    def forward(
        self, x: torch.tensor, edge_index: torch.LongTensor, sizes: list = None
    ) -> torch.tensor:
        hs: List = [self.lin(x)]
        for k in [1, 2]:
            hs.append(self._step(hs[-1], edge_index, k, (1, 2.0)))
        return torch.stack(hs).sum(0)

    def _step(self, h: any, edge_index, k, pair):
        n, s = pair
        return self.propagate(edge_index, x=h * k * s + n)


class MessageAndAggregate(Lin):
    fuse = True

    def message_and_aggregate(self, adj_t):
        raise NotImplementedError

    def message(self, x_j):
        return x_j.exp()


class EdgeUpdateLoop(MessagePassing):
    def __init__(self):
        super().__init__(aggr="add")
        self.lins = nn.ModuleList([nn.Linear(8 * 2 + 3, 3) for _ in range(2)])
        self.out = nn.Linear(8 + 3, 8)

    def forward(self, x, edge_index, edge_attr):
        for i in range(2):
            edge_attr = self.edge_updater(edge_index, x=x, edge_attr=edge_attr, layer=i)
            x = self.propagate(edge_index, x=x, edge_attr=edge_attr)
        return x, edge_attr

    def edge_update(self, x_i, x_j, edge_attr, layer: int):
        h = torch.cat([x_i, x_j, edge_attr], -1)
        if layer == 0:
            return self.lins[0](h)
        return edge_attr + self.lins[1](h)

    def message(self, x_j, edge_attr):
        return self.out(torch.cat([x_j, edge_attr], -1)).tanh()


class IndexTricks(Lin):
    def forward(self, x, edge_index):
        out = x.new_zeros(x.shape[0], 4)
        out[edge_index[1]] = self.lin(x)[edge_index[0]] * 0 + 1.0
        out[:, 0], out[:, 1] = out[:, 1] * 2, out[:, 0] + 3
        out[x[:, 0] > 0, 2:] += 5.0
        top = out.sum(-1).topk(k=min(3, x.size(0)), dim=0)
        val, idx = top
        out = out.index_add(0, idx, val[:, None].expand(-1, 4))
        return self.propagate(edge_index, x=out) + top.values.sum() + x.max(dim=1).indices[:, None]


class Sentinel(Lin):
    """Loops that stop early, counters, ternaries, while."""

    def forward(self, x, edge_index, steps: int = 3):
        h, k = self.lin(x), 0
        while k < steps:
            new = self.propagate(edge_index, x=h)
            if bool((new - h).abs().max() < 1e-12):
                break
            h = new if k % 2 == 0 else (new + h) / 2
            k += 1
        else:
            h = h + 0.0
        return h


class Sentinel2(Lin):
    def forward(self, x, edge_index, steps: int = 3):
        h = self.lin(x)
        delta = None
        for k in range(steps):
            new = self.propagate(edge_index, x=h)
            delta = (new - h).abs().max()
            h = new
            if k == 1:
                continue
            h = h * 0.9
        return h, delta


XE = on("x", "edge_index")
MODELS = {
    "inner-def": (InnerDef, XE),
    "inner-def-branch": (InnerDefBranch, XE),
    "set-comprehension": (SetComprehension, XE),
    "try-attribute": (TryAttribute, XE),
    "finfo": (Finfo, XE),
    "last-dim": (LastDim, XE),
    "numpy-scalars": (Scaled, XE),
    "partial": (Partial, XE),
    "type-comment": (TypeCommentModel, on("x", "edge_index", "edge_weight")),
    "walrus": (WalrusAndChain, XE),
    "dict-of-tensors": (DictOfTensors, XE),
    "inheritance": (Top, on("x", "edge_index", "edge_attr")),
    "mixin": (Mixed, XE),
    "one-dimensional": (OneDimensional, on("edge_index", "edge_weight", "batch")),
    "time-series": (TimeSeries, XE),
    "memory": (MemoryCell, XE, {"modes": ("eval",)}),
    "printing": (Printing, XE),
    "sloppy": (SloppyTypes, XE),
    "message-and-aggregate": (MessageAndAggregate, XE),
    "edge-update-loop": (EdgeUpdateLoop, on("x", "edge_index", "edge_attr")),
    "index-tricks": (IndexTricks, XE),
    "while": (Sentinel, XE),
    "for-none": (Sentinel2, XE),
}
