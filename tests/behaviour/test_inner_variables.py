"""Variables that inner functions, comprehensions and ``:=`` share with the code around them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

import gnnscript
from conformance.graphs import IN

pytestmark = pytest.mark.usefixtures("auto")


class Base(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor):
        return self.propagate(edge_index, x=self.prepared(x))


def applied(function, value):
    h = value * 7  # another variable than the one the function uses
    return function(value) + h


class UsesTheLatest(Base):
    """A function uses what a variable holds when it is called, not when it was defined."""

    def prepared(self, x):
        k, h = 1, x

        def scaled(v):
            z = v * k
            return z.relu() + (h[0] if isinstance(h, tuple) else h)

        x = scaled(x)
        k = 5
        add = lambda v: scaled(v) + k  # noqa: E731
        if x.sum() > -1e9:
            k = 2.5
            x = add(x)
        h = (x * 3, x)
        x = x + applied(scaled, x) * 0.1
        return [add(h) for h in [x, x * 2]][1]


class Assigns(Base):
    def prepared(self, x):
        best, count, seen = None, 0, []
        total = x.new_zeros(())

        def visit(v, k: int):
            nonlocal best, count
            seen.append(v)
            count = count + k
            if best is None:
                best = v
                return v
            best = best + v
            return best * count

        def add(v):
            nonlocal total, count
            total = total + v.sum()
            count += 1

        x = visit(x, 1) + visit(x * 2, 2)
        for i in range(x.size(0)):
            add(x[i])
        if total > 0:
            add(x)
        return x * count + total + best + seen[1]


class CallsItself(Base):
    """With tensors, modules and dictionaries of the function around it."""

    tree = (("a", "b"), "c")

    def __init__(self):
        super().__init__()
        self.lins = nn.ModuleList([nn.Linear(IN, IN) for _ in range(3)])

    def prepared(self, x):
        weight = x.mean()
        features = {"a": x, "b": x * 2, "c": x * 3}

        def through(h, depth=0):
            if depth == len(self.lins):
                return h * weight
            return through(self.lins[depth](h), depth + 1)

        def evaluated(node):
            if isinstance(node, str):
                return features[node]
            left, right = node
            return evaluated(left) * 0.5 + evaluated(right)

        return through(x) + evaluated(self.tree)


class Names(Base):
    """``:=`` is carried out where it stands, and a comprehension's belongs to the function."""

    def prepared(self, x):
        y = x - 1
        z = y + (y := x * 2) + (y := y * 3)
        w = [y, (y := y / 2), y]
        powers = [(last := x * k) for k in range(3)]
        by_name = {name: (found := h * 2) for name, h in (("a", x), ("b", z))}
        while (size := x.abs().sum()) > 10:
            x = x * 0.5
        return z + sum(w) * y + sum(powers) + last + found * by_name["a"] + size


@pytest.mark.parametrize("cls", [UsesTheLatest, Assigns, CallsItself, Names])
def test_shared_variables(cls, check) -> None:
    check(cls())


class AssignsElsewhere(Base):
    def prepared(self, x):
        count = 0

        def counted(v):
            nonlocal count
            count += 1
            return v

        return applied(counted, x) * count


class LeavesEarly(Base):
    def prepared(self, x):
        if any((found := h).sum() > 0 for h in [x, x * 2]):
            x = found * 2
        return x


@pytest.mark.parametrize(
    ("cls", "cause"),
    [(AssignsElsewhere, "is called elsewhere"), (LeavesEarly, "':=' inside of a generator")],
)
def test_refused(cls, cause) -> None:
    with pytest.raises(gnnscript.UnsupportedError, match=r"test_inner_variables\.py") as caught:
        torch.jit.script(cls())
    assert cause in caught.value.cause
