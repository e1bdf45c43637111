"""Messages weighted by a softmax, and added up: scores and weights in one pass over the edges."""

from __future__ import annotations

import ast
from typing import Any

from gnnscript.passes.expressions import (
    Code,
    Const,
    Dropped,
    Expression,
    Linear,
    Map,
    Scatter,
    Softmax,
    Total,
    Weights,
    hole,
)
from gnnscript.passes.hoist import Hoist
from gnnscript.passes.programs import Program, fused_call, program_of, typed

__all__ = ["Attention", "has_softmax"]

_MODULE = "gnnscript.ops.fused_attention"
_MOST_FACTORS = 9  # and the weights, where they are an operand, too


class Attention(Hoist):
    """The part of a tracer that knows a softmax whose weights nothing else reads."""

    attentions = 0

    def attended(self, scatter: Scatter, operand: Expression, reduce: str) -> ast.expr | None:
        """A sum or mean of weighted messages, if the weights are not computed already."""
        weights, message = self._factors(operand)
        if weights is None or message is None or scatter.dim not in (0, -2):
            return None
        softmax = weights.softmax
        if softmax.index is not scatter.index or softmax.dim != 0:
            return None
        score = self.simplified(softmax.operand)
        summed = score.dims if isinstance(score, Total) else 0
        indices = [scatter.index]
        scored = program_of(score.operand if isinstance(score, Total) else score, indices)
        sent = program_of(self.simplified(message), indices, scatter.dim)
        if scored is None or sent is None or not (scored.operands and sent.operands):
            return None
        if len(sent.operands) > _MOST_FACTORS or self._has_layer(sent, scored):
            return None
        self.gains += 1
        self.attentions += 1
        call = self._call(scatter, weights, scored, sent, summed)
        if reduce != "sum":
            call.keywords.append(ast.keyword("reduce", ast.Constant(reduce)))
        return call

    def _has_layer(self, sent: Program, scored: Program) -> bool:
        """Whether messages have a layer of edge features, which other ops run part by part."""
        return any(
            isinstance(operand, Linear)
            and not operand.operand.per_edge
            and id(operand) not in self.memo
            and operand not in scored.operands
            for operand in sent.operands
        )

    def _call(
        self, scatter: Scatter, weights: Weights, scored: Program, sent: Program, summed: int
    ) -> ast.Call:
        index, other = sent.ends()
        args = [*self.program_arguments(scored), *self.program_arguments(sent)]
        args += [self.value(index), self.value(other), self.value(scatter.size)]
        options: dict[str, tuple[Any, Any]] = {
            "ones": (weights.ones, []),
            "view": (weights.sizes, None),
            "sum_dims": (summed, 0),
            "score_dim": (scored.dim, 0),
            "dim": (sent.dim, 0),
        }
        nodes = self.value(weights.softmax.size)
        if ast.unparse(nodes) not in (ast.unparse(args[-1]), "None"):
            options["nodes"] = (nodes, None)
        options |= {f"score_{name}": value for name, value in typed(scored).items()}
        return fused_call("edge_attend", args, options | typed(sent), _MODULE)

    def program_arguments(self, program: Program) -> list[ast.expr]:
        """The program's text and the list of its operands."""
        operands = [self.value(operand) for operand in program.operands]
        return [ast.Constant(program.text), ast.List(operands, ast.Load())]

    def _factors(self, operand: Expression) -> tuple[Weights | None, Expression | None]:
        """The weights among the factors of a product, and the product of the others."""
        if isinstance(operand, Softmax) and id(operand) not in self.memo:
            return Weights(code=operand.code, softmax=operand), None
        if isinstance(operand, Weights):
            known = id(operand) in self.memo or id(operand.softmax) in self.memo
            return (None if known else operand), None
        if not isinstance(operand, Map) or operand.operator not in ("*", "/"):
            return None, None
        if id(operand) in self.memo:
            return None, None
        left, right = operand.operands
        weights, rest = self._factors(left)
        beside = right
        if weights is None and operand.operator == "*":
            weights, rest = self._factors(right)
            beside = left
        if weights is None or has_softmax(beside, weights.softmax):
            return None, None
        if operand.operator == "/":
            rest = rest if rest is not None else self.one()
            code = ast.BinOp(hole(rest), ast.Div(), hole(beside))
            return weights, Map(code=code, operator="/", operands=[rest, beside])
        if rest is None:
            return weights, beside
        code = ast.BinOp(hole(rest), ast.Mult(), hole(beside))
        return weights, Map(code=code, operator="*", operands=[rest, beside])

    @staticmethod
    def one() -> Const:
        """The number one."""
        return Const(code=ast.Constant(1.0), value=1.0)

    def dropped(self, value: Expression, p: Expression) -> Expression | None:
        """Weights of which some are dropped. Random numbers are drawn where the code draws them."""
        if not isinstance(value, Softmax) or id(value) in self.memo or value.dim != 0:
            return None
        score = self.simplified(value.operand)
        summed = score.dims if isinstance(score, Total) else 0
        scored = program_of(score.operand if isinstance(score, Total) else score, [value.index])
        if scored is None or not scored.operands:
            return None
        args = [*self.program_arguments(scored), self.value(value.index), self.value(p)]
        options: dict[str, tuple[Any, Any]] = {"dim": (scored.dim, 0), "sum_dims": (summed, 0)}
        call = fused_call("dropout_mask", args, options | typed(scored), _MODULE)
        mask = Code(code=self.name("mask", call))  # never one for two calls
        code = ast.BinOp(hole(value), ast.Mult(), hole(mask))
        return Dropped(code=code, operator="*", operands=[value, mask])

    # Views ########################################################################

    def spread(
        self, name: str, code: ast.expr, owner: Expression, values: list[Any]
    ) -> Expression | None:
        """A view of weights, or of a product with weights, that the passes can look through."""
        if isinstance(owner, Map):
            alike = isinstance(owner, Dropped) or (name, values) == ("unsqueeze", [-1])
            return self._spread_map(name, code, owner, values) if alike else None
        ones: list[int] = []
        if isinstance(owner, Weights) and owner.sizes is None:
            softmax, ones = owner.softmax, owner.ones
        elif isinstance(owner, Softmax):
            softmax = owner
        else:
            return None
        if name == "unsqueeze" and len(values) == 1:
            return Weights(code=code, softmax=softmax, ones=[*ones, *values])
        fixed = bool(values) and values[0] == -1 and min(values[1:], default=1) > 0
        if name in ("view", "reshape") and fixed and not ones:
            return Weights(code=code, softmax=softmax, sizes=values[1:])
        return None

    def _spread_map(
        self, name: str, code: ast.expr, owner: Map, values: list[Any]
    ) -> Expression | None:
        """A view of a product: that of factors which are viewed so."""
        if not has_softmax(owner) or id(owner) in self.memo:
            return None
        operands: list[Expression] = []
        for operand in owner.operands:
            if isinstance(operand, Const):
                operands.append(operand)
                continue
            if not operand.tensor:
                return None
            sizes = [self.constant(value).code for value in values]  # type: ignore[attr-defined]
            viewed = ast.Call(ast.Attribute(hole(operand), name, ast.Load()), sizes, [])
            spread = self.spread(name, viewed, operand, values)
            if spread is None and isinstance(operand, (Softmax, Weights)):
                return None
            operands.append(spread or Code(code=viewed))
        return type(owner)(code=code, operator=owner.operator, operands=operands)

    def spread_by(self, owner: Expression, position: ast.expr, code: ast.expr) -> Expression | None:
        """``alpha[..., None]``, ``alpha[:, None]`` and the like."""
        if not isinstance(owner, (Softmax, Weights, Map)):
            return None
        elements = position.elts if isinstance(position, ast.Tuple) else [position]
        count = 0
        while count < len(elements) and _is_whole(elements[count]):
            count += 1
        rest = elements[count:]
        if not rest or not all(isinstance(e, ast.Constant) and e.value is None for e in rest):
            return None
        ellipses = [isinstance(e, ast.Constant) for e in elements[:count]]
        if any(ellipses) and count > 1:
            return None
        value: Expression | None = owner
        for number in range(len(rest)):
            at = -1 if any(ellipses) else count + number
            value = value and self.spread("unsqueeze", code, value, [at])
        return value


def _is_whole(element: ast.expr) -> bool:
    """``:`` or ``...``."""
    if isinstance(element, ast.Slice):
        return not (element.lower or element.upper or element.step)
    return isinstance(element, ast.Constant) and element.value is Ellipsis


def has_softmax(expression: Expression, softmax: Softmax | None = None) -> bool:
    """Whether a value is made of a softmax, of a certain one if it is given."""
    seen: set[int] = set()

    def look(part: Expression) -> bool:
        if id(part) in seen:
            return False
        seen.add(id(part))
        if isinstance(part, Softmax) and softmax in (None, part):
            return True
        return any(map(look, part.parts))

    return look(expression)
