"""Sets of run time, dictionaries by tuples, and empty collections that are filled inside others."""

from __future__ import annotations

import collections
from typing import Dict, List, Set

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

import gnnscript
from conformance.graphs import IN

pytestmark = pytest.mark.usefixtures("auto")


class Base(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor):
        counts = torch.tensor(self.counts(x, edge_index), dtype=x.dtype)
        return self.propagate(edge_index, x=x) * (1 + counts.sum()), counts

    def counts(self, x: Tensor, edge_index: Tensor) -> List[int]:
        raise NotImplementedError


class Searches(Base):
    """A breadth-first search: depth and size of what a node reaches."""

    def grow(self, neighbours: Dict[int, List[int]], seen, node: int) -> List[int]:
        found: List[int] = []
        for other in neighbours[node]:
            if other not in seen:
                seen.add(other)
                found.append(other)
        return found

    def counts(self, x, edge_index):
        neighbours: Dict[int, List[int]] = {i: [] for i in range(x.size(0))}
        for source, target in edge_index.t().tolist():
            neighbours[source].append(target)
        frontier, seen, depth = [0], {0}, 0
        while frontier:
            following = []
            for node in frontier:
                following += self.grow(neighbours, seen, node)
            frontier = following
            depth += 1
        return [depth, len(seen)]


class Operates(Base):
    def counts(self, x, edge_index):
        sources, targets = set(edge_index[0].tolist()), set(edge_index[1].tolist())
        seen: Set[int] = set()
        for node in sorted(sources):
            seen.add(node)
        seen |= targets
        seen.discard(0)
        seen.update([1, 2], sources)
        seen -= {3}
        if not seen:
            seen = {5}
        other = seen.copy()
        other.clear()
        other.add(7)
        large = {int(node) for node in edge_index[0] if int(node) > 3}
        sizes = {x.size(0), x.size(1), 3}
        return [
            len(seen), len(sources ^ targets), len(sources.intersection(targets, seen)),
            len(sources.difference([0, 1])), max(seen), min(sources), sum(targets), len(other),
            len(large), len(sizes), int(sources <= seen), int(sources == targets),
            int(3 not in seen), int(sources.isdisjoint(targets)), int(seen > {1}),
            int(sources != sources | targets), sorted(targets & seen)[0],
        ]  # fmt: skip


class Pairs(Base):
    """Edges by their ends: which have an opposite, and which occur several times."""

    def __init__(self) -> None:
        super().__init__()
        self.factors = {(0, 1): 2, (1, 0): 3, (1, 1): 5}

    def counts(self, x, edge_index):
        pairs = {(int(source), int(target)) for source, target in edge_index.t()}
        opposite = [(int(target), int(source)) in pairs for source, target in edge_index.t()]
        times, first = {}, {}
        for position, (source, target) in enumerate(edge_index.t().unbind()):
            key = int(source), int(target)
            if key in times:
                times[key] += 1
            else:
                times[key] = 1
            first.setdefault(key, position)
        parity = x.size(0) % 2
        factor = self.factors[(parity, (parity + 1) % 2)]
        return [sum(opposite), max(times.values()), len(times), first.get((1, 2), -1), factor]


class Nested(Base):
    """Lists and sets inside of others, which are empty where they are made."""

    def counts(self, x, edge_index):
        buckets = [[] for _ in range(x.size(0))]
        groups, sets = {}, collections.defaultdict(set)
        declared: Dict[int, Set[int]] = {}
        for source, target in edge_index.t().tolist():
            buckets[target].append(source)
            sets[target].add(source)
            if source not in declared:
                declared[source] = set()
            declared[source].add(target)
        for position, bucket in enumerate(buckets):
            if len(bucket) % 2 not in groups:
                groups[len(bucket) % 2] = []
            groups[len(bucket) % 2].append(position)
        several = [len(found) for found in declared.values()]
        return [max(several), len(groups), len(groups[0]), len(sets[1] & sets[2])]


class Coloured(Base):
    """A greedy colouring, by the sets of neighbours in a list."""

    def counts(self, x, edge_index):
        neighbours = [set() for _ in range(x.size(0))]
        colours = [-1] * x.size(0)
        for source, target in edge_index.t().tolist():
            if source != target:
                neighbours[source].add(target)
                neighbours[target].add(source)
        for node in range(x.size(0)):
            used = {colours[other] for other in sorted(neighbours[node]) if colours[other] >= 0}
            colour = 0
            while colour in used:
                colour += 1
            colours[node] = colour
        return colours


class Known(Base):
    """Sets that are known beforehand stay so, and those that loops over constants change do not."""

    kept = frozenset({"a", "b"})

    def counts(self, x, edge_index):
        done, total = set(), 0
        for name in ("a", "c", "a", "b"):
            if name in self.kept and name not in done:
                total += x.size(0)
                done.add(name)
        for number in (1, 2):
            total += number
        return [total, len(done), len({"x"} | {"y"})]


@pytest.mark.parametrize(
    "module",
    [Searches(), Operates(), Pairs(), Nested(), Coloured(), Known()],
    ids=lambda module: type(module).__name__,
)
def test_sets(module, check) -> None:
    check(module)


class ReadInOrder(Base):
    def counts(self, x, edge_index):
        total = 0
        for node in set(edge_index[0].tolist()):
            total = 2 * total + node
        return [total]


class Listed(Base):
    def counts(self, x, edge_index):
        return list(set(edge_index[0].tolist()))


class Popped(Base):
    def counts(self, x, edge_index):
        nodes = set(edge_index[0].tolist())
        return [nodes.pop()]


class OfTensors(Base):
    def counts(self, x, edge_index):
        return [len(set(edge_index[0]))]


class KeysRead(Base):
    def counts(self, x, edge_index):
        times = {}
        for source, target in edge_index.t().tolist():
            times[source, target] = 1
        return [source for source, _ in times]


class Returned(Base):
    def forward(self, x: Tensor, edge_index: Tensor):
        return x, set(edge_index[0].tolist())


class Mixed(Base):
    def counts(self, x, edge_index):
        found = {1.5}
        found.add(x.size(0))
        return [len(found)]


@pytest.mark.parametrize(
    ("module", "cause"),
    [
        (ReadInOrder(), "in an order that only Python's hash table knows"),
        (Listed(), "in an order that only Python's hash table knows"),
        (Popped(), "'pop' of a set whose elements are known only at run time"),
        (OfTensors(), "a set is made of a 'Tensor'"),
        (KeysRead(), "are read again"),
        (Returned(), "returns a set"),
        (Mixed(), "a set of 'float' is given a 'int'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else "",
)
def test_what_depends_on_the_order_is_refused(module, cause) -> None:
    with pytest.raises(gnnscript.UnsupportedError, match=cause) as caught:
        torch.jit.script(module)
    assert caught.value.location is not None
    assert caught.value.location.file == __file__


def test_rows_of_what_is_no_matrix(check) -> None:
    class Rows(Base):
        def counts(self, x, edge_index):
            total = 0
            for first, second in edge_index[0].tolist():
                total += first * second
            return [total]

    scripted = torch.jit.script(Rows())
    with pytest.raises(torch.jit.Error, match="there are no rows"):
        scripted(torch.ones(3, IN), torch.tensor([[0, 1], [1, 2]]))
