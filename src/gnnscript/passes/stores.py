"""Attributes that hold a value for a while, such as attention weights that a call may ask for.

A conv writes ``self._alpha = alpha`` in its message, and its ``forward`` reads it where the weights
are asked for, and clears it. Where they are not, nothing ever reads what was written. As long as it
is, every weight has to be computed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from gnnscript.specialize.program import Owner, Program, Specialized
from gnnscript.specialize.tree import names_read, remove_dead_assignments

__all__ = ["remove_dead_stores"]

# What only a conv itself calls.
_HOOKS = frozenset({"propagate", "edge_updater", "message", "edge_update", "aggregate", "update"})


def remove_dead_stores(program: Program) -> None:
    """Leaves out what is written to an attribute that is written again before anything reads it."""
    for owner in program.owners.values():
        for name in owner.attributes:
            _Attribute(program, owner, name).remove()


@dataclass
class _Place:
    """A statement, and what is run after it in its function, as far as it is one straight line."""

    function: Specialized
    block: list[ast.stmt]
    statement: ast.stmt
    following: list[ast.stmt]
    in_loop: bool


class _Attribute:
    """One attribute of one module."""

    def __init__(self, program: Program, owner: Owner, name: str) -> None:
        self.functions = [f for f in program.functions() if f.owner is owner]
        self.others = [f for f in program.functions() if f.owner is not owner]
        self.name = name
        self.is_root = owner.ref.module is program.root.module
        # Another module's attribute may have the same name.
        self.mentions = {
            id(node)
            for function in self.functions
            for node in ast.walk(function.node)
            if isinstance(node, ast.Attribute) and node.attr == name
        }

    def remove(self) -> None:
        """Removes the stores of values per edge that nothing reads, and assertions about them."""
        if not self._is_own():
            return
        places = [place for function in self.functions for place in _places(function)]
        stores = [p for p in places if self._is_store(p.statement) and not p.in_loop]
        dead: list[_Place] = []
        asserted: list[tuple[list[ast.stmt], ast.stmt]] = []
        for place in stores:
            assert isinstance(place.statement, ast.Assign)
            if isinstance(place.statement.value, ast.Constant):
                continue
            if not self._may_be_read(place, places, asserted, set()):
                dead.append(place)
        if not dead:
            return
        for block, statement in [*((p.block, p.statement) for p in dead), *asserted]:
            if statement in block:
                block[block.index(statement)] = ast.Pass()
        for function in self.functions:
            remove_dead_assignments(function.node)

    def _is_own(self) -> bool:
        """Whether code reaches the attribute through ``self`` alone."""
        return all(
            isinstance(node.value, ast.Name) and node.value.id == "self"
            for function in (*self.functions, *self.others)
            for node in ast.walk(function.node)
            if isinstance(node, ast.Attribute) and node.attr == self.name
        )

    def _names(self, node: ast.AST) -> bool:
        """Whether code names the attribute, or calls what does."""
        seen: set[int] = set()

        def look(tree: ast.AST) -> bool:
            for child in ast.walk(tree):
                if id(child) in self.mentions:
                    return True
                called = getattr(child, "target_", None)
                if isinstance(called, Specialized) and id(called) not in seen:
                    seen.add(id(called))
                    if look(called.node):
                        return True
            return False

        return look(node)

    def _is_store(self, statement: ast.stmt) -> bool:
        return (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and id(statement.targets[0]) in self.mentions
            and not self._names(statement.value)
        )

    def _may_be_read(
        self,
        place: _Place,
        places: list[_Place],
        asserted: list[tuple[list[ast.stmt], ast.stmt]],
        seen: set[int],
    ) -> bool:
        """Whether something may read what the attribute holds behind a statement."""
        if place.in_loop or id(place.statement) in seen:
            return True
        seen.add(id(place.statement))
        for statement in place.following:
            if self._is_store(statement):
                return False
            if self._names(statement):
                found = self._assertion(statement, place.function, places)
                if found is None:
                    return True
                asserted += found
            elif isinstance(statement, ast.Return):
                break
            elif any(isinstance(n, ast.Return) for n in ast.walk(statement)):
                return True
        if self._is_called_elsewhere(place.function):
            return True
        calls = [p for p in places if _calls(p.statement, place.function)]
        if not calls:
            return True
        return any(self._may_be_read(call, places, asserted, seen) for call in calls)

    def _is_called_elsewhere(self, function: Specialized) -> bool:
        """Whether other modules call a method, or whoever has the model."""
        if self.is_root and function.name.rstrip("_0123456789") not in _HOOKS:
            return True
        return any(
            getattr(node, "target_", None) is function
            for other in self.others
            for node in ast.walk(other.node)
        )

    def _assertion(
        self, statement: ast.stmt, function: Specialized, places: list[_Place]
    ) -> list[tuple[list[ast.stmt], ast.stmt]] | None:
        """``alpha = self._alpha`` with no reader but ``assert alpha is not None``."""
        match statement:
            case ast.Assign(targets=[ast.Name(id=local)], value=ast.Attribute(attr=attr)) if (
                attr == self.name
            ):
                pass
            case _:
                return None
        own = [p for p in places if p.function is function]
        found: list[tuple[list[ast.stmt], ast.stmt]] = []
        found += [(p.block, p.statement) for p in own if p.statement is statement]
        for place in own:
            match place.statement:
                case ast.Assert(test=ast.Compare(left=ast.Name(id=name), ops=[ast.IsNot()])) if (
                    name == local
                ):
                    found.append((place.block, place.statement))
        reads = names_read(function.node).get(local, 0)
        return found if reads == len(found) - 1 else None


def _places(function: Specialized) -> Iterator[_Place]:
    """The statements of a function."""

    def walk(block: list[ast.stmt], after: list[ast.stmt], in_loop: bool) -> Iterator[_Place]:
        for number, statement in enumerate(block):
            following = [*block[number + 1 :], *after]
            yield _Place(function, block, statement, following, in_loop)
            inside = in_loop or not isinstance(statement, ast.If)
            for name in ("body", "orelse"):
                inner = getattr(statement, name, None)
                if isinstance(inner, list):
                    yield from walk(inner, following, inside)

    yield from walk(function.node.body, [], False)


def _calls(statement: ast.stmt, function: Specialized) -> bool:
    """Whether a statement, without those within it, calls a function."""
    for name, value in ast.iter_fields(statement):
        if name in ("body", "orelse"):
            continue
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.AST):
                for child in ast.walk(part):
                    if getattr(child, "target_", None) is function:
                        return True
    return False
