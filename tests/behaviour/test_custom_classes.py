"""Habits of classes as users write them, through both doors, on portable and on native ops."""

import functools
import warnings
from typing import Dict, List, NamedTuple, Optional

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

import gnnscript
from conformance.forms import Plain
from conformance.graphs import IN
from gnnscript.ops import library


class EveryKindOfArgument(MessagePassing):
    def forward(self, x, edge_index):
        n = x.size(0)
        return self.propagate(
            edge_index, x=x, count=2, slope=0.5, flag=True, sizes=[1, n], nothing=None,
            pair=(n, 2.0), mode="sum", computed=float(n), chosen=bool(x.sum() > 0),
            tensors=[x, x * 2], table={"mean": x.mean()}, dtype=x.dtype, device=x.device,
        )  # fmt: skip

    def message(
        self, x_i, x_j, count, slope, flag, sizes, nothing, pair, mode, computed, chosen, tensors,
        table, dtype, device,
    ):  # fmt: skip
        out = (x_j - x_i) * count + slope + sizes[1] + pair[0] * pair[1] - computed
        if flag and nothing is None and mode == "sum":
            out = out / sizes[0]
        if chosen:
            out = out + tensors[1].mean()
        return out * table["mean"] + torch.ones(1, dtype=dtype, device=device)


class Signatures(MessagePassing):
    """Calls of several signatures, in helpers and in a loop."""

    def __init__(self):
        super().__init__(aggr="mean")
        self.lin = nn.Linear(IN, IN)

    def hop(self, x, edge_index, weight=None, size=None):
        return self.propagate(edge_index, size=size, x=x, weight=weight)

    def forward(self, x, edge_index):
        row, col = edge_index
        weight = (x[row] - x[col]).norm(dim=-1)
        n = x.size(0)
        out = self.hop(x, edge_index) + self.hop((x, None), edge_index, size=(n, n))
        for k in range(3):
            out = self.hop(self.lin(out), edge_index, weight if k % 2 else None)
        return out + self.propagate(edge_index, x=(x, x), weight=weight)

    def message(self, x_j, weight):
        return x_j if weight is None else x_j * weight.view(-1, 1)


class Numbered(nn.Module):
    """Convs by number, calls over several lines with a backslash."""

    def __init__(self):
        super().__init__()
        self.depth = 3
        for i in range(self.depth):
            setattr(self, "conv%d" % i, Signatures())  # noqa: UP031
            self.add_module(f"norm{i}", nn.LayerNorm(IN))

    def forward(self, x: torch.tensor, edge_index: any):
        assert torch.is_tensor(x), f"{self.__class__.__name__} takes tensors, not {type(x)}"
        for i in range(self.depth):
            # fmt: off
            x = x + getattr(self, "norm{}".format(i))(  # noqa: UP032
                getattr(self, "conv%d" % i)(x, \
                    edge_index)) \
                * 0.5  # noqa: UP031
            # fmt: on
        return x


class Comments(MessagePassing):
    def forward(self, x, edge_index, hops=2):
        # type: (Tensor, Tensor, int) -> Tensor
        out = x  # type: Tensor
        if not self.training and hops > 5:
            warnings.warn("these are many hops", stacklevel=2)
        for _ in range(hops):  # type: int
            out = self.propagate(edge_index, x=out)
        return out

    def message(self, x_j, x_i):
        # type: (Tensor, Tensor) -> Tensor
        return torch.where(x_j > x_i, x_j, x_i)


class Options(MessagePassing):
    """Attributes that one configuration has, or that are None in it; ternaries on them."""

    def __init__(self, project=True, bias=None, act=F.elu):
        super().__init__(aggr="max" if project else "add")
        if project:
            self.project = nn.Linear(IN, IN)
        self.bias = None if bias is None else nn.Parameter(torch.full((IN,), bias))
        self.act = act
        leaky = functools.partial(F.leaky_relu, negative_slope=0.3)
        self.steps = [torch.tanh, lambda t: t * 2, leaky]

    def forward(self, x, edge_index):
        x = self.project(x) if hasattr(self, "project") else x
        for step in self.steps:
            x = step(x)
        out = self.propagate(edge_index, x=x)
        out = out if self.bias is None else out + self.bias
        return self.act(out) if self.act is not None else out


