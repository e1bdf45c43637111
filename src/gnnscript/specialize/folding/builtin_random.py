"""Random numbers of Python's and NumPy's: drawn by torch, so ``torch.manual_seed`` decides."""

from __future__ import annotations

import ast
import random
import sys
from typing import TYPE_CHECKING, Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import INT
from gnnscript.specialize.folding.base import Arguments, Folded
from gnnscript.specialize.folding.builtins import for_
from gnnscript.specialize.substitutes import (
    random_between,
    random_float,
    random_int,
    sample,
    sample_range,
)
from gnnscript.specialize.values import Const, Dyn, literal

if TYPE_CHECKING:
    from gnnscript.specialize.folding.statements import Frame

__all__ = ["drawn"]

_DRAWN = {
    random.random: random_float,
    random.uniform: random_between,
    random.randint: random_int,
}


@for_(*_DRAWN)
def _number(frame: Frame, function: Any, given: Arguments) -> Folded:
    return frame.call_function(_DRAWN[function], given, None)


def drawn(function: Any) -> None:
    """Refuses what else draws random numbers in Python.

    Raises:
        UnsupportedError: The function is a method of one of Python's or NumPy's generators.
    """
    holder = getattr(function, "__self__", None)
    numpy_random = getattr(sys.modules.get("numpy"), "random", None)
    generators = [random.Random]
    generators += [getattr(numpy_random, n) for n in ("RandomState", "Generator") if numpy_random]
    if isinstance(holder, tuple(generators)):
        raise UnsupportedError(
            f"'{getattr(function, '__name__', function)}' draws random numbers in Python",
            "draw them with torch: torch.rand, torch.randint, torch.randperm",
        )


@for_(random.sample)
def _sample(frame: Frame, function: Any, given: Arguments) -> Folded:
    population, node = given.args[0]
    if isinstance(population, Const) and isinstance(population.value, range):
        whole = population.value
        if whole == range(len(whole)):
            count = Const(len(whole))
            args = Arguments([(count, literal(count)), *given.args[1:]], given.kwargs)
            return frame.call_function(sample_range, args, None)
        population = Const(list(population.value))
        node = literal(population)
    is_range = isinstance(node, ast.Call) and ast.unparse(node.func) == "range"
    if is_range and isinstance(node, ast.Call) and len(node.args) == 1:
        args = Arguments([(Dyn(INT), node.args[0]), *given.args[1:]], given.kwargs)
        return frame.call_function(sample_range, args, None)
    args = Arguments([(population, node), *given.args[1:]], given.kwargs)
    return frame.call_function(sample, args, None)
