"""Numbers and types as torch's functions take them in Python: TorchScript reads them otherwise."""

from __future__ import annotations

import copy
import random
import time

import numpy as np
import pytest
import torch
from torch_geometric.nn import MessagePassing

import gnnscript
from behaviour.conftest import Check

pytestmark = pytest.mark.usefixtures("auto")


class Passing(MessagePassing):
    def forward(self, x, edge_index):
        return self.made(x), self.propagate(edge_index, x=x)

    def made(self, x):
        raise NotImplementedError


class Booleans(Passing):
    """A bool stays one: an index of ones and zeros picks other rows."""

    flag = True

    def made(self, x):
        n, up = x.size(0), x > 0
        kept = torch.full((n,), True)
        kept[0] = False
        known = x.size(1) > 2
        return [
            kept,
            torch.full((n,), False, device=x.device),
            torch.where(up, True, False),
            torch.where(up, x > 1, True),
            torch.where(torch.norm(x, dim=1, keepdim=True) > 1, x, -x),
            up & self.flag,
            up | known,
            True ^ up,
            torch.tensor([known, 2]),
            x[kept],
        ]


class Integers(Passing):
    """An integer of run time stays one, and so do its powers."""

    def made(self, x):
        n = x.size(0)
        level = x.size(1) // 4
        return [
            torch.tensor(n),
            torch.where(torch.arange(n) > level, torch.tensor(level), torch.arange(n)),
            torch.zeros(level**2 + 1),
            torch.arange(2**level),
            torch.tensor(pow(n, 3)),
            torch.tensor(n**-1),
            torch.tensor([1, 2.5]),
            torch.tensor([]),
            torch.tensor([], dtype=torch.long),
            torch.tensor(()),
        ]


class Types(Passing):
    def made(self, x):
        n = x.size(0)
        return [
            torch.ones(n, dtype=int),
            torch.zeros(n, dtype=float),
            x.to(int),
            x.type(torch.LongTensor),
            (x > 0).type("torch.FloatTensor"),
            (x > 0).to(dtype=bool),
        ]


class Arrays(Passing):
    """NumPy's numbers and arrays, as far as they are configuration."""

    weights = np.array([0.5, 2.0, 1.0], dtype=np.float32)

    def made(self, x):
        scale = np.float32(0.5) + float(np.float64(2.0)) + int(np.int32(3)) + np.prod([2, 3])
        return [
            torch.tensor(self.weights),
            torch.as_tensor(self.weights) * np.float64(x.size(0)),
            torch.tensor(np.int64(x.size(1))),
            x * scale + self.weights[1] + sum(self.weights.tolist()) + self.weights.max(),
        ]


class Indices(Passing):
    """Slices that variables hold, alone and in tuples; ``@=``."""

    def made(self, x):
        half = x.size(-1) // 2
        first, columns = slice(0, half), (Ellipsis, slice(half, None))
        every = slice(None, None, 2)
        low = x[:, first]
        low @= torch.eye(half)
        return [low, x[columns], x[every], x[every, first], x[slice(1, x.size(0))]]


class Items(Passing):
    """``item()`` is an integer of integers, a float of floats, and bounds ranges."""

    def made(self, x):
        order = x[:, 0].argsort()
        last = order.max().item()
        largest = x.max().item()
        rows = [i * 2 for i in range(last)]
        scale = 1
        if x.size(0) < 7:
            scale = 0.5
        weight = 2 if x.size(0) > 7 else 1.5
        total = 0
        for i in range(3):
            total = total + 0.5 * i
        x = x * scale
        return x[last], last, largest, order * scale, weight, len(rows), (x > 0).any().item(), total


class Plain(Passing):
    """Python's own functions, given numbers and tensors of run time."""

    def made(self, x):
        order = x[:, 0].argsort()
        count = x.size(0)
        drawn = random.randint(2, 2) + int(random.random()) + int(random.uniform(1, 1.5))
        parts = copy.deepcopy({"x": x, "parts": [x, count]})
        parts["x"] = parts["x"] + 1
        first = x
        return (
            round(count / 3, 2) + round(0.125 * count, 1),
            max(order) + min(order),
            2 in order and count not in order,
            any(x[0] > 100) or all(order >= 0),
            first is x,
            drawn,
            parts["parts"][1],
            parts["x"],
        )


class ByTuples(Passing):
    """A tuple of tensors picks by one for each dimension; ranges pick, too."""

    def made(self, x):
        n = x.size(0)
        pairs = torch.stack([torch.arange(3), torch.arange(3)])
        dense = x.new_zeros(n, n)
        dense[tuple(pairs)] = 1
        dense[pairs.unbind()] = x[:3, 0]
        dense[range(n), range(n)] = 3.0
        counted = range(n)
        backwards = list(reversed(counted)) + sorted([n, 1, 5], reverse=True)
        return dense, dense[tuple(pairs)], x[range(3), 0], list(counted[1:3]), backwards


@pytest.mark.parametrize(
    "cls", [Arrays, Booleans, ByTuples, Indices, Integers, Items, Plain, Types]
)
def test_values_are_those_of_eager_mode(cls: type[Passing], check: Check) -> None:
    check(cls())


class Names(Passing):
    def made(self, x):
        return x if str(x.dtype) == "torch.float32" else x.float()


class Draws(Passing):
    def made(self, x):
        return x * np.random.rand()  # noqa: NPY002


class Clocks(Passing):
    def made(self, x):
        return x * time.process_time()


class Devices(Passing):
    def made(self, x):
        return x.type("torch.cuda.FloatTensor")


@pytest.mark.parametrize(
    ("cls", "cause"),
    [
        (Names, "name of a dtype"),
        (Devices, "a device"),
        (Draws, "'rand' draws random numbers in Python"),
        (Clocks, "'time.process_time' reads a clock"),
    ],
)
def test_what_torchscript_has_no_name_for_is_refused(cls: type[Passing], cause: str) -> None:
    with pytest.raises(gnnscript.UnsupportedError, match=cause):
        torch.jit.script(cls())
