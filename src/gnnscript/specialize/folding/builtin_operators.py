"""The functions of the module ``operator``: as the syntax that they stand for."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gnnscript.specialize.folding.base import OPERATORS, Arguments, Binding, Folded
from gnnscript.specialize.folding.builtins import evaluated, for_
from gnnscript.specialize.folding.rewritten import located

if TYPE_CHECKING:
    from gnnscript.specialize.folding.statements import Frame

__all__: list[str] = []


def _spelling(kind: type[ast.AST]) -> Callable[[list[ast.expr]], ast.expr]:
    """How an operator is applied to its operands."""
    made: Any = kind()
    if isinstance(made, ast.operator):
        return lambda operands: ast.BinOp(operands[0], made, operands[1])
    if isinstance(made, ast.unaryop):
        return lambda operands: ast.UnaryOp(made, operands[0])
    return lambda operands: ast.Compare(operands[0], [made], operands[1:])


_SPELLED: dict[Any, Callable[[list[ast.expr]], ast.expr]] = {
    function: _spelling(kind)
    for kind, function in OPERATORS.items()
    if getattr(function, "__module__", "") == "_operator"
}
_SPELLED |= {
    operator.contains: lambda operands: ast.Compare(operands[1], [ast.In()], operands[:1]),
    operator.getitem: lambda operands: ast.Subscript(operands[0], operands[1], ast.Load()),
    operator.not_: lambda operands: ast.UnaryOp(ast.Not(), operands[0]),
    operator.truth: lambda operands: ast.Call(ast.Name("bool", ast.Load()), operands, []),
    operator.abs: lambda operands: ast.Call(ast.Name("abs", ast.Load()), operands, []),
}


@for_(*_SPELLED)
def _operator(frame: Frame, function: Any, given: Arguments) -> Folded:
    done = evaluated(frame, function, given)
    if done is not None:
        return done
    names = [frame.fresh("operand") for _ in given.args]
    for name, (value, node) in zip(names, given.args, strict=True):
        frame.env[name] = Binding(value, None, node)
    try:
        spelled = _SPELLED[function]([ast.Name(name, ast.Load()) for name in names])
        return frame.fold(located(spelled, frame.current))
    finally:
        for name in names:
            frame.env.pop(name, None)
