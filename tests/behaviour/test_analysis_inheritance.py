"""Inheritance: what a subclass overrides is its own, everything else is its ancestors'."""

import math
from abc import ABC, abstractmethod
from typing import Any, Optional, Tuple, Union

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import EdgeConv, GATConv, GCNConv, MessagePassing, SAGEConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, Size
from torch_geometric.utils import softmax

import gnnscript
from conformance.graphs import EDGE, GRAPHS, IN, OUT

pytestmark = pytest.mark.usefixtures("auto")


class OnlyMessage(SAGEConv):
    def message(self, x_j: Tensor) -> Tensor:
        return x_j.relu()


class OtherArguments(SAGEConv):
    """Its message asks for more than its parent's forward was written for."""

    def message(self, x_i: Tensor, x_j: Tensor, index: Tensor) -> Tensor:
        alpha = softmax((x_i * x_j).sum(-1) / math.sqrt(x_j.size(-1)), index)
        return alpha.view(-1, 1) * x_j


class OnlyAggregate(GCNConv):
    def aggregate(
        self, inputs: Tensor, index: Tensor, ptr: OptTensor = None, dim_size: Optional[int] = None
    ) -> Tensor:
        return super().aggregate(inputs, index, ptr, dim_size).clamp(max=1.0)


class OnlyUpdate(GCNConv):
    def update(self, inputs: Tensor) -> Tensor:
        return torch.tanh(inputs)


class SuperForward(GCNConv):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor, edge_index: Adj, edge_weight: OptTensor = None) -> Tensor:
        out = super().forward(x, edge_index, edge_weight)
        return self.norm(out).relu()


class SuperForwardOfPair(SAGEConv):
    def forward(
        self, x: Union[Tensor, OptPairTensor], edge_index: Adj, size: Size = None
    ) -> Tensor:
        out = super().forward(x, edge_index, size=size)
        return out + super().forward(x, edge_index, size).sigmoid()


class OldSuper(SuperForward):
    """The third generation, with the old spelling."""

    def forward(self, x, edge_index, edge_weight: OptTensor = None):
        return super(OldSuper, self).forward(x, edge_index, edge_weight) + 1  # noqa: UP008

    def message(self, x_j: Tensor, edge_weight: OptTensor) -> Tensor:
        return 2 * super(OldSuper, self).message(x_j, edge_weight)  # noqa: UP008


class ByName(GCNConv):
    def forward(self, x: Tensor, edge_index: Adj, edge_weight: OptTensor = None) -> Tensor:
        return GCNConv.forward(self, x.abs(), edge_index, edge_weight)

    def message(self, x_j: Tensor, edge_weight: OptTensor) -> Tensor:
        return GCNConv.message(self, x_j, edge_weight).sigmoid()


class AttentionOfParent(GATConv):
    """Keeps what its parent returns apart."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tuple[Tensor, Tensor]:
        out, attention = super().forward(x, edge_index, return_attention_weights=True)
        return out, attention[1]


class SuperEdgeUpdate(GATConv):
    def edge_update(
        self,
        alpha_j: Tensor,
        alpha_i: OptTensor,
        edge_attr: OptTensor,
        index: Tensor,
        ptr: OptTensor,
        dim_size: Optional[int],
    ) -> Tensor:
        alpha = super().edge_update(alpha_j, alpha_i, edge_attr, index, ptr, dim_size)
        return alpha.sqrt()


class Skeleton(MessagePassing, ABC):
    """A base class of a user's own: forward is fixed, the parts are not."""

    def __init__(self, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.pre = self.make_pre()

    @abstractmethod
    def make_pre(self) -> nn.Module: ...

    def transform(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor, edge_index: Adj) -> Tensor:
        h = self.pre(x)
        out = self.propagate(edge_index, h=h)
        return self.transform(out) + h


class Concrete(Skeleton):
    def __init__(self) -> None:
        super().__init__(OUT, aggr="mean")

    def make_pre(self) -> nn.Module:
        return nn.Linear(IN, self.channels)

    def transform(self, x: Tensor) -> Tensor:
        return F.gelu(x)

    def message(self, h_i: Tensor, h_j: Tensor) -> Tensor:
        return h_i * h_j


class Deeper(Concrete):
    def transform(self, x: Tensor) -> Tensor:
        return super().transform(x) - x.mean(dim=0, keepdim=True)


class ResidualMixin:
    """Adds the input to what the next class in line computes."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return x + super().forward(x, edge_index)


class CosineMixin:
    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return F.cosine_similarity(x_i, x_j, dim=-1).unsqueeze(-1) * x_j


class WithMixins(ResidualMixin, CosineMixin, SAGEConv):
    pass


class NotModules(MessagePassing):
    """Calls static, class-level and property helpers."""

    leak = 0.1

    def __init__(self) -> None:
        super().__init__()
        self.width = OUT
        self.lin = nn.Linear(IN, OUT)

    @staticmethod
    def squash(x: Tensor) -> Tensor:
        return x / (1 + x.abs())

    @property
    def factor(self) -> float:
        return 1.0 / self.width

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=self.squash(self.lin(x))) * self.factor

    def message(self, x_j: Tensor) -> Tensor:
        return F.leaky_relu(x_j, self.leak)


class Reused(EdgeConv):
    """Another forward around the parent's message; the parent's propagate comment still stands."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Linear(2 * IN, IN), nn.ReLU()), aggr="add")
        self.steps = 2

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for _ in range(self.steps):
            x = x + self.propagate(edge_index, x=(x, x))
        return x


class NormalizedAttention(GCNConv):
    """A rewrite of GCN that borrows its normalisation by import."""

    def __init__(self, in_channels: int, out_channels: int, edge_dim: int) -> None:
        super().__init__(in_channels, out_channels, add_self_loops=False)
        self.edge_lin = nn.Linear(edge_dim, 1)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: OptTensor = None) -> Tensor:
        weight: OptTensor = None
        if edge_attr is not None:
            weight = self.edge_lin(edge_attr).squeeze(-1).exp()
        edge_index, weight = gcn_norm(
            edge_index, weight, x.size(0), self.improved, False, self.flow, x.dtype
        )
        return self.propagate(edge_index, x=self.lin(x), edge_weight=weight)


