"""Context managers of Python's, and what runs when a block is left."""

from __future__ import annotations

import contextlib
import time

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

import gnnscript
from conformance.graphs import GRAPHS, IN

pytestmark = pytest.mark.usefixtures("auto")


class Base(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor):
        return self.propagate(edge_index, x=self.prepared(x))


class Timer:
    """Measures what is not part of any result."""

    def __init__(self, name: str, start: float = 0.0) -> None:
        self.name = name
        self.elapsed = start

    def __enter__(self):
        self.start = time.perf_counter()
        return self

    def __exit__(self, *error):
        self.elapsed += time.perf_counter() - self.start
        return False


class Timed(Base):
    def prepared(self, x):
        with Timer("doubled") as timer, torch.profiler.record_function("doubled"):
            x = x * 2
        self.last = timer.elapsed
        return x if timer.elapsed < 1e6 and timer.name == "doubled" else -x


class Dated:
    def __enter__(self):
        self.start = time.time()
        return self

    def __exit__(self, *error):
        self.took = time.time() - self.start


class TimeOfDay(Base):
    def prepared(self, x):
        start = time.time_ns()
        with Dated() as dated:
            x = x * 3
        took = time.time_ns() - start
        return x if 0 <= dated.took < 1e6 and took < 1e15 else -x


class Centred:
    """Gives the block another value than itself, and forgets it afterwards."""

    def __init__(self, x, by):
        self.x, self.by = x, by

    def __enter__(self):
        self.centred = (self.x - self.x.mean(0)) * self.by
        return self.centred

    def __exit__(self, kind, error, trace):
        self.centred = None


class LeftByReturn(Base):
    def prepared(self, x):
        with Centred(x, 2.0) as h:
            if h.sum() > 1.0:
                return h
            halved = h * 0.5
        return halved + x


class LeftInLoops(Base):
    def prepared(self, x):
        turns = 0
        while True:
            with Centred(x, 0.5) as h:
                turns += 1
                if turns > 4:
                    break
                if turns % 2 == 0:
                    continue
                x = h + x
            x = x * 1.5
        return x * turns


@contextlib.contextmanager
def standardised(x, scale: float = 2.0):
    mean = x.mean(0)
    deviation = x.std(0) + 1
    try:
        yield (x - mean) / deviation * scale
    except RuntimeError as error:
        raise ValueError("cannot be standardised") from error
    finally:
        mean = mean + deviation


class OfAGenerator(Base):
    def __init__(self):
        super().__init__()
        self.depth = 1

    @contextlib.contextmanager
    def deeper(self, by):
        before = self.depth
        self.depth = before + by
        yield self.depth * 2
        self.depth = before

    def prepared(self, x):
        with standardised(x, scale=3.0) as h:
            x = h * 2
        with self.deeper(3) as twice:
            x = x * twice + self.depth
            if x.sum() > 0:
                return x
        return x * self.depth


class Chosen(Base):
    """Contexts that an option chooses, in place and held by a variable."""

    def __init__(self, *, freeze: bool) -> None:
        super().__init__()
        self.freeze = freeze
        self.lin, self.other = nn.Linear(IN, IN), nn.Linear(IN, IN)

    def prepared(self, x):
        with torch.no_grad() if self.freeze else contextlib.nullcontext():
            h = self.lin(x)
        context = contextlib.nullcontext() if self.freeze else torch.no_grad()
        with context:
            h = h + self.other(x)
        made = torch.no_grad if self.freeze else torch.enable_grad
        with made(), contextlib.nullcontext(x * 2) as doubled:
            return h * doubled


class Stacked(Base):
    def __init__(self, *, freeze: bool) -> None:
        super().__init__()
        self.freeze = freeze
        self.lin = nn.Linear(IN, IN)

    def prepared(self, x):
        with contextlib.ExitStack() as stack:
            h = x * 2
            if self.freeze:
                stack.enter_context(torch.no_grad())
            else:
                h = h + 1
            h = stack.enter_context(standardised(h))
            timer = stack.enter_context(Timer("stacked"))
            h = self.lin(h)
        return h + x * (1.0 if timer.elapsed < 1e6 else 2.0)


