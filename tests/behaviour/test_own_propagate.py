"""Classes that write a ``propagate`` of their own, with the steps that PyG's consists of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

import gnnscript
from behaviour.conftest import Check
from conformance.graphs import GRAPHS, IN

pytestmark = pytest.mark.usefixtures("auto")


class Moving(MessagePassing):
    """Features and positions in one pass, of which each is aggregated by itself."""

    def __init__(self, *, moves: bool = True, flow: str = "source_to_target") -> None:
        super().__init__(aggr="add", flow=flow)
        self.moves = moves
        self.edge = nn.Sequential(nn.Linear(2 * IN + 1, 6), nn.SiLU())
        self.weight = nn.Linear(6, 1)
        self.node = nn.Linear(IN + 6, IN)

    def forward(self, x: Tensor, pos: Tensor, edge_index: Tensor):
        step = pos[edge_index[0]] - pos[edge_index[1]]
        distance = (step**2).sum(-1, keepdim=True)
        return self.propagate(edge_index, x=x, pos=pos, step=step, distance=distance)

    def message(self, x_i: Tensor, x_j: Tensor, distance: Tensor) -> Tensor:
        return self.edge(torch.cat([x_i, x_j, distance], dim=-1))

    def propagate(self, edges, size=None, **kwargs):
        size = self._check_input(edges, size)
        collected = self._collect(self._user_args, edges, size, kwargs)
        asked = {
            hook: self.inspector.collect_param_data(hook, collected)
            for hook in ("message", "aggregate", "update")
        }
        m = self.message(**asked["message"])
        pos = kwargs["pos"]
        if self.moves:
            pos = pos + self.aggregate(self.weight(m) * kwargs["step"], **asked["aggregate"])
        out = self.aggregate(m, **asked["aggregate"])
        x = self.node(torch.cat([kwargs["x"], out], dim=-1))
        return self.update((x, pos), **asked["update"])


@pytest.mark.parametrize(
    "options", [{}, {"moves": False}, {"flow": "target_to_source"}], ids=["moves", "rests", "flow"]
)
def test_own_propagate(options: dict, check: Check) -> None:
    calls = [(g.x, torch.randn(g.x.size(0), 3), g.edge_index) for g in GRAPHS]
    check(Moving(**options), *calls)


class Misses(Moving):
    def message(self, x_i: Tensor, x_j: Tensor, angle_j: Tensor) -> Tensor:
        return x_i + x_j + angle_j


def test_an_argument_that_is_missing_is_named() -> None:
    with pytest.raises(gnnscript.UnsupportedError, match="'angle' is not passed to 'propagate'"):
        torch.jit.script(Misses())
