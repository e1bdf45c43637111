"""Objects of plain classes of the user's, made while the model runs; overloads by type."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

import gnnscript

pytestmark = pytest.mark.usefixtures("auto")

FACTOR = 3


class Split:
    """Scalars and a vector of each node."""

    def __init__(self, scalars, vector):
        self.scalars, self.vector = scalars, vector

    def __add__(self, other):
        return Split(self.scalars + other.scalars, self.vector + other.vector)

    def __mul__(self, factor):
        return Split(self.scalars * factor, self.vector * factor)

    def __iter__(self):
        return iter((self.scalars, self.vector))

    @property
    def length(self):
        return (self.vector**2).sum(-1, keepdim=True)

    def turned(self):
        self.vector = self.vector.roll(1, -1)
        return self


class Tower(Split):
    def __init__(self, scalars, vector, depth=0):
        super().__init__(scalars, vector)
        self.depth = depth

    def deeper(self):
        return Tower(self.scalars.tanh(), self.vector * 0.5, self.depth + 1)


class Splitting(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor):
        parts = Split(x[:, 3:], x[:, :3])
        both = (parts + parts) * 0.5
        scalars, vector = both
        tower = Tower(scalars, vector)
        for _ in range(2):
            tower = tower.deeper()
        if x.sum() > 0:
            tower = tower.deeper()
        out = self.propagate(edge_index, scalars=scalars, vector=vector)
        return out + both.turned().length, tower.scalars, tower.depth

    def message(self, scalars_j, vector_i, vector_j):
        return scalars_j * Split(scalars_j, vector_i + vector_j * -1).length


class Dispatching(MessagePassing):
    @functools.singledispatchmethod
    def fix(self, value):
        raise TypeError(type(value))

    @fix.register
    def _(self, value: int):
        return float(value)

    @fix.register
    def _(self, value: Tensor):
        return value.abs()

    def forward(self, x: Tensor, edge_index: Tensor):
        global FACTOR  # noqa: PLW0602
        return self.propagate(edge_index, x=self.fix(x)) * self.fix(FACTOR)


@pytest.mark.parametrize(
    "module", [Splitting(), Dispatching()], ids=lambda module: type(module).__name__
)
def test_value_classes(module, check) -> None:
    check(module)


class Counts(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor):
        global FACTOR  # noqa: PLW0603
        FACTOR = x.size(0)
        return self.propagate(edge_index, x=x) * FACTOR


def test_a_global_variable_that_is_assigned() -> None:
    with pytest.raises(gnnscript.UnsupportedError, match="a global variable is assigned: 'FACTOR'"):
        torch.jit.script(Counts())
