"""Iterators: what is read of them, where their elements are known."""

from __future__ import annotations

import ast
import inspect
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnnscript._errors import UnsupportedError
from gnnscript.specialize.folding.base import Binding, Folded
from gnnscript.specialize.folding.rewritten import located, yields
from gnnscript.specialize.substitutes import int_rows
from gnnscript.specialize.values import Closure, Const, literal

if TYPE_CHECKING:
    from gnnscript.specialize.folding.statements import Frame

__all__ = [
    "Endless",
    "Part",
    "by_rows",
    "first_parts",
    "refuse_changes_between",
    "refuse_second_reader",
]


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


def by_rows(frame: Frame, node: ast.For) -> ast.For:
    """``for a, b in x.tolist()``: the rows of a matrix, as what is unpacked is no number."""
    source = node.iter
    method = source.func if isinstance(source, ast.Call) else None
    if not isinstance(node.target, (ast.Tuple, ast.List)) or not isinstance(method, ast.Attribute):
        return node
    if method.attr != "tolist" or not isinstance(source, ast.Call):
        return node
    name = frame.fresh("rows")
    frame.env[name] = Binding(Const(int_rows), None)
    rows = ast.Call(ast.Name(name, ast.Load()), [method.value], [])
    return located(ast.For(node.target, located(rows, source), node.body, node.orelse), node)


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


def refuse_changes_between(frame: Frame, node: ast.For) -> None:
    """A generator sees what its reader does between two values; here all are computed first."""
    if not isinstance(node.iter, ast.Call) or not any(map(_changes_in_place, node.body)):
        return
    callee = frame.fold(node.iter.func)[0]
    function = getattr(callee, "function", getattr(callee, "value", None))
    if str(getattr(function, "__module__", "")).startswith("torch.nn.modules"):
        return  # lists of modules and parameters
    inner = isinstance(callee, Closure) and yields(callee.node)
    if inner or inspect.isgeneratorfunction(function):
        raise UnsupportedError(
            "tensors are changed in place while a generator is read, which may see the change",
            "assign new tensors (x = x + y, not x += y), or collect the values in a list first",
        )


def _changes_in_place(statement: ast.stmt) -> bool:
    """Whether a statement has the form of one that changes tensors in place."""
    for node in ast.walk(statement):
        if isinstance(node, ast.AugAssign):
            return True
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr.endswith("_") and not node.func.attr.startswith("_"):
                return True
    return False
