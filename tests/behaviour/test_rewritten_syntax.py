"""Syntax that TorchScript lacks: comprehensions with conditions, ``else`` behind loops, ``:=``."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, MessagePassing

import gnnscript
from behaviour.conftest import Check
from conformance.graphs import IN


class Base(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=self.prepared(x))

    def prepared(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class ConditionsInComprehensions(Base):
    def prepared(self, x):
        p = x.mean()  # a comprehension's variable of this name is another
        parts = x.chunk(4, -1)
        positive = [p * 2 for p in parts if p.sum() > 0]
        pairs = [a + b for i, a in enumerate(parts) for b in parts[i:] if a.mean() < b.mean()]
        none = [q for q in parts if q.size(0) > 1000]
        sizes = [q.size(0) for q in pairs if q.size(1) < 9]
        total = sum(q.sum() for q in positive) + sum(none) + sum(sizes, 2)
        return x * p + total + len(pairs)


class UnpacksRows(Base):
    def forward(self, x, edge_index):
        total = x.new_zeros(x.size(1))
        for source, target in edge_index.t()[:3]:
            total = total + x[source] - x[target]
        differences = [x[source] - x[target] for source, target in edge_index.t()[:4]]
        return self.propagate(edge_index, x=x) + total + torch.stack(differences).sum(0)


class ElseBehindLoops(Base):
    def prepared(self, x):
        for _ in range(3):
            x = x / 2
            if x.norm() < 1:
                break
        else:
            x = x + 1
        turns = 0
        while turns < 3:
            turns += 1
            if x.abs().max() > 1e6:
                break
        else:
            x = x * turns
        for k in (1, 2):
            if k == 2:
                break
        else:
            x = x * 100
        for _ in range(2):
            for _ in range(2):
                break  # leaves the inner loop alone
            x = x + 1
        else:  # noqa: PLW0120
            x = x / 3
        return x - 0.5


class AssignsInConditions(Base):
    def prepared(self, x):
        turns = 0
        while (largest := x.abs().max()) > 0.3 and turns < 5:
            x = x / 2
            turns += 1
        while (step := 2 * turns) < 7:
            turns += 1
            if turns == 3:
                continue
            x = x + step
        if x is not None and (mean := x.mean()) > 0:
            x = x - mean
        return x * largest + turns


class Guards(Base):
    kind = ("power", 3)

    def prepared(self, x):
        match (self.kind, x.size(0)):
            case (("linear", k), _):
                x = x * k
            case (("power", k), n) if n > 8:
                x = x.abs().sqrt() + k * n
            case (("power", k), n) if k > 2:
                x = x - n
        return x


class Patterns(Base):
    """Dictionaries with a rest, sequences with a star, and classes by position."""

    options = ({"kind": "affine", "args": [2.0, 1.0], "more": 3}, ["power", 2, 3], 0.5)

    def prepared(self, x):
        for option in self.options:
            match option:
                case {"kind": "affine", "args": [factor, shift], **rest}:
                    x = x * factor + shift + len(rest)
                case {"kind": other}:
                    x = x * len(other)
                case [str(name), *exponents, last] if name == "power":
                    x = x.abs() ** sum(exponents) - last
                case float(scale):
                    x = x * scale
        return x


class FinallyAndElse(Base):
    def prepared(self, x):
        try:
            h = x * 2
        except RuntimeError as error:
            raise ValueError(f"cannot double {x.shape}") from error
        else:
            h = h + 1
        finally:
            x = x - 1
        return h * x


class NamedContexts(Base):
    def prepared(self, x):
        with torch.autograd.profiler.record_function("prepared") as _record:
            x = x * 2
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            deviation = x.std()
        return x / deviation


class ListsOfRunTime(Base):
    """Lists that a loop fills keep their type; ``*`` adds lists whose length the run knows."""

    def prepared(self, x):
        chosen = []
        for part in x.chunk(4, -1):
            doubled = part * 2
            if doubled.sum() > -1e6:
                chosen.append(doubled)
        first, *middle, last = x.unbind(-1)
        columns = [last, *middle, first]
        return torch.cat(chosen, -1) * sum(part.mean() for part in chosen) + torch.stack(
            columns, -1
        )


class InnerFunctions(Base):
    def prepared(self, x):
        def halved(h, turns):
            if turns == 0:
                return h
            h = h / 2
            return halved(h, turns - 1) + turns

        def composed(*functions, **options):
            def run(z):
                return functools.reduce(lambda done, f: f(done), functions, z) * options["scale"]

            return run

        return composed(torch.relu, torch.Tensor.tanh, lambda h: halved(h, 2), scale=2.0)(x)


class LeftAtRunTime(nn.Module):
    """``break`` and ``continue`` under tests of run time, in loops over modules and constants."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([GCNConv(IN, IN) for _ in range(4)])
        self.weights = nn.ParameterList([nn.Parameter(torch.ones(())) for _ in range(4)])

    def forward(self, x, edge_index):
        turns = 0
        for i, (conv, weight) in enumerate(zip(self.convs, self.weights, strict=True)):
            if i % 2 == 1 and x.mean() > 0:
                continue
            x = conv(x, edge_index) * weight
            if i > 0:
                if x.abs().max() < 0.2:
                    break
                x = x / 2
            turns += 1
        pairs = x.new_zeros(())
        for i, (source, target) in enumerate(edge_index.t()):
            pairs = pairs + i * x[source].sum() - x[target].sum()
        return x, turns, pairs


