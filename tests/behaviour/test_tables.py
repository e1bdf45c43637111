"""Lists and dictionaries of the model in which values known only at run time are looked up."""

from collections import OrderedDict
from typing import Any, Dict, List, Optional

import pytest
import torch
from tests.behaviour.models import GRAPHS
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, MessagePassing

import gnnscript

pytestmark = pytest.mark.usefixtures("auto")

SCALES = {"near": 0.5, "far": 2.0}
POWERS = (1, 2, 3)


class Weighted(MessagePassing):
    """Every kind of table, held by the conv or by its module."""

    def __init__(self, table: Any) -> None:
        super().__init__()
        self.table = table

    def message(self, x_j: Tensor) -> Tensor:
        return x_j


class ByName(Weighted):
    def forward(self, x: Tensor, edge_index: Tensor, name: str) -> Tensor:
        return self.propagate(edge_index, x=x) * self.table[name]


class ByNumber(Weighted):
    def forward(self, x: Tensor, edge_index: Tensor, number: int) -> Tensor:
        return self.propagate(edge_index, x=x) * self.table[number]


def calls(*extra: Any) -> list[tuple[Any, ...]]:
    return [(g.x, g.edge_index, e) for g, e in zip(GRAPHS, extra, strict=False)]


@pytest.mark.parametrize("table", [{"a": 2, "b": 3}, {"a": 2.5, "b": 3.5}, {"a": True, "b": False},
                                   OrderedDict(b=1, a=2)])  # fmt: skip
def test_by_name(check, table):
    check(ByName(table), *calls("b", "a"))


@pytest.mark.parametrize("table", [[2, 3, 4], (0.5, 1.5, 2.5), {0: 5, 2: 7, -1: 9}])
def test_by_number(check, table):
    check(ByNumber(table), *calls(0, -1), *calls(2, 2))


class Spans(nn.Module):
    """Entries that are tuples, inside of a submodule and through its property."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(4, 4)
        self.inner = Spans.Inner()

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._spans = {"head": (0, 2), "tail": (2, 4)}

        def span(self, x: Tensor, part: str) -> Tensor:
            start, stop = self._spans[part]
            return x[:, start:stop]

    def forward(self, x: Tensor, edge_index: Tensor, part: str) -> Tensor:
        return self.inner.span(self.conv(x, edge_index), part)


def test_entries_that_are_tuples(check):
    model = Spans()
    check(
        model,
        *[(g.x[:, :4], g.edge_index, p) for g, p in zip(GRAPHS, ("tail", "head"), strict=False)],
    )


class Asks(Weighted):
    """Asks before it looks up, also in tables of the module's globals and of the function's."""

    def forward(self, x: Tensor, edge_index: Tensor, name: str, i: int) -> Tensor:
        out = self.propagate(edge_index, x=x)
        if name in self.table:
            out = out * self.table[name]
        out = out + self.table.get(name, 4)
        if name not in SCALES:
            return out
        local = {"near": 1, "far": 2}
        return out * SCALES[name] ** POWERS[i] + (2, 3, 5)[i] + local[name]


def test_asked_before(check):
    ask = Asks({"near": 3, "other": 6})
    for name, i in (("near", 0), ("far", 2), ("other", 1), ("missing", 1)):
        check(ask, *[(g.x, g.edge_index, name, i) for g in GRAPHS])


def test_what_is_missing_raises():
    scripted = torch.jit.script(ByName({"a": 1}))
    g = GRAPHS[0]
    with pytest.raises(RuntimeError, match="KeyError"):
        scripted(g.x, g.edge_index, "b")


@pytest.mark.parametrize("table", [{"a": 1, "b": "text"}, {"a": 1, 2: 3}, {"a": nn.ReLU}])
def test_entries_of_several_types_are_refused(table):
    with pytest.raises(gnnscript.UnsupportedError, match=r"test_tables\.py") as caught:
        torch.jit.script(ByName(table))
    assert "one type" in caught.value.remedy


class Colours(nn.Module):
    """Numbers what it meets, and keeps the numbers from one call to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.known = {}
        self.order: List[int] = []
        self.conv = GCNConv(GRAPHS[0].x.size(1), 3)

    def forward(self, x: Tensor, edge_index: Tensor, kinds: List[int]) -> Any:
        colours = []
        for i, kind in enumerate(kinds):
            key = hash((kind, i % 2, kind > 2))
            if key not in self.known:
                self.known[key] = len(self.known)
                self.order.append(kind)
            colours.append(self.known[key])
        return self.conv(x, edge_index), torch.tensor(colours), len(self.order)


