"""Branches that stay apart: what follows a test is written in both, where types differ."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from gnnscript._errors import UnsupportedError
from gnnscript.specialize.folding.base import Parted, SeveralResults, SeveralTypes
from gnnscript.specialize.folding.rewritten import located
from gnnscript.specialize.values import Poison, static_type

if TYPE_CHECKING:
    from gnnscript.specialize.folding.base import Binding
    from gnnscript.specialize.folding.statements import Frame

__all__ = ["apart", "meet", "part_at_choice", "part_at_optional", "several_types"]

# Each test may double what follows it.
_MOST = 5
_SIMPLE = (ast.Expr, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return)
# What evaluates all that stands in it, in order.
_STRICT = (
    ast.Call, ast.keyword, ast.BinOp, ast.UnaryOp, ast.Attribute, ast.Subscript, ast.Slice,
    ast.Tuple, ast.List, ast.Dict, ast.Starred, ast.Compare,
)  # fmt: skip
_CHOICES = (ast.IfExp, ast.BoolOp)
_READS = (ast.Name, ast.Attribute, ast.Constant, ast.expr_context, ast.keyword)


def several_types(name: str, value: Poison) -> UnsupportedError:
    """The error of reading a variable that no single type holds.

    It has the function specialised again, where keeping branches apart gives it one in each.
    """
    cause = f"'{name}' has no single type here: {value.reason}"
    remedy = "use a different name on each path, or one type on all"
    for frame, place in reversed(value.met):  # the outermost first: it leads to the others
        if place not in frame.parted and len(frame.parted) < _MOST:
            return Parted(frame, place, cause, remedy)
    return UnsupportedError(cause, remedy)


def meet(frame: Frame, node: ast.stmt, env: dict[str, Binding]) -> None:
    """Notes of the variables that have no single type behind a test that they met there."""
    for binding in env.values():
        if isinstance(binding.value, Poison):
            binding.value.met.append((frame, _place(node)))


def part_at_choice(frame: Frame, statement: ast.stmt, error: SeveralTypes) -> UnsupportedError:
    """The error of an expression that chooses between types, inside of a statement.

    It has the function specialised again with the statement written for either outcome, where the
    test can be asked before the rest of the statement runs.
    """
    way = _way_to(error.choice, statement) if isinstance(statement, _SIMPLE) else None
    if way is None or len(frame.parted) >= _MOST:
        return error
    first = next(n for n, part in enumerate(way) if isinstance(part, _CHOICES))
    if isinstance(way[first], ast.BoolOp) and way[first] is not error.choice:
        return error  # which side it gives is not known to be a bool
    above = way[1:first]
    whole = all(isinstance(part, _STRICT) and len(getattr(part, "ops", "1")) == 1 for part in above)
    if not whole or not _asked_first(way[first], way[:first], statement):
        return error
    return Parted(frame, _place(way[first]), error.cause, error.remedy)


def part_at_optional(frame: Frame, statement: ast.stmt, error: SeveralResults) -> UnsupportedError:
    """The error of a call whose result has another type where an argument is ``None``.

    It has the function specialised again with the statement written for either case.
    """
    if not isinstance(statement, _SIMPLE) or len(frame.parted) >= _MOST:
        return error
    for name in _optional_names(frame, statement):
        place = f"{_position(statement)}:{name}"
        if place not in frame.parted:
            return Parted(frame, place, error.cause, error.remedy)
    return error


def _optional_names(frame: Frame, statement: ast.stmt) -> list[str]:
    """The variables that a statement reads and that may be ``None``."""
    read = (n.id for n in ast.walk(statement) if isinstance(n, ast.Name))
    found = {name: frame.env[name].value for name in dict.fromkeys(read) if name in frame.env}
    return [n for n, value in found.items() if static_type(value).name == "Optional"]


def apart(frame: Frame, statement: ast.stmt, rest: list[ast.stmt]) -> ast.stmt | None:
    """A statement that is written once for each branch, with the rest of its block if need be."""
    if isinstance(statement, ast.If) and _place(statement) in frame.parted:
        arms = [[*statement.body, *rest], [*statement.orelse, *rest]]
        return ast.copy_location(ast.If(statement.test, *arms), statement)
    for name in _optional_names(frame, statement) if isinstance(statement, _SIMPLE) else ():
        if f"{_position(statement)}:{name}" in frame.parted:
            none = ast.Compare(ast.Name(name, ast.Load()), [ast.Is()], [ast.Constant(None)])
            chosen = located(ast.If(none, [statement], [statement]), statement)
            return ast.copy_location(ast.If(ast.Constant(True), [chosen, *rest], []), statement)
    for node in ast.walk(statement) if isinstance(statement, _SIMPLE) else ():
        if isinstance(node, _CHOICES) and _place(node) in frame.parted:
            arms = [[_put(statement, node, arm)] for arm in _arms(node)]
            chosen = ast.copy_location(ast.If(_test(node), *arms), statement)
            return ast.copy_location(ast.If(ast.Constant(True), [chosen, *rest], []), statement)
    return None


def _test(node: ast.AST) -> ast.expr:
    test: ast.expr = node.values[0] if isinstance(node, ast.BoolOp) else getattr(node, "test")  # noqa: B009
    return test


def _arms(node: ast.IfExp | ast.BoolOp) -> list[ast.expr]:
    """What an expression is where its test holds, and where not; a test of ``and`` is a bool."""
    if isinstance(node, ast.IfExp):
        return [node.body, node.orelse]
    rest = node.values[1:]
    tail = rest[0] if len(rest) == 1 else ast.copy_location(ast.BoolOp(node.op, rest), node)
    decided = ast.copy_location(ast.Constant(isinstance(node.op, ast.Or)), node)
    return [tail, decided] if isinstance(node.op, ast.And) else [decided, tail]


def _place(node: ast.AST) -> str:
    """What tells a test from the others of a function, also in a copy of its tree."""
    test = ast.unparse(_test(node))
    return f"{getattr(node, 'lineno', 0)}:{getattr(node, 'col_offset', 0)}:{test}"


def _way_to(node: ast.AST, tree: ast.AST) -> list[ast.AST] | None:
    """The nodes that lead from the root of a tree to one in it, both included."""
    if tree is node:
        return [tree]
    for child in ast.iter_child_nodes(tree):
        way = _way_to(node, child)
        if way is not None:
            return [tree, *way]
    return None


def _asked_first(choice: ast.AST, above: list[ast.AST], statement: ast.stmt) -> bool:
    """Whether a test may be asked before what stands before it in its statement."""
    nodes = list(ast.walk(statement))
    if any(isinstance(n, (ast.NamedExpr, ast.Yield, ast.YieldFrom)) for n in nodes):
        return False
    start = _position(choice)
    before = [n for n in nodes if n not in above and hasattr(n, "lineno") and _position(n) < start]
    if all(isinstance(n, _READS) for n in before):
        return True
    test = list(ast.walk(_test(choice)))
    called = {n.func.id for n in test if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    plain = all(isinstance(n, (*_PURE, *_READS)) for n in test) and called <= {"isinstance", "len"}
    return plain and all(n.attr in _FIXED for n in test if isinstance(n, ast.Attribute))


# What nobody changes while a statement runs.
_FIXED = ("size", "dim", "numel", "shape", "ndim", "dtype", "training")
_PURE = (
    ast.Compare, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Subscript, ast.Call, ast.cmpop,
    ast.boolop, ast.unaryop, ast.operator,
)  # fmt: skip


def _position(node: ast.AST) -> tuple[int, int]:
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def _put(tree: Any, old: ast.AST, new: ast.expr) -> Any:
    """A copy of a tree with another expression in one place."""
    if tree is old:
        return new
    if isinstance(tree, list):
        return [_put(item, old, new) for item in tree]
    if not isinstance(tree, ast.AST):
        return tree
    fields = {name: _put(value, old, new) for name, value in ast.iter_fields(tree)}
    return ast.copy_location(type(tree)(**fields), tree)
