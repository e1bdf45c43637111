"""``try: x.size(dim)``: what is caught is known beforehand."""

from typing import Any, List

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

import gnnscript
from conformance.graphs import GRAPHS, IN, OUT

pytestmark = pytest.mark.usefixtures("auto")


class Parts(nn.Module):
    """Splits what has as many columns as the features, and repeats what has not."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.conv = GCNConv(IN, OUT)

    def parts(self, value: Tensor, columns: int) -> List[Tensor]:
        try:
            if value.size(self.dim) != columns:
                return [value, value]
        except IndexError:
            return [value * 2, value]
        return list(torch.chunk(value, 2, dim=self.dim))

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Any:
        columns = -1
        try:
            columns = weight.size(2)
        except (IndexError, KeyError):
            pass
        else:
            columns += 1
        first, second = self.parts(weight, x.size(1))
        return self.conv(x, edge_index), first, second, columns


@pytest.mark.parametrize("dim", [-1, 1, -3])
def test_a_dimension_that_is_missing(check, dim):
    shapes = [(), (IN,), (3,), (2, IN), (2, 3), (IN, 2, 1), (IN, 2, IN)]
    for shape in shapes:
        weight = torch.randn(shape)
        check(Parts(dim), *[(g.x, g.edge_index, weight) for g in GRAPHS], modes=("eval",))


class AlsoIndexes(Parts):
    def parts(self, value: Tensor, columns: int) -> List[Tensor]:
        try:
            if value.size(0) != columns:
                return [value[9], value]
        except IndexError:
            return [value, value]
        return [value, value]


class CatchesAll(Parts):
    def parts(self, value: Tensor, columns: int) -> List[Tensor]:
        try:
            if value.size(0) != columns:
                return [value + columns, value]
        except Exception:
            return [value, value]
        return [value, value]


@pytest.mark.parametrize("cls", [AlsoIndexes, CatchesAll])
def test_what_else_may_be_caught_is_refused(cls):
    with pytest.raises(gnnscript.UnsupportedError, match="the run decides whether") as caught:
        torch.jit.script(cls(0))
    assert caught.value.location.code == "try:"
