"""Iterators: what is read of them, where their elements are known."""

from __future__ import annotations

import ast
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnnscript._errors import UnsupportedError
from gnnscript.specialize.folding.base import Folded
from gnnscript.specialize.values import Const, literal

if TYPE_CHECKING:
    from gnnscript.specialize.folding.statements import Frame

__all__ = ["Endless", "Part", "first_parts", "refuse_second_reader"]


@dataclass(frozen=True, eq=False)
class Part:
    """An element on its way through a function of itertools, which does not look into it."""

    folded: Folded


@dataclass(frozen=True, eq=False)
class Endless:
    """``itertools.cycle`` and the like, of which as many elements are taken as others have."""

    function: Any
    args: tuple[Any, ...]

    def take(self, count: Any) -> list[Part]:
        """The first elements."""
        if not isinstance(count, int):
            raise UnsupportedError(
                f"an 'itertools.{self.function.__name__}' is read to its end, which it has not",
                "say how many elements to read",
            )
        found = itertools.islice(self.function(*self.args), count)
        return [
            part if isinstance(part, Part) else Part((Const(part), literal(Const(part))))
            for part in found
        ]


def first_parts(folded: Folded, count: int) -> list[Folded] | None:
    """The first elements of an endless iterator; ``None`` for what is none."""
    value, _ = folded
    if not isinstance(value, Const) or not isinstance(value.value, Endless):
        return None
    return [part.folded for part in value.value.take(count)]


def refuse_second_reader(frame: Frame) -> None:
    """An iterator that a variable holds is known by its elements, which one reader gets.

    Only ``next`` may take some before; each call of it is followed.

    Raises:
        UnsupportedError: It is read twice otherwise: the second reader gets what the first left.
    """
    statement = frame.current
    if not isinstance(statement, ast.Assign):
        return
    targets = [node for target in statement.targets for node in ast.walk(target)]
    names = {node.id for node in targets if isinstance(node, ast.Name)}
    tree = list(ast.walk(frame.source.node))
    nexts = [
        node.args[0]
        for node in tree
        if isinstance(node, ast.Call) and node.args and getattr(node.func, "id", "") == "next"
    ]
    readers = [
        node
        for node in tree
        if isinstance(node, ast.Name)
        and isinstance(node.ctx, ast.Load)
        and node.id in names
        and node not in nexts
    ]
    loops = [node for node in tree if isinstance(node, (ast.For, ast.While))]
    repeated = any(
        reader in ast.walk(part) and statement not in ast.walk(part)
        for loop in loops
        for part in loop.body
        for reader in readers
    )
    if len(readers) > 1 or repeated:
        raise UnsupportedError(
            "an iterator is read in more than one place, or again in each turn of a loop",
            "loop over the sequence itself, or over a slice of it; make an iterator for each loop",
        )
