"""Chooses how each value is computed: fused over edges, per node, or as it was written."""

from __future__ import annotations

import ast
import math
import re
from dataclasses import replace
from typing import Any

from gnnscript.passes.attention import Attention
from gnnscript.passes.elementwise import MONOTONE, is_truth
from gnnscript.passes.expressions import (
    Code,
    Const,
    Expression,
    Gather,
    Linear,
    Map,
    Product,
    Scatter,
    Stack,
    Total,
    hole,
)
from gnnscript.passes.hoist import stacked
from gnnscript.passes.programs import Program, build, fused_call, typed
from gnnscript.specialize.helpers import torch_name

__all__ = ["Rewriting"]

_FUSED = {"sum": "sum", "add": "sum", "mean": "mean", "mul": "mul"}
_FUSED |= {"min": "min", "amin": "min", "max": "max", "amax": "max"}

# What depends on the shape, dtype and device of a tensor alone.
_ABOUT = frozenset(
    {
        "device", "dim", "dtype", "is_cuda", "is_floating_point", "new_empty", "new_full",
        "new_ones", "new_zeros", "size",
    }
)  # fmt: skip


class Rewriting(Attention):
    """The part of a tracer that rewrites values when they are needed."""

    def rewritten(self, expression: Expression) -> ast.expr:
        """The best code for a value."""
        expression = self.simplified(expression)
        if isinstance(expression, Scatter):
            return self.reduced(expression)
        if isinstance(expression, (Map, Total)):
            fused = self.mapped_over_edges(expression)
            if fused is not None:
                return fused
        if isinstance(expression, Stack) and len(expression.operands) == 1:
            (only,) = expression.operands
            if isinstance(only, (Map, Linear)) and id(only) not in self.memo:  # nobody else has it
                view = ast.Attribute(self.value(only), "unsqueeze", ast.Load())
                return ast.Call(view, [ast.Constant(1)], [])
        return self.spelled(expression)

    def mapped_over_edges(self, expression: Map | Total) -> ast.expr | None:
        """An elementwise expression of gathered values, without those values."""
        operand = expression.operand if isinstance(expression, Total) else expression
        program = build(operand, None)
        if program is None or not program.gathers:
            return None
        self.gains += 1
        index, other = program.ends()
        args = [*self.program_arguments(program), self.value(index), self.value(other)]
        dims = expression.dims if isinstance(expression, Total) else 0
        options = {"dim": (program.dim, 0), "sum_dims": (dims, 0)}
        values = fused_call("edge_values", args, options | typed(program))
        if not is_truth(operand):
            return values
        return ast.Call(ast.Attribute(values, "to", ast.Load()), [torch_name("torch.bool")], [])

    def about_edges(self, expression: Expression, kept: Code) -> Code | None:
        """What depends on the shape, dtype and device of a value per edge alone, without the value.

        It is asked of the same value of no edges.

        Args:
            expression: The value.
            kept: A call of one of its methods, or an attribute.
        """
        func = kept.code.func if isinstance(kept.code, ast.Call) else kept.code
        if not isinstance(func, ast.Attribute) or func.attr not in _ABOUT:
            return None
        operand = self.simplified(expression)
        if id(expression) in self.memo or not isinstance(operand, (Gather, Map)):
            return None
        program = None if is_truth(operand) else build(operand, None)
        if program is None:
            return None
        given = kept.code.args if isinstance(kept.code, ast.Call) else []
        if func.attr == "size":
            at = getattr(given[0].hole_, "value", None) if len(given) == 1 else None  # type: ignore[attr-defined]
            if not isinstance(at, int):
                return None
            if at == program.dim or (at == 0 and program.dim == -2 and self.is_matrix(program)):
                size = ast.Attribute(hole(program.indices[0]), "size", ast.Load())
                return Code(code=ast.Call(size, [ast.Constant(0)], []), tensor=False)
            if not (at == -1 and program.dim == -2) and not (at > 0 and program.dim == 0):
                return None
        asked = ast.Attribute(hole(self.sampled(program)), func.attr, ast.Load())
        if not isinstance(kept.code, ast.Call):
            return Code(code=asked, tensor=False)
        bounds = (self.least_dims(operand) if func.attr == "dim" else -math.inf, math.inf)
        call = ast.Call(asked, given, kept.code.keywords)
        return Code(code=call, tensor=kept.tensor, bounds=bounds)

    def sampled(self, program: Program) -> Code:
        """The values of a program for no edges."""
        index, other = program.ends()
        args = [*self.program_arguments(program), self.value(index), self.value(other)]
        call = fused_call("edge_sample", args, {"dim": (program.dim, 0)} | typed(program))
        sample = self.computed(call, "sample")
        self.samples[ast.unparse(sample)] = {id(operand) for operand in program.operands}
        return Code(code=sample)

    def is_matrix(self, program: Program) -> bool:
        """Whether values are known to have two dimensions on this path: others of the same have."""
        operands = {id(operand) for operand in program.operands}
        return any(
            self.facts.get(f"{name}.dim() == 2") is True
            or self.facts.get(f"{name}.dim() != 2") is False
            for name, others in self.samples.items()
            if others == operands
        )

    def layered_arguments(self, program: Program) -> tuple[list[ast.expr], int] | None:
        """The arguments of a program some of whose values per edge come from linear layers.

        They are the program, its operands, and which of these are the input of a layer, with the
        layers' weights; a bias becomes an operand of its own, behind the others. How many do is
        returned, too: they take the layer's type, which under autocast is not theirs.
        """
        text, operands = program.text, list(program.operands)
        places: list[ast.expr] = []
        weights: list[ast.expr] = []
        for number, operand in enumerate(program.operands):
            if not isinstance(operand, Linear) or id(operand) in self.memo:
                continue
            if operand.operand.per_edge or f"e{number}" not in text:
                continue
            places.append(ast.Constant(number))
            weights.append(self.value(operand.weight))
            operands[number] = operand.operand
            if operand.bias is not None:
                letter = f"e{number}"
                text = re.sub(rf"\b{letter}\b", f"({letter} + s{len(operands)})", text)
                operands.append(operand.bias)
        if not places or len(operands) > 10:
            return None
        given = [self.value(operand) for operand in operands]
        lists = [ast.List(items, ast.Load()) for items in (given, places, weights)]
        return [ast.Constant(text), *lists], len(operands) - len(program.operands)

    def reduced(self, scatter: Scatter) -> ast.expr:
        """A reduction over edges."""
        operand = self.simplified(scatter.operand)
        if id(operand) in self.memo:
            return self.spelled(scatter)
        if isinstance(operand, Stack) and scatter.dim == 0:
            parts = [self.rescattered(scatter, part) for part in operand.operands]
            return self.spelled(Code(code=stacked(operand, parts)))
        reduce = _FUSED.get(scatter.reduce)
        if reduce in ("sum", "mean"):
            attended = self.attended(scatter, operand, reduce)
            if attended is not None:
                return attended
        if isinstance(operand, Linear) and reduce in ("sum", "mean") and scatter.dim in (0, -2):
            return self.behind(scatter, operand, reduce)
        if isinstance(operand, Product) and reduce in ("sum", "mean") and scatter.dim in (0, -2):
            factored = self.factored(scatter, operand, reduce)
            if factored is not None:
                return factored
        if isinstance(operand, Map) and reduce in ("max", "min"):
            inner = operand.operands[0]
            rising = operand.operator in MONOTONE and _rises(operand)
            if rising and inner.per_edge:
                outer = _refilled(operand, self.rescattered(scatter, inner))
                return self.spelled(Code(code=outer))
        fits = reduce is not None and not is_truth(operand)
        program = build(operand, scatter) if fits else None
        if fits and scatter.dim == 0 and program is not None and not program.gathers:
            turned = build(operand, None)  # rows in dimension -2 are rows in 0 of a matrix
            if turned is not None and turned.dim == -2 and self.is_matrix(turned):
                program = build(operand, replace(scatter, dim=-2))
        if program is None or not program.gathers:
            return self.spelled(scatter)
        self.gains += 1
        index, other = program.ends()
        options = {"dim": (program.dim, 0), "reduce": (reduce, "sum")}
        layered, name = self.layered_arguments(program), "edge_aggregate_layers"
        if layered is not None:
            args, biases = layered
            options |= typed(program, biases)
        else:
            args, name = self.program_arguments(program), "edge_aggregate"
            options |= typed(program)
        args += [self.value(index), self.value(other), self.value(scatter.size)]
        return fused_call(name, args, options)

    def factored(self, scatter: Scatter, product: Product, reduce: str) -> ast.expr | None:
        """A vector times a matrix for each edge, without the matrices."""
        program = build(self.simplified(product.operand), scatter)
        if product.unit or program is None or not program.gathers:
            return None
        self.gains += 1
        matrix, linear = product.matrix, product.matrix.linear
        index, other = program.ends()
        args = [*self.program_arguments(program), self.value(linear.operand)]
        args += [self.value(linear.weight)]
        args += [self.value(linear.bias) if linear.bias is not None else ast.Constant(None)]
        args += [ast.Constant(matrix.rows), ast.Constant(matrix.columns)]
        args += [self.value(index), self.value(other), self.value(scatter.size)]
        return fused_call(
            "edge_products", args, {"left": (product.left, False), "reduce": (reduce, "sum")}
        )

    def rescattered(self, scatter: Scatter, operand: Expression) -> Scatter:
        """The same reduction of something else."""
        code = clone_call(scatter.code, operand)
        return Scatter(
            code=code,
            operand=operand,
            index=scatter.index,
            size=scatter.size,
            reduce=scatter.reduce,
            dim=scatter.dim,
        )

    def behind(self, scatter: Scatter, linear: Linear, reduce: str) -> ast.expr:
        """A linear layer behind a sum or mean: once for each node instead of each edge."""
        self.gains += 1
        total = self.rescattered(scatter, linear.operand)
        none = ast.Constant(None)
        summed = self.linear_code(total, linear.weight, None)
        if linear.bias is None:
            return self.spelled(summed)
        held = self.name("out", self.spelled(summed))
        args = [held, self.value(linear.bias), self.value(scatter.index)]
        args.append(self.value(scatter.size) if not isinstance(scatter.size, Const) else none)
        return fused_call(
            "add_edge_bias", args, {"dim": (scatter.dim, 0), "reduce": (reduce, "sum")}
        )


def clone_call(code: ast.expr, operand: Expression) -> ast.Call:
    """A call with another first argument."""
    assert isinstance(code, ast.Call)
    return ast.Call(code.func, [hole(operand), *code.args[1:]], code.keywords)


def _rises(operand: Map) -> bool:
    return all(isinstance(c, Const) and c.value >= 0 for c in operand.operands[1:])


def _refilled(operand: Map, inner: Expression) -> ast.expr:
    """The code of an operation of one value, on another value."""
    code = operand.code
    assert isinstance(code, ast.Call)
    if isinstance(code.func, ast.Attribute) and getattr(code.func.value, "hole_", None):
        func: Any = ast.Attribute(hole(inner), code.func.attr, ast.Load())
        return ast.Call(func, code.args, code.keywords)
    return ast.Call(code.func, [hole(inner), *code.args[1:]], code.keywords)
