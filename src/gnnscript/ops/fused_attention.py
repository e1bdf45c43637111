"""Attention as message passing has it: messages weighted by a softmax of scores, and added up.

What the specialised code calls, as it does ``fused``; compiled by ``torch.jit.script``, too.
"""

from typing import List, Optional  # noqa: UP035  TorchScript reads these

import torch
from torch import Tensor
from torch.nn import functional

from gnnscript.ops.fused import edge_aggregate, edge_values
from gnnscript.ops.native import csr, softmax
from gnnscript.ops.operands import (
    are_gathered,
    as_rows,
    number_of_nodes,
    own_operands,
    result_dtype,
)

__all__ = ["dropout_mask", "edge_attend"]


def edge_attend(
    score: str,
    scored: List[Tensor],  # noqa: UP006
    message: str,
    sent: List[Tensor],  # noqa: UP006
    index: Tensor,
    other: Tensor,
    size: Optional[int] = None,  # noqa: UP045
    ones: Optional[List[int]] = None,  # noqa: UP006, UP045
    view: Optional[List[int]] = None,  # noqa: UP006, UP045
    sum_dims: int = 0,
    score_dim: int = 0,
    dim: int = 0,
    nodes: Optional[int] = None,  # noqa: UP045
    score_typed: Optional[List[int]] = None,  # noqa: UP006, UP045
    typed: Optional[List[int]] = None,  # noqa: UP006, UP045
    reduce: str = "sum",
) -> Tensor:
    """Add up the messages of each node, weighted by a softmax of the scores of its edges.

    In one pass, without scores or weights in memory, where operands are of one floating-point dtype
    and the weights' dimensions are the first of the messages'; else with these per edge.

    Args:
        score: The score, an elementwise expression as in `edge_aggregate`.
        scored: Its operands.
        message: The message, another one.
        sent: Its operands.
        index: Node to which each edge is reduced, `[E]`; int32 or int64.
        other: Node at the other end of each edge, `[E]`.
        size: Number of nodes; None stands for the largest value of `index` plus one.
        ones: Where dimensions of one are put into the weights, one after the other.
        view: The sizes of the weights' dimensions, without that of the edges.
        sum_dims: How many of the last dimensions of the score are added up.
        score_dim: Dimension that counts nodes and edges in the score's operands.
        dim: Dimension that counts them in those of the message.
        nodes: The number of nodes that the softmax is given, where it is another one.
        score_typed: As `typed` of `edge_values`.
        typed: As `typed` of `edge_aggregate`.
        reduce: `sum`, or `mean` to divide by the number of edges.

    Returns:
        Node values with `size` nodes at `dim`; 0 for a node without edges.

    Raises:
        ValueError: As in `edge_aggregate`.
        RuntimeError: As in `edge_aggregate`.

    Source: the attention of ``GATConv``, ``GATv2Conv``, ``TransformerConv`` and others.
    """
    if _is_alike(scored + sent) and not _is_other(nodes, size):
        score_text, score_rows, score_at = as_rows(score, scored, score_dim)
        message_text, message_rows, message_at = as_rows(message, sent, dim)
        shape = _feature_shape(score_text, score_rows)
        shape = shape[: len(shape) - sum_dims]
        messages = _feature_shape(message_text, message_rows)
        in_front = score_at == -_most_dims(scored) and message_at == -_most_dims(sent)
        if in_front and _is_spread(shape, ones, view, messages):
            ptr, perm = csr(index, number_of_nodes(index, size))
            gathered = are_gathered(score_text, len(scored)) + are_gathered(message_text, len(sent))
            if _has_gradient(scored + sent):
                rows = own_operands(score_rows + message_rows, [True] * len(gathered), gathered)
                score_rows, message_rows = rows[: len(scored)], rows[len(scored) :]
            out, _, _ = torch.ops.gnnscript.edge_attention(
                score_text,
                score_rows,
                sum_dims,
                message_text,
                message_rows,
                index,
                other,
                ptr,
                perm,
            )
            if reduce == "mean":
                degree = ptr.diff().clamp(min=1).to(out.dtype)
                out = out / degree.view([-1] + [1] * (out.dim() - 1))
            return out  # type: ignore[no-any-return]
    scores = edge_values(score, scored, index, other, score_dim, sum_dims, score_typed)
    weight = softmax(scores, index, None, nodes if nodes is not None else size)
    if ones is not None:
        for place in ones:
            weight = weight.unsqueeze(place)
    if view is not None:
        weight = weight.view([-1] + view)  # noqa: RUF005
    if typed is not None:
        typed = typed + [len(sent)]  # noqa: RUF005
    program = f"e{len(sent)} * ({message})"
    return edge_aggregate(program, sent + [weight], index, other, size, dim, reduce, typed)  # noqa: RUF005


