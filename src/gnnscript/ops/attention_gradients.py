"""Gradients of attention over rows: edge programs, as those of ``edge_gradients`` are.

Let a row have scores ``s``, weights ``w = softmax(s)``, messages ``m`` and the gradient ``G`` of
their weighted sum. The gradient of a message is ``w G``, that of a score ``w (G m - mean)``, where
``mean`` is the weighted mean of ``G m`` in the row: ``G`` times the result. Weights are not kept
for it: they are found again from each row's largest score and its sum of exponentials.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from gnnscript.ops.copies import kept_copy
from gnnscript.ops.differentiation import register_gradient
from gnnscript.ops.edge_gradients import (
    EdgeProgram,
    Graph,
    feature_shape,
    gradients,
    linear_programs,
    programs_of,
)
from gnnscript.ops.program import Expressions, postorder, sides

__all__ = ["attention_shapes", "register"]

_ops = torch.ops.gnnscript


@functools.lru_cache(maxsize=1024)
def _message_programs(message: str) -> tuple[EdgeProgram | None, ...]:
    """The gradients where operand number n of n is the weight, the next the gradient of a row."""
    expressions = Expressions()
    count = len(sides(message))
    grad = expressions.multiply(expressions.leaf("e", count), expressions.leaf("i", count + 1))
    root = expressions.parse(message)
    return programs_of(expressions, expressions.gradients(root, grad), count)


@functools.lru_cache(maxsize=1024)
def _projection(message: str) -> str:
    """The product of a message and the gradient of its row, which is the last operand."""
    expressions = Expressions()
    grad = expressions.leaf("i", len(sides(message)))
    root = expressions.multiply(expressions.parse(message), grad)
    leaves = {node.leaf for node in postorder(root) if node.leaf is not None}
    return expressions.write(root, {leaf: leaf for leaf in leaves})


def attention_shapes(
    score: str, score_operands: list[Tensor], sum_dims: int, message: str, operands: list[Tensor]
) -> tuple[list[int], list[int], int]:
    """Return the feature shapes of both, and for how many last dimensions a weight is."""
    scored = list(feature_shape(score, score_operands))
    scored = scored[: len(scored) - sum_dims]
    own = list(scored)
    while own and own[-1] == 1:
        own.pop()
    messages = list(feature_shape(message, operands))
    return scored, messages, len(messages) - len(own)


def _context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    score, score_operands, sum_dims, message, operands, index, other, ptr, perm = inputs
    ctx.texts, ctx.sum_dims, ctx.count = (score, message), sum_dims, len(score_operands)
    ctx.twins = [
        next((place for place, sent in enumerate(operands) if sent is scored), None)
        for scored in score_operands
    ]
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.set_materialize_grads(False)
    # Layers add to their result in place, as PyG's own ops allow.
    kept = kept_copy(output[0], always=True)
    ctx.save_for_backward(index, other, ptr, perm, kept, *output[1:], *score_operands, *operands)


def _backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
    index, other, ptr, perm, out, high, total, *tensors = ctx.saved_tensors
    score, message = ctx.texts
    score_operands, operands = tensors[: ctx.count], tensors[ctx.count :]
    none = [None] * len(score_operands), [None] * len(operands)
    if grad is None:
        return (None, none[0], None, None, none[1], None, None, None, None)
    call = (score, score_operands, ctx.sum_dims, message, operands, index, other, ptr, perm)
    scored, messages, trailing = attention_shapes(*call[:5])
    if torch.is_grad_enabled():
        weight, slope = _differentiable(call, grad, scored, trailing)
    else:
        weight, slope = _ops.edge_attention_backward(
            *call, grad, high, total, _mean(grad, out, high)
        )
    graph = Graph(index, other, (ptr, perm))
    spread = _spread(weight, messages, trailing)
    of_message = gradients(
        message,
        ctx.needs_input_grad[4],
        graph,
        _message_programs(message),
        operands,
        [spread, grad],
        messages,
    )
    del weight, spread  # one value per edge and head less at the peak
    shares: list[Tensor | None] = [None] * ctx.count
    if not torch.is_grad_enabled():  # values that both programs read have one gradient
        for number, twin in enumerate(ctx.twins):
            if twin is not None:
                shares[number], of_message[twin] = of_message[twin], None
    shape = feature_shape(score, score_operands)
    slope = slope.reshape([*slope.shape, *([1] * ctx.sum_dims)]).expand([slope.size(0), *shape])
    of_score = gradients(
        score,
        ctx.needs_input_grad[1],
        graph,
        linear_programs(score, "e"),
        score_operands,
        [slope],
        shape,
        shares,
    )
    return None, of_score, None, None, of_message, None, None, None, None


def _mean(grad: Tensor, out: Tensor, like: Tensor) -> Tensor:
    """The sum over the features of each head of the gradient times the result."""
    if out.numel() == 0:
        return like
    along = grad.to(like.dtype) * out.to(like.dtype)
    return along.reshape([*like.shape, -1]).sum(-1)


def _differentiable(
    call: tuple[Any, ...], grad: Tensor, scored: list[int], trailing: int
) -> tuple[Tensor, Tensor]:
    """The weights and the gradient of the scores, made of ops that have gradients."""
    score, score_operands, sum_dims, message, operands, index, other, ptr, perm = call
    logits = _ops.edge_map(score, score_operands, index, other, sum_dims)
    weight = _ops.edge_softmax(logits, ptr, perm)
    along = _ops.edge_map(_projection(message), [*operands, grad], index, other, trailing)
    along = along.reshape([index.size(0), *scored])
    mean = _ops.segment_reduce(weight * along, ptr, perm, "sum")
    slope = weight * (along - _ops.segment_expand(mean, ptr, perm, index.size(0)))
    return weight, slope


def _spread(weight: Tensor, messages: list[int], trailing: int) -> Tensor:
    """Weights with as many dimensions as messages have."""
    own = messages[: len(messages) - trailing]
    return weight.reshape([weight.size(0), *own, *([1] * trailing)])


def register() -> None:
    """Registers the gradient; once, after the library has been loaded."""
    register_gradient("edge_attention", _backward, _context)
