"""PyG's functions on graphs, called in the forward of a plain module without any conv."""

from __future__ import annotations

from typing import Any, List

import pytest
import torch
import torch_geometric.nn as pyg
import torch_geometric.utils as utils
from torch import Tensor, nn
from torch_geometric.nn.pool.connect.filter_edges import filter_adj
from torch_geometric.utils.map import map_index
from torch_geometric.utils.num_nodes import maybe_num_nodes

from conformance.graphs import GRAPHS, Graph
from conformance.modules import ModuleCase, cases, check
from gnnscript.testing import BareProcess


class Softmax(nn.Module):
    def forward(self, x: Tensor, edge_index: Tensor):
        by_node = utils.softmax(x[edge_index[0]], edge_index[1], num_nodes=x.size(0))
        return by_node, utils.softmax(x[edge_index[0]].t(), edge_index[1], dim=1)


class Scatter(nn.Module):
    def forward(self, x, edge_index):
        row, col = edge_index
        mean = utils.scatter(x[row], col, dim=0, dim_size=x.size(0), reduce="mean")
        ptr = torch.tensor([0, 3, x.size(0)])
        return mean, utils.scatter(x[row].t(), col, -1, reduce="max"), utils.segment(x, ptr, "max")


class Degree(nn.Module):
    def forward(self, x, edge_index):
        return utils.degree(edge_index[0], x.size(0), dtype=x.dtype), utils.degree(edge_index[1])


class SelfLoops(nn.Module):
    def forward(self, x, edge_index, weight):
        size = x.size(0)
        added = utils.add_self_loops(edge_index, weight, fill_value="mean", num_nodes=size)
        remaining = utils.add_remaining_self_loops(edge_index, weight, 2.0, size)
        bare, _ = utils.remove_self_loops(edge_index)
        apart = utils.segregate_self_loops(edge_index, weight)
        diagonal = utils.get_self_loop_attr(edge_index, weight, size)
        if utils.contains_self_loops(edge_index):
            x = x + 1
        if utils.contains_isolated_nodes(edge_index, size):
            x = x * 2
        kept = utils.remove_isolated_nodes(edge_index, weight, size)
        return added, remaining, bare, apart, diagonal, x, kept


class Undirected(nn.Module):
    def forward(self, x, edge_index, weight, attr):
        both = utils.to_undirected(edge_index, weight, num_nodes=x.size(0), reduce="mean")
        several, attrs = utils.to_undirected(edge_index, [weight, attr], num_nodes=x.size(0))
        if utils.is_undirected(edge_index, weight, num_nodes=x.size(0)):
            x = x * 2
        return both, several, attrs[0], attrs[1], utils.to_undirected(edge_index), x


class Coalesced(nn.Module):
    def forward(self, x, edge_index, weight, attr):
        one = utils.coalesce(edge_index, weight, num_nodes=x.size(0))
        several, attrs = utils.coalesce(edge_index, [weight, attr], reduce="max", sort_by_row=False)
        rows = utils.sort_edge_index(edge_index, weight, x.size(0), sort_by_row=False)
        return one, several, attrs[0], attrs[1], rows, utils.coalesce(edge_index)


class Subgraphs(nn.Module):
    def forward(self, x, edge_index, weight):
        nodes = torch.arange(1, 5)
        plain, _ = utils.subgraph(nodes, edge_index, num_nodes=x.size(0))
        relabelled = utils.subgraph(
            nodes, edge_index, weight, relabel_nodes=True, num_nodes=x.size(0)
        )
        masked = utils.subgraph(
            x[:, 0] > 0, edge_index, relabel_nodes=True, num_nodes=x.size(0), return_edge_mask=True
        )
        return plain, relabelled, masked[0], masked[2]


class BipartiteSubgraph(nn.Module):
    def forward(self, x, edge_index, weight):
        subset = (torch.arange(4), torch.arange(1, 5))
        return utils.bipartite_subgraph(
            subset, edge_index, weight, relabel_nodes=True, size=(x.size(0), 12)
        )


class Hops(nn.Module):
    def forward(self, x, edge_index):
        one = utils.k_hop_subgraph(1, 2, edge_index, relabel_nodes=True, num_nodes=x.size(0))
        several = utils.k_hop_subgraph([1, 2], 2, edge_index)
        nodes = torch.tensor([1, 2])
        return one, several, utils.k_hop_subgraph(nodes, 1, edge_index, directed=True)


