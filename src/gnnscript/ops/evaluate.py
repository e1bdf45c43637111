"""Edge programs by ATen calls: every operand gathered, every operation a tensor of all edges.

It is what the kernels are held against, and what runs where there is no native library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gnnscript.ops import portable
from gnnscript.ops.program import Expressions, Node, postorder, sides

__all__ = ["edge_attention", "edge_map", "edge_reduce"]

_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "+": torch.add,
    "-": torch.sub,
    "*": torch.mul,
    "/": torch.div,
    "==": torch.eq,
    "!=": torch.ne,
    "<": torch.lt,
    "<=": torch.le,
    ">": torch.gt,
    ">=": torch.ge,
    "negate": torch.neg,
    "relu": torch.relu,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "abs": torch.abs,
    "sign": torch.sign,
    "square": torch.square,
    "reciprocal": torch.reciprocal,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": functional.softplus,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "rounded": torch.clone,
    "where": lambda c, a, b: torch.where(c != 0, a, b),
}
_LITERAL_FUNCTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "pow": torch.pow,
    "clamp_min": torch.clamp_min,
    "clamp_max": torch.clamp_max,
}


def edge_map(
    program: str, operands: Sequence[Tensor], index: Tensor, other: Tensor, sum_dims: int = 0
) -> Tensor:
    """Compute a program on each edge, as the native `edge_map`; see ``docs/ops.md``."""
    gathered = _gather(program, operands, index, other)
    like = gathered[0]

    def evaluate(node: Node, args: list[Tensor]) -> Tensor:
        if node.leaf is not None:
            return gathered[node.leaf.position]
        if node.op == "number":
            return like.new_tensor(node.value)
        if node.op in _LITERAL_FUNCTIONS:
            return _LITERAL_FUNCTIONS[node.op](args[0], node.value)
        return _FUNCTIONS[node.op](*args).to(like.dtype)

    values: dict[Node, Tensor] = {}
    root = Expressions().parse(program)
    for node in postorder(root):
        values[node] = evaluate(node, [values[arg] for arg in node.args])
    shape = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
        *(tensor.shape for tensor in gathered), values[root].shape
    )
    value = values[root].expand([index.size(0), *shape[1:]])
    return value.sum(list(range(value.dim() - sum_dims, value.dim()))) if sum_dims else value


def edge_reduce(
    program: str,
    operands: Sequence[Tensor],
    index: Tensor,
    other: Tensor,
    num_nodes: int,
    reduce: str = "sum",
) -> Tensor:
    """Reduce what a program computes on each edge, as the native `edge_reduce`.

    The rows are those of ``csr(index, num_nodes)``; see ``docs/ops.md``.
    """
    values = edge_map(program, operands, index, other)
    return portable.scatter(values, index, 0, num_nodes, reduce)


def edge_attention(
    score: str,
    score_operands: Sequence[Tensor],
    sum_dims: int,
    message: str,
    operands: Sequence[Tensor],
    index: Tensor,
    other: Tensor,
    num_nodes: int,
) -> tuple[Tensor, Tensor]:
    """Reduce messages weighted by the softmax of a score, as the native `edge_attention`.

    Returns:
        Node values and the weights of the edges.
    """
    scores = edge_map(score, score_operands, index, other, sum_dims)
    weights = portable.softmax(scores, index, num_nodes=num_nodes)
    values = edge_map(message, operands, index, other)
    spread = weights
    while spread.dim() > 1 and spread.size(-1) == 1:
        spread = spread.squeeze(-1)
    spread = spread.reshape([*spread.shape, *([1] * (values.dim() - spread.dim()))])
    return portable.scatter(spread * values, index, 0, num_nodes), weights


def _gather(program: str, operands: Sequence[Tensor], index: Tensor, other: Tensor) -> list[Tensor]:
    """Return the operands per edge, `[E, ...]` or `[1, ...]`, with features aligned right."""
    letters = sides(program)
    gathered: list[Any] = []
    for side, operand in zip(letters, operands, strict=True):
        if side in ("i", "j"):
            gathered.append(operand.index_select(0, index if side == "i" else other))
        else:
            gathered.append(operand if side == "e" else operand.unsqueeze(0))
    rank = max(tensor.dim() for tensor in gathered)
    return [
        tensor.reshape([tensor.size(0), *([1] * (rank - tensor.dim())), *tensor.shape[1:]])
        for tensor in gathered
    ]
