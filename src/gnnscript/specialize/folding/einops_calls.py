"""Functions of einops: their patterns are read once, and become an op on numbered axes."""

from __future__ import annotations

import ast
import sys
from typing import TYPE_CHECKING, Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import TENSOR
from gnnscript.specialize.folding.base import Arguments, Folded
from gnnscript.specialize.helpers import op_reference, torch_name
from gnnscript.specialize.values import Const, Dyn, constant_items, static_type

if TYPE_CHECKING:
    from gnnscript.specialize.folding import Frame

__all__ = ["einops_function"]

# What stands for "...", and for "(...)" or a part of such parentheses.
_ELLIPSIS, _JOINED = -1, -2


def einops_function(frame: Frame, function: Any, given: Arguments) -> Folded | None:
    """A call of ``einops.rearrange``, ``reduce``, ``repeat`` or ``einsum``."""
    if (getattr(function, "__module__", None) or "").split(".")[0] != "einops":
        return None
    name = function.__name__
    if name == "einsum":
        return _einsum(frame, given)
    if name not in ("rearrange", "reduce", "repeat"):
        return None
    named = dict(given.kwargs)
    names = ("tensor", "pattern", *(("reduction",) if name == "reduce" else ()))
    named |= dict(zip(names, given.args, strict=False))
    tensor, pattern = _tensor(frame, named.pop("tensor")), _text(named.pop("pattern"))
    reduction = _text(named.pop("reduction")) if name == "reduce" else ""
    left, right = _sides(frame, name, pattern)
    numbers: dict[Any, int] = {}
    lengths: list[ast.expr] = []
    for axis in (axis for group in (*left, *right) for axis in group):
        if axis not in (_ELLIPSIS, _JOINED) and axis not in numbers:
            numbers[axis] = len(lengths)
            fixed = getattr(axis, "value", -1)
            value = frame.needed(*named.pop(axis)) if axis in named else ast.Constant(fixed)
            lengths.append(value)
    if named:
        raise UnsupportedError(
            f"'{name}' is given {', '.join(map(repr, named))}, which '{pattern}' does not name",
            "name the axes of the pattern",
        )

    def numbered(groups: list[list[Any]]) -> ast.expr:
        rows = [[ast.Constant(numbers.get(axis, axis)) for axis in row] for row in groups]
        return _listed([_listed(list(row), "int") for row in rows], "List[int]")

    args = [tensor, numbered(left), numbered(right), _listed(lengths, "int")]
    args += [ast.Constant(reduction)] if reduction else []
    return Dyn(TENSOR), ast.Call(op_reference("regroup_axes"), args, [])


def _listed(elements: list[ast.expr], of: str) -> ast.expr:
    """A list, of which TorchScript has to be told what it holds if it is empty."""
    made = ast.List(elements, ast.Load())
    if elements:
        return made
    t = ast.parse(f"List[{of}]", mode="eval").body
    return ast.Call(torch_name("torch.jit.annotate"), [t, made], [])


def _sides(frame: Frame, name: str, pattern: str) -> tuple[list[list[Any]], list[list[Any]]]:
    """The groups of axes on both sides of a pattern, as einops reads them."""
    parsing = sys.modules["einops.parsing"]
    texts = pattern.split("->")
    if len(texts) != 2:
        raise UnsupportedError(f"the pattern '{pattern}' has no two sides", "write 'a b -> b a'")
    left, right = (
        frame.compute(ast.Constant(pattern), parsing.ParsedExpression, text) for text in texts
    )
    lost, new = left.identifiers - right.identifiers, right.identifiers - left.identifiers
    allowed = {"rearrange": not lost and not new, "reduce": not new, "repeat": not lost}[name]
    if not allowed:
        raise UnsupportedError(
            f"'{name}' has no pattern '{pattern}': its sides do not name the same axes",
            "name them on both sides; 'reduce' removes axes and 'repeat' adds some",
        )
    return _groups(left), _groups(right)


def _groups(side: Any) -> list[list[Any]]:
    return [
        [_JOINED if axis == "…" else axis for axis in group]
        if isinstance(group, list)
        else [_ELLIPSIS]
        for group in side.composition
    ]


def _tensor(frame: Frame, given: Folded) -> ast.expr:
    """The tensor; several in a list are stacked."""
    value, node = given
    if constant_items(value) is None and static_type(value).name != "List":
        return frame.needed(value, node)
    return ast.Call(torch_name("torch.stack"), [frame.needed(value, node)], [])


def _text(given: Folded) -> str:
    value = given[0]
    if isinstance(value, Const) and isinstance(value.value, str):
        return value.value
    raise UnsupportedError(
        "the pattern or reduction of a function of einops is known only at run time",
        "write it down, or keep it in an attribute of the module",
    )


def _einsum(frame: Frame, given: Arguments) -> Folded:
    """``einops.einsum``, whose pattern comes last and names axes by words."""
    einops = sys.modules["einops.einops"]
    *tensors, pattern = given.args
    compact = frame.compute(
        ast.Constant("einops.einsum"), einops._compactify_pattern_for_einsum, _text(pattern)
    )
    operands = [frame.needed(*tensor) for tensor in tensors]
    call = ast.Call(torch_name("torch.einsum"), [ast.Constant(compact), *operands], [])
    return Dyn(TENSOR), call
