"""Calls with effects run when Python runs them: once, in order, and not where they are skipped."""

from __future__ import annotations

import functools
from typing import Dict, Optional

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, MessagePassing

import gnnscript
from conformance.graphs import IN

pytestmark = pytest.mark.usefixtures("auto")


class Counting(nn.Module):
    """A number that tells in which order the methods were called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.n = GCNConv(IN, IN), 1

    def forward(self, x: Tensor, edge_index: Tensor):
        self.n = 1
        return self.run(self.conv(x, edge_index)), self.n

    def bump(self) -> int:
        self.n += 1
        return self.n

    def double(self, x: Tensor) -> Tensor:
        self.n = self.n * 2 + 1
        return x * self.n

    def treble(self, x: Tensor) -> Tensor:
        self.n = self.n * 3
        return x + self.n

    def parts(self, x: Tensor):
        """A dictionary: the call of it is a statement, whatever expression it stands in."""
        self.n += 5
        return {"x": x * self.n, "n": self.n}

    def note(self) -> None:
        self.n += 10


def minus(a, b):
    return b - a


class Arguments(Counting):
    """Helpers that are written in place, and keywords in another order than the parameters."""

    def run(self, x: Tensor):
        out = minus(self.double(x), self.treble(x))
        out = out + self.combined(b=self.double(x), a=self.treble(x), k=self.n)
        return torch.sub(other=self.double(out), input=self.treble(x))

    def combined(self, a: Tensor, b: Tensor, k: int):
        return a * 2 - b * k


class Skipped(Counting):
    def run(self, x: Tensor):
        many = bool(x.sum() > 1e9)
        few = not many
        a = self.bump() if many else 5
        b = many and self.bump() > 0
        c = few or self.bump() > 0
        self.note() if many else None
        many and self.note()
        few and self.note()
        d = self.parts(x)["n"] if many else self.n
        e = few and self.parts(x)["n"] > 3 and self.bump() > 0
        f = self.bump() > 0 and False
        return a, b, c, d, e, f


class Repeated(Counting):
    """What Python computes once, though it is used twice."""

    def run(self, x: Tensor):
        a = self.bump() or 7
        b = (self.bump() - 3) and self.bump()
        c = 0 < self.bump() < 100 < self.bump() * 100 != 5
        d = self.bump() % 3
        e = x[self.bump() % 3, self.bump() % 4]
        out = x.detach().clone()
        out[self.bump() % 5] += self.bump()
        out[self.bump() % 5, : self.bump()] *= 2
        return a, b, c, d, e, out


class Written(Counting):
    """Reads of an attribute beside calls that are statements."""

    def run(self, x: Tensor):
        a = [self.n, self.parts(x)["n"], self.n, self.parts(x)["n"]]
        b = self.double(x) + self.parts(x)["x"]
        c = self.n < self.parts(x)["n"] < self.bump() * 100
        d = {"u": self.n, **self.parts(x), "v": self.n}
        e = x.mul(self.n).add(self.parts(x)["x"])
        return a, b, c, d["u"], d["n"], d["v"], e, max(self.n, self.parts(x)["n"])


class Stored(Counting):
    """The value comes before the place it is stored in."""

    def run(self, x: Tensor):
        out = x.detach().clone()
        out[self.bump() % 5] = self.double(x).sum()
        table: Dict[int, int] = {}
        table[self.bump()] = self.bump()
        places = [0, 0, 0, 0, 0]
        places[self.bump() % 5] = self.bump()
        self.n, before = self.bump(), self.n
        return out, list(table.keys()), places, before


class Listed(Counting):
    """Comprehensions for their effects, and loops that test them."""

    def run(self, x: Tensor):
        outs = []
        [outs.append(self.double(x)) for _ in range(2)]
        named = {}
        [named.update({str(number): out}) for number, out in enumerate(outs)]
        a = [self.parts(x)["n"] for _ in range(x.size(0))]
        b = [self.parts(v)["n"] for v in (x, x + 1) if bool(v.sum() > 0) or self.bump() > 0]
        turns = 0
        while self.parts(x)["n"] < 500:
            turns += 1
        return sum(outs), named["1"], a, b, turns


class Assigned(Counting):
    """``:=`` in conditions, a property with a setter, a function of several statements."""

    @property
    def level(self) -> int:
        return self.bump()

    @level.setter
    def level(self, value: int) -> None:
        self.n = value * 2

    def run(self, x: Tensor):
        if (rows := x.size(0)) > 8 and (twice := rows * 2) > 3:
            x = x * twice
        self.level = self.level + self.level * 10
        at = rows % 3, self.bump() % 2
        return x, x[at], self.level, rows


class Deeper(Assigned):
    """A property that asks the one of its parent."""

    @property
    def level(self) -> int:
        return super().level * 3

    @level.setter
    def level(self, value: int) -> None:
        self.n = value + 1


class Choices(Counting):
    """Layers that are picked, and errors that are raised, inside of conditions."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(IN, IN) for _ in range(3)])

    def run(self, x: Tensor):
        at = x.size(0) % 3
        out = self.layers[at](x) if x.size(0) > 5 else x
        out = out + (sum([self.layers[k](x) for k in range(at)]) if at > 0 else 0.0)
        return out if x.size(0) > 0 else self.refuse()

    def refuse(self):
        raise ValueError("no nodes")