@contextlib.contextmanager
def collecting(factor: float = 2.0):
    found = []
    yield found
    found = [part * factor for part in found]


class Doubled:
    def __init__(self, x):
        self.x = x

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.x = self.x * 2


class SharedObjects(Base):
    """A block shares with its context what it is given, and contexts of a class are several."""

    def prepared(self, x):
        with collecting(3.0) as found:
            found.append(x)
            found.append(x * 2)
        with Doubled(x) as first, Doubled(x * 3) as second:
            first.x = first.x + 1
            with Doubled(second.x) as third:
                for i in range(3):
                    third.x = third.x + i
                y = third.x
            second.x = third.x + y
        with first as again:
            x = x + again.x
        return x + first.x + second.x + third.x + sum(found)


class Finally(Base):
    def prepared(self, x):
        for turn in range(x.size(0)):
            try:
                if turn > 3:
                    break
                if turn == 1:
                    continue
                x = x + x.roll(1, 0)
            finally:
                x = x * 0.5
        try:
            if x.sum() > 0:
                return x
            x = x * 3
        except (RuntimeError, ValueError) as error:
            raise RuntimeError("no sum") from error
        else:
            x = x + 1
        finally:
            self.seen = True
        return x


class LeftEarly(Base):
    """Returns under conditions, from a context that is left at its end as well."""

    def chosen(self, x):
        with torch.no_grad():
            positive = (x > 0).nonzero()[:, 0]
            if positive.numel() > 45:
                return x, positive[:0]
            index = positive.unique()
            for turn in range(3):
                if index.numel() < turn:
                    return x * turn, index
        return x * 2, index

    def prepared(self, x):
        x, index = self.chosen(x)
        return x.index_add(0, index, x[index] * 0.5)


@pytest.mark.parametrize(
    "module",
    [
        LeftEarly(),
        Timed(),
        TimeOfDay(),
        LeftByReturn(),
        LeftInLoops(),
        OfAGenerator(),
        Chosen(freeze=True),
        Chosen(freeze=False),
        Stacked(freeze=True),
        Stacked(freeze=False),
        Finally(),
        SharedObjects(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_contexts(module, check) -> None:
    check(module)


class Swallowing:
    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        return kind is ValueError


class Swallows(Base):
    def prepared(self, x):
        with Swallowing():
            return x * 2


class LeavesAutocast(Base):
    def prepared(self, x):
        with torch.autocast("cpu", enabled=False):
            if x.sum() > 0:
                return x
            x = x * 2
        return x + 1


class Suppresses(Base):
    def prepared(self, x):
        with contextlib.suppress(ValueError):
            x = x * 2
        return x


@contextlib.contextmanager
def one_of_two(x):
    if x is None:
        yield 1.0
    else:
        yield x


class YieldsTwice(Base):
    def prepared(self, x):
        with one_of_two(x) as h:
            return h


class Date(Base):
    def prepared(self, x):
        now = time.time()
        return x * now


class StackedAtRunTime(Base):
    def prepared(self, x):
        with contextlib.ExitStack() as stack:
            if x.sum() > 0:
                stack.enter_context(torch.no_grad())
            return x * 2


@pytest.mark.parametrize(
    ("cls", "cause"),
    [
        (Swallows, "decides whether errors are caught"),
        (Suppresses, "catches errors"),
        (LeavesAutocast, "left from inside of a context"),
        (YieldsTwice, "yields in more than one place"),
        (Date, "the time of day is used"),
        (StackedAtRunTime, "does more than enter one"),
    ],
)
def test_what_cannot_be_written_out_is_refused(cls, cause) -> None:
    with pytest.raises(gnnscript.UnsupportedError, match=r"test_contexts\.py") as caught:
        torch.jit.script(cls())
    assert cause in caught.value.cause
    assert caught.value.remedy


def test_intervals_are_measured() -> None:
    """The clock of a scripted model runs as ``time.perf_counter`` does."""
    model = Timed()
    scripted = torch.jit.script(model)
    scripted(GRAPHS[0].x, GRAPHS[0].edge_index)
    assert 0.0 < scripted.last < 60.0