CONVS = {
    "only-message": lambda: OnlyMessage(IN, OUT),
    "other-arguments": lambda: OtherArguments(IN, OUT),
    "only-aggregate": lambda: OnlyAggregate(IN, OUT),
    "only-update": lambda: OnlyUpdate(IN, OUT),
    "super-forward": lambda: SuperForward(IN, OUT),
    "super-forward-of-pair": lambda: SuperForwardOfPair(IN, OUT),
    "old-super": lambda: OldSuper(IN, OUT),
    "by-name": lambda: ByName(IN, OUT),
    "super-edge-update": lambda: SuperEdgeUpdate(IN, OUT),
    "concrete": Concrete,
    "deeper": Deeper,
    "mixins": lambda: WithMixins(IN, IN),
    "static-and-property": NotModules,
    "reused": Reused,
    "borrowed-helper": lambda: NormalizedAttention(IN, OUT, EDGE),
}


@pytest.mark.parametrize("name", CONVS)
def test_inherits(name, check_conv):
    check_conv(CONVS[name]())


def test_tuple_of_parent(check):
    check(AttentionOfParent(IN, OUT))


def test_optional_arguments(check):
    check(SuperForward(IN, OUT), *[(g.x, g.edge_index, g.weight) for g in GRAPHS])
    check(NormalizedAttention(IN, OUT, EDGE), *[(g.x, g.edge_index, g.attr) for g in GRAPHS])


class Source(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = SuperForwardOfPair((IN, IN), OUT)

    def forward(self, x: Tensor, edge_index: Tensor, num_dst: int) -> Tensor:
        return self.conv((x, None), edge_index, (x.size(0), num_dst))


def test_super_forward_of_pair_with_none(check):
    check(Source(), *[(g.x, g.bipartite, g.x_dst.size(0)) for g in GRAPHS])


class Both(nn.Module):
    """Parent and child in one model must not share code."""

    def __init__(self) -> None:
        super().__init__()
        self.parent = SAGEConv(IN, IN)
        self.child = OnlyMessage(IN, IN)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.child(self.parent(x, edge_index), edge_index)


def test_parent_and_child_together(check):
    check(Both())


class OwnPropagate(SAGEConv):
    def propagate(self, edge_index, size=None, **kwargs):
        return -super().propagate(edge_index, size=size, **kwargs)


def test_own_propagate_is_refused_or_right_but_never_ignored():
    conv = OwnPropagate(IN, OUT)
    try:
        outputs = [torch.jit.script(conv)(g.x, g.edge_index) for g in GRAPHS]
    except gnnscript.UnsupportedError:
        return
    for g, out in zip(GRAPHS, outputs, strict=True):
        torch.testing.assert_close(out, conv(g.x, g.edge_index))


@pytest.mark.parametrize("door", ["auto", "decorator"])
def test_class_that_runs_the_template_of_its_parent(door, check, request):
    """PyG cannot read the child's call: it runs what PyG has rendered for its parent."""
    if door == "auto":
        request.getfixturevalue("auto")

    class Rendered(MessagePassing):
        def forward(self, x, edge_index):
            return self.propagate(edge_index, x=x)

        def message(self, x_j):
            return x_j * 2

    class NotRendered(Rendered):
        def forward(self, x, edge_index):
            first, *rest = x.unbind(-1)
            return self.propagate(edge_index, x=torch.stack([*rest, first], dim=-1))

    for cls in (Rendered, NotRendered):
        if door == "decorator":
            gnnscript.scriptable(cls)
        cls()  # the first object of a class makes PyG render
    check(NotRendered())
