"""Variables that a loop defines and that are read behind it: TorchScript forgets them there."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from gnnscript.analyze.types import BOOL, FLOAT, INT, STR, TENSOR, Type
from gnnscript.specialize.folding.base import Binding, Folding
from gnnscript.specialize.folding.rewritten import target_names
from gnnscript.specialize.helpers import torch_name
from gnnscript.specialize.values import Dyn, generalize, static_type

_Loop = ast.For | ast.While

_CONDITIONAL = (ast.If, ast.IfExp, ast.For, ast.While, ast.BoolOp)


class Outliving(Folding):
    """The part of a frame that defines before a loop what it defines."""

    def outliving(self, node: _Loop) -> set[str]:
        """What the loop defines first and is read behind it."""
        new = (self.assigned_names(node.body) | target_names(node)) - set(self.env)
        return {read.id for read in self._reads_behind(node) if read.id in new}

    def _reads_behind(self, node: _Loop) -> Iterator[ast.Name]:
        end = _end(node)
        apart: set[ast.AST] = set()  # the other arms of the branches that the loop stands in
        for branch in ast.walk(self.source.node):
            if isinstance(branch, ast.If) and any(n is node for n in _within(branch.body)):
                apart |= set(_within(branch.orelse))
        for later in ast.walk(self.source.node):  # each sets its own target before it is read
            if isinstance(later, ast.For) and later.lineno > end:
                own = target_names(later)
                apart |= {n for n in _within(later.body) if getattr(n, "id", None) in own}
        for n in ast.walk(self.source.node):
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load) and n.lineno > end:
                if n not in apart:
                    yield n

    def defined_before(self, names: set[str], ends: list[dict[str, Binding]]) -> list[str]:
        """Defines before a loop what each turn defines and is read behind it, where it can be."""
        defined = []
        for name in sorted(names):
            found = [generalize(env[name].value) for env in ends if name in env]
            types = {static_type(value) for value in found}
            if not found or len(found) < len(ends) or len(types) > 1:
                continue
            t = types.pop()
            start = _start(t)
            if start is None or not t.known:
                continue
            self.bind(name, *self.as_typed(Dyn(t), start, t))
            defined.append(name)
        return defined

    def check_that_it_ran(self, node: _Loop, ran: str, names: list[str]) -> None:
        """Asserts what Python does where it reads one of the variables: the loop has had turns."""
        end = _end(node)
        perhaps = {
            inner
            for later in ast.walk(self.source.node)
            if isinstance(later, _CONDITIONAL) and later.lineno > end
            for inner in ast.walk(later)
        }
        surely = {read.id for read in self._reads_behind(node) if read not in perhaps}
        if surely & set(names):
            text = f"{', '.join(sorted(surely & set(names)))}: defined in a loop that had no turn"
            self.emit(ast.Assert(ast.Name(ran, ast.Load()), ast.Constant(text)))


def _start(t: Type) -> ast.expr | None:
    """What a variable holds in TorchScript before it is defined: nobody reads it."""
    if t == TENSOR:
        return ast.Call(torch_name("torch.empty"), [ast.Constant(0)], [])
    if t.name == "List":
        return ast.List([], ast.Load())
    plain: dict[Type, int | float | str] = {INT: 0, FLOAT: 0.0, BOOL: False, STR: ""}
    return ast.Constant(plain[t]) if t in plain else None


def _end(node: ast.AST) -> int:
    return max(getattr(n, "lineno", 0) for n in ast.walk(node))


def _within(body: list[ast.stmt]) -> Iterator[ast.AST]:
    for statement in body:
        yield from ast.walk(statement)
