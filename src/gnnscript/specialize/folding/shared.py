"""Lists and dictionaries that a function changes for its caller: it hands them back.

Python shares the object between both. Here the function gets the elements, and returns them with
its result, as they are at its end; the caller puts them wherever it holds the object.
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from typing import Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.sources import FunctionSource, collecting_names
from gnnscript.specialize.folding.base import Folded, Folding, Tracked
from gnnscript.specialize.folding.collections import contains, is_collection
from gnnscript.specialize.folding.mutation import augmented_names, extended_names
from gnnscript.specialize.program import is_runtime
from gnnscript.specialize.values import (
    Const,
    Limited,
    Mapping,
    Seq,
    Value,
    entry_names,
    literal,
    static_type,
)


class Shared(Folding):
    """The part of a frame that passes collections to be changed."""

    def lent(
        self,
        source: FunctionSource,
        bound: dict[str, Value],
        nodes: dict[str, ast.expr | None],
    ) -> tuple[str, ...]:
        """The arguments of a call whose elements the function changes.

        Raises:
            Tracked: They are held in a form that cannot change.
            UnsupportedError: They are not the caller's own.
        """
        own = collecting_names(source.function)
        names = []
        for name in sorted(self.program.changes(source)):
            value = bound.get(name)
            if name in own or not _is_changeable(value):
                continue
            assert value is not None
            holders = {
                n for n, b in self.env.items() if b.value is value or contains(b.value, value)
            }
            constant = isinstance(value, Const) and not holders
            if (
                constant
                or isinstance(value, Limited)
                or name in augmented_names(source.node) - extended_names(source.node)
            ):
                raise UnsupportedError(
                    f"'{source.function.__qualname__}' changes its argument '{name}' in place",
                    "return the new value instead",
                    source.location(),
                )
            if any(value is held for held in self.frozen[0]):
                # It belongs to the caller of this function, which is to lend it in turn.
                self.program.record_change(self.source, holders)
            if holders - self.mutated:
                raise Tracked(self, holders - self.mutated, "a collection is changed", "copy it")
            names.append(name)
            node = nodes.get(name)
            if isinstance(value, Seq) and node is not None:
                parts = self.element_nodes(node, len(value.items)).elts
                nodes |= dict(zip(entry_names(name, range(len(parts))), parts, strict=True))
        return tuple(names)

    def borrow(self) -> None:
        """Remembers what the caller lends, whatever its names are given in the function."""
        for name in self.borrowed:
            self.env[_held(name)] = self.env[name]

    def hand_back(self, value: Value, node: ast.expr | None) -> Folded:
        """What a function returns with what it was lent."""
        items, nodes = [value], [node if node is not None else literal(value)]
        for name in self.borrowed:
            binding = self.env[_held(name)]
            if value is binding.value:
                items[0], nodes[0] = Const(_same(name)), ast.Constant(None)
            lent, read = binding.value, binding.read
            if isinstance(lent, Seq):
                parts = [literal(item) for item in lent.items]
                if read is not None:
                    parts = list(self.element_nodes(read, len(lent.items)).elts)
                lent, read = self.sequence("tuple", list(lent.items), parts, keep=True)
            items.append(lent)
            nodes.append(read)
        return self.sequence("tuple", items, nodes, keep=True)

    def take_back(self, folded: Folded, lent: dict[str, Value]) -> Folded:
        """Puts what a call hands back where it was; the result of the call remains."""
        value, node = folded
        assert isinstance(value, Seq)
        held = self.hold("changed", node if node is not None else self.needed(value, node))
        assert held is not None
        nodes = self.element_nodes(held, len(value.items)).elts
        same: dict[Any, Folded] = {}
        for (name, old), item, part in zip(lent.items(), value.items[1:], nodes[1:], strict=True):
            new: Folded = (item, part)
            if isinstance(old, Seq):
                assert isinstance(item, Seq)
                parts = list(self.element_nodes(part, len(item.items)).elts)
                new = self.sequence("list", list(item.items), list(parts), keep=True)
            assert new[1] is not None
            self.replace_held(old, new[0], new[1])
            same[_same(name)] = new
        result = value.items[0]
        if isinstance(result, Const) and isinstance(result.value, _Same):
            return same[result.value]
        return result, nodes[0] if is_runtime(result) else literal(result)


@dataclass(frozen=True)
class _Same:
    """Stands for a result that is the object which an argument of this name has lent."""

    name: str


_same = functools.cache(_Same)


def _held(name: str) -> str:
    """The variable, with a name that no code can have, which stays what a caller lends."""
    return f"{name} lent"


def _is_changeable(value: Value | None) -> bool:
    if not isinstance(value, (Seq, Mapping, Const)):
        return False
    return is_collection(value) or static_type(value).name in ("List", "Dict", "Unknown")