def test_a_table_that_the_code_fills():
    model = Colours()
    scripted = torch.jit.script(model)
    assert model.known == {}
    assert model.order == []
    for g, kinds in zip(GRAPHS, ([3, 1, 3, 1, 9], [9, 2, -1, 3]), strict=False):
        expected, out = model(g.x, g.edge_index, kinds), scripted(g.x, g.edge_index, kinds)
        torch.testing.assert_close(out, expected)
    assert scripted.known == model.known
    assert scripted.order == model.order


class Remembers(nn.Module):
    """Declared in the class body, as TorchScript wants it, and filled from what is there."""

    kept: Dict[str, Optional[Tensor]]

    def __init__(self) -> None:
        super().__init__()
        self.kept = {}
        self.counts = {"start": 1}
        self.conv = GCNConv(GRAPHS[0].x.size(1), 3)

    def forward(self, x: Tensor, edge_index: Tensor, name: str) -> Tensor:
        out = self.conv(x, edge_index)
        before = self.kept.get(name)
        if before is not None:
            out = out + before.mean()
        self.kept[name] = out.detach()
        self.counts.setdefault(name, 0)
        self.counts[name] += 1
        return out * self.counts[name]


def test_a_table_that_starts_filled(tmp_path):
    model = Remembers()
    scripted = torch.jit.script(model)
    for g, name in [(GRAPHS[0], "a"), (GRAPHS[1], "a"), (GRAPHS[1], "start"), (GRAPHS[0], "a")]:
        expected = model(g.x, g.edge_index, name)
        torch.testing.assert_close(scripted(g.x, g.edge_index, name), expected)
    assert scripted.counts == model.counts == {"start": 2, "a": 3}
    scripted.save(tmp_path / "model.pt")
    loaded = torch.jit.load(tmp_path / "model.pt")
    call = (GRAPHS[0].x, GRAPHS[0].edge_index, "start")
    torch.testing.assert_close(loaded(*call), model(*call))


class Shares(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = {"a": 1}
        self.conv = GCNConv(3, 3)

    def forward(self, x: Tensor, edge_index: Tensor, name: str) -> Tensor:
        self.first[name] = 2
        return self.conv(x, edge_index) * self.second[name]


def test_a_table_held_twice_is_not_changed():
    with pytest.raises(gnnscript.UnsupportedError, match="'second' of 'the model' holds"):
        torch.jit.script(Shares())


class Grows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(3, 3)
        self.sizes = [1, "two"]

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.sizes.append(3)
        return self.conv(x, edge_index)


def test_a_table_of_several_types_is_not_changed():
    with pytest.raises(gnnscript.UnsupportedError, match="'sizes' is changed in place"):
        torch.jit.script(Grows())


class Hashes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(GRAPHS[0].x.size(1), 3)

    def forward(self, x: Tensor, edge_index: Tensor, n: List[int]) -> Any:
        flag = n[0] > 2
        hashes = [hash(n[0]), hash(tuple(n)), hash((n[0], (n[-1], 2), flag)), hash(()), hash(flag)]
        return self.conv(x, edge_index), hashes, hash((1, 2))


LARGE = 2**61 - 1


@pytest.mark.parametrize("n", [[0], [1, 2, 3], [-1], [-2, -1], [LARGE, -LARGE, LARGE + 1],
                               [-(2**63), 2**63 - 1], list(range(-20, 20))])  # fmt: skip
def test_hashes_are_pythons(check, n):
    check(Hashes(), *[(g.x, g.edge_index, n) for g in GRAPHS])


class HashesText(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(3, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x, edge_index) * (hash(("a", 1)) % 5)


def test_hashes_of_text_are_refused():
    with pytest.raises(gnnscript.UnsupportedError, match="not the same in each process"):
        torch.jit.script(HashesText())
