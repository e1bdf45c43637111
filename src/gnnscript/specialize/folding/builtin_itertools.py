"""Functions of ``itertools`` and ``operator`` over what is known by its elements."""

from __future__ import annotations

import ast
import itertools
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnnscript._errors import UnsupportedError
from gnnscript.specialize.folding.base import Arguments, Folded
from gnnscript.specialize.folding.builtin_sequences import listed, parts_of
from gnnscript.specialize.folding.builtins import for_
from gnnscript.specialize.folding.iterators import Endless, Part, refuse_second_reader
from gnnscript.specialize.values import Const

if TYPE_CHECKING:
    from gnnscript.specialize.folding.statements import Frame

__all__ = ["Getter"]


@for_(
    itertools.chain,
    itertools.chain.from_iterable,
    itertools.combinations,
    itertools.combinations_with_replacement,
    itertools.permutations,
    itertools.product,
    itertools.islice,
    itertools.zip_longest,
    itertools.pairwise,
)
def _arranged(frame: Frame, function: Any, given: Arguments) -> Folded:
    """What arranges the elements of sequences, whatever they are."""
    nested = function == itertools.chain.from_iterable  # each read makes the method anew
    args = [_opaque(frame, function, folded, nested=nested) for folded in given.args]
    kwargs: dict[str, Any] = {}
    for name, folded in given.kwargs.items():
        is_element = name == "fillvalue"
        kwargs[name] = Part(folded) if is_element else _opaque(frame, function, folded)
    if function is itertools.zip_longest:
        kwargs.setdefault("fillvalue", Part((Const(None), None)))
    if isinstance(args[0] if args else None, Endless):
        args[0] = args[0].take(args[-1] if len(args) == 2 else args[2])
    name = getattr(function, "__name__", "itertools")
    rows = frame.compute(ast.Constant(name), lambda: list(function(*args, **kwargs)))
    folded_rows = [
        listed(frame, [part.folded for part in row], "tuple")
        if isinstance(row, tuple)
        else row.folded
        for row in rows
    ]
    return listed(frame, folded_rows)


def _opaque(frame: Frame, function: Any, folded: Folded, *, nested: bool = False) -> Any:
    """A sequence as a list of its elements; a number as it is."""
    value, _ = folded
    if isinstance(value, Const) and (
        isinstance(value.value, (int, Endless)) or value.value is None
    ):
        return value.value
    parts = parts_of(frame, folded)
    if parts is None:
        raise UnsupportedError(
            f"'itertools.{getattr(function, '__name__', function)}' is given what is known only at "
            "run time",
            "write a loop, or give it sequences of fixed length and constants",
        )
    if nested:
        return [_opaque(frame, function, part) for part in parts]
    return [Part((value, frame.hold("item", node))) for value, node in parts]


@for_(itertools.cycle, itertools.count, itertools.repeat)
def _endless(frame: Frame, function: Any, given: Arguments) -> Folded:
    refuse_second_reader(frame)
    if function is itertools.repeat:
        times = given.args[1:2] or [f for name, f in given.kwargs.items() if name == "times"]
        part = Part(given.args[0])
        if not times:
            return Const(Endless(function, (part,))), None
        return listed(frame, [part.folded] * _number(times[0]))
    if function is itertools.cycle:
        return Const(Endless(function, (_opaque(frame, function, given.args[0]),))), None
    bound = [*given.args, *given.kwargs.values()]
    if given.kwargs and len(bound) == 1 and "step" in given.kwargs:
        bound = [(Const(0), None), *bound]
    if all(isinstance(value, Const) for value, _ in bound):
        numbers = tuple(value.value for value, _ in bound if isinstance(value, Const))
        return Const(Endless(function, numbers)), None
    raise UnsupportedError(
        "'itertools.count' starts at a number known only at run time",
        "count from a constant, and add the number",
    )


def _number(folded: Folded) -> int:
    value, _ = folded
    if isinstance(value, Const) and isinstance(value.value, int):
        return value.value
    raise UnsupportedError("'repeat' a number of times known only at run time", "use a constant")


# Functions that read ####################################################################


@dataclass(frozen=True, eq=False)
class Getter:
    """``operator.itemgetter(0, 1)`` and the like, with what they are given."""

    kind: Any
    given: Arguments

    def __call__(self, value: Any) -> Any:
        """Reads from a Python object."""
        args = [_constant(arg) for arg, _ in self.given.args]
        kwargs = {name: _constant(arg) for name, (arg, _) in self.given.kwargs.items()}
        return self.kind(*args, **kwargs)(value)

    def call(self, frame: Frame, folded: Folded) -> Folded:
        """Reads from a value."""
        if self.kind is operator.methodcaller:
            (name, _), *args = self.given.args
            callee = frame.attribute(*folded, str(_constant(name)))
            return frame.call(callee[0], Arguments(args, self.given.kwargs), callee[1])
        found = [self._read(frame, folded, key) for key in self.given.args]
        return found[0] if len(found) == 1 else listed(frame, found, "tuple")

    def _read(self, frame: Frame, folded: Folded, key: Folded) -> Folded:
        if self.kind is operator.itemgetter:
            return frame.subscript(*folded, key[0], frame.spelled(*key))
        for name in str(_constant(key[0])).split("."):
            folded = frame.attribute(*folded, name)
        return folded


def _constant(value: Any) -> Any:
    if not isinstance(value, Const):
        raise UnsupportedError("a name is known only at run time", "use a constant")
    return value.value


@for_(operator.itemgetter, operator.attrgetter, operator.methodcaller)
def _getter(frame: Frame, function: Any, given: Arguments) -> Folded:
    return Const(Getter(function, given)), None


@for_(operator.getitem)
def _getitem(frame: Frame, function: Any, given: Arguments) -> Folded:
    holder, key = given.args
    return frame.subscript(*holder, key[0], frame.spelled(*key))


@for_(itertools.accumulate)
def _accumulate(frame: Frame, function: Any, given: Arguments) -> Folded:
    parts = parts_of(frame, given.args[0])
    if parts is None:
        raise UnsupportedError("'accumulate' over an unknown sequence", "write a loop")
    callee = (given.args[1:2] or [given.kwargs.get("func", (Const(operator.add), None))])[0]
    if isinstance(callee[0], Const) and callee[0].value is None:
        callee = (Const(operator.add), None)
    start = given.kwargs.get("initial")
    if start is not None and not (isinstance(start[0], Const) and start[0].value is None):
        parts = [start, *parts]
    found = parts[:1]
    for part in parts[1:]:
        value, node = frame.call(callee[0], Arguments([found[-1], part], {}), callee[1])
        found.append((value, frame.hold("total", node)))
    return listed(frame, found)


@for_(itertools.starmap)
def _starmap(frame: Frame, function: Any, given: Arguments) -> Folded:
    (callee, callee_node), sequence = given.args
    outer = parts_of(frame, sequence)
    rows = [parts_of(frame, row) for row in outer or []]
    known = [row for row in rows if row is not None]
    if outer is None or len(known) != len(rows):
        raise UnsupportedError("'starmap' over an unknown sequence", "write a loop")
    return listed(frame, [frame.call(callee, Arguments(row, {}), callee_node) for row in known])
