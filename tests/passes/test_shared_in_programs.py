"""Layers that compute the same of one graph do so once in exported programs, too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv
from torch_geometric.utils import coalesce

from passes.test_repeats import (
    GRAPHS,
    WIDTH,
    Helped,
    Layers,
    PartlyLearned,
    Pooled,
    Precise,
    Rewired,
    Spoiling,
    SpoilingMessage,
    Told,
)

pytestmark = pytest.mark.usefixtures("native", "auto")


def exported(model: nn.Module, *given: Tensor) -> torch.export.ExportedProgram:
    nodes, edges = torch.export.Dim("nodes", max=10**6), torch.export.Dim("edges")
    shapes = ({0: nodes}, {1: edges}, {0: edges})[: len(given)]
    return torch.export.export(model.eval(), given, dynamic_shapes=shapes)


@pytest.mark.parametrize(
    ("model", "times"),
    [
        (Layers(*[GCNConv(WIDTH, WIDTH) for _ in range(3)]), 1),
        (Layers(*[GCNConv(WIDTH, WIDTH), GCNConv(WIDTH, WIDTH, improved=True)] * 2), 2),
        (Layers(Helped(), Helped()), 1),
        (Layers(SpoilingMessage(), SpoilingMessage()), 1),
        (Layers(Spoiling(), Spoiling()), 2),  # what they change is their own
        (Told(), 2),
        (Rewired(GCNConv(WIDTH, WIDTH), GCNConv(WIDTH, WIDTH), Helped(), Helped()), 4),
        (Pooled(GCNConv(WIDTH, WIDTH), GCNConv(WIDTH, WIDTH), Helped()), 3),
        (Precise(GCNConv(WIDTH, WIDTH), GCNConv(WIDTH, WIDTH).double()), 2),
        (PartlyLearned(GCNConv(WIDTH, WIDTH), GCNConv(WIDTH, WIDTH)), 2),
    ],
    ids=[
        "gcn", "two kinds", "helped", "hook", "spoiling", "returned", "rewired", "pooled",
        "precise", "partly learned",
    ],
)  # fmt: skip
@pytest.mark.parametrize("gradients", [False, True])
def test_exported(model: nn.Module, times: int, gradients: bool) -> None:
    first, second = ([*given][: 2 + (not isinstance(model, Told))] for given in GRAPHS[::2])
    with torch.set_grad_enabled(gradients):
        module = exported(model, *first).module()
        torch.testing.assert_close(module(*second), model(*second))
    graphs = [m.graph for m in module.modules() if isinstance(m, torch.fx.GraphModule)]
    sums = [n for g in graphs for n in g.nodes if "scatter_reduce" in str(n.target)]
    assert len(sums) == times


class Merged(nn.Module):
    """Takes double edges out, by a function that has shortcuts of its own."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        edges, weights = coalesce(edge_index, weight, num_nodes=x.size(0))
        return edges, weights


class MergedTwice(Layers):
    """Two layers that do."""

    def forward(  # type: ignore[override]
        self, x: Tensor, edge_index: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        edges, _ = self.layers[0](x, edge_index, weight)
        _, weights = self.layers[1](x, edge_index, weight)
        return edges, weights


def test_shortcuts_are_left_out_of_shared_work_too() -> None:
    model = MergedTwice(Merged(), Merged())
    module = exported(model, *GRAPHS[0]).module()
    torch.testing.assert_close(module(*GRAPHS[2]), model(*GRAPHS[2]))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    torch.testing.assert_close(compiled(*GRAPHS[2]), model(*GRAPHS[2]))
