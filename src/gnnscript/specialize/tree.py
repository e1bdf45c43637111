"""Small operations on syntax trees of specialised code."""

from __future__ import annotations

import ast
from typing import Any

__all__ = [
    "base_of",
    "clone",
    "free_name",
    "is_inlinable",
    "is_simple",
    "names_read",
    "remove_dead_assignments",
]


def free_name(wish: str, taken: set[str]) -> str:
    """``wish``, with a number if it is taken; taken from then on."""
    name, number = wish, 0
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    taken.add(name)
    return name


def clone(node: Any, replace: dict[str, ast.expr] | None = None) -> Any:
    """Copies a tree; ``target`` references are shared, names in ``replace`` are substituted."""
    if isinstance(node, list):
        return [clone(item, replace) for item in node]
    if not isinstance(node, ast.AST):
        return node
    if isinstance(node, ast.Name) and replace and node.id in replace and not _target(node):
        return clone(replace[node.id])
    copied = type(node)(**{name: clone(value, replace) for name, value in ast.iter_fields(node)})
    for extra in ("target_", "origin", "rows_", "effects_", "raises_"):
        if hasattr(node, extra):
            setattr(copied, extra, getattr(node, extra))
    return ast.copy_location(copied, node) if hasattr(node, "lineno") else copied


def _target(node: ast.AST) -> Any:
    return getattr(node, "target_", None)


def base_of(node: ast.expr) -> ast.expr:
    """The expression that attributes and elements are taken of: ``a`` of ``a.b[0].c``."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node


def is_simple(node: ast.expr) -> bool:
    """Whether an expression may be repeated: a name, a literal, an attribute of those."""
    if isinstance(node, ast.Attribute):
        return is_simple(node.value)
    if isinstance(node, ast.UnaryOp):
        return is_simple(node.operand)
    if isinstance(node, ast.Subscript):
        return is_simple(node.value) and isinstance(node.slice, (ast.Constant, ast.UnaryOp))
    return isinstance(node, (ast.Name, ast.Constant))


def is_inlinable(node: ast.FunctionDef) -> ast.expr | None:
    """The returned expression of a function that has no other statement."""
    if len(node.body) == 1 and isinstance(node.body[0], ast.Return):
        return node.body[0].value
    return None


def names_read(node: ast.AST) -> dict[str, int]:
    """How often each local name is read."""
    counts: dict[str, int] = {}
    for child in ast.walk(node):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Load) and not _target(child):
            counts[child.id] = counts.get(child.id, 0) + 1
        elif isinstance(child, ast.AugAssign) and isinstance(child.target, ast.Name):
            counts[child.target.id] = counts.get(child.target.id, 0) + 1
    return counts


def _is_pure(node: ast.expr | None) -> bool:
    """Whether an expression can go when nobody reads its result."""
    if node is None or isinstance(node, (ast.Name, ast.Constant)):
        return True
    if isinstance(node, (ast.Attribute, ast.UnaryOp)):
        return _is_pure(node.value if isinstance(node, ast.Attribute) else node.operand)
    if isinstance(node, (ast.Tuple, ast.List)):
        return all(_is_pure(item) for item in node.elts)
    if isinstance(node, ast.Subscript):
        return _is_pure(node.value) and isinstance(node.slice, (ast.Constant, ast.UnaryOp))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        # sizes, and literals such as torch.device('cpu')
        return node.func.attr in ("size", "dim", "numel", "device", "new_zeros") and all(
            _is_pure(part) for part in [node.func.value, *node.args]
        )
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float"
    )


def remove_dead_assignments(function: ast.FunctionDef) -> ast.FunctionDef:
    """Drops assignments of plain values to names that are never read, and empty branches."""
    while True:
        read = names_read(function)
        before = sum(1 for _ in ast.walk(function))
        function.body = _live(function.body, read) or [ast.Pass()]
        if sum(1 for _ in ast.walk(function)) == before:
            return function


def _live(body: list[ast.stmt], read: dict[str, int]) -> list[ast.stmt]:
    kept: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, ast.Pass):
            continue
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and _is_dead(statement, read):
            continue
        if isinstance(statement, (ast.If, ast.For, ast.While, ast.With)):
            statement.body = _live(statement.body, read) or [ast.Pass()]
            if isinstance(statement, (ast.If, ast.For, ast.While)):
                statement.orelse = _live(statement.orelse, read)
            if isinstance(statement, ast.If) and _only_pass(statement.body):
                if not statement.orelse:
                    if _is_pure_test(statement.test):
                        continue
                else:
                    statement.test = _negate(statement.test)
                    statement.body, statement.orelse = statement.orelse, []
        kept.append(statement)
    return kept


def _only_pass(body: list[ast.stmt]) -> bool:
    return all(isinstance(s, ast.Pass) for s in body)


def _is_pure_test(test: ast.expr) -> bool:
    if isinstance(test, ast.Compare):
        return all(_is_pure(part) for part in [test.left, *test.comparators])
    if isinstance(test, ast.BoolOp):
        return all(_is_pure_test(part) for part in test.values)
    if isinstance(test, ast.UnaryOp):
        return _is_pure_test(test.operand)
    return _is_pure(test)


def _negate(test: ast.expr) -> ast.expr:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return test.operand
    opposite: dict[type[ast.cmpop], type[ast.cmpop]] = {
        ast.Is: ast.IsNot,
        ast.IsNot: ast.Is,
    }
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and type(test.ops[0]) in opposite:
        return ast.Compare(test.left, [opposite[type(test.ops[0])]()], test.comparators)
    return ast.UnaryOp(ast.Not(), test)


def _is_dead(statement: ast.Assign | ast.AnnAssign, read: dict[str, int]) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    names: list[str] = []
    for target in targets:
        for part in target.elts if isinstance(target, ast.Tuple) else [target]:
            if not isinstance(part, ast.Name):
                return False
            names.append(part.id)
    return not any(name in read for name in names) and _is_pure(statement.value)
