"""Edges in PyG's and torch's other forms, in eager calls: what they hold sorted is not sorted."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.nn import (
    EdgeConv,
    GATConv,
    GATv2Conv,
    GINEConv,
    MessagePassing,
    SAGEConv,
    TransformerConv,
)
from torch_geometric.typing import Adj, OptTensor
from torch_geometric.utils import softmax, to_torch_coo_tensor, to_torch_csr_tensor

import gnnscript
from gnnscript.script import handed

pytestmark = [
    pytest.mark.usefixtures("native", "auto"),
    pytest.mark.filterwarnings("ignore:.*Sparse (CSR tensor|invariant):UserWarning"),
    pytest.mark.filterwarnings("ignore:.*profil:UserWarning"),
]

N, WIDTH = 12, 4


def edges(order: int) -> Tensor:
    """Pairs of nodes, each once, sorted by source (0) or target (1)."""
    generator = torch.Generator().manual_seed(0)
    code = torch.randint(N * N, (60,), generator=generator).unique()
    first, second = code // N, code % N
    return torch.stack([first, second] if order == 0 else [second, first])


X = torch.randn(N, WIDTH, generator=torch.Generator().manual_seed(1))


class Weighted(MessagePassing):
    """Weights by the name that PyG gives the values of a matrix."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lin = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, edge_index: Adj, edge_weight: OptTensor = None) -> Tensor:
        return self.propagate(edge_index, x=self.lin(x), edge_weight=edge_weight)

    def message(self, x_j: Tensor, edge_weight: OptTensor) -> Tensor:
        return x_j if edge_weight is None else edge_weight.view(-1, 1) * x_j


class Attention(Weighted):
    """Normalises scores with what PyG knows of the rows."""

    def message(  # type: ignore[override]
        self, x_i: Tensor, x_j: Tensor, index: Tensor, ptr: OptTensor, size_i: int | None
    ) -> Tensor:
        alpha = softmax((x_i * x_j).sum(-1), index, ptr, size_i)
        return alpha.view(-1, 1) * x_j


class Seeing(Weighted):
    """Looks at the rows itself."""

    def message(self, x_j: Tensor, ptr: OptTensor) -> Tensor:  # type: ignore[override]
        return x_j if ptr is None else 2 * x_j


def as_index(order: int | None, filled: bool = False) -> EdgeIndex:
    pairs = edges(1 if order is None else order)
    name = None if order is None else ("row", "col")[order]
    made = EdgeIndex(pairs, sparse_size=(N, N), sort_order=name)
    return made.fill_cache_() if filled else made


class SparseTensor:
    """What torch_sparse's class of this name tells of its entries, which are sorted by row."""

    def __init__(self, row: Tensor, col: Tensor, value: Tensor) -> None:
        self._parts = (row, col, value)
        self._ptr = torch._convert_indices_from_coo_to_csr(row, N)

    def coo(self) -> tuple[Tensor, ...]:
        return self._parts

    def csr(self) -> tuple[Tensor, ...]:
        return (self._ptr, *self._parts[1:])

    def size(self, dim: int) -> int:
        return (N, N)[dim]


SparseTensor.__module__ = "torch_sparse"


def matrix(make: Callable[..., Tensor]) -> Tensor:
    pairs = edges(1)
    return make(pairs.flip(0), torch.linspace(0.1, 1, pairs.size(1)), size=(N, N))


FORMS: dict[str, tuple[Callable[[], Any], int]] = {
    "by target": (lambda: as_index(1), 0),
    "by source": (lambda: as_index(0), 1),
    "by source, filled": (lambda: as_index(0, filled=True), 0),
    "unsorted": (lambda: as_index(None), 1),
    "csr": (lambda: matrix(to_torch_csr_tensor), 0),
    "coo": (lambda: matrix(to_torch_coo_tensor), 1),
}
CONVS: dict[str, Callable[[], nn.Module]] = {
    "weighted": lambda: Weighted(aggr="mean"),
    "attention": lambda: Attention(aggr="add"),
    "edge": lambda: EdgeConv(nn.Linear(2 * WIDTH, WIDTH)),
    "gat": lambda: GATConv(WIDTH, WIDTH, add_self_loops=False),
    "gatv2": lambda: GATv2Conv(WIDTH, WIDTH, add_self_loops=False),
    "gine": lambda: GINEConv(nn.Linear(WIDTH, WIDTH), edge_dim=WIDTH),
    "transformer": lambda: TransformerConv(WIDTH, WIDTH, heads=2),
}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each call with other forms, whether it ran on the native ops."""
    from gnnscript.script import eager

    seen: list[bool] = []

    def spy(*args: Any) -> Any:
        found = handed.taken_apart(*args)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(eager, "taken_apart", spy)
    return seen


def gradients(model: nn.Module, form: Any, *rest: Tensor) -> list[Tensor]:
    x = X.clone().requires_grad_()
    out = model(x, form, *rest)
    return [out, *torch.autograd.grad(out.square().sum(), [x, *model.parameters()])]


def sorts(call: Callable[[], Any]) -> int:
    """How many times a call asks for edges to be sorted."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    return sum(event.name == "gnnscript::csr" for event in profile.events())


