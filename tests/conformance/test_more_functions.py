"""What of PyG's functions and small modules models call more rarely."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
import torch_geometric.nn as pyg
import torch_geometric.nn.attention as attention
import torch_geometric.nn.models as models
import torch_geometric.utils as utils
from torch import Tensor, nn
from torch_geometric.nn.encoding import PositionalEncoding, TemporalEncoding
from torch_geometric.nn.functional import bro, gini
from torch_geometric.nn.models import node2vec, tgn
from torch_geometric.nn.models.graph_mixer import LinkEncoder, NodeEncoder

from conformance.graphs import EDGE, IN, OUT, Graph
from conformance.modules import ModuleCase, cases, check
from gnnscript.testing import BareProcess


class Encodings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.position, self.time = PositionalEncoding(8), TemporalEncoding(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.position(x[:, 0]) + self.time(x[:, 1])


class Reshaped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        steps = [(pyg.GCNConv(IN, 8), "x, edge_index -> x"), (pyg.Reshape(-1, 2, 4), "x -> x")]
        self.model = pyg.Sequential("x, edge_index", steps)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.model(x, edge_index)


class Attended(nn.Module):
    """A layer of attention over all nodes, which takes a batch of one graph."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[None])


class Penalties(nn.Module):
    def forward(self, x: Tensor, batch: Tensor):
        return bro(x, batch), gini(x)


class Grouped(nn.Module):
    def forward(self, x: Tensor, batch: Tensor):
        ranks = utils.group_argsort(x[:, 0], batch, 0)
        consecutive = utils.group_argsort(
            x[:, 0], batch, 0, num_groups=4, descending=True, return_consecutive=True
        )
        both, index = utils.group_cat([x, x * 2], [batch, batch], dim=0, return_index=True)
        clusters = torch.arange(x.size(0)) // 2
        return ranks, consecutive, both, index, pyg.max_pool_x(clusters, x, batch)


class Normalised(nn.Module):
    def forward(self, x: Tensor, edge_index: Tensor):
        size = x.size(0)
        symmetric = utils.normalize_edge_index(edge_index, size)
        rows = utils.normalize_edge_index(edge_index, size, add_self_loops=False, symmetric=False)
        return symmetric, rows


class Meshes(nn.Module):
    def forward(self, x: Tensor):
        first = torch.arange(x.size(0) - 2)
        faces = torch.stack([first, first + 1, first + 2])
        points = x[:, :3].contiguous()
        return utils.get_mesh_laplacian(points, faces), utils.get_mesh_laplacian(
            points, faces, "rw"
        )


class Hops(nn.Module):
    """The number of layers that pass messages, and drops that do nothing outside of training."""

    def __init__(self) -> None:
        super().__init__()
        self.model = models.GCN(IN, 8, 3)

    def forward(self, x: Tensor, edge_index: Tensor):
        added, new = utils.add_random_edge(edge_index, p=0.3, training=self.training)
        if utils.structured_negative_sampling_feasible(edge_index, x.size(0)):
            x = x * 2
        return self.model(x, added) * utils.get_num_hops(self.model), new


class Unbatched(nn.Module):
    def forward(self, batch: Tensor, edge_index: Tensor):
        row = edge_index[0]
        first = torch.searchsorted(batch, batch[row])  # of each node's graph
        parts = utils.unbatch_edge_index(torch.stack([row, first]), batch)
        return parts[0], torch.cat(list(parts), 1)


class Grids(nn.Module):
    def forward(self, x: Tensor):
        return utils.grid(x.size(0), 3), utils.grid(2, 3, dtype=torch.float)


class Homophily(nn.Module):
    """A number for one graph, a tensor for several: the data decides on the type."""

    def forward(self, edge_index: Tensor, y: Tensor):
        return utils.homophily(edge_index, y, method="edge_insensitive")


def stay(rowptr: Tensor, col: Tensor, start: Tensor, length: int, p: float, q: float):
    """Walks that do not leave their node, in the place of those that the library draws."""
    return start.view(-1, 1).repeat(1, length + 1), start


