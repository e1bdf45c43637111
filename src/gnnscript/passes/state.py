"""Where an optimised body is written: statements, names, what is known on a path."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gnnscript.passes.expressions import Code, Expression, filled
from gnnscript.specialize.helpers import Import, is_op
from gnnscript.specialize.program import Specialized
from gnnscript.specialize.tree import clone, free_name

__all__ = ["Abort", "Frame", "State", "Then", "is_cheap"]

# What goes on with the value of a path.
Then = Callable[[Expression], None]


class Abort(Exception):
    """Something that the passes do not look through; the code stays as it is.

    Args:
        reason: What it is.
        writes: Whether it may change a tensor that the caller has.
    """

    def __init__(self, reason: str, *, writes: bool = False) -> None:
        super().__init__(reason)
        self.writes = writes


@dataclass
class Frame:
    """Names of one function being run.

    Args:
        names: What each of them stands for.
        done: The function.
    """

    names: dict[str, Expression]
    done: Specialized

    def copy(self) -> Frame:
        """The same names, to go on with on another path."""
        return Frame(dict(self.names), self.done)


@dataclass
class State:
    """Writes the statements of one method."""

    method: Specialized
    out: list[ast.stmt] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    memo: dict[int, ast.expr] = field(default_factory=dict)
    atoms: dict[str, Code] = field(default_factory=dict)
    calls: dict[str, ast.expr] = field(default_factory=dict)
    facts: dict[str, bool] = field(default_factory=dict)
    opaque: set[int] = field(default_factory=set)
    maybe: set[str] = field(default_factory=set)
    stored: set[str] = field(default_factory=set)
    simplest: dict[int, Expression] = field(default_factory=dict)
    samples: dict[str, set[int]] = field(default_factory=dict)
    keep: list[Any] = field(default_factory=list)
    origin: tuple[str, int] | None = None
    straight: int = 0
    paths: int = 1
    gains: int = 0

    def atom(
        self,
        node: ast.expr,
        *,
        tensor: bool = True,
        value: Any = None,
        declared: ast.expr | None = None,
    ) -> Code:
        """A name, an attribute, an element of those: one expression for each spelling."""
        key = ast.unparse(node)
        if key not in self.atoms:
            self.atoms[key] = Code(code=node, tensor=tensor, value=value, declared=declared)
        return self.atoms[key]

    def emit(self, statement: ast.stmt) -> None:
        """Writes a statement."""
        if self.origin is not None and not hasattr(statement, "origin"):
            statement.origin = self.origin  # type: ignore[attr-defined]
        self.out.append(statement)

    def name(self, wish: str, node: ast.expr, comment: str = "") -> ast.Name:
        """Writes ``wish = node``, under a free name."""
        name = free_name(wish, self.taken)
        statement = ast.Assign([ast.Name(name, ast.Store())], node)
        if comment:
            statement.comment_ = comment  # type: ignore[attr-defined]
        self.emit(statement)
        return ast.Name(name, ast.Load())

    def save(self) -> tuple[Any, ...]:
        """What :meth:`restore` goes back to."""
        state = (len(self.out), dict(self.memo), dict(self.facts), set(self.taken))
        return (
            *state,
            self.paths,
            self.gains,
            self.straight,
            dict(self.simplest),
            dict(self.calls),
        )

    def restore(self, saved: tuple[Any, ...]) -> None:
        """Forgets what was written since."""
        del self.out[saved[0] :]
        self.memo, self.facts, self.taken = saved[1:4]
        self.paths, self.gains, self.straight, self.simplest, self.calls = saved[4:]

    @contextlib.contextmanager
    def nested(self) -> Iterator[list[ast.stmt]]:
        """A block of its own: what is computed in it is not known behind it."""
        out, memo, facts, calls = self.out, dict(self.memo), dict(self.facts), dict(self.calls)
        origin = self.origin
        self.out = []
        try:
            yield self.out
        finally:
            self.out, self.memo, self.facts, self.origin = out, memo, facts, origin
            self.calls = calls

    # Values #######################################################################

    def spelled(self, expression: Expression) -> ast.expr:
        """The code of a value, its parts computed before."""
        if id(expression) in self.memo:
            return clone(self.memo[id(expression)])  # type: ignore[no-any-return]
        return filled(expression.code, self.value)  # type: ignore[no-any-return]

    def value(self, expression: Expression) -> ast.expr:
        """Computes a value once; the expression that reads it."""
        if id(expression) in self.memo:
            return clone(self.memo[id(expression)])  # type: ignore[no-any-return]
        self.keep.append(expression)
        node = self.rewritten(expression)
        if not is_cheap(node):
            node = self.computed(node, expression.hint or default_name(node))
            self.memo[id(expression)] = node
        return clone(node)  # type: ignore[no-any-return]

    def computed(self, node: ast.expr, wish: str) -> ast.expr:
        """Names what a call of an op returns, once for equal calls."""
        if not _is_op(node):
            return self.name(wish, node)
        key = ast.unparse(ast.fix_missing_locations(ast.Expr(node)))
        if key not in self.calls:
            self.calls[key] = self.name(wish, node)
        return self.calls[key]

    def rewritten(self, expression: Expression) -> ast.expr:
        """The best code for a value; see :class:`gnnscript.passes.rewriting.Rewriting`."""
        return self.spelled(expression)


_CHEAP = frozenset({"size", "dim", "numel", "view", "unsqueeze", "squeeze", "view_as"})


def is_cheap(node: ast.expr) -> bool:
    """Whether an expression may be written wherever it is used."""
    if isinstance(node, (ast.Name, ast.Constant)):
        return True
    if isinstance(node, ast.Attribute):
        return is_cheap(node.value)
    if isinstance(node, ast.Subscript):
        return is_cheap(node.value) and not any(
            isinstance(n, ast.Call) for n in ast.walk(node.slice)
        )
    if isinstance(node, ast.UnaryOp):
        return is_cheap(node.operand)
    if isinstance(node, ast.IfExp):
        return all(is_cheap(part) for part in (node.test, node.body, node.orelse))
    if isinstance(node, ast.Compare):
        return all(is_cheap(part) for part in (node.left, *node.comparators))
    if isinstance(node, (ast.Tuple, ast.List)):
        return all(is_cheap(item) for item in node.elts)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return (
            node.func.attr in _CHEAP
            and is_cheap(node.func.value)
            and all(is_cheap(argument) for argument in node.args)
        )
    return False


def _is_op(node: ast.expr) -> bool:
    target = getattr(node.func, "target_", None) if isinstance(node, ast.Call) else None
    return isinstance(target, Import) and is_op(target)


def default_name(node: ast.expr) -> str:
    """A name for a value that has none in the user's code."""
    if isinstance(node, ast.Call):
        func = node.func
        name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
        return {"edge_aggregate": "out", "edge_values": "values", "split": "weights"}.get(
            name, "value"
        )
    return "value"
