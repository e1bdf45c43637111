"""Syntax that TorchScript lacks, written with the syntax that it has."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TypeVar

from gnnscript.specialize.tree import clone

N = TypeVar("N", bound=ast.AST)


def located(node: N, at: ast.AST) -> N:
    """Gives what is new in a tree the line of what it stands for."""
    for child in ast.walk(node):
        if isinstance(child, (ast.expr, ast.stmt)) and not hasattr(child, "lineno"):
            ast.copy_location(child, at)
    return node


def parsed(code: str, at: ast.AST) -> list[ast.stmt]:
    """Statements written in Python, on the line of what they stand for."""
    statements = ast.parse(code).body
    for statement in statements:
        for child in ast.walk(statement):
            if isinstance(child, (ast.expr, ast.stmt)):
                ast.copy_location(child, at)
    return statements


def parsed_expression(code: str, at: ast.AST) -> ast.expr:
    """The same for an expression."""
    (statement,) = parsed(code, at)
    assert isinstance(statement, ast.Expr)
    return statement.value


def without_else(node: ast.For | ast.While, flag: str) -> list[ast.stmt]:
    """A loop and its ``else``, which runs unless the loop is left by ``break``: as two statements.

    Args:
        node: The loop.
        flag: The variable that tells whether it was left.
    """
    loop = clone(node)
    loop.orelse = []
    if not _mark_breaks(loop.body, flag):
        return [loop, *node.orelse]
    start = ast.Assign([ast.Name(flag, ast.Store())], ast.Constant(False))
    behind = ast.If(ast.Name(flag, ast.Load()), [ast.Pass()], node.orelse)
    return [located(start, node), loop, located(behind, node)]


def _mark_breaks(body: list[ast.stmt], flag: str) -> bool:
    """Sets a flag before each ``break`` of the loop that a block stands in, if there is one."""
    found = False
    for position, statement in reversed(list(enumerate(body))):
        if isinstance(statement, ast.Break):
            mark = ast.Assign([ast.Name(flag, ast.Store())], ast.Constant(True))
            body.insert(position, located(mark, statement))
            found = True
            continue
        inner_loop = isinstance(statement, (ast.For, ast.While))
        parts = ("orelse",) if inner_loop else ("body", "orelse", "finalbody")
        blocks = [getattr(statement, part, []) for part in parts]
        blocks += [handler.body for handler in getattr(statement, "handlers", [])]
        blocks += [case.body for case in getattr(statement, "cases", [])]
        for block in blocks:
            found |= _mark_breaks(block, flag)
    return found


def unpacked_inside(node: ast.For, item: str) -> ast.For:
    """A loop that unpacks each element, with the first statement of its body doing so."""
    unpack = ast.Assign([node.target], ast.Name(item, ast.Load()))
    body = [unpack, *node.body]
    return located(ast.For(ast.Name(item, ast.Store()), node.iter, body, []), node)


def target_names(node: ast.For | ast.While) -> set[str]:
    """The variables that a loop sets in each turn."""
    if isinstance(node, ast.While):
        return set()
    return {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}


def noting_that_it_ran(node: ast.For | ast.While, ran: str, turn: str) -> ast.For | ast.While:
    """A loop that sets a flag, and whose variables are the function's.

    Args:
        node: The loop.
        ran: The flag.
        turn: The variable that the loop has instead of its own.
    """
    note: list[ast.stmt] = [ast.Assign([ast.Name(ran, ast.Store())], ast.Constant(True))]
    if isinstance(node, ast.While):
        return located(ast.While(node.test, [*note, *node.body], []), node)
    note.append(ast.Assign([node.target], ast.Name(turn, ast.Load())))
    return located(ast.For(ast.Name(turn, ast.Store()), node.iter, [*note, *node.body], []), node)


def with_flags(node: ast.For, left: str, skipped: str) -> list[ast.stmt]:
    """A loop that is left, or a turn of it, by flags: what ``break`` and ``continue`` do.

    Args:
        node: The loop.
        left: The variable that tells whether the loop was left.
        skipped: The variable that tells whether the rest of a turn is left out.
    """
    start, again = (
        ast.Assign([ast.Name(name, ast.Store())], ast.Constant(False)) for name in (left, skipped)
    )
    body = [again, *_guarded(clone(node).body, left, skipped)]
    guarded = ast.If(ast.UnaryOp(ast.Not(), ast.Name(left, ast.Load())), body, [])
    loop = ast.For(node.target, node.iter, [guarded], [])
    return [located(start, node), located(loop, node)]


def _guarded(body: list[ast.stmt], left: str, skipped: str) -> list[ast.stmt]:
    """Statements of which those behind a ``break`` or ``continue`` ask whether it was reached."""
    for position, statement in enumerate(body):
        if isinstance(statement, (ast.Break, ast.Continue)):
            names = [skipped, *([left] if isinstance(statement, ast.Break) else [])]
            marks = [ast.Assign([ast.Name(n, ast.Store())], ast.Constant(True)) for n in names]
            return [*body[:position], *(located(mark, statement) for mark in marks)]
        if not isinstance(statement, (ast.If, ast.With, ast.Try)) or not _leaves_turn(statement):
            continue
        for block in ("body", "orelse", "finalbody"):
            if getattr(statement, block, None):
                setattr(statement, block, _guarded(getattr(statement, block), left, skipped))
        rest = _guarded(body[position + 1 :], left, skipped)
        if rest:
            going = ast.UnaryOp(ast.Not(), ast.Name(skipped, ast.Load()))
            rest = [located(ast.If(going, rest, []), statement)]
        return [*body[: position + 1], *rest]
    return body


def _leaves_turn(statement: ast.AST) -> bool:
    if isinstance(statement, (ast.For, ast.While)):
        return any(map(_leaves_turn, statement.orelse))
    return isinstance(statement, (ast.Break, ast.Continue)) or any(
        map(_leaves_turn, ast.iter_child_nodes(statement))
    )


def unpacked_parts(node: ast.For, fresh: Callable[[str], str]) -> ast.For:
    """``for i, (a, b) in pairs`` with the inner pair unpacked at the start of the body."""
    assert isinstance(node.target, ast.Tuple)
    target: list[ast.expr] = []
    unpack: list[ast.stmt] = []
    for part in node.target.elts:
        if isinstance(part, ast.Name):
            target.append(part)
            continue
        name = fresh("item")
        target.append(ast.Name(name, ast.Store()))
        unpack.append(ast.Assign([part], ast.Name(name, ast.Load())))
    whole = ast.Tuple(target, ast.Store())
    return located(ast.For(whole, node.iter, [*unpack, *node.body], []), node)


def tested_apart(node: ast.While, test: str) -> list[ast.stmt]:
    """``while`` with its test as statements of their own, where it may assign variables.

    Args:
        node: The loop.
        test: The variable that tells whether it goes on.
    """
    if any(_continues(statement) for statement in node.body):
        leave = ast.If(ast.UnaryOp(ast.Not(), node.test), [ast.Break()], [])
        return [located(ast.While(ast.Constant(True), [leave, *node.body], []), node)]
    before, behind = (
        ast.Assign(
            [ast.Name(test, ast.Store())],
            ast.IfExp(clone(node.test), ast.Constant(True), ast.Constant(False)),
        )
        for _ in range(2)
    )
    loop = ast.While(ast.Name(test, ast.Load()), [*node.body, located(behind, node.test)], [])
    return [located(before, node), located(loop, node)]


def _continues(statement: ast.AST) -> bool:
    if isinstance(statement, (ast.For, ast.While)):
        return any(map(_continues, statement.orelse))
    return isinstance(statement, ast.Continue) or any(
        map(_continues, ast.iter_child_nodes(statement))
    )


def as_loops(
    node: ast.ListComp | ast.GeneratorExp, items: str, fresh: Callable[[str], str]
) -> list[ast.stmt]:
    """A comprehension as loops that append to a list.

    Args:
        node: The comprehension.
        items: The variable that holds the list.
        fresh: Gives a free name for a wish: a comprehension's variables are not the function's.
    """
    loops = node.generators
    targets = [n.id for g in loops for n in ast.walk(g.target) if isinstance(n, ast.Name)]
    own: dict[str, ast.expr] = {name: ast.Name(fresh(name), ast.Load()) for name in targets}
    append = ast.Attribute(ast.Name(items, ast.Load()), "append", ast.Load())
    body: ast.stmt = ast.Expr(ast.Call(append, [clone(node.elt, own)], []))
    for generator in reversed(loops):
        for test in reversed(generator.ifs):
            body = ast.If(clone(test, own), [body], [])
        # Python computes the first sequence outside of the comprehension's scope.
        iterable = clone(generator.iter, None if generator is loops[0] else own)
        target = clone(generator.target, own)
        for child in ast.walk(target):
            if isinstance(child, ast.Name):
                child.ctx = ast.Store()
        body = ast.For(target, iterable, [body], [])
    empty = ast.Assign([ast.Name(items, ast.Store())], ast.List([], ast.Load()))
    return [located(empty, node), located(body, node)]


def tests_nested(node: ast.If) -> ast.If:
    """``if a and (b := c):`` as tests within tests, so that the branch has what was assigned."""
    test = node.test
    if not isinstance(test, ast.BoolOp) or not any(
        isinstance(n, ast.NamedExpr) for value in test.values[1:] for n in ast.walk(value)
    ):
        return node
    rest = test.values[1:]
    tail = rest[0] if len(rest) == 1 else ast.BoolOp(test.op, rest)
    inner: list[ast.stmt] = [ast.If(tail, node.body, node.orelse)]
    both = isinstance(test.op, ast.And)
    arms = (inner, node.orelse) if both else (node.body, inner)
    return located(ast.If(test.values[0], *arms), node)


def alternative(node: ast.BoolOp) -> ast.IfExp | None:
    """``a and b or c``, which chooses as ``(b or c) if a else c`` does; the same for ``or``."""
    inner, rest = node.values[0], node.values[1:]
    if not isinstance(inner, ast.BoolOp) or type(inner.op) is type(node.op):
        return None
    both = [*inner.values[1:]]
    joined = both[0] if len(both) == 1 else ast.BoolOp(inner.op, both)
    other = rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
    arms = [ast.BoolOp(node.op, [joined, *rest]), other]
    if isinstance(node.op, ast.And):
        arms.reverse()
    return located(ast.IfExp(inner.values[0], *arms), node)


def as_branches(node: ast.IfExp, write: Callable[[ast.expr], ast.stmt]) -> ast.If:
    """A choice between two values as a statement, each value used by ``write``."""
    arms = [located(write(arm), arm) for arm in (node.body, node.orelse)]
    return located(ast.If(node.test, [arms[0]], [arms[1]]), node)


class _HandingBack(ast.NodeTransformer):
    """Returns variables with each result."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def visit_Return(self, node: ast.Return) -> ast.stmt:
        read = [ast.Name(name, ast.Load()) for name in self.names]
        found = ast.Tuple([node.value or ast.Constant(None), *read], ast.Load())
        return located(ast.Return(found), node)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.stmt:
        return ast.copy_location(ast.Pass(), node)

    def _leave(self, node: ast.AST) -> ast.AST:
        return node

    visit_FunctionDef = visit_Lambda = visit_ClassDef = _leave


