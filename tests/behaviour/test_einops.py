"""Functions of einops, whose patterns are read when the model is scripted."""

from __future__ import annotations

import einops
import pytest
import torch
from einops import rearrange, reduce, repeat
from einops.layers.torch import Rearrange
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, MessagePassing

import gnnscript
import gnnscript.fx
from conformance.graphs import GRAPHS, IN
from gnnscript.ops import library

pytestmark = pytest.mark.usefixtures("auto")


class Heads(MessagePassing):
    """Attention by heads, whose axes are taken apart and joined by name."""

    def __init__(self, heads: int = 2) -> None:
        super().__init__(aggr="add", node_dim=0)
        self.heads = heads
        self.to_qkv = nn.Linear(IN, 3 * 4 * heads)

    def forward(self, x: Tensor, edge_index: Tensor):
        q, k, v = rearrange(self.to_qkv(x), "n (three h d) -> three n h d", three=3, h=self.heads)
        out = self.propagate(edge_index, q=q, k=k, v=v)
        largest = reduce(out, "n h d -> n d", "max")
        mean = repeat(reduce(out, "n ... -> 1 (...)", "mean"), "() d -> n d", n=x.size(0))
        return rearrange(out, "n h d -> n (h d)"), largest, mean, self.pairs(x)

    def message(self, q_i: Tensor, k_j: Tensor, v_j: Tensor) -> Tensor:
        score = einops.einsum(q_i, k_j, "edge h d, edge h d -> edge h")
        return rearrange(score.tanh(), "... -> ... 1") * v_j

    def pairs(self, x: Tensor):
        near = einops.einsum(x, x, "i d, j d -> i j")
        stacked = rearrange([near, near.t()], "side i j -> i (j side)")
        return stacked, reduce(x, "n d ->", "sum"), repeat(x, "n d -> n (d 2)")


def test_like_eager(check) -> None:
    check(Heads())


def test_like_eager_on_native_ops(check) -> None:
    if not library.paths():
        pytest.skip("the native library is not built")
    with gnnscript.kernels("native"):
        check(Heads(4))


class Layers(nn.Module):
    """The modules of einops are left to TorchScript."""

    def __init__(self) -> None:
        super().__init__()
        self.split, self.conv = Rearrange("n (h d) -> (h n) d", h=2), GCNConv(IN // 2, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(self.split(x), edge_index)


def test_layers_of_einops(check) -> None:
    check(Layers())


def test_the_other_doors() -> None:
    model = Heads().eval()
    calls = [(g.x, g.edge_index) for g in GRAPHS]
    auto = torch.export.Dim.AUTO
    program = torch.export.export(model, calls[0], dynamic_shapes=({0: auto}, {1: auto}))
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    traced = gnnscript.fx.symbolic_trace(model, example_inputs=calls[0])
    for call in calls:
        for run in (program.module(), compiled, traced):
            torch.testing.assert_close(run(*call), model(*call))


class Unbalanced(nn.Module):
    def forward(self, x: Tensor, index: Tensor):
        from torch_geometric.utils import scatter

        return rearrange(scatter(x, index), "n d -> n e")


class ByArgument(nn.Module):
    def forward(self, x: Tensor, pattern: str):
        return gnnscript.ops.scatter(rearrange(x, pattern), torch.arange(x.size(0)))


@pytest.mark.parametrize(
    ("cls", "cause"),
    [(Unbalanced, "do not name the same axes"), (ByArgument, "known only at run time")],
)
def test_what_is_no_pattern_is_refused(cls, cause) -> None:
    with pytest.raises(gnnscript.UnsupportedError, match=cause) as caught:
        torch.jit.script(cls())
    assert "test_einops.py" in str(caught.value)
