"""What stands for torch_sparse's ``SparseTensor`` in specialised code: named tuples of entries.

Its methods are specialised where they are called, and nothing of torch_sparse is asked for, neither
when the model is scripted nor where it is loaded. TorchScript reads the types of the fields, so
annotations here are no strings.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gnnscript import _pyg

__all__ = ["FUNCTIONS", "MAKERS", "Entries", "make", "rows_of"]


class Entries:
    """What matrices with and without values have in common."""

    rows: Tensor
    cols: Tensor
    values: Any
    num_rows: int
    num_cols: int

    @property
    def storage(self) -> Any:
        return self

    def row(self) -> Any:
        return self.rows

    def col(self) -> Any:
        return self.cols

    def value(self) -> Any:
        return self.values

    def coo(self) -> Any:
        return self.rows, self.cols, self.values

    def csr(self) -> Any:
        return self.rowptr(), self.cols, self.values

    def rowptr(self) -> Any:
        return _bounds(self.rowcount())

    def rowcount(self) -> Any:
        return torch.bincount(self.rows, minlength=self.num_rows)

    def colcount(self) -> Any:
        return torch.bincount(self.cols, minlength=self.num_cols)

    def size(self, dim: Any) -> Any:
        return self.num_rows if dim == 0 else self.num_cols

    def sizes(self) -> Any:
        return [self.num_rows, self.num_cols]

    def sparse_size(self, dim: Any) -> Any:
        return self.num_rows if dim == 0 else self.num_cols

    def sparse_sizes(self) -> Any:
        return self.num_rows, self.num_cols

    def nnz(self) -> Any:
        return self.rows.numel()

    def device(self) -> Any:
        return self.rows.device

    def has_value(self) -> Any:
        return self.values is not None

    def set_value(self, value: Any, layout: Any = None) -> Any:
        assert layout != "csc", "values in the order of columns are not supported"
        return held(self.rows, self.cols, value, self.num_rows, self.num_cols)

    def fill_value(self, fill_value: Any, dtype: Any = None) -> Any:
        filled = torch.full([self.rows.numel()], fill_value, dtype=dtype, device=self.rows.device)
        return self.set_value(filled)

    def mul_nnz(self, other: Any, layout: Any = None) -> Any:
        assert layout != "csc", "values in the order of columns are not supported"
        values = self.values
        if values is None:
            return self.set_value(other.expand(self.rows.size()))
        return self.set_value(values * other)

    def t(self) -> Any:
        return make(self.cols, None, self.rows, self.values, (self.num_cols, self.num_rows))

    def coalesce(self, reduce: Any = "sum") -> Any:
        key = self.rows * self.num_cols + self.cols
        key, place = torch.unique_consecutive(key, return_inverse=True)
        values = self.values
        if values is not None:
            values = _pyg.utils().scatter(values, place, 0, key.numel(), reduce)
        rows = torch.div(key, self.num_cols, rounding_mode="floor")
        return held(rows, key % self.num_cols, values, self.num_rows, self.num_cols)

    def index_select(self, dim: Any, idx: Any) -> Any:
        assert dim == 0, "columns are not selected; transpose before and after"
        ptr = self.rowptr()
        start = ptr[idx]
        count = ptr[idx + 1] - start
        rows = torch.arange(idx.numel(), device=idx.device).repeat_interleave(count)
        entry = torch.arange(rows.numel(), device=idx.device) - _bounds(count)[rows] + start[rows]
        values = self.values
        if values is not None:
            values = values[entry]
        return held(rows, self.cols[entry], values, idx.numel(), self.num_cols)

    def __getitem__(self, index: Any) -> Any:
        if index.dtype == torch.bool:
            index = index.nonzero().view(-1)
        return self.index_select(0, index)

    def sum(self, dim: Any = None) -> Any:
        return sum(self, dim)

    def to_dense(self, dtype: Any = None) -> Any:
        values = self.values
        if values is None:
            values = torch.ones([self.rows.numel()], dtype=dtype, device=self.rows.device)
        shape = [self.num_rows, self.num_cols]
        dense = torch.zeros(shape, dtype=dtype or values.dtype, device=values.device)
        return dense.index_put([self.rows, self.cols], values.to(dense.dtype))

    def matmul(self, other: Any, reduce: Any = "sum") -> Any:
        return matmul(self, other, reduce)

    def __matmul__(self, other: Any) -> Any:
        return matmul(self, other)

    def __mul__(self, other: Any) -> Any:
        return mul(self, other)

    def __rmul__(self, other: Any) -> Any:
        return mul(self, other)


class _Valued(NamedTuple):
    rows: Tensor
    cols: Tensor
    values: Tensor
    num_rows: int
    num_cols: int


class _Pattern(NamedTuple):
    rows: Tensor
    cols: Tensor
    num_rows: int
    num_cols: int


class SparseMatrix(Entries, _Valued):
    """The entries of a matrix, ordered by row, then by column."""


class SparsePattern(Entries, _Pattern):
    """The same without values, which count as ones."""

    values = None


def held(rows: Any, cols: Any, values: Any, num_rows: Any, num_cols: Any) -> Any:
    """A matrix of these entries, which are in order."""
    if values is None:
        return SparsePattern(rows, cols, num_rows, num_cols)
    return SparseMatrix(rows, cols, values, num_rows, num_cols)


def make(
    row: Any = None,
    rowptr: Any = None,
    col: Any = None,
    value: Any = None,
    sparse_sizes: Any = None,
    is_sorted: Any = False,
    trust_data: Any = False,
) -> Any:
    assert col is not None, "a sparse matrix is made without 'col'"
    if row is None:
        assert rowptr is not None, "a sparse matrix is made without 'row' and 'rowptr'"
        row = rows_of(rowptr)
    if sparse_sizes is None:
        num_rows = _size(row) if rowptr is None else rowptr.numel() - 1
        num_cols = _size(col)
    else:
        num_rows = _size(row) if sparse_sizes[0] is None else sparse_sizes[0]
        num_cols = _size(col) if sparse_sizes[1] is None else sparse_sizes[1]
    if is_sorted:
        return held(row, col, value, num_rows, num_cols)
    order = torch.sort(row * num_cols + col, stable=True)[1]
    if value is not None:
        value = value[order]
    return held(row[order], col[order], value, num_rows, num_cols)


def from_edge_index(
    edge_index: Any,
    edge_attr: Any = None,
    sparse_sizes: Any = None,
    is_sorted: Any = False,
    trust_data: Any = False,
) -> Any:
    return make(edge_index[0], None, edge_index[1], edge_attr, sparse_sizes, is_sorted)


def from_dense(mat: Any, has_value: Any = True) -> Any:
    index = mat.detach().nonzero()
    value = mat[index[:, 0], index[:, 1]] if has_value else None
    return make(index[:, 0], None, index[:, 1], value, (mat.size(0), mat.size(1)), True)


def from_torch(mat: Any, has_value: Any = True) -> Any:
    from gnnscript.specialize.sparse import entries

    row, col, value = entries(mat)
    return make(row, None, col, value if has_value else None, (mat.size(0), mat.size(1)))


def eye(
    M: Any,
    N: Any = None,
    has_value: Any = True,
    dtype: Any = None,
    device: Any = None,
    fill_cache: Any = False,
) -> Any:
    N = M if N is None else N
    row = torch.arange(min(M, N), device=device)
    value = torch.ones([row.numel()], dtype=dtype, device=device) if has_value else None
    return held(row, row, value, M, N)


def matmul(src: Any, other: Any, reduce: Any = "sum") -> Any:
    from gnnscript.specialize.sparse import product, spspmm

    if not isinstance(other, Entries):
        return product(src, other, reduce)
    left, right = _filled(src), _filled(other)
    index, value = spspmm(
        torch.stack([src.rows, src.cols]),
        left,
        torch.stack([other.rows, other.cols]),
        right,
        src.num_rows,
        src.num_cols,
        other.num_cols,
    )
    if src.values is None and other.values is None:
        return SparsePattern(index[0], index[1], src.num_rows, other.num_cols)
    return held(index[0], index[1], value, src.num_rows, other.num_cols)


def sum(src: Any, dim: Any = None) -> Any:
    values = _filled(src)
    if dim is None:
        return values.sum()
    index = src.cols if dim == 0 else src.rows
    return _pyg.utils().scatter(values, index, 0, src.size(1 - dim), "sum")


def mul(src: Any, other: Any) -> Any:
    if other.size(0) == src.num_rows and other.size(1) == 1:
        factor = other[src.rows, 0]
    else:
        assert other.size(0) == 1, "expected a row or a column to multiply with"
        assert other.size(1) == src.num_cols, "expected a value for each column"
        factor = other[0, src.cols]
    return src.mul_nnz(factor)


def fill_diag(src: Any, fill_value: Any, k: Any = 0) -> Any:
    values = src.values
    if values is None:
        return set_diag(src)
    count = min(src.num_rows, src.num_cols)
    return set_diag(src, values.new_full([count], fill_value))


def set_diag(src: Any, values: Any = None, k: Any = 0) -> Any:
    assert k == 0, "other diagonals than the main one are not supported"
    kept = src.rows != src.cols
    diagonal = torch.arange(min(src.num_rows, src.num_cols), device=src.rows.device)
    old = src.values
    if old is not None:
        added = old.new_ones([diagonal.numel()]) if values is None else values
        old = torch.cat([old[kept], added])
    row, col = torch.cat([src.rows[kept], diagonal]), torch.cat([src.cols[kept], diagonal])
    return make(row, None, col, old, (src.num_rows, src.num_cols))


def remove_diag(src: Any, k: Any = 0) -> Any:
    assert k == 0, "other diagonals than the main one are not supported"
    return masked_select_nnz(src, src.rows != src.cols)


def masked_select_nnz(src: Any, mask: Any, layout: Any = None) -> Any:
    assert layout != "csc", "values in the order of columns are not supported"
    values = src.values
    if values is not None:
        values = values[mask]
    return held(src.rows[mask], src.cols[mask], values, src.num_rows, src.num_cols)


def _filled(src: Any) -> Any:
    """The values, ones where there are none."""
    values = src.values
    if values is None:
        values = torch.ones([src.rows.numel()], device=src.rows.device)
    return values


def _bounds(count: Any) -> Any:
    """Where each row begins, from how many entries each has."""
    return torch.cat([count.new_zeros([1]), count.cumsum(0)])


def rows_of(ptr: Any) -> Any:
    """The row of each entry, from where each row begins."""
    rows = torch.arange(ptr.numel() - 1, device=ptr.device)
    return torch.repeat_interleave(rows, ptr.diff())


def _size(index: Any) -> Any:
    """One more than the largest index."""
    return int(index.max()) + 1 if index.numel() > 0 else 0


MAKERS = {
    "eye": eye,
    "from_dense": from_dense,
    "from_edge_index": from_edge_index,
    "from_torch_sparse_coo_tensor": from_torch,
    "from_torch_sparse_csr_tensor": from_torch,
}
"""The class methods of ``SparseTensor``, by name."""

FUNCTIONS = {
    "fill_diag": fill_diag,
    "masked_select_nnz": masked_select_nnz,
    "matmul": matmul,
    "mul": mul,
    "remove_diag": remove_diag,
    "set_diag": set_diag,
    "sum": sum,
}
"""The functions of ``torch_sparse`` that take a ``SparseTensor``, by name."""
