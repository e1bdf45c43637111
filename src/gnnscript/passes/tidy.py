"""Writes values that are read once where they are read."""

from __future__ import annotations

import ast

from gnnscript.specialize.tree import names_read

__all__ = ["tidied"]

_WIDTH = 88


def tidied(body: list[ast.stmt]) -> list[ast.stmt]:
    """A block without names that the user did not give and that are read in the next line only."""
    reads = names_read(ast.Module(body, []))
    return _tidied(body, reads)


def _tidied(body: list[ast.stmt], reads: dict[str, int]) -> list[ast.stmt]:
    done: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, ast.If):
            statement.body = _tidied(statement.body, reads)
            statement.orelse = _tidied(statement.orelse, reads)
        while done and _absorb(done[-1], statement, reads):
            done.pop()
        done.append(statement)
    return done


def _absorb(first: ast.stmt, second: ast.stmt, reads: dict[str, int]) -> bool:
    """Puts a value into the statement behind it."""
    if not isinstance(first, ast.Assign) or not isinstance(first.targets[0], ast.Name):
        return False
    name = first.targets[0].id
    passed_on = isinstance(second, ast.Return) and isinstance(second.value, ast.Name)
    if reads.get(name) != 1 or not (passed_on or name.split("_")[0] in ("value", "out")):
        return False
    if not isinstance(second, (ast.Assign, ast.Return)) or second.value is None:
        return False
    holder = _Replace(name, first.value)
    if names_read(second.value).get(name) != 1:
        return False
    ast.fix_missing_locations(second)
    if len(ast.unparse(first.value)) + len(ast.unparse(second)) > _WIDTH and not passed_on:
        return False
    second.value = holder.visit(second.value)
    return True


class _Replace(ast.NodeTransformer):
    def __init__(self, name: str, value: ast.expr) -> None:
        self.name, self.value = name, value

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """The value in place of its name."""
        found = node.id == self.name and not hasattr(node, "target_")
        return self.value if found else node
