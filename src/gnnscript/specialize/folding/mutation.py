"""Which variables of a function hold collections that its code changes in place."""

from __future__ import annotations

import ast

CHANGE_IN_PLACE = frozenset(
    {
        "append",
        "appendleft",
        "clear",
        "extend",
        "insert",
        "move_to_end",
        "pop",
        "popitem",
        "popleft",
        "remove",
        "reverse",
        "setdefault",
        "sort",
        "update",
    }
)

# Of sets alone: tensors have an ``add`` that changes nothing.
CHANGE_SETS = frozenset(
    {
        "add",
        "difference_update",
        "discard",
        "intersection_update",
        "symmetric_difference_update",
    }
)


def mutated_names(node: ast.AST) -> set[str]:
    """Lists, dictionaries and data objects that are changed in place."""
    names = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute):
            if child.func.attr in CHANGE_IN_PLACE:
                names |= _root(child.func.value)
        elif isinstance(child, ast.Call) and getattr(child.func, "id", "") == "next":
            names |= _root(child.args[0]) if child.args else set()
        elif isinstance(child, (ast.Subscript, ast.Attribute)):
            if not isinstance(child.ctx, ast.Load):
                names |= _root(child.value)
        elif isinstance(child, ast.AugAssign) and isinstance(child.target, ast.Name):
            names.add(child.target.id)
    return names


def changed_sets(node: ast.AST) -> set[str]:
    """Sets that are changed in place, as far as only sets are changed so."""
    calls = (n.func for n in ast.walk(node) if isinstance(n, ast.Call))
    names: set[str] = set()
    for func in calls:
        if isinstance(func, ast.Attribute) and func.attr in CHANGE_SETS:
            names |= _root(func.value)
    return names


def augmented_names(node: ast.AST) -> set[str]:
    """Variables that ``+=`` and the like may change in place, or give another object."""
    statements = (n for n in ast.walk(node) if isinstance(n, ast.AugAssign))
    return {n.target.id for n in statements if isinstance(n.target, ast.Name)}


def extended_names(node: ast.AST) -> set[str]:
    """Those of them that are only ever added to, as ``extend`` does with a list."""
    other = {
        n.target.id
        for n in ast.walk(node)
        if isinstance(n, ast.AugAssign)
        and isinstance(n.target, ast.Name)
        and not isinstance(n.op, ast.Add)
    }
    return augmented_names(node) - other


def _root(node: ast.expr) -> set[str]:
    """The variable behind ``name[...][...]``."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()
