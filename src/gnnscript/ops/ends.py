"""Linear layers of values that stand beside each other for each edge: those of its ends, its own.

What the specialised code calls in models that classify edges or pairs of nodes. These functions are
compiled by ``torch.jit.script`` like the other ops.
"""

from typing import List, Optional  # noqa: UP035  TorchScript reads these

# What torch.ops returns is typed by the schema, which mypy does not read.
# mypy: disable-error-code="no-any-return"
import torch
from torch import Tensor

from gnnscript.ops.linear import linear
from gnnscript.ops.operands import own_copy

__all__ = ["edge_layer", "has_edge_layer"]


def has_edge_layer(
    sides: str,
    operands: List[Tensor],  # noqa: UP006
    weight: Tensor,
    index: Tensor,
    other: Tensor,
) -> bool:
    """Whether `edge_layer` computes what a layer of the gathered values would, and with less work.

    Args:
        sides: As in `edge_layer`.
        operands: As in `edge_layer`.
        weight: As in `edge_layer`.
        index: As in `edge_layer`, or anything else that a tensor is indexed by, such as a mask.
        other: See `index`.

    Returns:
        Whether the indices number the rows of matrices, and there are at least as many edges as
        nodes.
    """
    for ends in [index, other]:
        if ends.dim() != 1 or ends.dtype not in [torch.int64, torch.int32]:
            return False
    if index.size(0) != other.size(0) or weight.dim() != 2:
        return False
    # What is compiled for all sizes does not ask for them.
    sized = True
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        sized = not torch.compiler.is_compiling()
    width = 0
    for operand in operands:
        if operand.dim() != 2 or operand.dtype != weight.dtype or not operand.is_floating_point():
            return False
        width += operand.size(1)
    if width != weight.size(1):
        return False
    for side in ["i", "j", "e"]:
        rows = index.size(0)
        first = True
        for number, operand in enumerate(operands):
            if sides[number] != side:
                continue
            if side != "e" and first and sized and operand.size(0) > rows:
                return False
            if (side == "e" or not first) and operand.size(0) != rows:
                return False
            rows = operand.size(0)
            first = False
    return True


def edge_layer(
    program: str,
    sides: str,
    operands: List[Tensor],  # noqa: UP006
    weight: Tensor,
    bias: Optional[Tensor],  # noqa: UP045
    index: Tensor,
    other: Tensor,
) -> Tensor:
    """Apply a linear layer to values beside each other, those of nodes once for each node.

    Args:
        program: What becomes of the sum of the parts, as in `edge_values`: `i0 + j1`, with a
            letter for each kind of operand that there is, in the order `i`, `j`, `e`.
        sides: Of each operand, whether it is gathered at `index` (`i`), at `other` (`j`), or has
            a row for each edge (`e`).
        operands: `[N, K]`, `[M, K]` or `[E, K]`, of the layer's dtype, each of a width of its own.
        weight: `[F, K...]`; its columns are those of the operands.
        bias: `[F]`.
        index: Node at one end of each edge, `[E]`; negative ones count from the last, as where
            a tensor is indexed.
        other: Node at the other end of each edge, `[E]`.

    Returns:
        `[E, F]`.

    Raises:
        RuntimeError: An index is out of range.
    """
    widths: List[int] = []  # noqa: UP006
    for operand in operands:
        widths.append(operand.size(1))  # noqa: PERF401
    parts = torch.split(weight, widths, 1)
    sums: List[Tensor] = []  # noqa: UP006
    for side in ["i", "j", "e"]:
        found = False
        for number, operand in enumerate(operands):
            if sides[number] == side:
                own = own_copy(operand, side != "e") if weight.requires_grad else operand
                part = linear(own, parts[number])
                if found:
                    sums[-1] = sums[-1] + part
                else:
                    sums.append(part)
                    if side == "i":
                        index = torch.where(index < 0, index + operand.size(0), index)
                    elif side == "j":
                        other = torch.where(other < 0, other + operand.size(0), other)
                found = True
    if bias is not None:
        sums[0] = sums[0] + bias
    return torch.ops.gnnscript.edge_map(program, sums, index, other, 0)
