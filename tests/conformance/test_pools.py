"""Pooling, dense layers and containers: what is neither conv nor model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
import torch_geometric.utils as utils
from torch import Tensor, nn
from torch_geometric.nn.module_dict import ModuleDict
from torch_geometric.nn.parameter_dict import ParameterDict
from torch_geometric.nn.pool import ClusterPooling
from torch_geometric.nn.pool.select import SelectTopK

from conformance.graphs import IN, OUT, Graph
from conformance.modules import ModuleCase, cases, check
from gnnscript.testing import BareProcess


def edges(g: Graph) -> tuple[Any, ...]:
    return g.x, g.edge_index


def attributed(g: Graph) -> tuple[Any, ...]:
    return g.x, g.edge_index, g.attr, g.batch


def batched(g: Graph) -> tuple[Any, ...]:
    return g.x, g.batch


def graphs(g: Graph) -> tuple[Any, ...]:
    return g.x, g.edge_index, g.batch


def dense(g: Graph) -> tuple[Any, ...]:
    adj = utils.to_dense_adj(g.edge_index, max_num_nodes=g.x.size(0))
    return torch.stack([g.x, g.x * 2]), adj.repeat(2, 1, 1)


class Selected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.select = SelectTopK(IN, 0.5)

    def forward(self, x, batch):
        out = self.select(x, batch)
        return out.node_index, out.weight, out.cluster_index


class Hierarchy(nn.Module):
    """Convs and pools in turn, as in PyG's examples."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.pool1 = pyg.GraphConv(IN, 8), pyg.TopKPooling(8, 0.8)
        self.conv2, self.pool2 = pyg.GraphConv(8, 8), pyg.SAGPooling(8, 0.8)
        self.lin = nn.Linear(16, 3)

    def forward(self, x, edge_index, batch):
        x = self.conv1(x, edge_index).relu()
        x, edge_index, _, batch, _, _ = self.pool1(x, edge_index, None, batch)
        first = torch.cat([pyg.global_max_pool(x, batch), pyg.global_mean_pool(x, batch)], 1)
        x = self.conv2(x, edge_index).relu()
        x, edge_index, _, batch, _, _ = self.pool2(x, edge_index, None, batch)
        second = torch.cat([pyg.global_max_pool(x, batch), pyg.global_mean_pool(x, batch)], 1)
        return self.lin(first + second).log_softmax(-1)


