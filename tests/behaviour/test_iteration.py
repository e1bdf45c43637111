"""Generators, iterators, ``itertools`` and ``operator``: known by the elements that they give."""

from __future__ import annotations

import collections
import itertools
import operator
import typing

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, MessagePassing

import gnnscript
from behaviour.conftest import Check
from conformance.graphs import IN

pytestmark = pytest.mark.usefixtures("auto")


class Base(MessagePassing):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(IN, 4)


class Hops(Base):
    """Generators: of the layer's own, of numbers, with another inside, as an inner function."""

    def hops(self, h, edge_index, count):
        yield h
        for _ in range(count):
            h = self.propagate(edge_index, x=h)
            yield h

    def weights(self, count):
        if count == 0:
            return
        for i in range(count):
            yield 1.0 / (i + 1)
        yield from (0.25, 0.125)

    def forward(self, x, edge_index):
        def halves(h):
            yield h[:, :2]
            yield h[:, 2:]

        hops = list(self.hops(self.lin(x), edge_index, 2))
        out = sum(w * h for w, h in zip(self.weights(2), hops, strict=False))
        for first, second in zip(halves(out), halves(hops[0]), strict=True):
            out = out + (first * second).sum(-1, keepdim=True)
        return out + len(list(self.weights(0)))


class Layers(nn.Module):
    """``next`` takes from an iterator over layers what a loop then goes on with."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([GCNConv(IN, 8), GCNConv(8, 8), GCNConv(8, 8)])

    def forward(self, x, edge_index):
        rest = iter(self.layers)
        x = next(rest)(x, edge_index)
        scales = iter([2.0])
        x = x * next(scales) * next(scales, 0.5)
        for layer in rest:
            x = layer(x, edge_index).relu()
        return x


class Arranged(Base):
    def forward(self, x, edge_index):
        h = self.lin(x)
        parts = [h, self.propagate(edge_index, x=h), h.relu()]
        out = sum((a * b).sum(-1) for a, b in itertools.combinations(parts, 2))
        for a, b in itertools.product(parts[:2], parts[1:]):
            out = out + (a - b).abs().sum(-1)
        for scale, (a, b) in enumerate(itertools.permutations(parts, 2)):
            out = out + scale * (a * b.sigmoid()).sum(-1)
        for a, b in itertools.zip_longest(parts, parts[:1]):
            out = out + (a if b is None else b).sum(-1)
        for layer in itertools.chain([self.lin], (self.lin,)):
            out = out + layer(x).mean(-1)
        for part in itertools.chain.from_iterable([parts, parts[:1]]):
            out = out + part.mean(-1)
        for a, b in itertools.pairwise(itertools.islice(parts, 1, None)):
            out = out + (a + b).mean(-1)
        for total in itertools.accumulate(parts, lambda a, b: a - b):
            out = out + total.mean(-1)
        for product in itertools.starmap(operator.mul, [(parts[0], parts[1])]):
            out = out + product.mean(-1)
        for sign, part in zip(itertools.cycle((1.0, -1.0)), parts, strict=False):
            out = out + sign * part.mean(-1)
        for number, part in zip(itertools.count(2), parts, strict=False):
            out = out + number * part.mean(-1)
        for part in itertools.repeat(h, 2):
            out = out * part.mean(-1)
        return out


class Ordered(Base):
    """Dictionaries made of pairs, sorted by their keys; counters and queues."""

    def forward(self, x, edge_index):
        found = dict(zip(("b", "a"), (self.lin(x), x), strict=True))
        pairs: typing.OrderedDict[str, Tensor] = typing.OrderedDict([("q", x), ("p", x * 2)])
        counts: typing.Counter[str] = collections.Counter("abracadabra")
        seen: typing.Counter[str] = collections.Counter()
        out = x.new_zeros(x.size(0))
        for number, (name, value) in enumerate(sorted(found.items())):
            seen[name] += number
            out = out + (number + counts[name]) * value.sum(-1)
        queue = collections.deque([pairs[name] for name in sorted(pairs, reverse=True)])
        queue.appendleft(x * 3)
        queue.append(queue.popleft() - queue[0])
        longest = max(found, key=len)
        kept = self.propagate(edge_index, x=queue[-1])
        return out + seen["b"], kept + found[longest].sum(), {k: found[k] for k in sorted(found)}


class Columns(Base):
    """A list of tuples of several types, which TorchScript's lists cannot hold."""

    def forward(self, x, edge_index):
        columns = list(zip((1, x), (2, x * 3), strict=True))
        (first, second), tensors = columns
        return self.propagate(edge_index, x=tensors[1] * second + first) + columns[1][0]


class Read(Base):
    def forward(self, x, edge_index):
        ends = operator.itemgetter(0, 1)(edge_index)
        weight = operator.attrgetter("lin.weight")(self)
        h = operator.methodcaller("clamp", min=0.0)(self.lin(x))
        return self.propagate(torch.stack(ends), x=operator.getitem(h, slice(None))) + weight.sum()


class Mapped(Base):
    """``map`` over a list whose length the run knows."""

    def forward(self, x, edge_index):
        n = x.size(0)

        def split(t):
            return t.view(n, 1, -1)

        q, k, v = map(split, torch.cat([self.lin(x)] * 3, -1).chunk(3, -1))
        return self.propagate(edge_index, x=(q * k + v).flatten(1))


@pytest.mark.parametrize("cls", [Arranged, Columns, Hops, Layers, Mapped, Ordered, Read])
def test_runs_as_in_eager(cls: type[nn.Module], check: Check) -> None:
    check(cls())


class ReadTwice(Base):
    def forward(self, x, edge_index):
        parts = iter([x, x * 2])
        for a, b in zip(parts, parts, strict=True):
            x = x + a * b
        return self.propagate(edge_index, x=x)


class CycledTwice(Base):
    def forward(self, x, edge_index):
        signs = itertools.cycle([1.0, -1.0])
        for _ in range(2):
            for sign, part in zip(signs, [x], strict=False):
                x = x + sign * part
        return self.propagate(edge_index, x=x)


class ChangedBetween(Base):
    def doubled(self, x):
        yield x
        yield 2 * x

    def forward(self, x, edge_index):
        for part in self.doubled(x):
            x += self.propagate(edge_index, x=part)
        return x


@pytest.mark.parametrize(
    ("cls", "cause"),
    [
        (ReadTwice, "an iterator is read in more than one place"),
        (CycledTwice, "again in each turn of a loop"),
        (ChangedBetween, "changed in place while a generator is read"),
    ],
)
def test_what_depends_on_who_reads_first_is_refused(cls: type[nn.Module], cause: str) -> None:
    with pytest.raises(gnnscript.UnsupportedError, match=cause) as refused:
        torch.jit.script(cls())
    assert "test_iteration.py" in str(refused.value)
