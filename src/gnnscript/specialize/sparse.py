"""Sparse matrices by their entries: what stands for functions of torch_sparse and for ``spmm``.

They are specialised like functions of the user's, so that the reductions in them become ops. None
of them asks for torch_sparse, nor does a saved model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gnnscript import _pyg

__all__ = ["coalesce", "entries", "eye", "product", "spmm", "spspmm", "transpose"]


def entries(adj: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and value of each entry of a sparse tensor."""
    if adj.layout == torch.sparse_coo:
        adj = adj.coalesce()
        index = adj.indices()
        return index[0], index[1], adj.values()
    if adj.layout == torch.sparse_csr:
        ptr = adj.crow_indices()
        return _rows(ptr), adj.col_indices(), adj.values()
    if adj.layout == torch.sparse_csc:
        ptr = adj.ccol_indices()
        return adj.row_indices(), _rows(ptr), adj.values()
    raise ValueError("expected a sparse tensor")


def _rows(ptr: Tensor) -> Tensor:
    """The row of each entry, from where each row begins."""
    rows = torch.arange(ptr.numel() - 1, device=ptr.device)
    return torch.repeat_interleave(rows, ptr.diff())


def product(src: Tensor, other: Tensor, reduce: str = "sum") -> Tensor:
    """``torch_geometric.utils.spmm``: the rows of `other`, weighted and reduced by row of `src`."""
    row, col, value = entries(src)
    messages = value.unsqueeze(-1) * other.index_select(0, col)
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