class DensePools(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(IN, 3)

    def forward(self, x, adj):
        return pyg.dense_diff_pool(x, adj, self.lin(x)), pyg.dense_mincut_pool(x, adj, self.lin(x))


class Unpooled(nn.Module):
    def forward(self, x, y):
        return pyg.knn_interpolate(x, x[:, :3], y[:, :3], k=2)


class Clusters(nn.Module):
    def forward(self, x, batch):
        cluster = pyg.voxel_grid(x[:, :3], 0.5, batch)
        return cluster, pyg.max_pool_x(batch, x, batch, size=3), pyg.fps(x, batch, 0.5, False)


class Neighbours(nn.Module):
    def forward(self, x, y, batch):
        graph = pyg.knn_graph(x, 3, batch, loop=False), pyg.radius_graph(x, 3.0, batch)
        return graph, pyg.knn(x, y, 2), pyg.nearest(x, y)


POOLS = [
    ModuleCase("TopKPooling", lambda: pyg.TopKPooling(IN, 0.5), edges),
    ModuleCase("TopKPooling-batch", lambda: pyg.TopKPooling(IN, 0.5), attributed),
    ModuleCase("TopKPooling-count", lambda: pyg.TopKPooling(IN, 3), attributed),
    ModuleCase("TopKPooling-score", lambda: pyg.TopKPooling(IN, min_score=0.1), attributed),
    ModuleCase("TopKPooling-scaled",
               lambda: pyg.TopKPooling(IN, 0.5, multiplier=2.0, nonlinearity="sigmoid"),
               attributed),
    *(ModuleCase(f"SAGPooling-{conv}",
                 lambda conv=conv: pyg.SAGPooling(IN, 0.5, GNN=getattr(pyg, conv)), edges)
      for conv in ("GraphConv", "GCNConv", "GATConv", "SAGEConv")),
    ModuleCase("SAGPooling-batch", lambda: pyg.SAGPooling(IN, 0.5), attributed),
    ModuleCase("ASAPooling", lambda: pyg.ASAPooling(IN, 0.5), edges),
    ModuleCase("ASAPooling-options",
               lambda: pyg.ASAPooling(IN, 0.5, GNN=pyg.GraphConv, add_self_loops=True),
               lambda g: (*edges(g), g.weight, g.batch), gradients=False),
    ModuleCase("EdgePooling", lambda: pyg.EdgePooling(IN), graphs),
    ModuleCase("ClusterPooling", lambda: ClusterPooling(IN), graphs),
    ModuleCase("ClusterPooling-log_softmax", lambda: ClusterPooling(
        IN, edge_score_method="log_softmax", threshold=-3.0), graphs),
    ModuleCase("EdgePooling-sigmoid",
               lambda: pyg.EdgePooling(IN, pyg.EdgePooling.compute_edge_score_sigmoid), graphs),
    ModuleCase("MemPooling", lambda: pyg.MemPooling(IN, OUT, 2, 3), batched),
    ModuleCase("SelectTopK", Selected, batched),
    ModuleCase("hierarchy", Hierarchy, graphs),
    ModuleCase("dense-pools", DensePools, dense),
    ModuleCase("DMoNPooling", lambda: pyg.DMoNPooling(IN, 3), dense),
    ModuleCase("knn_interpolate", Unpooled, lambda g: (g.x, g.x_dst)),
    ModuleCase("clusters", Clusters, batched),
    ModuleCase("neighbours", Neighbours, lambda g: (g.x, g.x_dst, g.batch)),
    ModuleCase("DenseGCNConv", lambda: pyg.DenseGCNConv(IN, OUT), dense),
    ModuleCase("DenseSAGEConv", lambda: pyg.DenseSAGEConv(IN, OUT, normalize=True), dense),
    ModuleCase("DenseGINConv", lambda: pyg.DenseGINConv(nn.Linear(IN, OUT), train_eps=True),
               dense),
    ModuleCase("DenseGraphConv", lambda: pyg.DenseGraphConv(IN, OUT, aggr="max"), dense),
    ModuleCase("DenseGraphConv-mean", lambda: pyg.DenseGraphConv(IN, OUT, aggr="mean"), dense),
    ModuleCase("DenseGATConv", lambda: pyg.DenseGATConv(IN, OUT, heads=2), dense),
    ModuleCase("Linear-lazy", lambda: pyg.Linear(-1, 4), lambda g: (g.x,), lazy=True),
]  # fmt: skip


class Inside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = pyg.Sequential("x, edge_index", [
            (pyg.GATConv(IN, 8, heads=2), "x, edge_index -> x"),
            nn.ELU(),
            (pyg.GATConv(16, OUT), "x, edge_index -> x"),
        ])  # fmt: skip

    def forward(self, x, edge_index):
        return self.layers(x, edge_index)


def jumping() -> nn.Module:
    return pyg.Sequential("x, edge_index, batch", [
        (pyg.GCNConv(IN, 6), "x, edge_index -> x1"),
        nn.ReLU(),
        (pyg.GCNConv(6, 6), "x1, edge_index -> x2"),
        (lambda x1, x2: [x1, x2], "x1, x2 -> xs"),
        (pyg.JumpingKnowledge("cat", 6, 2), "xs -> x"),
        (pyg.global_mean_pool, "x, batch -> x"),
        nn.Linear(12, 2),
    ])  # fmt: skip


class Keyed(nn.Module):
    """PyG's dictionaries of modules and parameters, whose keys may be tuples or have dots."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = ModuleDict({("a", "to", "b"): pyg.GCNConv(IN, 4), "type": nn.Linear(IN, 4)})
        self.scales = ParameterDict({
            ("a", "to", "b"): nn.Parameter(torch.rand(4)),
            "b.c": nn.Parameter(torch.rand(4)),
        })  # fmt: skip

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out = self.convs["a", "to", "b"](x, edge_index) * self.scales["a", "to", "b"]
        out = out + self.convs["type"](x) * self.scales["b.c"]
        for scale in self.scales.values():
            out = out + scale
        for kind, conv in self.convs.items():
            if isinstance(kind, tuple) and ("x", "y", "z") not in self.convs:
                out = out + conv(x, edge_index)
        return out


CONTAINERS = [
    ModuleCase("Sequential", lambda: pyg.Sequential("x, edge_index", [
        (pyg.GCNConv(IN, 8), "x, edge_index -> x"), nn.ReLU(inplace=True), nn.Linear(8, 2)]),
        edges),
    ModuleCase("Sequential-named", jumping, graphs),
    ModuleCase("Sequential-inside", Inside, edges),
    ModuleCase("ModuleDict", Keyed, edges),
]  # fmt: skip


@pytest.mark.usefixtures("auto")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")  # torch's, at its use
@cases([*POOLS, *CONTAINERS])
def test_modules(case: ModuleCase, bare: BareProcess) -> None:
    with torch.sparse.check_sparse_tensor_invariants():  # torch warns where nobody chose
        check(case, bare)
