"""What a test says of an attribute holds until the attribute, or the module, may have changed."""

from typing import Optional

import pytest
import torch
from tests.behaviour.models import GRAPHS
from torch import Tensor
from torch_geometric.nn import MessagePassing

pytestmark = pytest.mark.usefixtures("auto")


class Keeps(MessagePassing):
    kept: Optional[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.kept = None

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.kept = x * 2
        if self.kept is None:
            return x
        out = self.propagate(edge_index, x=x + self.kept)
        self.kept = None
        if self.kept is None:
            out = out + 1
        self.fill(x)
        if self.kept is not None:
            out = out + self.kept
            self.empty()
            if self.kept is None:
                out = out * 3
        for i in range(2):
            if self.kept is None:
                self.fill(out)
            else:
                self.kept = None
                out = out + i + 1
        return out

    def fill(self, x: Tensor) -> None:
        self.kept = x * 5

    def empty(self) -> None:
        self.kept = None

    def message(self, x_j: Tensor) -> Tensor:
        return x_j


def test_attribute_that_comes_and_goes(check):
    check(Keeps(), *[(g.x, g.edge_index) for g in GRAPHS])


class Pair(MessagePassing):
    """A pair whose second element is tested, replaced, and tested again."""

    def forward(self, x: Tensor, edge_index: Tensor, w: Optional[Tensor] = None) -> Tensor:
        pair = (x, w)
        out = self.propagate(edge_index, x=x)
        if pair[1] is not None:
            out = out + pair[1]
        pair = (out, None)
        if pair[1] is None:
            out = out + 1
        return out

    def message(self, x_j: Tensor) -> Tensor:
        return x_j


def test_pair_that_is_replaced(check):
    g = GRAPHS[0]
    check(Pair(), (g.x, g.edge_index), (g.x, g.edge_index, g.x * 3))


class KeepsNumbers(MessagePassing):
    """Attributes that hold what ``item()`` gives."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = None
        self.count = 0

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if self.largest is None or x.size(0) > 5:
            self.largest = x.max().item()
        self.count = edge_index.max().item()
        return self.propagate(edge_index, x=x * self.largest)[: self.count]

    def message(self, x_j: Tensor) -> Tensor:
        return x_j


def test_attributes_that_are_assigned_numbers(check):
    check(KeepsNumbers(), *[(g.x, g.edge_index) for g in GRAPHS])


class KeepsAnother(KeepsNumbers):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.count = x.max().item()
        return self.propagate(edge_index, x=x * self.count)


def test_an_integer_is_not_rounded():
    graph = GRAPHS[0]
    with pytest.raises(torch.jit.Error, match="assigned another number"):
        torch.jit.script(KeepsAnother())(graph.x.clamp(max=0.5), graph.edge_index)