def dropout_mask(
    score: str,
    scored: List[Tensor],  # noqa: UP006
    index: Tensor,
    p: float,
    dim: int = 0,
    sum_dims: int = 0,
    typed: Optional[List[int]] = None,  # noqa: UP006, UP045
) -> Tensor:
    """Draw what dropout multiplies the weights of edges with: 0, or what keeps the expectation.

    Args:
        score: The score whose softmax the weights are, as in `edge_values`.
        scored: Its operands.
        index: Node to which each edge is reduced, `[E]`.
        p: The probability of 0.
        dim: As in `edge_values`.
        sum_dims: As in `edge_values`.
        typed: As in `edge_values`.

    Returns:
        A tensor of the shape and dtype of the scores, by the random numbers that dropout of the
        weights would draw.

    Raises:
        ValueError: If `p` is no probability.
    """
    dtype = result_dtype(score, scored, "sum", typed)
    score, rows, at = as_rows(score, scored, dim)
    shape = _feature_shape(score, rows)
    shape = shape[: len(shape) - sum_dims]
    shape.insert(len(shape) + 1 + at + sum_dims, index.size(0))
    return functional.dropout(torch.ones(shape, dtype=dtype, device=index.device), p, True)


def _has_gradient(operands: List[Tensor]) -> bool:  # noqa: UP006
    found = False
    for operand in operands:
        found = found or operand.requires_grad
    return found and torch.is_grad_enabled()


def _is_alike(operands: List[Tensor]) -> bool:  # noqa: UP006
    """Whether all are of one floating-point dtype."""
    alike = operands[0].is_floating_point()
    for operand in operands:
        alike = alike and operand.dtype == operands[0].dtype
    return alike


def _is_other(nodes: Optional[int], size: Optional[int]) -> bool:  # noqa: UP045
    return nodes is not None and size is not None and nodes != size


def _most_dims(operands: List[Tensor]) -> int:  # noqa: UP006
    most = 0
    for operand in operands:
        most = max(most, operand.dim())
    return most


def _feature_shape(program: str, operands: List[Tensor]) -> List[int]:  # noqa: UP006
    """The shape that operands broadcast to, without that of the rows."""
    shape: List[int] = []  # noqa: UP006
    for number, operand in enumerate(operands):
        first = 0 if f"s{number}" in program else 1
        own = list(operand.size())[first:]
        while len(shape) < len(own):
            shape.insert(0, 1)
        skipped = len(shape) - len(own)
        for place, size in enumerate(own):
            if shape[skipped + place] == 1:
                shape[skipped + place] = size
    return shape


def _is_spread(
    shape: List[int],  # noqa: UP006
    ones: Optional[List[int]],  # noqa: UP006, UP045
    view: Optional[List[int]],  # noqa: UP006, UP045
    messages: List[int],  # noqa: UP006
) -> bool:
    """Whether weights, viewed so, are those of the first dimensions of messages."""
    spread = list(shape)
    if ones is not None:
        for place in ones:
            if place not in [-1, len(spread) + 1]:
                return False
            spread.append(1)
    if view is not None:
        if _without_ones(view) != _without_ones(shape):
            return False
        spread = view
    own = _without_ones(spread)
    return len(spread) == len(messages) and own == messages[: len(own)]


def _without_ones(shape: List[int]) -> List[int]:  # noqa: UP006
    """A shape without the ones at its end."""
    size = len(shape)
    while size > 0 and shape[size - 1] == 1:
        size -= 1
    return shape[:size]
