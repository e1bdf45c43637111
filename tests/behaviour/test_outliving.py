"""Variables that a loop defines, read behind it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

from conformance.graphs import GRAPHS

pytestmark = pytest.mark.usefixtures("auto")


class Base(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor):
        x, *rest = self.prepared(x, edge_index)
        return self.propagate(edge_index, x=x), rest


class Counted(Base):
    """A position, what is computed in each turn, and a loop that is left."""

    def prepared(self, x, edge_index):
        for position in range(x.size(0)):
            scaled = x[position] * (position + 1)
            if position > 3:
                break
        for turn, half in enumerate(x.chunk(2, dim=1)):
            part = half * turn
        return x + scaled, position, turn, part.sum(), half.size(1)


class While(Base):
    def prepared(self, x, edge_index):
        count = x.size(0)
        while count > 2:
            h, twice = x * count, count * 2
            count -= 3
        return h, twice


class Unpacked(Base):
    def prepared(self, x, edge_index):
        names = []
        for number, (source, target) in enumerate(zip(edge_index[0], edge_index[1], strict=True)):
            pair = [source, target]
            name = f"edge {number}"
            names.append(name)
        return x * number, pair[1], name, names


class Perhaps(Base):
    """A loop that may have no turn is read only where it had one."""

    def prepared(self, x, edge_index):
        for position in range(x.size(0) // 8):
            scaled = x * position
        if x.size(0) >= 8:
            x = x + scaled + position
        return (x,)


@pytest.mark.parametrize(
    "module",
    [Counted(), While(), Unpacked(), Perhaps()],
    ids=lambda module: type(module).__name__,
)
def test_variables_of_loops(module, check) -> None:
    check(module)


def test_a_loop_without_a_turn() -> None:
    class Empty(Base):
        def prepared(self, x, edge_index):
            for position in range(x.size(0) - 100):
                x = x * position
            return x, position

    scripted = torch.jit.script(Empty())
    with pytest.raises(torch.jit.Error, match="position: defined in a loop that had no turn"):
        scripted(GRAPHS[0].x, GRAPHS[0].edge_index)
