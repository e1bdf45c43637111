"""What stands for sparse matrices in programs, against torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gnnscript.ops.entries import Entries, matmul, sparse_compressed_tensor, sparse_coo_tensor

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse (CSR|CSC) tensor support is in beta"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled"),
]


def dense(rows: int, columns: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    kept = torch.rand(rows, columns, generator=random) < 0.4
    return torch.randn(rows, columns, generator=random, dtype=torch.float64) * kept


def as_csr(matrix: Tensor, make: Callable[..., Any]) -> Any:
    m = matrix.to_sparse_csr()
    parts = m.crow_indices(), m.col_indices(), m.values()
    return make(*parts, size=m.shape, layout=torch.sparse_csr)


def as_coo(matrix: Tensor, make: Callable[..., Any]) -> Any:
    m = matrix.to_sparse_coo().coalesce()
    return make(m.indices(), m.values(), size=m.shape, is_coalesced=True)


CSR = sparse_compressed_tensor, torch.sparse_compressed_tensor
COO = sparse_coo_tensor, torch.sparse_coo_tensor
FORMS = pytest.mark.parametrize(
    ("form", "makes"), [(as_csr, CSR), (as_coo, COO)], ids=["csr", "coo"]
)


def same(found: Entries, expected: Tensor) -> None:
    """The same matrix, with its entries in the same order."""
    assert found.size() == expected.size()
    assert found.dim() == expected.dim()
    assert found.layout == expected.layout
    torch.testing.assert_close(found.to_dense(), expected.to_dense())
    if expected.layout is torch.sparse_csr:
        torch.testing.assert_close(found.crow_indices(), expected.crow_indices())
        torch.testing.assert_close(found.col_indices(), expected.col_indices())
    else:
        expected = expected.coalesce()
        torch.testing.assert_close(found.indices(), expected.indices())
    torch.testing.assert_close(found.values(), expected.values())


@FORMS
@pytest.mark.parametrize("sizes", [(6, 7, 5), (40, 30, 50), (3, 4, 0), (0, 3, 2)])
def test_products(form: Any, makes: Any, sizes: tuple[int, int, int]) -> None:
    a, b = dense(*sizes[:2], seed=1), dense(*sizes[1:], seed=2)
    ours, theirs = ((form(a, make), form(b, make)) for make in makes)
    same(matmul(*ours), theirs[0] @ theirs[1])
    torch.testing.assert_close(matmul(ours[0], b), a @ b)
    torch.testing.assert_close(matmul(a, b), a @ b)


@FORMS
def test_other_forms(form: Any, makes: Any) -> None:
    a = dense(6, 7, seed=3)
    ours, theirs = (form(a, make) for make in makes)
    same(ours.coalesce(), theirs)
    same(ours.to_sparse_csr(), theirs.to_sparse_csr())
    same(ours.to_sparse(), theirs.to_sparse())
    same(ours.t().to_sparse_csr(), theirs.t().to_sparse_csr())
    assert ours.size(1) == 7


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_selected(dim: int) -> None:
    a, index = dense(6, 7, seed=4), torch.tensor([4, 1, 3, 4])
    ours, theirs = (as_coo(a, make) for make in COO)
    same(ours.index_select(dim, index), theirs.index_select(dim, index))


def test_gradients() -> None:
    a = as_csr(dense(5, 4, seed=5), sparse_compressed_tensor)
    b = as_csr(dense(4, 6, seed=6), sparse_compressed_tensor)

    def product(left: Tensor, right: Tensor) -> Tensor:
        ours = Entries(a.row, a.col, left, a.shape, a.layout)
        out: Entries = matmul(ours, Entries(b.row, b.col, right, b.shape, b.layout))
        return out.values()

    values = a.values().requires_grad_(), b.values().requires_grad_()
    assert torch.autograd.gradcheck(product, values)
    assert torch.autograd.gradgradcheck(product, values)


def test_what_is_no_matrix_of_numbers_in_order_stays_what_it_is() -> None:
    indices, values = torch.tensor([[1, 0, 1], [0, 2, 0]]), torch.ones(3)
    assert isinstance(sparse_coo_tensor(indices, values, (2, 3)), Tensor)
    wide = sparse_coo_tensor(indices[:, :2], torch.ones(2, 4), (2, 3, 4), is_coalesced=True)
    assert isinstance(wide, Tensor)
