"""What runs when a block is left: the end of a ``with`` and of a ``try``, before every way out."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass

from gnnscript.specialize.folding.rewritten import located
from gnnscript.specialize.tree import clone

__all__ = ["Leave", "Managed", "may_raise_only", "split_at_yield", "with_exits"]


class Leave(ast.stmt):
    """A statement of no language: carries out ``run`` where it stands."""

    _fields = ("run",)

    def __init__(self, run: Callable[[], None]) -> None:
        super().__init__()
        self.run = run


def with_exits(
    body: list[ast.stmt], end: list[ast.stmt], fresh: Callable[[str], str]
) -> list[ast.stmt]:
    """A block that carries out ``end`` before each ``return``, ``break`` and ``continue``.

    Args:
        body: The block.
        end: What is carried out, also where the block is left at its end.
        fresh: Gives a free name for a wish.
    """
    return [*_exits(clone(body), end, fresh, False), *clone(end)]


def _exits(
    body: list[ast.stmt], end: list[ast.stmt], fresh: Callable[[str], str], inner: bool
) -> list[ast.stmt]:
    done: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, ast.Return):
            kept: ast.expr | None = None
            if statement.value is not None and not isinstance(statement.value, ast.Constant):
                name = fresh("value")
                done.append(ast.Assign([ast.Name(name, ast.Store())], statement.value))
                kept = ast.Name(name, ast.Load())
            done += [*clone(end), ast.Return(kept or statement.value)]
        elif isinstance(statement, (ast.Break, ast.Continue)) and not inner:
            done += [*clone(end), statement]
        else:
            loop = isinstance(statement, (ast.For, ast.While))
            for part in ("body", "orelse", "finalbody"):
                block = getattr(statement, part, None)
                if isinstance(block, list) and not isinstance(statement, ast.FunctionDef):
                    turn = inner or (loop and part == "body")
                    setattr(statement, part, _exits(block, end, fresh, turn))
            for arm in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
                arm.body = _exits(arm.body, end, fresh, inner)
            done.append(statement)
        for new in done:
            located(new, statement)
    return done


@dataclass(frozen=True)
class Managed:
    """A generator that ``contextlib.contextmanager`` makes a context of, in its parts.

    Attributes:
        before: What is carried out when the block is entered.
        given: What the block is given.
        behind: What is carried out when it is left.
    """

    before: list[ast.stmt]
    given: ast.expr
    behind: list[ast.stmt]


def split_at_yield(body: list[ast.stmt]) -> Managed | None:
    """A generator's body, where it yields once and for certain; ``None`` otherwise."""
    for position, statement in enumerate(body):
        value = getattr(statement, "value", None)
        before, behind = body[:position], body[position + 1 :]
        if isinstance(statement, ast.Expr) and isinstance(value, ast.Yield):
            return Managed(before, value.value or ast.Constant(None), behind)
        if isinstance(statement, ast.Try):
            inner = split_at_yield(statement.body)
            if inner is None:
                continue
            if not all(map(may_raise_only, statement.handlers)):
                return None
            end = [*inner.behind, *statement.orelse, *statement.finalbody, *behind]
            return Managed([*before, *inner.before], inner.given, end)
    return None


def may_raise_only(handler: ast.ExceptHandler) -> bool:
    """Whether an error that a handler catches becomes another error, and nothing else."""
    returns = any(isinstance(n, ast.Return) for n in ast.walk(handler))
    return isinstance(handler.body[-1], ast.Raise) and not returns