class Partial(Counting):
    """What a partial function is given is computed where it is made."""

    def run(self, x: Tensor):
        by = x.mean()
        shifted = functools.partial(torch.add, other=by)
        scaled = functools.partial(self.scaled, x, by=self.bump())
        by = by * 100
        self.n = 50
        return self.twice(shifted, x), scaled(), scaled(by=self.bump()), by

    def scaled(self, x: Tensor, by: int) -> Tensor:
        return x * by + self.n

    def twice(self, function, x: Tensor) -> Tensor:
        return function(function(x))


class Layers(nn.Module):
    """A stack with methods of its own for what Python's syntax asks."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(IN, IN) for _ in range(2)])

    def __iter__(self):
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, at):
        return self.layers[at]

    def forward(self, x):
        for layer in self:
            x = layer(x)
        return x


class Stacked(Counting):
    def __init__(self) -> None:
        super().__init__()
        self.stack = Layers()

    def run(self, x: Tensor):
        x = self.stack(x)
        for at, layer in enumerate(self.stack):
            x = x + at * layer(x)
        return self.stack[-1](x) * len(self.stack)


MODELS = [
    Arguments,
    Skipped,
    Repeated,
    Written,
    Stored,
    Listed,
    Assigned,
    Deeper,
    Choices,
    Partial,
    Stacked,
]


@pytest.mark.parametrize("model", MODELS)
def test_calls_run_as_in_python(model: type[nn.Module], check) -> None:
    check(model(), atol=1e-3)  # of sums in the hundreds


class Propagated(MessagePassing):
    def __init__(self) -> None:
        super().__init__(aggr="sum")
        self.n = 1

    def forward(self, x: Tensor, edge_index: Tensor):
        self.n = 1
        out = self.propagate(edge_index, y=self.raised(x, 1), x=self.raised(x, 2), k=self.n)
        return out, self.n

    def raised(self, x: Tensor, by: int) -> Tensor:
        self.n = self.n * 2 + by
        return x * self.n

    def message(self, x_j: Tensor, y_i: Tensor, k: int) -> Tensor:
        self.n += 1
        return x_j * y_i + k + self.n


def test_arguments_of_propagate(check_conv) -> None:
    check_conv(Propagated())


class Late(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(IN, IN)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        scale = 1.0
        scaled = (row * scale for row in (x, x + 1))
        scale = 5.0
        return self.conv(sum(scaled), edge_index) * scale


def test_a_generator_whose_variables_change_is_refused() -> None:
    with pytest.raises(gnnscript.UnsupportedError, match="'scaled' uses 'scale'"):
        torch.jit.script(Late())


class Memory(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.calls = GCNConv(IN, IN), 0
        self.register_buffer("mean", torch.zeros(IN))
        self.last: Optional[Tensor] = None

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.calls += 1
        self.mean = self.mean * 0.5 + x.detach().mean(0)
        return self.conv(x, edge_index) * self.calls + self.mean


class TwoNames(nn.Module):
    """One module under two names: what it assigns is seen through both."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Memory()
        self.second = self.first
        self.layers = nn.ModuleList([self.first, self.second])

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.first.calls = 0
        self.second.mean = torch.zeros_like(self.first.mean)
        for layer in self.layers:
            x = layer(x, edge_index)
        return x * self.second.calls + self.first.mean


class Within(nn.Module):
    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.memory = memory

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.memory(x, edge_index)


class TwoPlaces(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        memory = Memory()
        self.a, self.b = Within(memory), Within(memory)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.b(self.a(x, edge_index), edge_index)


def test_a_module_of_two_names(check) -> None:
    check(TwoNames())
    with pytest.raises(gnnscript.UnsupportedError, match="keep those apart for each name"):
        torch.jit.script(TwoPlaces())
