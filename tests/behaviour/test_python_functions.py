"""Functions and classes of Python's standard library, on values of run time."""

from __future__ import annotations

import collections
import enum
import functools
import math
import operator
from typing import Dict, NewType, TypedDict

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

import gnnscript

pytestmark = pytest.mark.usefixtures("auto")


class Base(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor):
        return self.propagate(edge_index, x=self.prepared(x))


class Operators(Base):
    def prepared(self, x):
        n = operator.mul(x.size(0), 2)
        y = operator.matmul(x, operator.getitem(x, slice(0, 2)).t())
        y = operator.neg(y) if operator.gt(n, 4) and operator.not_(n == 1) else y
        y = operator.truediv(operator.sub(y, 1), operator.floordiv(n, 3))
        mask = operator.and_(operator.ge(x, 0), operator.invert(operator.lt(x, -1)))
        held = operator.contains([n, 3], 3) and operator.is_not(x, None)
        return operator.add(y.sum(-1, keepdim=True), mask * x) * operator.abs(-n) * held


class Mathematics(Base):
    def prepared(self, x):
        n = x.size(0)
        products = math.prod([n, 2.5]) + math.prod([1.5, n], start=2) + math.prod(x.shape)
        sums = math.fsum([n, 0.1, 0.1, 1e9, -1e9]) + math.dist([n, 1.0], (0.5, n))
        few = math.prod([float(row.detach().sum()) for row in x.unbind(1)][:2])
        return x * (products + sums) + few + math.log(n, 2)


class Reduced(Base):
    def prepared(self, x):
        rows = list(x.unbind(0))
        total = functools.reduce(operator.add, rows)
        largest = functools.reduce(torch.maximum, rows, x.new_zeros(x.size(1)))
        product = functools.reduce(lambda a, b: a * 0.5 + b, [x, x * 2, x * 3])
        sizes = [row.numel() + i for i, row in enumerate(rows)]
        return product + total + largest * (max(*sizes) - min(*sizes))


@functools.singledispatch
def summed(values):
    raise TypeError


@summed.register
def _(values: Tensor):
    return values.sum(0)


@summed.register(list)
def _in_a_list(values):
    return torch.stack(values).sum(0)


Width = NewType("Width", int)


class Pair(TypedDict):
    x: Tensor
    h: Tensor


class Typed(Base):
    def prepared(self, x):
        width = Width(3)
        pair: Pair = {"x": x, "h": x * width}
        other = Pair(x=pair["h"], h=pair["x"])
        return other["x"] + summed(x) + summed([x, other["h"]])


class Queues(Base):
    def prepared(self, x):
        queue = collections.deque([x, x * 2, x * 3], maxlen=2)
        queue.append(x * 4)
        queue.appendleft(x * 5)
        queue.extend([x * 6, x * 7, x * 8])
        recent = collections.deque(maxlen=3)
        for _ in range(5):
            x = x.roll(1, 0) * 0.5
            recent.append(x)
        ordered = collections.OrderedDict(a=x, b=x * 2, c=x * 3)
        ordered.move_to_end("a")
        ordered.move_to_end("c", last=False)
        name, last = ordered.popitem()
        first = next(iter(ordered.values()))
        return sum(queue) + recent[0] * len(recent) + sum(recent) + last * 2 + first * len(name)


class MadeModules(Base):
    def prepared(self, x):
        x = nn.Softmax(dim=1)(nn.ReLU()(x))
        start = torch.tensor([[], []]).size(0) + torch.ones(2, dtype=torch.get_default_dtype())
        return x * nn.MSELoss()(x, x * 2) + start.sum()


class Mode(enum.Enum):
    TWICE = 2.0
    ONCE = enum.auto()

    @classmethod
    def parse(cls, text: str):
        return cls[text.upper()]


class Dictionaries(Base):
    """United, filled by integers, and sorted by what a function says of each element."""

    def prepared(self, x):
        parts = {"a": x, "b": x * 2} | {"b": x * 3, "c": x * 4}
        same = parts
        parts |= {"a": x * 5}
        rows: Dict[int, Tensor] = {}
        for i in range(x.size(0)):
            if i % 2 == 0:
                rows[i] = x[i]
        order = sorted(rows, key=lambda i: -i)
        nearest = sorted([float(i % 3) for i in range(x.size(0))], key=lambda v: abs(v - 1.0))
        if Mode(2.0) is Mode.parse("twice") and not {"a"}.isdisjoint({"a", "b"}):
            x = x * (order[0] + nearest[-1])
        if x.dtype.is_floating_point and not x.dtype.is_complex:
            x = x + sum(rows.values())
        return x + sum(same.values())


class Sizes(Base):
    """Sizes that tensors hold."""

    def prepared(self, x):
        n = torch.arange(x.size(0)).max() + 1
        zeros = torch.zeros((n,) + x.shape[1:]) + x.new_zeros(n, x.size(1))  # noqa: RUF005
        ones = x.new_full((n, 2), 1.0).view(n, -1).repeat(1, n).sum(1, keepdim=True)
        x = torch.reshape(x, (n, x.size(1)))
        return (x + zeros).reshape(n, -1) * ones.expand(n, x.size(1))


@pytest.mark.parametrize(
    "cls",
    [Operators, Mathematics, Reduced, Typed, Queues, MadeModules, Dictionaries, Sizes],
)
def test_functions(cls, check) -> None:
    check(cls())


class FilledAtRunTime(Base):
    def prepared(self, x):
        queue = collections.deque(maxlen=2)
        for i in range(x.size(0)):
            queue.append(x[i])
        return x + queue[0]


def test_a_deque_that_forgets_at_run_time_is_refused() -> None:
    with pytest.raises(gnnscript.UnsupportedError, match="'queue' is of limited length"):
        torch.jit.script(FilledAtRunTime())
