"""Lists and dictionaries that helper functions and methods change for their caller."""

from __future__ import annotations

from typing import Dict, List

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

import gnnscript

pytestmark = pytest.mark.usefixtures("auto")


class Base(MessagePassing):
    def run(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)


def doubled(parts: Dict[str, Tensor], key: str = "x") -> None:
    parts[key] = parts[key] * 2


class Dictionary(Base):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        parts = {"x": x}
        alias = parts
        doubled(parts)
        self.add(parts, "y", parts["x"] + 1)
        doubled(parts, key="y")
        assert len(alias) == 2
        return self.run(alias["x"], edge_index) - alias.pop("y")

    def add(self, parts, name, value):
        if name not in parts:
            parts[name] = value
        return len(parts)


class Lists(Base):
    """Results beside the change, several types in one list, early returns, rebound names."""

    def __init__(self) -> None:
        super().__init__()
        self.lins = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor, edge_index: Tensor):
        outs: List[Tensor] = []
        mixed = []
        for number, lin in enumerate(self.lins):
            x = self.step(lin, x, outs)
            self.note(mixed, number, x)
        outs = [self.run(out, edge_index) for out in outs]
        self.rebound(outs, x)
        nested = {"all": outs}
        last = self.drop(nested["all"])
        count, (place, kept) = mixed
        return torch.cat(nested["all"], 1), last, count, kept * place, len(outs)

    def step(self, lin, x, outs):
        outs.append(x)
        if len(outs) > 1:
            outs[0] = outs[0] + x
            return lin(x).relu()
        return lin(x)

    def note(self, mixed, number: int, x):
        if number == 0:
            mixed.extend([1, (2, x)])

    def rebound(self, outs, x):
        outs.insert(0, x)
        outs = [x, x]
        outs.append(x)

    def drop(self, outs):
        outs.reverse()
        return outs.pop()


class InnerFunctions(Base):
    """Functions defined inside change what they are given, and what they capture."""

    def forward(self, x: Tensor, edge_index: Tensor):
        outs = [x]
        named = {}

        def add(parts, value):
            parts.append(value)
            return len(parts)

        def note(name, value):
            named[name] = value

        count = add(outs, outs[-1] + 1)
        note("first", outs[0])
        note("second", named["first"] * count)
        return self.run(torch.stack(outs).sum(0), edge_index) + named["second"], len(named)


class Copies(Base):
    """What is changed is nobody else's: a copy, a display, the elements of a tuple."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        parts = [x, x + 1]
        grown = self.grown(list(parts)) + self.grown([x]) + self.spread(*parts)
        return self.run(x * len(parts), edge_index) * grown

    def grown(self, parts):
        parts.append(parts[0])
        return len(parts)

    def spread(self, *parts):
        found = list(parts)
        return self.grown(found) + len(found)


class PassedOn(Base):
    """The function that changes it is not the one that its owner calls."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        outs = [x]
        self.middle(outs, x)
        return self.run(torch.stack(outs).sum(0), edge_index)

    def middle(self, outs, x):
        self.last(outs, x)

    def last(self, outs, x):
        outs.append(x)


class Augmented(Base):
    """``+=`` changes the caller's list, unless the name holds another one by then."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        outs = [x]
        same = outs
        found = self.more(outs, x)
        self.more(outs, x * 2)
        other = self.fewer(outs, x)
        assert len(same) == len(found) == 7
        return self.run(torch.stack(outs).sum(0) * len(other) + same[-1], edge_index)

    def more(self, outs, x):
        outs += [x]
        outs += (x * 2, x * 3)
        return outs

    def fewer(self, outs, x):
        outs = [*outs, x]
        outs += [x]
        return outs


def made(x):
    return [x, x * 2], {"x": x, "parts": [x]}


def same(value, x):
    return value if x is not None else None


class Identities(Base):
    """Each call makes objects of its own, and what a function is given it returns as it is."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        first, named = made(x)
        second, other = made(x * 3)
        first.append(x * 10)
        other["x"] = x * 7
        other["parts"].append(x * 5)
        for held, again in ((first, same(first, x)), (second, same(second, x))):
            again.append(held[0])
        total = sum(first) + sum(second) * len(second) + named["x"] + other["x"]
        parts = sum(named["parts"]) + sum(other["parts"])
        return self.run(total + parts, edge_index)


@pytest.mark.parametrize("cls", [Dictionary, Lists, InnerFunctions, Copies, Augmented, Identities])
def test_as_in_eager(cls, check) -> None:
    check(cls())


class Named(Base):
    """Variables named as parts of an argument are, and another argument with such a name."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out = self.entries({"a": x, "b": edge_index}, edge_index)
        return out + self.items([x, None, self.lin], 3 * x, edge_index)

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 8)

    def entries(self, parts, edge_index):
        parts_a = parts["a"].relu()
        if edge_index.size(1) > 15:
            parts_a = self.run(parts_a, edge_index)
        parts["a"] = parts["a"] + 1
        return parts_a * 2 + parts["a"]

    def items(self, parts, parts_1, edge_index):
        parts_0 = parts[0].relu()
        parts_0 = self.run(parts_0, edge_index)
        return parts[2](parts_0) + parts[0] + parts_1


def test_parts_have_names_of_their_own(check) -> None:
    check(Named())


class AtRunTime(Base):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        outs = [x]
        self.maybe(outs, x)
        return self.run(torch.stack(outs).sum(0), edge_index)

    def maybe(self, outs, x):
        if x.sum() > 0:
            outs.append(x)


class OfTheModel(Base):
    def __init__(self) -> None:
        super().__init__()
        self.seen = ["start"]

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.note(self.seen)
        return self.run(x, edge_index)

    def note(self, seen):
        seen.append("again")


@pytest.mark.parametrize("cls", [AtRunTime, OfTheModel])
def test_refused_where_elements_are_not_known(cls) -> None:
    with pytest.raises(gnnscript.UnsupportedError, match=r"test_lent_collections\.py") as caught:
        torch.jit.script(cls())
    assert caught.value.remedy


class Sets(Base):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        first = {name[0] for name in ("ab", "ac", "b")}
        rest = {i % 2 for i in range(5)} | {1, 3}
        assert "a" in first
        assert len(first) == 2
        return self.run(x, edge_index) * len(rest)


def test_sets_of_constants(check) -> None:
    check(Sets())


class Between(Base):
    """Chained comparisons of tensors are tensors: the first that does not hold, or the last."""

    def forward(self, x: Tensor, edge_index: Tensor):
        out = self.run(x, edge_index)
        if -100.0 < out.sum() < 100.0:
            out = out + 1
        return out, 0.0 < out.mean() < 1e-3, -1e4 < out.mean() <= out.max() < 1e4


def test_chained_comparisons(check) -> None:
    check(Between(), gradients=False)
