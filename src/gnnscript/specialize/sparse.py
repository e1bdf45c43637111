"""Sparse matrices by their entries: what stands for functions of torch_sparse and for ``spmm``.

They are specialised like functions of the user's, so that the reductions in them become ops. None
of them asks for torch_sparse, nor does a saved model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnscript import _pyg
from gnnscript.analyze.types import INT, TENSOR, tuple_of
from gnnscript.specialize.helpers import Op
from gnnscript.specialize.sparse_matrix import FUNCTIONS as OF_MATRICES
from gnnscript.specialize.sparse_matrix import MAKERS, Entries, make, rows_of

__all__ = ["FUNCTIONS", "MAKERS", "Entries", "entries", "make", "product", "size"]


def entries(adj: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Row, column and value of each entry of a sparse matrix."""
    if isinstance(adj, Entries):
        return adj.rows, adj.cols, adj.values
    if adj.layout == torch.sparse_coo:
        adj = adj.coalesce()
        index = adj.indices()
        return index[0], index[1], adj.values()
    if adj.layout == torch.sparse_csr:
        ptr = adj.crow_indices()
        return rows_of(ptr), adj.col_indices(), adj.values()
    if adj.layout == torch.sparse_csc:
        ptr = adj.ccol_indices()
        return adj.row_indices(), rows_of(ptr), adj.values()
    raise ValueError("expected a sparse tensor")


def size(adj: Any, dim: int) -> int:
    """The number of rows or columns of a sparse matrix."""
    out: int = adj.size(dim)
    return out


def product(src: Any, other: Tensor, reduce: str = "sum") -> Tensor:
    """``torch_geometric.utils.spmm``: the rows of `other`, weighted and reduced by row of `src`."""
    row, col, value = entries(src)
    messages = other.index_select(0, col)
    if value is not None:
        messages = value.unsqueeze(-1) * messages
    out: Tensor = _pyg.utils().scatter(messages, row, 0, src.size(0), reduce)
    return out


# torch_sparse #########################################################################


def coalesce(
    index: Tensor, value: Tensor | None, m: int, n: int, op: str = "add"
) -> tuple[Tensor, Tensor | None]:
    """Entries sorted by row, then column, those of equal place reduced by `op`."""
    index, value = _pyg.utils().coalesce(index, value, max(m, n), op)
    return index, value


def transpose(
    index: Tensor, value: Tensor | None, m: int, n: int, coalesced: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Entries of the transposed matrix."""
    index = torch.stack([index[1], index[0]])
    if coalesced:
        return coalesce(index, value, n, m)
    return index, value


def eye(
    m: int, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Entries of the identity of `m` rows."""
    row = torch.arange(m, device=device)
    return torch.stack([row, row]), torch.ones(m, dtype=dtype, device=device)


def spmm(
    index: Tensor,
    value: Tensor,
    m: int,
    n: int,  # noqa: ARG001
    matrix: Tensor,
) -> Tensor:
    """A sparse matrix of `m` rows times a dense one."""
    if matrix.dim() == 1:
        matrix = matrix.unsqueeze(-1)
    messages = matrix.index_select(-2, index[1]) * value.unsqueeze(-1)
    out: Tensor = _pyg.utils().scatter(messages, index[0], -2, m, "sum")
    return out


def spspmm(
    indexA: Tensor,
    valueA: Tensor,
    indexB: Tensor,
    valueB: Tensor,
    m: int,
    k: int,
    n: int,
    coalesced: bool = False,  # noqa: ARG001
) -> tuple[Tensor, Tensor]:
    """Entries of the product of two sparse matrices, [m, k] and [k, n]."""
    first = torch.sparse_coo_tensor(indexA, valueA, (m, k))
    second = torch.sparse_coo_tensor(indexB, valueB, (k, n))
    found = torch.sparse.mm(first, second).coalesce()
    return found.indices(), found.values()


# SciPy ################################################################################


def connected_components(
    csgraph: Any, directed: bool = True, connection: str = "weak", return_labels: bool = True
) -> Any:
    """Components, numbered in the order of their first nodes: how many, and that of each node."""
    assert connection == "weak" or not directed, "strong components are not supported"
    count, label = _COMPONENTS(csgraph.rows, csgraph.cols, csgraph.num_rows)
    if return_labels:
        return count, label
    return count


_COMPONENTS = Op("connected_components", tuple_of(INT, TENSOR))


FUNCTIONS = {
    **OF_MATRICES,
    "coalesce": coalesce,
    "connected_components": connected_components,
    "eye": eye,
    "spmm": spmm,
    "spspmm": spspmm,
    "transpose": transpose,
}
"""The functions of ``torch_sparse`` and SciPy that can be specialised, by name."""
