"""Linear layers of values per edge: split into layers of the nodes they are gathered from.

``W @ [x_i, x_j - x_i, e]`` is a sum of ``(W1 - W2) @ x`` at one end of an edge, ``W2 @ x`` at the
other and ``W3 @ e``. The first two are computed once for each node.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from gnnscript.passes.expressions import (
    Cat,
    Code,
    Const,
    Expression,
    Gather,
    Linear,
    Map,
    Part,
    Softmax,
    Stack,
    Total,
    filled,
    hole,
)
from gnnscript.passes.state import State
from gnnscript.specialize.helpers import import_reference

__all__ = ["Hoist", "regathered", "stacked"]


@dataclass
class _Term:
    """A part of a linear layer: the columns of the weight that act on one value.

    Args:
        leaf: The value.
        weight: The columns.
        sign: Whether the value is added or subtracted.
        joined: Whether torch would have brought the value to the width or the dtype of another.
    """

    leaf: Expression
    weight: Expression
    sign: int
    joined: bool = False


class Hoist(State):
    """The part of a tracer that moves linear layers to the nodes."""

    def simplified(self, expression: Expression) -> Expression:
        """An equal expression whose linear layers act on nodes where they can."""
        key = id(expression)
        if key in self.memo:
            return expression
        if key not in self.simplest:
            self.keep.append(expression)
            self.simplest[key] = self._simplified(expression)
        return self.simplest[key]

    def _simplified(self, expression: Expression) -> Expression:
        if isinstance(expression, Map):
            operands = [self.simplified(operand) for operand in expression.operands]
            stacks = [o for o in operands if isinstance(o, Stack)]
            if stacks and all(_stacks_like(o, stacks[0]) for o in operands):
                return _unstacked(expression, operands, stacks[0])
            if all(new is old for new, old in zip(operands, expression.operands, strict=True)):
                return expression
            code = _replaced(expression, operands)
            return Map(
                code=code, operator=expression.operator, operands=operands, hint=expression.hint
            )
        if isinstance(expression, Total):
            operand = self.simplified(expression.operand)
            summed = self._summed(operand, expression.dims)
            if summed is not None:
                return summed
            if operand is expression.operand:
                return expression
            return Total(
                code=expression.code, operand=operand, dims=expression.dims, hint=expression.hint
            )
        if isinstance(expression, Linear):
            return self._spread(expression) or expression
        return expression

    def lifted(self, expression: Expression, summed: int = 0) -> Gather | None:
        """A value per edge that depends on one end of it only, as a gathered value.

        Args:
            expression: The value.
            summed: How many of its last dimensions are summed. A parameter may have these, and one
                more for all edges.
        """
        if id(expression) in self.memo:
            return None
        expression = self.simplified(expression)
        if isinstance(expression, Gather):
            return expression
        if not isinstance(expression, Map):
            return None
        inner: list[Expression] = []
        for operand in expression.operands:
            lifted = self.lifted(operand, summed) if operand.per_edge else operand
            if lifted is None or not (operand.per_edge or _spans(operand, summed)):
                return None
            inner.append(lifted)
        gathers = [o for o in inner if isinstance(o, Gather)]
        first = gathers[0]
        if any((g.index, g.dim) != (first.index, first.dim) for g in gathers):
            return None
        sources = [o.source if isinstance(o, Gather) else o for o in inner]
        source = Code(code=_replaced(expression, sources))
        return regathered(first, source)

    def _summed(self, operand: Expression, dims: int) -> Gather | None:
        """The sum over the last dimensions of a value that one end of an edge has, at the nodes."""
        if not isinstance(operand, Map) or self.least_dims(operand) <= dims:
            return None
        gather = self.lifted(operand, dims)
        if gather is None or -dims <= gather.dim < 0:
            return None
        self.gains += 1
        last: list[ast.expr] = [
            ast.UnaryOp(ast.USub(), ast.Constant(d)) for d in range(dims, 0, -1)
        ]
        over = last[0] if dims == 1 else ast.List(last, ast.Load())
        code = ast.Call(ast.Attribute(hole(gather.source), "sum", ast.Load()), [over], [])
        summed = regathered(gather, Code(code=code))
        summed.dim += dims if gather.dim < 0 else 0
        return summed

    def _spread(self, linear: Linear) -> Expression | None:
        """The sum over the ends of an edge that a linear layer is."""
        terms = self._terms(linear.operand, linear.weight, 1)
        if terms is None or not any(isinstance(term.leaf, Gather) for term in terms):
            return None
        self.gains += 1
        merged: dict[tuple[int, int, int], list[_Term]] = {}
        for term in terms:
            leaf = term.leaf
            key = (id(leaf), 0, 0)
            if isinstance(leaf, Gather):
                key = (id(leaf.source), id(leaf.index), leaf.dim)
            merged.setdefault(key, []).append(term)
        bias = linear.bias
        parts: list[Expression] = []
        for group in sorted(merged.values(), key=lambda g: not isinstance(g[0].leaf, Gather)):
            leaf, weight = group[0].leaf, _combined(group)
            joined = any(term.joined for term in group)
            if isinstance(leaf, Gather):
                source = self.linear_code(leaf.source, weight, bias, joined=True)
                parts.append(regathered(leaf, source))
                bias = None
            else:
                code = self.linear_code(leaf, weight, None, joined)
                layer = Linear(code=code.code, operand=leaf, weight=weight, bias=None)
                parts.append(code if leaf.per_edge else layer)
        result = parts[0]
        for part in parts[1:]:
            code_ = ast.BinOp(hole(result), ast.Add(), hole(part))
            result = Map(code=code_, operator="+", operands=[result, part])
        return result

    def linear_code(
        self,
        operand: Expression,
        weight: Expression,
        bias: Expression | None,
        joined: bool = False,
    ) -> Code:
        """``F.linear(operand, weight, bias)``.

        Or, of what torch would have gathered, ``joined`` or both before: it is widened, converted
        and copied first where that matters.
        """
        args = [hole(operand), hole(weight)] + ([hole(bias)] if bias is not None else [])
        if joined:
            function = import_reference("gnnscript.ops.fused", "linear_part", "linear_part")
            return Code(code=ast.Call(function, args, []))
        functional = import_reference("torch.nn.functional", "", "F")
        return Code(code=ast.Call(ast.Attribute(functional, "linear", ast.Load()), args, []))

    def _terms(self, operand: Expression, weight: Expression, sign: int) -> list[_Term] | None:
        """What a linear layer of ``operand`` adds up."""
        if id(operand) not in self.memo:
            if isinstance(operand, Part):
                operand = self._taken(operand)
            if isinstance(operand, Cat):
                return self._columns(operand, weight, sign)
            if isinstance(operand, Map) and operand.operator in ("+", "-"):
                sides = [self.lifted(o) for o in operand.operands]
                if all(side is not None and _same_source(side, sides[0]) for side in sides):
                    second = sign if operand.operator == "+" else -sign
                    joined = len({id(side.source) for side in sides if side is not None}) > 1
                    return [
                        _Term(sides[0], weight, sign, joined),  # type: ignore[arg-type]
                        _Term(sides[1], weight, second, joined),  # type: ignore[arg-type]
                    ]
            gather = self.lifted(operand)
            if gather is not None:
                return [_Term(gather, weight, sign)]
        return [_Term(operand, weight, sign)]

    def _columns(self, cat: Cat, weight: Expression, sign: int) -> list[_Term] | None:
        sizes = [self._width(operand) for operand in cat.operands]
        func = ast.Attribute(hole(weight), "split", ast.Load())
        code = ast.Call(func, [ast.List(sizes, ast.Load()), ast.Constant(1)], [])
        columns = Code(code=code, hint="weights", tensor=False)
        terms: list[_Term] = []
        for number, operand in enumerate(cat.operands):
            part = ast.Subscript(hole(columns), ast.Constant(number), ast.Load())
            inner = self._terms(operand, Code(code=part), sign)
            if inner is None:
                return None
            terms += [replace(term, joined=len(sizes) > 1) for term in inner]
        return terms

    def _width(self, operand: Expression) -> ast.expr:
        """The number of features of a value per edge, without computing it."""
        lifted = self.lifted(operand)
        sides = [o for o in getattr(operand, "operands", []) if isinstance(o, Gather)]
        if lifted is not None:
            sources = [lifted.source]
        elif len(sides) == 2 and _same_source(sides[0], sides[1]):
            sources = [sides[0].source]
            if sides[1].source is not sides[0].source:
                sources.append(sides[1].source)  # one of them may be broadcast
        else:
            sources = [operand]
        last = ast.UnaryOp(ast.USub(), ast.Constant(1))
        sizes: list[ast.expr] = [
            ast.Call(ast.Attribute(hole(source), "size", ast.Load()), [last], [])
            for source in sources
        ]
        return sizes[0] if len(sizes) == 1 else ast.Call(ast.Name("max", ast.Load()), sizes, [])

    def _taken(self, part: Part) -> Expression:
        """``cat([a, b])[:, k]`` as ``cat([a[:, k], b[:, k]])``, where that is the same."""
        cat = part.operand
        assert isinstance(cat, Cat)
        if not all(isinstance(o, Gather) and o.dim == 0 for o in cat.operands):
            return part
        taken: list[Expression] = []
        for operand in cat.operands:
            assert isinstance(operand, Gather)
            dim = ast.Call(ast.Attribute(hole(operand.source), "dim", ast.Load()), [], [])
            test = ast.Compare(dim, [ast.Gt()], [ast.Constant(2)])
            text = ast.unparse(self.spelled(Code(code=test)))
            if not self.facts.get(text):
                self.emit(ast.Assert(self.spelled(Code(code=test))))
                self.facts[text] = True
            self.keep.append(operand.source)
            whole = ast.Tuple([ast.Slice(), ast.Constant(part.at)], ast.Load())
            source = self.once(ast.Subscript(hole(operand.source), whole, ast.Load()))
            taken.append(regathered(operand, source))
        return Cat(code=part.code, operands=taken)

    def least_dims(self, value: Expression) -> int:
        """The least number of dimensions that a value can have."""
        if isinstance(value, Stack):
            return 1 + max(self.least_dims(operand) for operand in value.operands)
        if isinstance(value, (Map, Cat)):
            return max(self.least_dims(operand) for operand in value.operands)
        if isinstance(value, Total):
            return max(self.least_dims(value.operand) - value.dims, 0)
        if isinstance(value, Linear) and isinstance(value.operand, Part):
            if self.simplified(value) is not value:
                return 2  # asserted by '_taken'
        if isinstance(value, (Linear, Part, Softmax)):
            return max(1, self.least_dims(value.operand) - isinstance(value, Part))
        if isinstance(held := getattr(value, "value", None), torch.nn.Parameter):
            return held.dim()
        if isinstance(value, Gather):
            least = self.least_dims(value.source)
            return max(least, value.dim + 1 if value.dim >= 0 else -value.dim)
        return 0

    def once(self, code: ast.expr) -> Code:
        """The same expression for the same code."""
        key = ast.unparse(self.spelled(Code(code=code)))
        return self.atoms.setdefault(key, Code(code=code))


def regathered(owner: Gather, source: Expression) -> Gather:
    """Something else, gathered as ``owner`` is."""
    assert isinstance(owner.code, ast.Call)
    code = ast.Call(owner.code.func, [hole(source), *owner.code.args[1:]], owner.code.keywords)
    return Gather(code=code, source=source, index=owner.index, dim=owner.dim)


def _spans(value: Expression, summed: int) -> bool:
    """Whether a value is a number, or a parameter that no edge has a row of."""
    if isinstance(value, Const):
        return True
    held = getattr(value, "value", None)
    if summed == 0 or not isinstance(held, torch.nn.Parameter):
        return False
    return held.dim() <= summed or held.size(0) == 1


def _same_source(a: Gather | None, b: Gather | None) -> bool:
    """Whether two gathered values have the same features: both come from one argument."""
    if a is None or b is None:
        return False
    return a.dim == b.dim and _root(a.source) == _root(b.source) is not None


def _root(source: Expression) -> str | None:
    """The argument that node values are, or are one of a pair of."""
    node = source.code
    while isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        node = node.value
    return node.id if isinstance(node, ast.Name) and not hasattr(node, "hole_") else None


def _combined(terms: list[_Term]) -> Expression:
    """The sum of the weights that act on one value."""
    ordered = sorted(terms, key=lambda term: -term.sign)
    code: ast.expr = hole(ordered[0].weight)
    if ordered[0].sign < 0:
        code = ast.UnaryOp(ast.USub(), code)
    for term in ordered[1:]:
        operator = ast.Add() if term.sign > 0 else ast.Sub()
        code = ast.BinOp(code, operator, hole(term.weight))
    if len(terms) == 1 and terms[0].sign > 0:
        return terms[0].weight
    return Code(code=code)


def stacked(like: Stack, operands: Sequence[Expression]) -> ast.Call:
    """The code of another stack along the same dimension."""
    assert isinstance(like.code, ast.Call)
    parts: list[ast.expr] = [hole(operand) for operand in operands]
    args = [ast.List(parts, ast.Load()), *like.code.args[1:]]
    return ast.Call(like.code.func, args, like.code.keywords)


def _stacks_like(value: Expression, first: Stack) -> bool:
    if isinstance(value, Stack):
        return len(value.operands) == len(first.operands)
    return isinstance(value, Const)


def _unstacked(expression: Map, operands: list[Expression], like: Stack) -> Stack:
    """An operation on stacks as the stack of its results."""
    results: list[Expression] = []
    for number in range(len(like.operands)):
        inner = [o.operands[number] if isinstance(o, Stack) else o for o in operands]
        code = _replaced(expression, inner)
        results.append(Map(code=code, operator=expression.operator, operands=inner))
    return Stack(code=stacked(like, results), operands=results, hint=expression.hint)


def _replaced(expression: Map, operands: list[Expression]) -> ast.expr:
    """The code of an operation with other operands."""
    swap = {id(o): n for o, n in zip(expression.operands, operands, strict=True)}

    def fill(part: Expression) -> ast.expr:
        return hole(swap.get(id(part), part))

    result: ast.expr = filled(expression.code, fill)
    return result
