"""Models and layers that make a ``SparseTensor`` script, whether torch_sparse is there or not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, PANConv, PANPooling, SAGEConv
from torch_geometric.typing import SparseTensor, torch_sparse

from conformance.graphs import GRAPHS, IN, OUT, Graph
from conformance.modules import ModuleCase, cases, check
from conformance.sparse_tensors import CASES
from gnnscript.testing import BareProcess, assert_scripts_like_eager

pytestmark = [
    pytest.mark.usefixtures("auto"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
]


@cases(CASES)
def test_models_with_triplets(case: ModuleCase, bare: BareProcess) -> None:
    check(case, bare)


def simple(graph: Graph) -> tuple[Tensor, Tensor]:
    return graph.x, torch.unique(graph.edge_index, dim=1)


class Compared(nn.Module):
    """Runs one module when scripted, and in eager mode another, which says what it must compute."""

    def __init__(self, scripted: nn.Module, reference: nn.Module) -> None:
        super().__init__()
        self.scripted = scripted
        self.reference = reference

    def forward(self, x: Tensor, edge_index: Tensor):
        if torch.jit.is_scripting():
            return self.scripted(x, edge_index)
        return self.reference(x, edge_index)


class Pan(nn.Module):
    """A conv and a pool, which gets the conv's matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = PANConv(IN, OUT, filter_size=2)
        self.pool = PANPooling(OUT, ratio=0.5)

    def forward(self, x: Tensor, edge_index: Tensor):
        x, met = self.conv(x, edge_index)
        row, col, value = met.coo()
        pooled, edges, weight, batch, perm, score = self.pool(x, met)
        return x, torch.stack([row, col]), value, pooled, edges, weight, batch, perm, score


class DensePan(nn.Module):
    """The same by dense matrices, as the paper has it."""

    def __init__(self, pan: Pan) -> None:
        super().__init__()
        self.conv = pan.conv
        self.pool = pan.pool

    def forward(self, x: Tensor, edge_index: Tensor):
        n = x.size(0)
        adj_t = torch.zeros(n, n).index_put((edge_index[1], edge_index[0]), torch.ones(()))
        power, total = torch.eye(n), self.conv.weight[0] * torch.eye(n)
        present = torch.eye(n)
        for i in range(1, 3):
            # Each step is weighted before the next.
            power = self.conv.weight[i - 1] * power @ adj_t
            total = total + self.conv.weight[i] * power
            present = present + power.detach()
        present = present != 0
        scale = present.sum(1).to(x.dtype).pow(-0.5)
        met = scale.view(1, -1) * total * scale.view(-1, 1)
        x = self.conv.lin(met @ x)
        row, col = present.nonzero().t()
        value = met[row, col]

        score = self.pool.beta[0] * (x * self.pool.p).sum(-1) + self.pool.beta[1] * met.sum(0)
        score = score.tanh()
        perm = score.sort(descending=True, stable=True)[1][: (n + 1) // 2]
        place = torch.full((n,), -1)
        place[perm] = torch.arange(perm.numel())
        kept = (place[row] >= 0) & (place[col] >= 0)
        edges = torch.stack([place[col][kept], place[row][kept]])
        pooled = x[perm] * score[perm].view(-1, 1)
        batch = torch.zeros(perm.numel(), dtype=torch.long)
        return (
            x,
            torch.stack([row, col]),
            value,
            pooled,
            edges,
            value[kept],
            batch,
            perm,
            score[perm],
        )


def test_pan_against_dense_matrices(bare: BareProcess) -> None:
    torch.manual_seed(0)
    pan = Pan()
    nn.init.uniform_(pan.conv.weight, 0.2, 0.8)
    inputs = [simple(graph) for graph in GRAPHS]
    assert_scripts_like_eager(Compared(pan, DensePan(pan)), *inputs, reload=bare)


class ByHand(nn.Module):
    """Methods and functions of torch_sparse, as its users write them."""

    def __init__(self) -> None:
        super().__init__()
        self.gcn = GCNConv(IN, OUT)
        self.sage = SAGEConv(IN, OUT, aggr="max")

    def forward(self, x: Tensor, edge_index: Tensor):
        n = x.size(0)
        weight = x[edge_index[0], 0] * x[edge_index[1], 1]
        adj = SparseTensor.from_edge_index(edge_index, weight, (n, n))
        adj_t = adj.t()
        row, col, value = adj_t.coo()
        ptr, _, _ = adj_t.csr()
        bare = adj_t.set_value(None)
        looped = torch_sparse.set_diag(bare)
        degree = torch_sparse.sum(looped, dim=1)
        scaled = torch_sparse.mul(looped, degree.pow(-1).view(-1, 1))
        kept = torch_sparse.masked_select_nnz(adj_t, row != col)
        picked = adj[edge_index[0, :4]]
        return (
            self.gcn(x, bare) + self.sage(x, adj_t),
            torch_sparse.matmul(scaled, x) + adj_t.matmul(x, reduce="mean"),
            (adj @ adj_t).to_dense() + torch_sparse.fill_diag(kept, 2.0).to_dense(),
            (adj.sum(dim=0), adj.sum(), picked.to_dense(), ptr, value),
            (adj.nnz(), adj.sparse_sizes(), bare.has_value(), adj.storage.rowcount()),
        )


class ByHandDense(nn.Module):
    def __init__(self, model: ByHand) -> None:
        super().__init__()
        self.gcn = model.gcn
        self.sage = model.sage

    def forward(self, x: Tensor, edge_index: Tensor):
        n = x.size(0)
        row, col = edge_index
        weight = x[row, 0] * x[col, 1]
        adj = torch.zeros(n, n).index_put((row, col), weight)
        ones = torch.zeros(n, n).index_put((col, row), torch.ones(()))
        looped = ones.clone().fill_diagonal_(1.0)
        count = ones.sum(1, keepdim=True).clamp(min=1)
        eye = torch.eye(n, dtype=torch.bool)
        value = adj.t()[ones.nonzero().unbind(1)]
        return (
            self.gcn(x, edge_index) + self.sage(x, edge_index),
            (looped / looped.sum(1, keepdim=True)) @ x + adj.t() @ x / count,
            adj @ adj.t() + torch.where(eye, 2.0, adj.t()),
            (
                adj.sum(0),
                adj.sum(),
                adj[row[:4]],
                torch.cat([row.new_zeros(1), ones.sum(1).long().cumsum(0)]),
                value,
            ),
            (row.numel(), (n, n), False, ones.sum(0).long()),
        )


def test_methods_and_functions_against_dense_matrices(bare: BareProcess) -> None:
    model = ByHand()
    inputs = [simple(graph) for graph in GRAPHS]
    assert_scripts_like_eager(Compared(model, ByHandDense(model)), *inputs, reload=bare)
