"""Weights that ``edge_updater`` returns and ``propagate`` takes: both as one method.

A conv that calls ``alpha = self.edge_updater(...)`` and ``self.propagate(..., alpha=alpha)`` has
its scores in one method and the messages that they weight in another. Where nothing else reads the
weights, a method that calls both can have them in one pass.
"""

from __future__ import annotations

import ast
import itertools

from gnnscript.passes.state import is_cheap
from gnnscript.passes.tracing import trace_attention
from gnnscript.specialize.program import Owner, Program, Specialized
from gnnscript.specialize.tree import clone, free_name, names_read

__all__ = ["join_updates"]


def join_updates(program: Program) -> None:
    """Joins the two calls wherever a pass over the edges comes of it."""
    for owner in program.owners.values():
        for method in list(owner.methods):
            for block in _blocks(method.node.body):
                _join(owner, method, block)


def _blocks(body: list[ast.stmt]) -> list[list[ast.stmt]]:
    found = [body]
    for statement in body:
        for name in ("body", "orelse"):
            inner = getattr(statement, name, None)
            if isinstance(inner, list):
                found += _blocks(inner)
    return found


def _join(owner: Owner, method: Specialized, block: list[ast.stmt]) -> None:
    for first, second in itertools.pairwise(block):
        match first:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call() as update):
                pass
            case _:
                continue
        call = _call_with(second, name)
        if call is None or names_read(method.node).get(name) != 1:
            continue
        if not (_is_of(update, owner, "edge_updater") and _is_of(call, owner, "propagate")):
            continue
        joined = _joined(owner, update, call, name)
        if joined is None:
            continue
        _replace(second, call, joined)
        block.remove(first)
        return


def _call_with(statement: ast.stmt, name: str) -> ast.Call | None:
    """The call that a statement is about, if it is given a variable."""
    value = statement.value if isinstance(statement, (ast.Assign, ast.Return)) else None
    if not isinstance(value, ast.Call) or value.keywords:
        return None
    given = [isinstance(a, ast.Name) and a.id == name for a in value.args]
    return value if given.count(True) == 1 else None


def _is_of(call: ast.Call, owner: Owner, name: str) -> bool:
    done = getattr(call, "target_", None)
    if not isinstance(done, Specialized) or done.owner is not owner or call.keywords:
        return False
    return done.name.rstrip("_0123456789") == name and all(map(is_cheap, call.args))


def _joined(owner: Owner, update: ast.Call, call: ast.Call, name: str) -> ast.Call | None:
    """A call of a method that does both, if it needs no weights per edge on some path."""
    first, second = update.target_, call.target_  # type: ignore[attr-defined]
    taken = {"self", name}
    parameters: list[ast.arg] = []
    types: list[tuple[str, object]] = []
    args: list[ast.expr] = []
    known: dict[tuple[str, str], str] = {}
    inner: list[ast.Call] = []
    for done, given in ((first, update), (second, call)):
        passed: list[ast.expr] = []
        own = [a for a in done.node.args.args if a.arg != "self"]
        if len(own) != len(given.args):
            return None
        kinds = dict(done.parameters)
        for parameter, argument in zip(own, given.args, strict=True):
            if isinstance(argument, ast.Name) and argument.id == name:
                passed.append(ast.Name(name, ast.Load()))
                continue
            spelled = ast.unparse(parameter.annotation) if parameter.annotation else ""
            key = (ast.unparse(argument), spelled)
            if key not in known:
                known[key] = free_name(parameter.arg, taken)
                parameters.append(ast.arg(known[key], clone(parameter.annotation)))
                types.append((known[key], kinds.get(parameter.arg)))
                args.append(argument)
            passed.append(ast.Name(known[key], ast.Load()))
        made = ast.Call(clone(given.func), passed, [])
        made.target_ = done  # type: ignore[attr-defined]
        inner.append(made)
    node = ast.FunctionDef(
        name=owner.method_name("propagate"),
        args=ast.arguments([], [ast.arg("self"), *parameters], None, [], [], None, []),
        body=[ast.Assign([ast.Name(name, ast.Store())], inner[0]), ast.Return(inner[1])],
        decorator_list=[],
        returns=clone(second.node.returns),
    )
    joined = Specialized(node.name, owner, second.source, types, node, second.value)  # type: ignore[arg-type]
    body = trace_attention(joined)
    if body is None:
        owner.names.discard(node.name)
        return None
    node.body = body
    owner.methods.insert(owner.methods.index(second) + 1, joined)
    func = ast.Attribute(ast.Name("self", ast.Load()), node.name, ast.Load())
    result = ast.Call(func, args, [])
    result.target_ = joined  # type: ignore[attr-defined]
    return result


def _replace(statement: ast.stmt, old: ast.Call, new: ast.Call) -> None:
    assert isinstance(statement, (ast.Assign, ast.Return))
    assert statement.value is old
    statement.value = new
