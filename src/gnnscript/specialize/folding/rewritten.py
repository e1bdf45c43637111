"""Syntax that TorchScript lacks, written with the syntax that it has."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import TypeVar

from gnnscript.specialize.tree import clone

N = TypeVar("N", bound=ast.AST)


def located(node: N, at: ast.AST) -> N:
    """Gives what is new in a tree the line of what it stands for."""
    for child in ast.walk(node):
        if isinstance(child, (ast.expr, ast.stmt)) and not hasattr(child, "lineno"):
            ast.copy_location(child, at)
    return node


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


def as_choice(
    call: ast.Call, position: str, keys: Sequence[int | str], result: str
) -> list[ast.stmt]:
    """``modules[position](...)`` as a chain of tests, with one call for each key.

    Args:
        call: The call.
        position: The variable that holds the index or key.
        keys: The keys there are; of integers, all from zero on.
        result: The variable that holds the result.
    """
    assert isinstance(call.func, ast.Subscript)
    place = ast.Name(position, ast.Load())
    message = ast.Constant(f"'{ast.unparse(call.func.value)}' has no such item")
    missing = ast.Call(ast.Name("IndexError", ast.Load()), [message], [])
    chain: list[ast.stmt] = [ast.Raise(missing, None)]
    for number, key in reversed(list(enumerate(keys))):
        test: ast.expr = ast.Compare(place, [ast.Eq()], [ast.Constant(key)])
        if isinstance(key, int):
            behind = ast.Constant(number - len(keys))
            test = ast.BoolOp(ast.Or(), [test, ast.Compare(place, [ast.Eq()], [behind])])
        picked = clone(call)
        picked.func = ast.Subscript(call.func.value, ast.Constant(key), ast.Load())
        chain = [ast.If(test, [ast.Assign([ast.Name(result, ast.Store())], picked)], chain)]
    return [located(statement, call) for statement in chain]


def as_branches(node: ast.IfExp, write: Callable[[ast.expr], ast.stmt]) -> ast.If:
    """A choice between two values as a statement, each value used by ``write``."""
    arms = [located(write(arm), arm) for arm in (node.body, node.orelse)]
    return located(ast.If(node.test, [arms[0]], [arms[1]]), node)