class Dropped(nn.Module):
    def forward(self, x, edge_index, weight):
        size, training = x.size(0), self.training
        edges = utils.dropout_edge(edge_index, p=0.3, training=training)
        both = utils.dropout_edge(edge_index, p=0.3, force_undirected=True, training=training)
        nodes = utils.dropout_node(
            edge_index, p=0.3, num_nodes=size, training=training, relabel_nodes=True
        )
        masked = utils.mask_feature(x, p=0.3, training=training)
        return edges, both, nodes, masked, utils.shuffle_node(x, training=training)


class DenseBatch(nn.Module):
    def forward(self, x, batch):
        padded = utils.to_dense_batch(x, batch)
        cut = utils.to_dense_batch(x, batch, max_num_nodes=4, fill_value=-1.0)
        return padded, cut, utils.to_dense_batch(x)


class DenseAdjacency(nn.Module):
    def forward(self, edge_index, batch, weight, attr):
        adj = utils.to_dense_adj(edge_index, batch, weight)
        return (
            adj,
            utils.to_dense_adj(edge_index, batch, attr, max_num_nodes=12),
            (utils.to_dense_adj(edge_index)),
        )


class BackToSparse(nn.Module):
    def forward(self, edge_index, weight):
        return utils.dense_to_sparse(utils.to_dense_adj(edge_index, None, weight)[0])


class Tables(nn.Module):
    def forward(self, x, batch):
        hot = utils.one_hot(batch), utils.one_hot(batch, 3, dtype=torch.long)
        mask = utils.index_to_mask(batch, size=4)
        selected = utils.select(x, batch == 0, 0), utils.narrow(x, 0, 1, 3)
        return (
            hot,
            utils.cumsum(batch),
            utils.index_sort(batch, max_value=3),
            mask,
            utils.mask_to_index(batch == 1),
            utils.lexsort([x[:, 0], batch]),
            selected,
            utils.mask_select(x, 0, x[:, 0] > 0),
        )


class Unbatched(nn.Module):
    def forward(self, x, batch, edge_index):
        parts: List[Tensor] = []
        for part in utils.unbatch(x, batch):
            parts.append(part.sum(0))  # noqa: PERF401
        first = utils.unbatch(x, batch)[0]
        return torch.stack(parts), first


class Measured(nn.Module):
    def forward(self, x, edge_index, weight):
        y = (x[:, 0] > 0).long()
        return (
            utils.homophily(edge_index, y, method="edge"),
            utils.homophily(edge_index, y, method="node"),
            utils.get_laplacian(edge_index, weight, normalization="sym", num_nodes=x.size(0)),
            utils.normalized_cut(edge_index, weight, x.size(0)),
            utils.assortativity(edge_index),
            maybe_num_nodes(edge_index),
        )


class SparseLayouts(nn.Module):
    """Sparse tensors of the module's own making, in two layouts, and back to edges."""

    def forward(self, x, edge_index):
        coo = utils.to_torch_coo_tensor(edge_index, size=x.size(0))
        csr = utils.to_torch_csr_tensor(edge_index, size=(x.size(0), x.size(0)))
        squared = (csr @ csr).to_sparse_coo()
        assert csr.layout == torch.sparse_csr
        assert squared.is_sparse
        return (
            coo @ x,
            utils.spmm(csr, x, reduce="mean"),
            utils.to_edge_index(coo.clone()),
            utils.to_edge_index(csr),
            squared.indices(),
            squared.values(),
        )


class GlobalPools(nn.Module):
    def forward(self, x, batch):
        one = pyg.global_add_pool(x, None) + pyg.global_max_pool(x, None)
        several = pyg.global_mean_pool(x, batch) * pyg.global_max_pool(x, batch)
        return one, several, pyg.global_add_pool(x, batch, size=3), pyg.avg_pool_x(batch, x, batch)


class Mapped(nn.Module):
    """Functions that a plain module finds in PyG's inner modules."""

    def forward(self, x, edge_index, attr):
        from torch_geometric.utils.sparse import index2ptr, ptr2index

        known, _ = map_index(edge_index[0], torch.arange(x.size(0)).flip(0), inclusive=True)
        ptr = index2ptr(edge_index[0].sort()[0], x.size(0))
        adjacency = filter_adj(edge_index, attr, torch.arange(4), num_nodes=x.size(0))
        return known, map_index(edge_index[0], torch.arange(3)), ptr, ptr2index(ptr), adjacency


class ImportedInside(nn.Module):
    def forward(self, x, batch):
        from torch_geometric.utils import one_hot

        return one_hot(batch, dtype=x.dtype) + x.sum()