def handing_back(node: ast.FunctionDef, names: list[str]) -> ast.FunctionDef:
    """A function that returns, with its result, the variables of another that it assigns."""
    copied: ast.FunctionDef = clone(node)
    end = located(ast.Return(), node.body[-1])
    copied.body = [_HandingBack(names).visit(statement) for statement in [*copied.body, end]]
    return copied


class _Collected(ast.NodeTransformer):
    """Puts what a generator yields into a list."""

    def __init__(self, items: str) -> None:
        self.items = items

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        if not isinstance(node.value, (ast.Yield, ast.YieldFrom)):
            return node
        method = "append" if isinstance(node.value, ast.Yield) else "extend"
        add = ast.Attribute(ast.Name(self.items, ast.Load()), method, ast.Load())
        given = node.value.value or ast.Constant(None)
        if isinstance(node.value, ast.YieldFrom):
            given = ast.Call(ast.Name("list", ast.Load()), [given], [])
        return located(ast.Expr(ast.Call(add, [given], [])), node)

    def visit_Return(self, node: ast.Return) -> ast.stmt:
        return located(ast.Return(ast.Name(self.items, ast.Load())), node)

    def _leave(self, node: ast.AST) -> ast.AST:
        return node

    visit_FunctionDef = visit_Lambda = visit_ClassDef = _leave


def collected(node: ast.FunctionDef, items: str) -> list[ast.stmt] | None:
    """The body of a generator that collects in a list what it yields, and returns that.

    ``None`` where it is given values by those who read it, which only a generator is.

    Args:
        node: The generator.
        items: The variable that holds the list.
    """
    copied = clone(node)
    body = [_Collected(items).visit(statement) for statement in copied.body]
    if any(yields(statement) for statement in body):
        return None
    empty = ast.Assign([ast.Name(items, ast.Store())], ast.List([], ast.Load()))
    end = ast.Return(ast.Name(items, ast.Load()))
    return [located(empty, node.body[0]), *body, located(end, node.body[-1])]


def yields(node: ast.AST) -> bool:
    """Whether a function is a generator, or a statement belongs into one."""
    if isinstance(node, (ast.Yield, ast.YieldFrom)):
        return True
    inner = (ast.FunctionDef, ast.Lambda, ast.ClassDef)
    return any(yields(n) for n in ast.iter_child_nodes(node) if not isinstance(n, inner))