@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize("form", FORMS)
def test_same_as_pyg_and_not_sorted_again(form: str, conv: str, served: list[bool]) -> None:
    make, times = FORMS[form]
    given, model = make(), CONVS[conv]()
    rest = [torch.randn(edges(1).size(1), WIDTH)] if conv == "gine" else []
    with gnnscript.kernels("portable"):
        expected = gradients(model, given, *rest)
    assert sorts(lambda: model(X, given, *rest)) == times
    assert sorts(lambda: model(X, given, *rest)) == 0  # it lives, and is as it was
    assert served
    assert all(served)
    for got, wanted in zip(gradients(model, given, *rest), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_sparse_tensors_of_torch_sparse(served: list[bool]) -> None:
    model = Weighted(aggr="mean")
    source, target = edges(1)
    value = torch.linspace(0.1, 1, source.numel())
    given = SparseTensor(target, source, value)
    assert sorts(lambda: model(X, given)) == 0
    torch.testing.assert_close(model(X, given), model(X, edges(1), value))
    assert served == [True, True]


def test_the_values_of_a_matrix_have_gradients() -> None:
    model = Weighted(aggr="add")
    found = []
    for kernels in ("portable", "native"):
        adj = matrix(to_torch_csr_tensor).requires_grad_()
        with gnnscript.kernels(kernels):
            out = model(X, adj)
        (gradient,) = torch.autograd.grad(out.square().sum(), adj)
        found.append((out, gradient.values()))
    torch.testing.assert_close(found[1], found[0])


def test_matrices_that_change_are_looked_at_again() -> None:
    model = Weighted(aggr="add")
    adj = matrix(to_torch_csr_tensor)
    for _ in range(3):
        got = model(X, adj)
        with gnnscript.kernels("portable"):
            torch.testing.assert_close(got, model(X, adj))
        adj.col_indices().copy_(adj.col_indices().flip(0))
        adj.values().mul_(2)


def test_matrices_are_not_kept_alive() -> None:
    adj = matrix(to_torch_csr_tensor)
    before = len(handed._kept)
    Weighted(aggr="add")(X, adj)
    assert len(handed._kept) == before + 1
    del adj
    gc.collect()
    assert len(handed._kept) == before


def test_hooks_that_look_at_the_rows_are_left_to_pyg(served: list[bool]) -> None:
    model = Seeing(aggr="add")
    torch.testing.assert_close(model(X, as_index(1)), 2 * model(X, edges(1)))
    assert served == [False]


def test_fused_products_are_left_to_pyg(served: list[bool]) -> None:
    model = SAGEConv(WIDTH, WIDTH)
    adj = to_torch_csr_tensor(edges(1).flip(0), size=(N, N))
    torch.testing.assert_close(model(X, adj), model(X, edges(1)))
    assert served == [False]


def test_errors_are_those_of_pyg() -> None:
    reversed_ = Weighted(aggr="add", flow="target_to_source")
    with pytest.raises(ValueError, match="target_to_source"):
        reversed_(X, matrix(to_torch_csr_tensor))
    with pytest.raises(ValueError, match="expected size"):
        Weighted(aggr="add")(X[:5], as_index(1))
    with pytest.raises(ValueError, match="invalid layout"):
        Weighted(aggr="add")(X, matrix(to_torch_csr_tensor).to_sparse_csc())


@pytest.mark.parametrize("order", [0, 1])
def test_reverse_flow(order: int, served: list[bool]) -> None:
    model = Weighted(aggr="add", flow="target_to_source")
    given = as_index(order)
    assert sorts(lambda: model(X, given)) == order
    torch.testing.assert_close(model(X, given), model(X, edges(order)))
    assert served == [True, True]