class Layers(nn.Module):
    def forward(self, x, edge_index):
        return utils.trim_to_layer(1, [3, 2], [4, 5], x, edge_index)


def edges(g: Graph) -> tuple[Any, ...]:
    return g.x, g.edge_index


def weighted(g: Graph) -> tuple[Any, ...]:
    return g.x, g.edge_index, g.weight


def attributed(g: Graph) -> tuple[Any, ...]:
    return g.x, g.edge_index, g.weight, g.attr


def batched(g: Graph) -> tuple[Any, ...]:
    return g.x, g.batch


TABLE = [
    ModuleCase("softmax", Softmax, edges),
    ModuleCase("scatter", Scatter, edges),
    ModuleCase("degree", Degree, edges, gradients=False),
    ModuleCase("self-loops", SelfLoops, weighted),
    ModuleCase("undirected", Undirected, attributed),
    ModuleCase("coalesce", Coalesced, attributed),
    ModuleCase("subgraph", Subgraphs, weighted),
    ModuleCase("bipartite-subgraph", BipartiteSubgraph, lambda g: (g.x, g.bipartite, g.weight)),
    ModuleCase("k-hop", Hops, edges, gradients=False),
    ModuleCase("dropout", Dropped, weighted),
    ModuleCase("dense-batch", DenseBatch, batched),
    ModuleCase("dense-adj", DenseAdjacency, lambda g: (g.edge_index, g.batch, g.weight, g.attr)),
    ModuleCase("dense-to-sparse", BackToSparse, lambda g: (g.edge_index, g.weight)),
    ModuleCase("tables", Tables, batched),
    ModuleCase("unbatch", Unbatched, lambda g: (g.x, g.batch, g.edge_index)),
    ModuleCase("measures", Measured, weighted),
    ModuleCase("sparse-layouts", SparseLayouts, edges),
    ModuleCase("global-pools", GlobalPools, batched),
    ModuleCase("inner", Mapped, lambda g: (g.x, g.edge_index, g.attr)),
    ModuleCase("imported-inside", ImportedInside, batched),
    ModuleCase("trim", Layers, edges),
]


@pytest.mark.usefixtures("auto")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")  # torch's, at its use
@cases(TABLE)
def test_functions(case: ModuleCase, bare: BareProcess) -> None:
    with torch.sparse.check_sparse_tensor_invariants():  # torch warns where nobody chose
        check(case, bare)


# Sampling: the random numbers are torch's, so another draw than eager's, by the same rule. ####


class Negatives(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, x: Tensor, edge_index: Tensor):
        return utils.negative_sampling(edge_index, x.size(0), **self.options)


def pairs(edge_index: Tensor) -> set[tuple[int, int]]:
    return set(map(tuple, edge_index.t().tolist()))


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize(
    "options",
    [{}, {"method": "dense"}, {"num_neg_samples": 5}],
    ids=str,
)
@pytest.mark.parametrize("graph", GRAPHS, ids=["small", "large"])
def test_negative_edges_are_no_edges(options: dict[str, Any], graph: Graph) -> None:
    scripted = torch.jit.script(Negatives(**options))
    found = scripted(graph.x, graph.edge_index)
    assert 0 < found.size(1) <= options.get("num_neg_samples", graph.edge_index.size(1))
    assert len(pairs(found)) == found.size(1)
    assert not pairs(found) & pairs(graph.edge_index)
    assert all(a != b for a, b in pairs(found))
    torch.manual_seed(1)
    first = scripted(graph.x, graph.edge_index)
    torch.manual_seed(1)
    assert torch.equal(scripted(graph.x, graph.edge_index), first)


class Structured(nn.Module):
    def forward(self, x: Tensor, edge_index: Tensor):
        return utils.structured_negative_sampling(edge_index, x.size(0))


@pytest.mark.usefixtures("auto")
def test_structured_negatives_keep_their_source(bare: BareProcess) -> None:
    check(ModuleCase("structured", Structured, edges, gradients=False), bare)


class Sampled(nn.Module):
    def forward(self, n: int, k: int):
        import random

        degree = utils.degree(torch.arange(n))
        return degree[torch.tensor(random.sample(range(n), k))].numel(), random.sample(range(n), k)


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize(("n", "k"), [(5, 5), (10, 3), (10**6, 10)])
def test_samples_are_distinct(n: int, k: int) -> None:
    size, found = torch.jit.script(Sampled())(n, k)
    assert size == len(set(found)) == len(found) == k
    assert all(0 <= i < n for i in found)