def walked() -> nn.Module:
    """Node2Vec, whose walks are the library's: training needs it, the embedding does not."""
    edge_index = torch.tensor([[0, 1, 2, 11], [1, 2, 0, 3]])
    random_walk = mock.patch.object(torch.ops.pyg, "random_walk", stay, create=True)
    with mock.patch.object(node2vec, "WITH_PYG_LIB", new=True), random_walk:
        return models.Node2Vec(edge_index, 6, walk_length=4, context_size=2)


def remembering(*, training: bool) -> nn.Module:
    """A memory that has seen some events; in training, messages wait to be taken up."""
    torch.manual_seed(0)
    memory = models.TGNMemory(12, EDGE, 8, 6, tgn.IdentityMessage(EDGE, 8, 6), tgn.LastAggregator())
    source, target = torch.randint(12, (2, 30))
    with torch.no_grad():
        memory.update_state(source, target, torch.arange(30), torch.randn(30, EDGE))
        memory.train(training)
    return memory


def edges(g: Graph) -> tuple[Any, ...]:
    return g.x, g.edge_index


def batched(g: Graph) -> tuple[Any, ...]:
    return g.x, g.batch


def dated(g: Graph) -> tuple[Any, ...]:
    """Edges in order of their destination, each of a time of its own."""
    times = torch.arange(g.edge_index.size(1)).flip(0) / 10
    return g.sorted_edge_index, g.attr, times, g.x.new_full((g.x.size(0),), 5.0)


TABLE = [
    ModuleCase("encodings", Encodings, lambda g: (g.x,)),
    ModuleCase("Sequential-reshape", Reshaped, edges),
    *(
        ModuleCase(type(layer()).__name__, lambda layer=layer: Attended(layer()), lambda g: (g.x,),
                   modes)
        for layer, modes in (
            (lambda: attention.QFormer(IN, 16, 2, 2, 1), ("eval",)),
            (lambda: attention.SGFormerAttention(IN, 2, 4), ("eval", "train")),
            (lambda: attention.PolynormerAttention(IN, 2, 4), ("eval", "train")),
            (lambda: attention.PerformerAttention(IN, 2, 4), ("eval",)),
        )
    ),
    *(ModuleCase(f"LinkEncoder-{order}", lambda done=done: LinkEncoder(
        4, EDGE, 8, OUT, 5, is_sorted=done), dated) for order, done in (
        ("unsorted", False), ("sorted", True))),
    ModuleCase("NodeEncoder", lambda: NodeEncoder(2), lambda g: (
        g.x, g.edge_index, g.weight, g.x[:, 0] + 2)),
    ModuleCase("penalties", Penalties, batched),
    ModuleCase("grouped", Grouped, batched),
    ModuleCase("normalised", Normalised, edges, gradients=False),
    ModuleCase("meshes", Meshes, lambda g: (g.x,)),
    ModuleCase("hops", Hops, edges, ("eval",)),
    ModuleCase("unbatch-edges", Unbatched, lambda g: (g.batch, g.edge_index), gradients=False),
    ModuleCase("grids", Grids, lambda g: (g.x,), gradients=False),
    ModuleCase("homophily-edge_insensitive", Homophily,
               lambda g: (g.edge_index, g.kind[: g.x.size(0)]), gradients=False),
    ModuleCase("Node2Vec", walked, lambda g: (g.batch,)),
    ModuleCase("Node2Vec-all", walked, lambda g: ()),
    *(
        ModuleCase(f"TGNMemory-{mode}", lambda mode=mode: remembering(training=mode == "train"),
                   lambda g: (torch.arange(g.x.size(0)),), (mode,),
                   frozen=False)
        for mode in ("train", "eval")
    ),
]  # fmt: skip


@pytest.mark.usefixtures("auto")
@cases(TABLE)
def test_more_functions(case: ModuleCase, bare: BareProcess) -> None:
    check(case, bare)
