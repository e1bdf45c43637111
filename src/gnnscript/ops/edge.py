"""Edge programs: what is computed on each edge and reduced to nodes, without storing it per edge.

``docs/edge-programs.md`` is the reference of the programs. ``torch.jit.script`` compiles these
functions; what is left in the saved program are calls of ``torch.ops.gnnscript``.
"""

# What torch.ops returns is typed by the schema, which mypy does not read.
# mypy: disable-error-code="no-any-return"

import torch
from torch import Tensor

from gnnscript.ops import library
from gnnscript.ops.known import find_known, keep_known
from gnnscript.ops.plans import cached_csr

__all__ = ["edge_attention", "edge_map", "edge_reduce", "gspmm", "sddmm"]

library.load()


def edge_reduce(
    program: str,
    operands: list[Tensor],
    index: Tensor,
    other: Tensor,
    ptr: Tensor,
    perm: Tensor,
    reduce: str,
) -> Tensor:
    """Reduce what a program computes on each edge, without storing it.

    Args:
        program: An expression over the operands, such as `relu(j0 + e1)`.
        operands: By their number in the program: node values at `index`, `[N, ...]` (`i`), node
            values at `other`, `[M, ...]` (`j`), edge values, `[E, ...]` (`e`), and values shared by
            all edges, `[...]` (`s`); float64, float32, float16 or bfloat16, of mixed dtypes
            promoted as torch does.
        index: The node that each edge is reduced to, `[E]`; int32 or int64, values in `[0, N)`.
        other: The node at the other end of each edge, `[E]`; int32 or int64, values in `[0, M)`.
        ptr: With `perm`, `csr(index, N)`.
        perm: See `ptr`.
        reduce: `sum`, `mean`, `min`, `max` or `mul`.

    Returns:
        Node values, `[N, ...]`, in the feature shape that the operands broadcast to. A node without
        edges holds 0, or 1 for `mul`.

    Raises:
        ValueError: If the program cannot be read, or shapes, dtypes or devices do not fit.
        IndexError: If an index that is read is out of range.
    """
    operands = _promote(operands)
    return torch.ops.gnnscript.edge_reduce(program, operands, index, other, ptr, perm, reduce)


def edge_map(
    program: str, operands: list[Tensor], index: Tensor, other: Tensor, sum_dims: int = 0
) -> Tensor:
    """Compute a program on each edge.

    Args:
        program: As in `edge_reduce`.
        operands: As in `edge_reduce`.
        index: As in `edge_reduce`.
        other: As in `edge_reduce`.
        sum_dims: How many of the last feature dimensions are summed.

    Returns:
        Edge values, `[E, ...]`, in the order of `index`.

    Raises:
        ValueError: As in `edge_reduce`, or if there are fewer than `sum_dims` feature dimensions.
        IndexError: As in `edge_reduce`.
    """
    return torch.ops.gnnscript.edge_map(program, _promote(operands), index, other, sum_dims)


def gspmm(
    index: Tensor,
    other: Tensor,
    x: Tensor,
    num_nodes: int,
    weight: Tensor | None = None,
    op: str = "mul",
    reduce: str = "sum",
) -> Tensor:
    """Reduce the values of neighbours, weighted by edge, as `rows.gspmm` on an edge program."""
    ptr, perm = _csr(index, num_nodes)
    if weight is None:
        return edge_reduce("j0", [x], index, other, ptr, perm, reduce)
    for _ in range(x.dim() - weight.dim()):
        weight = weight.unsqueeze(-1)
    return edge_reduce("j0" + _operator(op) + "e1", [x, weight], index, other, ptr, perm, reduce)


def sddmm(index: Tensor, other: Tensor, a: Tensor, b: Tensor, op: str = "dot") -> Tensor:
    """Combine the values at both ends of each edge, as `rows.sddmm` on an edge program."""
    if op == "dot":
        return edge_map("i0 * j1", [a, b], index, other, 1)
    return edge_map("i0" + _operator(op) + "j1", [a, b], index, other, 0)


def edge_attention(
    score: str,
    message: str,
    operands: list[Tensor],
    index: Tensor,
    other: Tensor,
    ptr: Tensor,
    perm: Tensor,
    sum_dims: int,
    weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Reduce messages weighted by the softmax of a score over the edges of each node.

    One pass over the rows. Neither messages nor the score nor, unless they are asked for, the
    weights are stored per edge.

    Args:
        score: The program of the score; its last `sum_dims` feature dimensions are summed.
        message: The program of the message, of feature shape `[H..., C...]` where the score's sum
            is of feature shape `[H...]`.
        operands: The operands of both programs, as in `edge_reduce`; either may leave some out.
        index: As in `edge_reduce`.
        other: As in `edge_reduce`.
        ptr: As in `edge_reduce`.
        perm: As in `edge_reduce`.
        sum_dims: See `score`.
        weights: Whether the weights are asked for.

    Returns:
        out: Node values, `[N, H..., C...]`; 0 for a node without edges.
        weight: The weight of each edge, `[E, H...]`, or None.

    Raises:
        ValueError: As in `edge_reduce`, or if the shapes of score and message do not fit.
        IndexError: As in `edge_reduce`.

    Source: the attention of ``GATConv``, ``GATv2Conv`` and ``TransformerConv``, without dropout.
    """
    operands = _promote(operands)
    scored, score = _select(score, operands)
    sent, message = _select(message, operands)
    out, _, _ = torch.ops.gnnscript.edge_attention(
        score, scored, sum_dims, message, sent, index, other, ptr, perm
    )
    if not weights:
        return out, None
    logits = torch.ops.gnnscript.edge_map(score, scored, index, other, sum_dims)
    return out, torch.ops.gnnscript.edge_softmax(logits, ptr, perm)


def _csr(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        if not index.is_cuda:
            return torch.ops.gnnscript.shared_csr(index, size)
        known = find_known("csr", [size], index)
        if len(known) > 0:
            return known[0], known[1]
        ptr, perm = torch.ops.gnnscript.csr(index, size)
        keep_known("csr", [size], [ptr, perm], index)
        return ptr, perm
    return cached_csr(index, size)


def _operator(op: str) -> str:
    if op == "mul":
        return " * "
    if op == "add":
        return " + "
    if op == "sub":
        return " - "
    if op == "div":
        return " / "
    raise ValueError(f"expected op to be one of mul, add, sub and div, got '{op}'")


def _promote(operands: list[Tensor]) -> list[Tensor]:
    """Return the operands in one dtype, the one that they promote to."""
    if len(operands) == 0:
        return operands
    dtype = operands[0].dtype
    for operand in operands:
        dtype = torch.promote_types(dtype, operand.dtype)
    return [operand.to(dtype) for operand in operands]


def _select(program: str, operands: list[Tensor]) -> tuple[list[Tensor], str]:
    """Keep the operands that a program reads, and number them anew in it."""
    own: list[Tensor] = []
    places: dict[int, int] = {}
    text = ""
    at = 0
    while at < len(program):
        end = at
        while end < len(program) and (program[end].isalnum() or program[end] in "_."):
            end += 1
        word = program[at:end]
        if len(word) > 1 and word[0] in "ijes" and word[1:].isdigit():
            place = int(word[1:])
            if place not in places:
                if place >= len(operands):
                    raise ValueError(
                        f"edge program '{program}': expected {place + 1} operands, "
                        f"got {len(operands)}"
                    )
                places[place] = len(own)
                own.append(operands[place])
            word = word[0] + str(places[place])
        if end == at:
            word = program[at]
            end = at + 1
        text += word
        at = end
    return own, text
