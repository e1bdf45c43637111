"""Linear layers of models run on the library's kernel, and do what they did."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch_geometric.nn import EdgeConv, GCNConv
from torch_geometric.nn import Linear as PyGLinear

import gnnscript
from gnnscript.testing import BareProcess, assert_scripts_like_eager

pytestmark = pytest.mark.usefixtures("native", "auto")


class Doubled(nn.Linear):
    """A class of the user's, whose forward is its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Layers(nn.Module):
    """Layers of torch, of PyG, in sequences, in sequences of sequences, and as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh())
        inner = nn.Sequential(nn.Linear(8, 8, bias=False), nn.LayerNorm(8))
        named = OrderedDict(first=nn.Linear(16, 8), act=nn.ELU(), inner=inner, last=nn.Linear(8, 8))
        self.conv = EdgeConv(nn.Sequential(named), aggr="max")
        self.head = nn.Sequential(
            nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Linear(8, 8), nn.Dropout(0.0)
        )
        self.lin, self.own, self.pyg = nn.Linear(8, 4), Doubled(8, 4), PyGLinear(8, 4)
        self.bare = nn.Sequential(nn.Tanh(), nn.Identity())

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.head(self.conv(self.encoder(x), edge_index))
        out = self.lin(h) + self.own(h) + self.pyg(h)
        out = out + F.linear(h, self.lin.weight, bias=self.lin.bias)
        out = out + F.linear(input=h, weight=self.lin.weight)
        return self.bare(out)


class Watched(nn.Module):
    """Layers whose calls must take place: hooks, and weights that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(3, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
        self.normed = parametrizations.weight_norm(nn.Linear(4, 4))
        self.lin = nn.Linear(4, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.lin(self.mlp(self.conv(x, edge_index)))


def graph(nodes: int, edges: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(nodes, (2, edges), generator=generator)
    return torch.randn(nodes, 3, generator=generator), edge_index


def test_scripted_like_eager(bare: BareProcess) -> None:
    torch.manual_seed(0)
    graphs = (graph(50, 200), graph(6, 31, 1), graph(40, 70, 2), graph(5, 0))
    assert_scripts_like_eager(Layers(), *graphs, reload=bare)


def test_every_layer_is_ours() -> None:
    torch.manual_seed(0)
    model = Layers().eval()
    source = gnnscript.source(model)
    assert "self.head[3](linear(self.head[1](self.head[0](" in source
    assert "self.bare(" in source
    scripted = torch.jit.script(model)
    given = graph(50, 200)
    with torch.no_grad(), torch.profiler.profile() as profile:
        out = scripted(*given)
    names = [event.name for event in profile.events()]
    # But for the call by keywords, and that of a class of the user's which asks its own base.
    assert names.count("aten::linear") <= 2
    assert names.count("gnnscript::linear") >= 8
    torch.testing.assert_close(out, model(*given).detach(), rtol=1e-4, atol=1e-5)
    with torch.profiler.profile() as profile:
        scripted(*given).sum().backward()
    assert not any(event.name == "gnnscript::linear" for event in profile.events())


def test_hooks_and_computed_weights() -> None:
    torch.manual_seed(0)
    model = Watched().eval()
    with torch.no_grad():
        model.mlp[2].register_forward_hook(lambda module, args, out: out + 1)
    source = gnnscript.source(model)
    assert "linear(" in source  # that of torch which nobody watches
    assert "self.mlp[2](" in source
