"""Lists and dictionaries that the run fills: sorting, slices, counting, entries that are made."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from typing import Dict, List

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

import gnnscript
from conformance.graphs import IN, OUT

pytestmark = pytest.mark.usefixtures("auto")


class Model(nn.Module):
    names = ("u", "v", "a")

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(IN, OUT)

    def forward(self, x: Tensor, edge_index: Tensor):
        return self.conv(x, edge_index), self.found(x.detach(), edge_index)


class Grouped(Model):
    """Rows by a key of the run, as `defaultdict(list)` holds them."""

    def found(self, x: Tensor, edge_index: Tensor):
        groups = defaultdict(list)
        for row in range(x.size(0)):
            groups[row % 3].append(x[row])
        by_name: Dict[str, List[Tensor]] = {}
        for row in range(x.size(0)):
            by_name.setdefault(self.names[row % 2], []).append(x[row])
        return [torch.stack(rows).sum(0) for rows in groups.values()], len(by_name["u"])


class Counted(Model):
    def found(self, x: Tensor, edge_index: Tensor):
        counts = defaultdict(int)
        for node in edge_index[1].tolist():
            counts[node] += 1
        sums = defaultdict(float)
        for row in range(x.size(0)):
            sums[self.names[row % 3]] += x[row, 0].item()
        degrees = Counter(edge_index[0].tolist())
        more = Counter()
        for node in edge_index[0].tolist():
            more[node] += 2
        missing = counts[1000], degrees[1000]  # the first is an entry from now on
        return len(counts), sums["a"], max(degrees.values()), more[1], missing, len(degrees)


class Sorted(Model):
    def found(self, x: Tensor, edge_index: Tensor):
        nodes = edge_index[0].tolist()
        same = nodes
        nodes.sort(key=lambda node: -node)
        ranked = sorted(range(x.size(0)), key=lambda row: x[row, 0].item(), reverse=True)
        pairs = sorted(
            [(int(a) % 3, int(b)) for a, b in edge_index.t()], key=lambda p: (p[0], -p[1])
        )
        named = sorted(range(x.size(0)), key=lambda row: self.names[row % 3])
        nearest = min(nodes, key=lambda node: (node - 3) ** 2)
        none = max([node for node in nodes if node > 1000], default=-1)
        return same, ranked, pairs, named, nearest, none


class Sliced(Model):
    def found(self, x: Tensor, edge_index: Tensor):
        rows = list(range(x.size(0) + 4))
        same = rows
        del rows[1:3]
        rows[1:4] = [100, 200]
        rows[-1:-1] = [7]
        del rows[::4]
        parts = [x, x * 2, x * 3, x * 4]
        del parts[1:3]
        parts[:1] = (x * 5, x * 6)
        return same, parts[0], len(parts), list(filter(lambda row: row > 2, rows))


class Searched(Model):
    """Nodes in the order in which they are reached from the first."""

    def found(self, x: Tensor, edge_index: Tensor):
        waiting = deque([1])
        order = [1]
        while waiting:
            node = waiting.popleft()
            for edge in range(edge_index.size(1)):
                target = int(edge_index[1, edge])
                if int(edge_index[0, edge]) == node and target not in order:
                    order.append(target)
                    waiting.append(target)
        return order


class Extended(Model):
    """``+=`` of a list is seen by every variable that holds it; an attribute starts empty."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: List[int] = []

    def found(self, x: Tensor, edge_index: Tensor):
        rows = edge_index[0].tolist()
        same = rows
        rows += [1, 2]
        rows += (3, 4)
        self.seen = []
        kept = self.seen
        self.seen += [len(rows)]
        self.seen.append(x.size(0))
        return same, kept, self.seen[0], kept is self.seen, rows is kept


class EdgeTypes(Model):
    """The run picks an edge type, by which dictionaries are read."""

    def __init__(self) -> None:
        super().__init__()
        self.types = [("a", "to", "b"), ("b", "rev", "a")]
        self.weights = {("a", "to", "b"): 1.0, ("b", "rev", "a"): 2.0}

    def found(self, x: Tensor, edge_index: Tensor):
        outs = {kind: x * number for number, kind in enumerate(self.types, start=1)}
        picked = self.types[x.size(0) % 2]
        source, _, _ = picked
        return outs[picked] * self.weights[picked], source


MODELS = [Grouped, Counted, Sorted, Sliced, Searched, Extended, EdgeTypes]


@pytest.mark.parametrize("model", MODELS)
def test_filled_in_the_run(model: type[nn.Module], check) -> None:
    check(model())


class Repeated(Model):
    def found(self, x: Tensor, edge_index: Tensor):
        grid = [[0] * 2] * 2
        grid[0][1] = x.size(0)
        return grid


class Compared(Model):
    def found(self, x: Tensor, edge_index: Tensor):
        pair = x, x + 1
        return pair is (x, x + 1)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Repeated, "holds one list or dictionary several times"),
        (Compared, "are one object"),
    ],
)
def test_what_cannot_be_known_of_objects_is_refused(model: type[nn.Module], words: str) -> None:
    with pytest.raises(gnnscript.UnsupportedError, match=words):
        torch.jit.script(model())
