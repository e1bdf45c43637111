"""Sparse matrices that a model makes itself, and functions of torch_sparse, needless to install.

What convs are told by them are their entries: scripted code takes them apart, and no file asks for
torch_sparse.
"""

from __future__ import annotations

import types
from typing import Optional

import pytest
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, GraphConv, MessagePassing, SAGEConv
from torch_geometric.utils import coalesce as pyg_coalesce
from torch_geometric.utils import scatter, spmm, to_scipy_sparse_matrix, to_torch_csr_tensor

import gnnscript
from conformance.graphs import GRAPHS, IN, Graph
from gnnscript.testing import assert_scripts_like_eager

pytestmark = [
    pytest.mark.usefixtures("auto"),
    # What eager mode warns of: the layout is young, and PyG converts to it.
    pytest.mark.filterwarnings("ignore:Sparse CS:UserWarning"),
    pytest.mark.filterwarnings("ignore:Converting sparse tensor to CSR:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
]


def simple(graph: Graph) -> tuple[Tensor, Tensor, Tensor]:
    """Features, and edges of which none stands twice, with weights."""
    edge_index = torch.unique(graph.edge_index, dim=1)
    weight = torch.linspace(0.5, 1.5, edge_index.size(1))
    return graph.x, edge_index, weight


class Adjacency(nn.Module):
    """Makes `adj_t` in one layout and hands it to a conv."""

    def __init__(self, conv: nn.Module, layout: str) -> None:
        super().__init__()
        self.conv = conv
        self.layout = layout

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        size = (x.size(0), x.size(0))
        adj_t = torch.sparse_coo_tensor(edge_index.flip([0]), weight, size)
        if self.layout == "csr":
            adj_t = adj_t.to_sparse_csr()
        elif self.layout == "csc":
            adj_t = adj_t.to_sparse_csc()
        else:
            adj_t = adj_t.coalesce()
        return self.conv(x, adj_t)


class Weighted(MessagePassing):
    """Its hooks take the values of the matrix, and what is passed besides."""

    def forward(self, x: Tensor, adj_t: Tensor, edge_weight: Optional[Tensor] = None) -> Tensor:
        return self.propagate(adj_t, x=(x, x), edge_weight=edge_weight, scale=0.5)

    def message(self, x_i, x_j, edge_weight: Optional[Tensor], scale: float, size_i) -> Tensor:
        assert size_i is not None
        out = scale * (x_j - x_i)
        return out if edge_weight is None else edge_weight.view(-1, 1) * out

    def update(self, inputs: Tensor, scale: float) -> Tensor:
        return inputs + scale


class Attributed(MessagePassing):
    """Asks for an attribute, which the values of a matrix are where they are rows."""

    def forward(self, x: Tensor, adj_t: Tensor) -> Tensor:
        return self.propagate(adj_t, x=x, edge_attr=None)

    def message(self, x_j: Tensor, edge_attr: Optional[Tensor]) -> Tensor:
        return x_j if edge_attr is None else x_j * edge_attr


class Fused(MessagePassing):
    """Has a `message_and_aggregate` of its own, which is not what its `message` says."""

    def __init__(self) -> None:
        super().__init__(aggr="mean")
        self.lin = nn.Linear(IN, IN)

    def forward(self, x: Tensor, adj_t: Tensor) -> Tensor:
        return self.propagate(adj_t, x=self.lin(x), bias=1.0)

    def message(self, x_j: Tensor) -> Tensor:
        return 3 * x_j

    def message_and_aggregate(self, adj_t: Tensor, x: Tensor, bias: float) -> Tensor:
        return spmm(adj_t, x, reduce="sum") + bias

    def update(self, inputs: Tensor, bias: float) -> Tensor:
        return inputs * 2 - bias


# PyG renders the code of a class for its first instance, and a reduction that is not fused there is
# not for those that follow: classes of this module's own are rendered for what is made here.
class OwnSAGE(SAGEConv):
    pass


class OwnGraph(GraphConv):
    pass


CONVS = [
    ("gcn", lambda: GCNConv(IN, IN)),
    ("gat", lambda: GATConv(IN, IN)),
    ("sage", lambda: OwnSAGE(IN, IN)),
    ("graph", lambda: OwnGraph(IN, IN, aggr="mean")),
    ("weighted", Weighted),
    ("attributed", Attributed),
    ("fused", Fused),
]


@pytest.mark.parametrize("layout", ["coo", "csr"])
@pytest.mark.parametrize(("name", "make"), CONVS, ids=[name for name, _ in CONVS])
def test_convs_take_matrices_that_the_model_makes(name, make, layout, bare) -> None:
    model = Adjacency(make(), layout)
    # Eager has no gradient of what is marked as coalesced, nor of a CSR matrix's values.
    gradients = layout == "coo" and name not in ("gcn", "graph")
    inputs = [simple(graph) for graph in GRAPHS]
    assert_scripts_like_eager(model, *inputs, gradients=gradients, reload=bare)


def test_a_compressed_column_layout(bare) -> None:
    inputs = [simple(graph) for graph in GRAPHS]
    model = Adjacency(OwnSAGE(IN, IN, aggr="sum"), "csc")
    assert_scripts_like_eager(model, *inputs, gradients=False, reload=bare)


class Mixed(nn.Module):
    """One conv called with a matrix, and with an edge index."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = OwnGraph(IN, IN)

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        adj_t = to_torch_csr_tensor(edge_index.flip([0]), weight, (x.size(0), x.size(0)))
        return self.conv(x, adj_t) + self.conv(x, edge_index, weight)


def test_matrices_beside_edge_indices(bare) -> None:
    inputs = [simple(graph) for graph in GRAPHS]
    scripted = assert_scripts_like_eager(Mixed(), *inputs, gradients=False, reload=bare)
    # With gradients as with edges alone.
    x, edge_index, weight = inputs[0]
    weight.requires_grad_()
    scripted(x, edge_index, weight).square().sum().backward()
    found, weight.grad = weight.grad, None
    (2 * scripted.conv.forward_1(x, edge_index, weight)).square().sum().backward()
    torch.testing.assert_close(found, weight.grad)


class Reversed(Adjacency):
    def __init__(self) -> None:
        super().__init__(Weighted(flow="target_to_source"), "coo")


class AsksForEdges(MessagePassing):
    def forward(self, x: Tensor, adj_t: Tensor) -> Tensor:
        return self.propagate(adj_t, x=x)

    def message(self, x_j: Tensor, edge_index: Tensor) -> Tensor:
        return x_j * edge_index.size(1)


class UnknownLayout(Adjacency):
    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        adj_t = torch.sparse_coo_tensor(edge_index, weight, (x.size(0), x.size(0)))
        return self.conv(x, adj_t.to_sparse_bsr((1, 1)))


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (Reversed(), "flow='target_to_source'"),
        (Adjacency(AsksForEdges(), "coo"), "ask for 'edge_index'"),
        (UnknownLayout(Weighted(), "coo"), "layout"),
    ],
)
def test_what_pyg_refuses_too_is_said_when_scripting(model, cause) -> None:
    with pytest.raises(gnnscript.UnsupportedError, match=cause) as refused:
        torch.jit.script(model)
    assert "test_sparse.py:" in str(refused.value)


class Layouts(nn.Module):
    """Every way to make one: their layouts are known, and the values have gradients."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        n = x.size(0)
        dense = torch.sparse_coo_tensor(edge_index, weight, (n, n)).to_dense()
        csr = dense.to_sparse(layout=torch.sparse_csr)
        ptr, other, values = csr.crow_indices(), csr.col_indices(), csr.values()
        made = [
            torch.sparse_csr_tensor(ptr, other, values, (n, n), dtype=x.dtype),
            torch.sparse_compressed_tensor(ptr, other, values, (n, n), layout=torch.sparse_csr),
            torch.sparse_csr_tensor(
                crow_indices=ptr, col_indices=other, values=values, size=(n, n)
            ),
        ]
        out = torch.zeros_like(x)
        for one in made:
            out = out + spmm(one, x)
        turned = torch.sparse_csc_tensor(ptr, other, values, (n, n), device=x.device)
        return out + spmm(turned, x)


def test_layouts_and_gradients() -> None:
    model = Layouts()
    scripted = torch.jit.script(model)
    for graph in GRAPHS:
        x, edge_index, weight = simple(graph)
        x, weight = x.clone().requires_grad_(), weight.requires_grad_()
        torch.testing.assert_close(scripted(x, edge_index, weight), model(x, edge_index, weight))
        dense = torch.zeros(x.size(0), x.size(0)).index_put(
            (edge_index[0], edge_index[1]), weight, accumulate=True
        )
        (3 * dense @ x + dense.t() @ x).square().sum().backward()
        expected = x.grad.clone(), weight.grad.clone()
        x.grad = weight.grad = None
        scripted(x, edge_index, weight).square().sum().backward()
        torch.testing.assert_close((x.grad, weight.grad), expected, rtol=1e-4, atol=1e-4)


# torch_sparse #########################################################################


def _library() -> types.ModuleType:
    """A stub that computes what the library's documentation says."""

    def coalesce(index, value, m, n, op="add"):
        return pyg_coalesce(index, value, max(m, n), op)

    def transpose(index, value, m, n, coalesced=True):
        index = index.flip([0])
        return coalesce(index, value, n, m) if coalesced else (index, value)

    def eye(m, dtype=None, device=None):
        index = torch.arange(m, device=device)
        return torch.stack([index, index]), torch.ones(m, dtype=dtype, device=device)

    def multiply(index, value, m, n, matrix):
        matrix = matrix if matrix.dim() > 1 else matrix.unsqueeze(-1)
        return scatter(matrix[index[1]] * value.unsqueeze(-1), index[0], 0, m)

    def spspmm(indexA, valueA, indexB, valueB, m, k, n, coalesced=False):
        first = torch.sparse_coo_tensor(indexA, valueA, (m, k)).to_dense()
        found = first @ torch.sparse_coo_tensor(indexB, valueB, (k, n)).to_dense()
        index = found.nonzero().t()
        return index, found[index[0], index[1]]

    module = types.ModuleType("torch_sparse")
    for function in (coalesce, transpose, eye, spspmm):
        setattr(module, function.__name__, function)
    module.spmm = multiply
    multiply.__name__ = "spmm"
    for function in vars(module).values():
        if callable(function):
            function.__module__ = "torch_sparse." + function.__name__
    return module


torch_sparse = _library()


class Library(nn.Module):
    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor):
        n = x.size(0)
        edge_index, weight = torch_sparse.coalesce(
            torch.cat([edge_index, edge_index[:, :3]], 1), torch.cat([weight, weight[:3]]), n, n
        )
        bare, none = torch_sparse.coalesce(edge_index, None, n, n, op="mean")
        assert none is None
        turned, values = torch_sparse.transpose(edge_index, weight, n, n)
        kept, _ = torch_sparse.transpose(edge_index, weight, n, n, coalesced=False)
        out = torch_sparse.spmm(turned, values, n, n, x)
        diagonal, ones = torch_sparse.eye(n, dtype=x.dtype, device=x.device)
        squared, entries = torch_sparse.spspmm(edge_index, weight, turned, values, n, n, n)
        vector = torch_sparse.spmm(squared, entries, n, n, x[:, 0])
        return out + torch_sparse.spmm(diagonal, ones, n, n, x), vector, bare, kept


