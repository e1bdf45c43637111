"""Evaluates names, attributes, elements and arithmetic symbolically."""

from __future__ import annotations

import ast
import math
import operator
from typing import Any

import torch

from gnnscript.passes.elementwise import BINARY, COMPARISONS, is_truth
from gnnscript.passes.expressions import (
    TENSORS,
    Cat,
    Code,
    Const,
    Expression,
    Gather,
    Map,
    Part,
    Product,
    Total,
    hole,
)
from gnnscript.passes.products import Products
from gnnscript.passes.state import Abort, Frame
from gnnscript.specialize.tree import clone

__all__ = ["Operators"]

_COMPARE = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class Operators(Products):
    """The part of a tracer that knows what Python's operators mean."""

    def evaluate(self, node: ast.expr, frame: Frame) -> Expression:
        """The value of a piece of the user's code."""
        handler = getattr(self, f"_{type(node).__name__}", None)
        if handler is None:
            return self._other(node, frame)
        result: Expression = handler(node, frame)
        return result

    def decide(self, node: ast.expr, frame: Frame) -> bool | None:
        """What is known of a condition on this path."""
        saved = self.save()
        value = self.evaluate(node, frame)
        if isinstance(value, Const):
            return bool(value.value)
        text = ast.unparse(self.spelled(value))
        self.restore(saved)
        if text in self.facts:
            return self.facts[text]
        for known, truth in self.facts.items():
            if known.endswith(" is not None") and text == known.replace(" is not ", " is "):
                return not truth
            if known.endswith(" is None") and text == known.replace(" is ", " is not "):
                return not truth
        return None

    @staticmethod
    def constant(value: Any) -> Const:
        """A literal."""
        node: ast.expr = ast.Constant(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0:
            node = ast.UnaryOp(ast.USub(), ast.Constant(-value))
        return Const(code=node, value=value)

    def _other(self, node: ast.expr, frame: Frame) -> Expression:
        """Code of another kind, with the values of its names filled in."""
        if isinstance(node, (ast.ListComp, ast.Lambda, ast.GeneratorExp, ast.DictComp)):
            raise Abort("a scope of its own")
        copied = type(node)()
        for name, value in ast.iter_fields(node):
            setattr(copied, name, self._field(value, frame))
        return Code(code=copied, tensor=False)

    def _field(self, value: Any, frame: Frame) -> Any:
        if isinstance(value, list):
            return [self._field(item, frame) for item in value]
        if isinstance(value, ast.expr) and not isinstance(value, ast.Slice):
            return hole(self.evaluate(value, frame))
        if isinstance(value, ast.AST) and list(ast.iter_child_nodes(value)):
            copied = type(value)()
            for name, inner in ast.iter_fields(value):
                setattr(copied, name, self._field(inner, frame))
            return copied
        return value

    def _JoinedStr(self, node: ast.JoinedStr, frame: Frame) -> Expression:
        pieces = [
            ast.FormattedValue(hole(self.evaluate(v.value, frame)), v.conversion, v.format_spec)
            if isinstance(v, ast.FormattedValue)
            else v
            for v in node.values
        ]
        return Code(code=ast.JoinedStr(pieces), tensor=False)

    def _Constant(self, node: ast.Constant, frame: Frame) -> Expression:  # noqa: ARG002
        return Const(code=node, value=node.value)

    def _Name(self, node: ast.Name, frame: Frame) -> Expression:
        if hasattr(node, "target_") or node.id not in frame.names:
            return Code(code=clone(node), tensor=False)
        return frame.names[node.id]

    def _Call(self, node: ast.Call, frame: Frame) -> Expression:
        return self.call(node, frame)  # type: ignore[attr-defined, no-any-return]

    def _Tuple(self, node: ast.Tuple, frame: Frame) -> Expression:
        elements = [hole(self.evaluate(element, frame)) for element in node.elts]
        return Code(code=ast.Tuple(elements, ast.Load()), tensor=False)

    def _List(self, node: ast.List, frame: Frame) -> Expression:
        elements = [hole(self.evaluate(element, frame)) for element in node.elts]
        return Code(code=ast.List(elements, ast.Load()), tensor=False)

    def _IfExp(self, node: ast.IfExp, frame: Frame) -> Expression:
        chosen = self.decide(node.test, frame)
        if chosen is not None:
            return self.evaluate(node.body if chosen else node.orelse, frame)
        parts = [self.evaluate(part, frame) for part in (node.test, node.body, node.orelse)]
        if any(part.per_edge for part in parts):
            raise Abort("a choice between values per edge")
        tensor = parts[1].tensor and parts[2].tensor
        # The sides may hold for one outcome of the test only: they are written inside of it.
        filled = [self.spelled(part) for part in parts]
        return Code(code=ast.IfExp(*filled), tensor=tensor)

    # Attributes and elements ######################################################

    def _Attribute(self, node: ast.Attribute, frame: Frame) -> Expression:
        return self.attribute(self.evaluate(node.value, frame), node.attr)

    def attribute(self, owner: Expression, name: str) -> Expression:
        """``owner.name``."""
        held = getattr(owner, "value", None)
        if isinstance(held, torch.nn.Module):
            value = getattr(held, name, None)
            node = ast.Attribute(clone(owner.code), name, ast.Load())
            if ast.unparse(node) in self.stored:
                raise Abort(f"'{name}' is written")
            return self.atom(node, tensor=isinstance(value, torch.Tensor), value=value)
        if isinstance(owner, Gather) and name in ("dtype", "device", "is_cuda"):
            return self.attribute(owner.source, name)
        kept = Code(code=ast.Attribute(hole(owner), name, ast.Load()), tensor=False)
        return (self.about_edges(owner, kept) if owner.per_edge else None) or kept

    def _Subscript(self, node: ast.Subscript, frame: Frame) -> Expression:
        return self.item(self.evaluate(node.value, frame), node.slice, frame=frame)

    def item(
        self,
        owner: Expression,
        position: ast.expr,
        count: int | None = None,
        frame: Frame | None = None,
    ) -> Expression:
        """``owner[position]``."""
        at = position.value if isinstance(position, ast.Constant) else None
        held = getattr(owner, "value", None)
        if isinstance(held, (torch.nn.ModuleList, torch.nn.Sequential)) and isinstance(at, int):
            node = ast.Subscript(clone(owner.code), ast.Constant(at), ast.Load())
            return self.atom(node, tensor=False, value=held[at])
        if isinstance(owner.code, (ast.Tuple, ast.List)) and isinstance(at, int):
            elements = owner.code.elts
            if not -len(elements) <= at < len(elements) or count not in (None, len(elements)):
                raise Abort("a tuple of another length")
            return elements[at].hole_  # type: ignore[attr-defined, no-any-return]
        tensor, declared = _element(owner, at)
        if isinstance(owner.code, (ast.Name, ast.Subscript)) and at is not None:
            if not owner.parts:
                code = ast.Subscript(clone(owner.code), ast.Constant(at), ast.Load())
                return self.atom(code, tensor=tensor, declared=declared)
        if owner.per_edge:
            found = self.part(owner, position)
            if found is not None:
                return found
        slice_ = position if frame is None else self._position(position, frame)
        code = ast.Subscript(hole(owner), slice_, ast.Load())
        return Code(code=code, tensor=tensor, declared=declared)

    def _position(self, node: ast.expr, frame: Frame) -> ast.expr:
        """What stands between brackets: slices are no values, their bounds are."""
        if isinstance(node, ast.Tuple):
            return ast.Tuple([self._position(n, frame) for n in node.elts], ast.Load())
        if isinstance(node, ast.Slice):
            ends = (node.lower, node.upper, node.step)
            return ast.Slice(*[e and self._field(e, frame) for e in ends])
        return hole(self.evaluate(node, frame))

    def part(self, owner: Expression, position: ast.expr) -> Expression | None:
        """Some features of a value per edge: taken before they are gathered."""
        code = ast.Subscript(hole(owner), position, ast.Load())
        spread = self.spread_by(owner, position, code)
        if spread is not None:
            return spread
        elements = position.elts if isinstance(position, ast.Tuple) else []
        if len(elements) != 2 or any(isinstance(n, ast.Name) for n in ast.walk(position)):
            return None
        first, second = elements
        whole = isinstance(first, ast.Slice) and not (first.lower or first.upper or first.step)
        ellipsis = isinstance(first, ast.Constant) and first.value is Ellipsis
        picks = isinstance(second, ast.Constant) and isinstance(second.value, int)
        if not (isinstance(owner, (Gather, Cat)) and (whole or ellipsis)):
            return None
        if isinstance(owner, Cat):
            if whole and picks:
                return Part(code=code, operand=owner, at=second.value)  # type: ignore[attr-defined]
            return None
        keeps = isinstance(second, ast.Slice)
        if (whole and owner.dim == 0) or (keeps and owner.dim in (0, -2)):
            taken = ast.Subscript(hole(owner.source), position, ast.Load())
            return self.gathered(owner, Code(code=taken), owner.dim)
        return None

    def gathered(self, owner: Gather, source: Expression, dim: int) -> Gather:
        """Something else, gathered as ``owner`` is."""
        func = owner.code.func  # type: ignore[attr-defined]
        args = [hole(source), hole(owner.index), self.constant(dim).code]
        made = ast.Call(clone(func), args, [])
        return Gather(code=made, source=source, index=owner.index, dim=dim, hint=owner.hint)

    def viewed(
        self,
        name: str,
        kept: Code,
        owner: Expression,
        args: list[Expression],
        options: dict[str | None, Any],
    ) -> Expression:
        """A view of a value per edge: of its source, where that is the same."""
        values: list[Any] = [a.value if isinstance(a, Const) else None for a in args]
        if isinstance(owner, Product):
            return self.without_unit(name, kept, owner) or kept
        if name == "dim":
            kept.bounds = (self.least_dims(owner), math.inf)
        if name in ("size", "dim") and isinstance(owner, Gather):
            return self._measured(name, kept, owner, values)
        if name == "unsqueeze" and not args and isinstance(options.get("dim"), Const):
            values, options = [options["dim"].value], {}
        if not options and None not in values:
            spread = self.spread(name, kept.code, owner, values)
            if spread is not None:
                return spread
        if not isinstance(owner, Gather) or owner.dim != 0 or options or None in values:
            return kept
        same = name in ("view", "reshape") and values[0] == -1 and min(values[1:], default=1) > 0
        if same or (name in ("unsqueeze", "squeeze") and values not in ([0], [])):
            code = clone(kept.code)
            code.func = ast.Attribute(hole(owner.source), name, ast.Load())
            code.args = [self.constant(value).code for value in values]
            return self.gathered(owner, Code(code=code), 0)
        return kept

    def _measured(self, name: str, kept: Code, owner: Gather, values: list[Any]) -> Expression:
        if name == "dim" or (values and values[0] is not None and values[0] != owner.dim):
            same_side = name == "dim" or (values[0] < 0) == (owner.dim < 0)
            if same_side or (owner.dim == 0 and values[0] == -1):
                code = clone(kept.code)
                code.func = ast.Attribute(hole(owner.source), name, ast.Load())
                code.args = [self.constant(value).code for value in values]
                return Code(code=code, tensor=False, bounds=kept.bounds)
        elif values:
            size = ast.Attribute(hole(owner.index), "size", ast.Load())
            return Code(code=ast.Call(size, [ast.Constant(0)], []), tensor=False)
        return kept

    # Arithmetic ###################################################################

    def _UnaryOp(self, node: ast.UnaryOp, frame: Frame) -> Expression:
        operand = self.evaluate(node.operand, frame)
        if isinstance(operand, Const):
            if isinstance(node.op, ast.USub):
                return self.constant(-operand.value)
            if isinstance(node.op, ast.Not):
                return self.constant(not operand.value)
        code = ast.UnaryOp(node.op, hole(operand))
        if isinstance(node.op, ast.USub) and isinstance(operand, Code) and not operand.tensor:
            low, high = operand.bounds
            return Code(code=code, tensor=False, bounds=(-high, -low))
        if isinstance(node.op, ast.USub) and operand.per_edge and operand.tensor:
            return self.mapped(code, "neg", [operand])
        return Code(code=code, tensor=operand.tensor)

    def _BinOp(self, node: ast.BinOp, frame: Frame) -> Expression:
        left, right = self.evaluate(node.left, frame), self.evaluate(node.right, frame)
        code = ast.BinOp(hole(left), node.op, hole(right))
        tensor = left.tensor or right.tensor
        if not (left.per_edge or right.per_edge):
            return Code(code=code, tensor=tensor)
        if isinstance(node.op, ast.MatMult):
            return self.product(code, left, right) or Code(code=code)
        name = BINARY.get(type(node.op))
        numeric = all(side.tensor or _is_number(side) for side in (left, right))
        if name is None or not numeric or (name == "pow" and not isinstance(right, Const)):
            return Code(code=code, tensor=tensor)
        return self.mapped(code, name, [left, right])

    def _BoolOp(self, node: ast.BoolOp, frame: Frame) -> Expression:
        decisive = isinstance(node.op, ast.Or)
        open_: list[ast.expr] = []
        for value in node.values:
            side = self.evaluate(value, frame)
            if not isinstance(side, Const):
                open_.append(hole(side))
            elif bool(side.value) == decisive:
                if not open_:
                    return self.constant(decisive)
                open_.append(hole(side))
        if len(open_) < 2:
            return open_[0].hole_ if open_ else self.constant(not decisive)  # type: ignore[attr-defined]
        return Code(code=ast.BoolOp(node.op, open_), tensor=False)

    def _Compare(self, node: ast.Compare, frame: Frame) -> Expression:
        sides = [self.evaluate(side, frame) for side in (node.left, *node.comparators)]
        if all(isinstance(side, Const) for side in sides) and len(sides) == 2:
            known = [side.value for side in sides]  # type: ignore[attr-defined]
            if type(node.ops[0]) in _COMPARE:
                return self.constant(_COMPARE[type(node.ops[0])](*known))
            if isinstance(node.ops[0], (ast.Is, ast.IsNot)) and None in known:
                same = known[0] is known[1]
                return self.constant(same == isinstance(node.ops[0], ast.Is))
        if len(sides) == 2:
            decided = _ordered(node.ops[0], _bounds(sides[0]), _bounds(sides[1]))
            if decided is not None:
                return self.constant(decided)
        if isinstance(node.ops[0], (ast.Is, ast.IsNot)) and len(sides) == 2:
            computed = isinstance(sides[0], Code) is False
            if computed and isinstance(sides[1], Const) and sides[1].value is None:
                return self.constant(isinstance(node.ops[0], ast.IsNot))
        code = ast.Compare(hole(sides[0]), node.ops, [hole(side) for side in sides[1:]])
        name = COMPARISONS.get(type(node.ops[0]))
        if len(sides) == 2 and name and any(side.per_edge for side in sides):
            if all(side.tensor or _is_number(side) for side in sides):
                return Map(code=code, operator=name, operands=sides)
        return Code(code=code, tensor=any(side.tensor for side in sides))

    def mapped(self, code: ast.expr, name: str, operands: list[Expression]) -> Expression:
        """An elementwise operation; factors that are one number go into a sum over features.

        Truth values and numbers alone do not make a floating-point value: that is left to torch.
        """
        judged = operands[1:] if name == "where" else operands
        if all(isinstance(o, Const) or is_truth(o) for o in judged):
            return Code(code=code)
        if name == "*" and isinstance(operands[1], Total) and not isinstance(operands[0], Total):
            operands = [operands[1], operands[0]]
        if name in ("*", "/") and isinstance(operands[0], Total):
            total, factor = operands[0], operands[1]
            if _is_single(factor):
                inner = Map(code=code, operator=name, operands=[total.operand, factor])
                inner.code = ast.BinOp(hole(total.operand), _OPERATOR[name], hole(factor))
                summed = ast.Attribute(hole(inner), "sum", ast.Load())
                dims = [self.constant(-k).code for k in range(total.dims, 0, -1)]
                spelled = ast.Call(summed, [dims[0] if len(dims) == 1 else ast.List(dims)], [])
                return Total(code=spelled, operand=inner, dims=total.dims)
        return Map(code=code, operator=name, operands=operands)


def _element(owner: Expression, at: Any) -> tuple[bool, ast.expr | None]:
    """Whether an element is a tensor, as far as that is known, and its declared type."""
    if isinstance(owner.code, ast.Attribute) and owner.code.attr == "shape":
        return False, None
    declared = owner.declared if isinstance(owner, Code) else None
    if owner.tensor or not isinstance(declared, ast.Subscript):
        return True, None
    parts = declared.slice.elts if isinstance(declared.slice, ast.Tuple) else [declared.slice]
    if ast.unparse(declared.value) != "Tuple":
        element = parts[-1]
    elif isinstance(at, int) and -len(parts) <= at < len(parts):
        element = parts[at]
    else:
        return True, None
    return ast.unparse(element) in TENSORS, element


def _bounds(expression: Expression) -> tuple[float, float]:
    if _is_number(expression):
        value = float(expression.value)  # type: ignore[attr-defined]
        return value, value
    return expression.bounds if isinstance(expression, Code) else (-math.inf, math.inf)


def _ordered(op: ast.cmpop, left: tuple[float, float], right: tuple[float, float]) -> bool | None:
    """What bounds say about a comparison."""
    below, above = left[1] < right[0], left[0] > right[1]
    if isinstance(op, (ast.Gt, ast.LtE)) and (above or left[1] <= right[0]):
        return above == isinstance(op, ast.Gt)
    if isinstance(op, (ast.Lt, ast.GtE)) and (below or left[0] >= right[1]):
        return below == isinstance(op, ast.Lt)
    if isinstance(op, (ast.Eq, ast.NotEq)) and (below or above):
        return isinstance(op, ast.NotEq)
    return None


def _is_single(expression: Expression) -> bool:
    """Whether a factor is a number, or a parameter that is one."""
    if isinstance(expression, Const):
        return True
    held = getattr(expression, "value", None)
    return isinstance(held, torch.nn.Parameter) and held.numel() == 1 and held.dim() <= 1


_OPERATOR: dict[str, ast.operator] = {"*": ast.Mult(), "/": ast.Div()}


def _is_number(expression: Expression) -> bool:
    value = expression.value if isinstance(expression, Const) else None
    return isinstance(value, (int, float)) and not isinstance(value, bool)
