"""Numbers of several types: what arithmetic makes of them, and variables that hold them."""

from __future__ import annotations

import ast

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import (
    BOOL,
    FLOAT,
    INT,
    NUMBER,
    STR,
    TENSOR,
    UNKNOWN,
    Type,
    is_sparse,
    list_of,
    tuple_of,
)
from gnnscript.specialize.folding.base import Folding
from gnnscript.specialize.helpers import torch_name
from gnnscript.specialize.values import Dyn, Value, static_type

__all__ = ["arithmetic", "as_held", "as_number", "either"]


def as_held(frame: Folding, held: object, node: ast.expr) -> tuple[Value, ast.expr]:
    """What ``item()`` gives as an attribute, whose type is one of numbers.

    Args:
        frame: The function.
        held: What the attribute holds in the eager model.
        node: The number.

    Returns:
        An integer where the attribute holds one, which is checked; a float otherwise.
    """
    if not isinstance(held, int) or isinstance(held, bool):
        return Dyn(FLOAT), ast.Call(ast.Name("float", ast.Load()), [node], [])
    name = frame.hold("number", node) or node
    integer = ast.Call(ast.Name("int", ast.Load()), [name], [])
    message = ast.Constant("an attribute that holds an integer is assigned another number")
    frame.emit(ast.Assert(ast.Compare(name, [ast.Eq()], [integer]), message))
    return Dyn(INT), integer


def as_number(node: ast.expr, wanted: Value, held: Value) -> ast.expr:
    """A number where paths meet on which it is an integer or a float.

    TorchScript's type for both is that of ``item()``, which keeps an integer one.
    """
    t = static_type(held)
    if static_type(wanted) != NUMBER or t not in (INT, FLOAT):
        return node
    dtype = torch_name("torch.float64" if t == FLOAT else "torch.int64")
    made = ast.Call(torch_name("torch.tensor"), [node], [ast.keyword("dtype", dtype)])
    return ast.Call(ast.Attribute(made, "item", ast.Load()), [], [])


def either(values: list[Value]) -> Value | None:
    """A result that is a tensor on some paths and a number on others, as TorchScript may return."""
    types = list(dict.fromkeys(static_type(value) for value in values))
    if TENSOR not in types or not set(types) <= {TENSOR, INT, FLOAT, BOOL}:
        return None
    return Dyn(Type("Union", tuple(types)))


def arithmetic(a: Type, b: Type, operator: ast.operator) -> Type:
    """The type of a binary operation.

    Raises:
        UnsupportedError: The run decides whether an operand is a tensor or a number.
    """
    if "Union" in (a.name, b.name):
        raise UnsupportedError(
            "the run decides whether an operand is a tensor or a number",
            "return one type on every path: tensors, for example",
        )
    if is_sparse(a) or is_sparse(b):
        if not isinstance(operator, ast.MatMult):
            return a if is_sparse(a) else b
        return a if is_sparse(a) and is_sparse(b) else TENSOR
    if TENSOR in (a, b):
        return TENSOR
    if isinstance(operator, ast.Mult):
        for side in (a, b):
            if side.name == "List" or side == STR:
                return side
            if side.name == "Tuple" and side.args and len(set(side.args)) == 1:
                return list_of(side.args[0])
    if isinstance(operator, ast.Mod) and a == STR:
        return STR
    if "List" in (a.name, b.name):
        return a if a.name == "List" else b
    if a.name == b.name == "Tuple":
        return tuple_of(*a.args, *b.args)
    if a == b == STR:
        return STR
    numbers = {INT, FLOAT, BOOL, NUMBER}
    if a in numbers and b in numbers:
        if NUMBER in (a, b):
            return NUMBER
        if isinstance(operator, ast.Div) or FLOAT in (a, b):
            return FLOAT
        if isinstance(operator, ast.Pow) and a == b == INT:
            return INT
        return INT if a != BOOL or b != BOOL else BOOL
    return UNKNOWN