class CalledByChoice(nn.Module):
    """A module or function that the run chooses, by a ternary or by branches."""

    def __init__(self):
        super().__init__()
        self.trained, self.used = GCNConv(IN, 4), GCNConv(IN, 4)

    def forward(self, x, edge_index):
        conv = self.trained if self.training else self.used
        if x.size(0) > 9:
            act, scale = torch.relu, 2.0
        else:
            act, scale = torch.tanh, 0.5
        shift = (lambda h: h + 1) if x.mean() > 0 else (lambda h: h - 1)
        return (act if self.training else shift)(conv(x, edge_index)) + scale * act(x[:, :4])


class Chosen(Base):
    """``filter`` over what is known."""

    def prepared(self, x):
        for factor in filter(lambda k: k > 1, [1, 2, 3]):
            x = x * factor
        return x + len(list(filter(None, [0, 1, None, 2]))) * x.shape.numel()


CLASSES = [
    AssignsInConditions,
    CalledByChoice,
    Chosen,
    ConditionsInComprehensions,
    ElseBehindLoops,
    FinallyAndElse,
    Guards,
    InnerFunctions,
    LeftAtRunTime,
    Patterns,
    ListsOfRunTime,
    NamedContexts,
    UnpacksRows,
]


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize("cls", CLASSES)
def test_runs_as_in_eager(cls: type[nn.Module], check: Check) -> None:
    check(cls())


class WithBoth(Base):
    def forward(self, x: Tensor, edge_index: Tensor, both: bool = False):
        out = self.propagate(edge_index, x=x)
        return (out, x) if both else out


@pytest.mark.usefixtures("auto")
def test_an_option_decides_what_is_returned_by_a_ternary(check: Check) -> None:
    check(WithBoth())


class StartsElsewhere(Base):
    def prepared(self, x):
        for number, factor in enumerate((1.0, 2.0), x.size(0)):
            x = x * factor + number
        return x


@pytest.mark.usefixtures("auto")
def test_counting_from_a_number_of_run_time_is_refused() -> None:
    with pytest.raises(gnnscript.UnsupportedError, match="'enumerate' starts at a number"):
        torch.jit.script(StartsElsewhere())


class Floats(Base):
    def prepared(self, x):
        return x * x[0].tolist()[0]


@pytest.mark.usefixtures("auto")
def test_floats_are_no_list_of_integers() -> None:
    scripted = torch.jit.script(Floats())
    with pytest.raises(Exception, match="of floats"):
        scripted(torch.rand(3, IN), torch.tensor([[0], [1]]))
