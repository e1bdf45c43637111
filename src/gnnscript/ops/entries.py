"""Sparse matrices by their entries, for programs whose sizes vary: torch's own fix them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnscript.ops.varying import coo_to_csr

__all__ = ["Entries", "assembled", "matmul", "sparse_compressed_tensor", "sparse_coo_tensor"]


class Entries:
    """What stands for a sparse matrix in programs of ``torch.compile`` and ``torch.export``.

    It has the methods of tensors that code uses of sparse ones.

    Args:
        row: The row of each entry, in ascending order, int64, `[E]`.
        col: The column of each entry, int64, `[E]`.
        held: The values, `[E]`.
        shape: Rows and columns.
        layout: The layout of the tensor that this stands for.
    """

    def __init__(
        self, row: Tensor, col: Tensor, held: Tensor, shape: tuple[int, int], layout: torch.layout
    ) -> None:
        self.row = row
        self.col = col
        self.held = held
        self.shape = shape
        self.layout = layout
        self.dtype = held.dtype
        self.device = held.device

    def size(self, dim: int | None = None) -> Any:
        """Rows and columns, or one of them."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """How many dimensions there are: two."""
        return 2

    def is_coalesced(self) -> bool:
        """Whether no two entries are at one place: always."""
        return True

    def coalesce(self) -> Entries:
        """The matrix as it is."""
        return self

    def _coalesced_(self, coalesced: bool) -> Entries:  # noqa: ARG002
        return self

    def clone(self) -> Entries:
        """A matrix of its own."""
        return Entries(self.row, self.col, self.held.clone(), self.shape, self.layout)

    def to_sparse_csr(self) -> Entries:
        """The same matrix, row by row."""
        return Entries(self.row, self.col, self.held, self.shape, torch.sparse_csr)

    def to_sparse_coo(self) -> Entries:
        """The same matrix, entry by entry."""
        return Entries(self.row, self.col, self.held, self.shape, torch.sparse_coo)

    to_sparse = to_sparse_coo

    def values(self) -> Tensor:
        """The values, `[E]`."""
        return self.held

    def indices(self) -> Tensor:
        """Rows and columns of the entries, `[2, E]`."""
        return torch.stack([self.row, self.col])

    def crow_indices(self) -> Tensor:
        """Where the entries of each row begin, and the end, `[rows + 1]`."""
        return coo_to_csr(self.row, self.shape[0])

    def col_indices(self) -> Tensor:
        """The columns of the entries, `[E]`."""
        return self.col

    def t(self) -> Entries:
        """The transposed matrix."""
        order = (self.col * self.shape[0] + self.row).argsort()
        shape = self.shape[1], self.shape[0]
        return Entries(self.col[order], self.row[order], self.held[order], shape, self.layout)

    def index_select(self, dim: int, index: Tensor) -> Entries:
        """Rows or columns, as a product with a matrix that selects them."""
        size, number = self.shape[dim], index.size(0)
        ones = torch.ones_like(index, dtype=self.dtype)
        places = torch.arange(number, device=index.device)
        chosen = Entries(places, index, ones, (number, size), self.layout)
        found: Entries = chosen.times(self) if dim % 2 == 0 else self.times(chosen.t())
        return found

    def to_dense(self) -> Tensor:
        """The matrix as a dense tensor."""
        flat = self.held.new_zeros(self.shape[0] * self.shape[1])
        return flat.index_add(0, self.row * self.shape[1] + self.col, self.held).view(self.shape)

    def tensor(self) -> Tensor:
        """The tensor that this stands for."""
        matrix = torch.sparse_coo_tensor(self.indices(), self.held, self.shape)
        return matrix.coalesce() if self.layout is torch.sparse_coo else matrix.to_sparse_csr()

    def times(self, other: Any) -> Any:
        """The product with a sparse matrix, which is one again, or with a dense one."""
        if isinstance(other, Tensor):
            out = other.new_zeros(self.shape[0], other.size(1))
            return out.index_add(0, self.row, self.held.unsqueeze(-1) * other[self.col])
        # Each entry meets those in the row of the other that is its column.
        begin, columns = other.crow_indices(), other.shape[1]
        counts = begin[1:][self.col] - begin[:-1][self.col]
        left = torch.repeat_interleave(torch.arange(counts.size(0), device=counts.device), counts)
        met = torch.arange(left.size(0), device=left.device)
        right = begin[:-1][self.col[left]] + met - (counts.cumsum(0) - counts)[left]
        key = self.row[left] * columns + other.col[right]
        places, at = torch.unique(key, return_inverse=True)
        product = self.held[left] * other.held[right]
        held = product.new_zeros(places.size(0)).index_add(0, at, product)
        if self.layout is torch.sparse_csr:  # torch leaves a row in the order in which it is met
            first = at.new_zeros(places.size(0)).scatter_reduce(
                0, at, met, "amin", include_self=False
            )
            order = first.argsort()
            places, held = places[order], held[order]
        shape = self.shape[0], columns
        return Entries(places // columns, places % columns, held, shape, self.layout)


def assembled(value: Any) -> Any:
    """Replace what stands for sparse matrices by them, in what a program has returned."""
    if isinstance(value, Entries):
        return value.tensor()
    if type(value) in (tuple, list):
        return type(value)(map(assembled, value))
    if type(value) is dict:
        return {key: assembled(item) for key, item in value.items()}
    return value


def matmul(left: Any, right: Any) -> Any:
    """Return ``left @ right``, also of what stands for sparse matrices.

    Args:
        left: A tensor, or the entries of a matrix.
        right: A tensor, or the entries of a matrix.

    Source: ``torch.matmul``.
    """
    if isinstance(left, Entries):
        return left.times(right)
    if isinstance(right, Entries):  # as the transposed product
        return right.t().times(left.t()).t()
    return left @ right


def sparse_coo_tensor(
    indices: Tensor,
    values: Tensor,
    size: Any,
    *,
    is_coalesced: bool | None = None,
    **options: Any,
) -> Any:
    """Return what stands for ``torch.sparse_coo_tensor`` in a program.

    Args:
        indices: Rows and columns of the entries, `[2, E]`.
        values: Their values, `[E]`.
        size: Rows and columns.
        is_coalesced: Whether the entries are in order, and no two at one place.
        options: The other arguments of torch's function.

    Returns:
        The entries; torch's own tensor where the matrix is not one of numbers, in order.

    Source: ``torch.sparse_coo_tensor``.
    """
    if not is_coalesced or values.dim() != 1:
        return torch.sparse_coo_tensor(indices, values, size, is_coalesced=is_coalesced, **options)
    return Entries(indices[0], indices[1], values, (size[0], size[1]), torch.sparse_coo)


def sparse_compressed_tensor(
    compressed_indices: Tensor, plain_indices: Tensor, values: Tensor, size: Any, **options: Any
) -> Any:
    """Return what stands for ``torch.sparse_compressed_tensor`` in a program.

    Args:
        compressed_indices: Where the entries of each row begin, and the end, `[rows + 1]`.
        plain_indices: The columns of the entries, `[E]`.
        values: Their values, `[E]`.
        size: Rows and columns.
        options: The other arguments of torch's function, with the layout.

    Returns:
        The entries; torch's own tensor for other layouts than rows of numbers.

    Source: ``torch.sparse_compressed_tensor``.
    """
    if options.get("layout") is not torch.sparse_csr or values.dim() != 1:
        return torch.sparse_compressed_tensor(
            compressed_indices, plain_indices, values, size, **options
        )
    counts = compressed_indices[1:] - compressed_indices[:-1]
    rows = torch.arange(counts.size(0), device=counts.device)
    row = torch.repeat_interleave(rows, counts, output_size=values.size(0))
    columns = plain_indices.to(row.dtype)
    return Entries(row, columns, values, (size[0], size[1]), torch.sparse_csr)
