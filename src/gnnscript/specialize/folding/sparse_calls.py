"""Sparse tensors that the code makes: their types, and what is called of them."""

from __future__ import annotations

import ast

import torch

from gnnscript.analyze.types import (
    INT,
    SPARSE,
    SPARSE_COO,
    SPARSE_CSC,
    SPARSE_CSR,
    TENSOR,
    Type,
    is_sparse,
    list_of,
)
from gnnscript.specialize.folding.base import Arguments, Folded, Folding
from gnnscript.specialize.values import Const, Dyn, static_type


class SparseCalls(Folding):
    """The part of a frame that calls methods of sparse tensors."""

    def to_sparse(self, node: ast.expr, name: str, given: Arguments) -> Folded:
        """Conversion to a sparse layout; TorchScript has no ``to_sparse_coo``."""
        args, kwargs = self.nodes(given)
        spelled = "to_sparse" if name == "to_sparse_coo" else name
        func = ast.Attribute(node, spelled, ast.Load())
        return Dyn(layout_of(given, TO_SPARSE[name])), ast.Call(func, args, kwargs)

    def method_of_sparse(
        self, node: ast.expr, t: Type, name: str, given: Arguments, call: ast.Call
    ) -> Folded:
        """A method of a sparse tensor."""
        if name in TO_SPARSE:
            return self.to_sparse(node, name, given)
        if name in ("t", "transpose"):
            turned = {SPARSE_CSR: SPARSE_CSC, SPARSE_CSC: SPARSE_CSR}
            return Dyn(turned.get(t, t)), call
        if name in ("matmul", "mm") and given.args:
            other = static_type(given.args[0][0])
            return Dyn(t if is_sparse(other) else TENSOR), call
        if name == "size" and not given.args:
            return Dyn(list_of(INT)), call
        return Dyn(_SPARSE_METHODS.get(name, t)), call


def layout_of(given: Arguments, default: Type) -> Type:
    """The type of a sparse tensor whose layout may be an argument."""
    value = given.kwargs.get("layout", (None, None))[0]
    return _LAYOUTS.get(value.value, SPARSE) if isinstance(value, Const) else default


SPARSE_FACTORIES = {
    "sparse_coo_tensor": SPARSE_COO,
    "sparse_csr_tensor": SPARSE_CSR,
    "sparse_csc_tensor": SPARSE_CSC,
    "sparse_compressed_tensor": SPARSE,
    "sparse_bsr_tensor": SPARSE,
    "sparse_bsc_tensor": SPARSE,
}

TO_SPARSE = {
    "to_sparse": SPARSE_COO,
    "to_sparse_coo": SPARSE_COO,
    "to_sparse_csr": SPARSE_CSR,
    "to_sparse_csc": SPARSE_CSC,
    "to_sparse_bsr": SPARSE,
    "to_sparse_bsc": SPARSE,
}

PRODUCTS = {"mm", "matmul", "_sparse_mm"}

COMPRESSED = {"sparse_csr_tensor": torch.sparse_csr, "sparse_csc_tensor": torch.sparse_csc}

COMPRESSED_NAMES = {
    "crow_indices": "compressed_indices",
    "ccol_indices": "compressed_indices",
    "col_indices": "plain_indices",
    "row_indices": "plain_indices",
}

_LAYOUTS = {
    torch.sparse_coo: SPARSE_COO,
    torch.sparse_csr: SPARSE_CSR,
    torch.sparse_csc: SPARSE_CSC,
    torch.strided: TENSOR,
}

_SPARSE_METHODS: dict[str, Type] = {
    "to_dense": TENSOR,
    "indices": TENSOR,
    "_indices": TENSOR,
    "values": TENSOR,
    "_values": TENSOR,
    "crow_indices": TENSOR,
    "col_indices": TENSOR,
    "ccol_indices": TENSOR,
    "row_indices": TENSOR,
    "sparse_dim": INT,
    "dense_dim": INT,
    "is_coalesced": Type("bool"),
    "size": INT,
    "dim": INT,
}