def test_functions_of_torch_sparse(bare) -> None:
    inputs = [simple(graph) for graph in GRAPHS]
    assert_scripts_like_eager(Library(), *inputs, reload=bare)


class Products(nn.Module):
    """`spmm` of PyG's, called outside of any conv."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor):
        adj = to_torch_csr_tensor(edge_index, weight, (x.size(0), x.size(0)))
        return spmm(adj, x), spmm(adj, x, "mean"), spmm(adj.to_sparse_coo(), x, reduce="max")


def test_spmm_in_a_plain_module(bare) -> None:
    inputs = [simple(graph) for graph in GRAPHS]
    assert_scripts_like_eager(Products(), *inputs, gradients=False, reload=bare)


class Components(nn.Module):
    """SciPy's components of PyG's matrix, as some pools ask for them."""

    def forward(self, edge_index: Tensor, num_nodes: int):
        adj = to_scipy_sparse_matrix(edge_index, num_nodes=num_nodes)
        count, labels = connected_components(adj, directed=True, connection="weak")
        return count, torch.tensor(labels, dtype=torch.long, device=edge_index.device)


def test_components_are_those_of_scipy(bare) -> None:
    generator = torch.Generator().manual_seed(0)
    path = torch.stack([torch.arange(1, 40), torch.arange(39)])  # takes the most steps
    inputs = [(path, 41), (path.flip(0).flip(1), 40), (path[:, :0], 3)]
    for nodes, edges in ((6, 3), (30, 20), (50, 60)):
        drawn = torch.randint(nodes, (2, edges), generator=generator)
        inputs.append((drawn, nodes))
    assert_scripts_like_eager(Components(), *inputs, modes=("eval",), reload=bare)


class DenseProduct(nn.Module):
    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        return spmm(adj, x)


def test_spmm_of_a_dense_argument_says_what_is_wrong() -> None:
    with pytest.raises(gnnscript.UnsupportedError, match=r"(?s)test_sparse\.py:.*sparse matrix"):
        torch.jit.script(DenseProduct())
