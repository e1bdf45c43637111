"""Models that make a ``SparseTensor`` of torch_sparse, which is not needed to script them.

Without it PyG's own code stops, so eager mode gets a stub here: what the models use of the class,
as its documentation says, entry by entry.
"""

from __future__ import annotations

from typing import Any

import torch
import torch_geometric.nn.models as models
from torch import nn
from torch_geometric.nn.models import dimenet
from torch_geometric.typing import WITH_TORCH_SPARSE

from conformance.graphs import OUT, Graph
from conformance.modules import ModuleCase


class SparseTensor:
    """Rows, columns and values, in the order of rows."""

    def __init__(self, row, col, value=None, sparse_sizes=None) -> None:
        assert sparse_sizes is not None
        places = zip(row.tolist(), col.tolist(), strict=True)
        order = [e for _, e in sorted((place, e) for e, place in enumerate(places))]
        self._row, self._col = row[order], col[order]
        self._value = None if value is None else value[order]
        self._sizes = sparse_sizes

    @property
    def storage(self) -> SparseTensor:
        return self

    def row(self):
        return self._row

    def col(self):
        return self._col

    def value(self):
        return self._value

    def set_value(self, value) -> SparseTensor:
        return SparseTensor(self._row, self._col, value, self._sizes)

    def __getitem__(self, index) -> SparseTensor:
        found = [(r, e) for r, i in enumerate(index.tolist())
                 for e, row in enumerate(self._row.tolist()) if row == i]  # fmt: skip
        rows, entries = torch.tensor(found).unbind(1)
        value = None if self._value is None else self._value[entries]
        sizes = (index.numel(), self._sizes[1])
        return SparseTensor(rows, self._col[entries], value, sizes)

    def sum(self, dim):
        dense = torch.zeros(self._sizes)
        for e, (row, col) in enumerate(zip(self._row.tolist(), self._col.tolist(), strict=True)):
            dense[row, col] += 1 if self._value is None else self._value[e]
        return dense.sum(dim)


SparseTensor.__module__ = "torch_sparse"


def using_sparse_tensors(model: nn.Module) -> nn.Module:
    """`model` with parameters that are not zero, runnable where torch_sparse is not installed."""
    if not WITH_TORCH_SPARSE:
        dimenet.SparseTensor = SparseTensor
    for parameter in model.parameters():
        if not parameter.abs().sum() > 0:
            nn.init.normal_(parameter, std=0.3)
    return model


def molecules(g: Graph) -> tuple[Any, ...]:
    """Atoms apart from one another: coinciding directions have no angle, and no gradient of it."""
    return (g.x[:, 0].abs() * 3).long() + 1, 2 * g.x[:, :3].contiguous(), g.batch


CASES = [
    ModuleCase("DimeNet", lambda: using_sparse_tensors(
        models.DimeNet(8, OUT, 1, 2, 3, 2, cutoff=4.0)), molecules),
    ModuleCase("DimeNetPlusPlus", lambda: using_sparse_tensors(
        models.DimeNetPlusPlus(8, OUT, 1, 4, 4, 4, 3, 2, cutoff=4.0)), molecules),
    ModuleCase("GNNFF", lambda: using_sparse_tensors(
        models.GNNFF(4, 4, 2, cutoff=4.0)), molecules),
]  # fmt: skip