class Shapes(MessagePassing):
    """Arguments without annotations that are a size, a tuple, a list, an integer."""

    def split(self, x, heads, shape, order):
        first, *rest = shape
        x = x.view(first, heads, -1)
        return x.permute(*order) if order[0] else x, len(rest)

    def forward(self, x, edge_index):
        h, dims = self.split(x, 2, x.shape, [0, 1, 2])
        h = self.propagate(edge_index, h=h.flatten(1), shape=x.size(), heads=(2, IN // 2))
        return h * dims

    def message(self, h_j, shape, heads):
        return h_j.view(-1, *heads).flatten(1) / shape[1]


class Result(NamedTuple):
    out: Tensor
    norms: Optional[Tensor] = None


class Returns(MessagePassing):
    def message(self, x_j: Tensor, x_i: Tensor) -> Dict[str, Tensor]:
        return {"value": x_j, "gate": torch.sigmoid(x_i)}

    def aggregate(self, inputs: Dict[str, Tensor], index: Tensor, dim_size: int):
        parts: List[Tensor] = []
        for name in ("value", "gate"):
            out = inputs[name].new_zeros(dim_size, IN)
            parts.append(out.index_add(0, index, inputs[name]))
        return tuple(parts)

    def update(self, inputs, x):
        value, gate = inputs
        return value / (1 + gate) + x

    def forward(self, x: Tensor, edge_index: Tensor) -> Result:
        out = self.propagate(edge_index, x=x)
        return Result(out, norms=out.norm(dim=-1)) if self.training else Result(out)


class UsesReturns(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = Returns()

    def forward(self, x: Tensor, edge_index: Tensor):
        first = self.conv(x, edge_index)
        second = self.conv(first.out, edge_index)
        norms = second.norms if second.norms is not None else x.norm(dim=-1)
        return {"out": second.out, "norms": norms}


class OfAnyRank(MessagePassing):
    """The dimension of the nodes is counted from the front while it runs."""

    def __init__(self, aggr: str = "add") -> None:
        super().__init__(aggr, node_dim=-2)
        self.lin = nn.Linear(8, 4)

    def forward(self, x, edge_index):
        node_dim = self.node_dim
        self.node_dim = node_dim + x.dim() if node_dim < 0 else node_dim
        nodes = x.size(self.node_dim)
        heads = self.lin(x).view(*x.shape[:-1], 2, 2)
        out = self.propagate(edge_index, x=heads, size=(nodes, nodes))
        self.node_dim = node_dim
        return out

    def message(self, x_i, x_j):
        return torch.relu(x_j - x_i)


MODELS = {
    "comments": Comments,
    "every-kind-of-argument": EveryKindOfArgument,
    "numbered": Numbered,
    "options": Options,
    "options-without": lambda: Options(project=False, bias=0.5, act=None),
    "of-any-rank": OfAnyRank,
    "of-any-rank-max": lambda: OfAnyRank("max"),
    "returns": UsesReturns,
    "shapes": Shapes,
    "signatures": Signatures,
}


@pytest.mark.parametrize("kernels", ["portable", "native"])
@pytest.mark.parametrize("door", ["auto", "decorator"])
@pytest.mark.parametrize("name", MODELS)
def test_scripts_like_eager(name, door, kernels, check, request):
    if kernels == "native" and not library.paths():
        pytest.skip("no native library: run 'make native'")
    if door == "auto":
        request.getfixturevalue("auto")
    model = MODELS[name]()
    marked = {type(m) for m in model.modules() if isinstance(m, MessagePassing)}
    if door == "decorator":
        for cls in marked:
            gnnscript.scriptable(cls)
    try:
        with gnnscript.kernels(kernels):
            check(model)
            if isinstance(model, MessagePassing):
                check(Plain(model))
    finally:
        if door == "decorator":
            for cls in marked:
                del cls.__gnnscript__
