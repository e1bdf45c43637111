"""Fused message passing: an elementwise message of gathered values, reduced as it is computed.

What the specialised code calls. These functions bring operands into the form of the edge program
(rows first, one dtype) and are compiled by ``torch.jit.script`` like the other ops.
"""

from typing import List, Optional  # noqa: UP035  TorchScript reads these

# What torch.ops returns is typed by the schema, which mypy does not read.
# mypy: disable-error-code="no-any-return"
import torch
from torch import Tensor

from gnnscript.ops.linear import linear
from gnnscript.ops.native import csr
from gnnscript.ops.operands import (
    are_gathered,
    as_rows,
    number_of_nodes,
    own_copy,
    own_operands,
    read_by_gradients,
    result_dtype,
)


def edge_aggregate(
    program: str,
    operands: List[Tensor],  # noqa: UP006
    index: Tensor,
    other: Tensor,
    size: Optional[int] = None,  # noqa: UP045
    dim: int = 0,
    reduce: str = "sum",
    typed: Optional[List[int]] = None,  # noqa: UP006, UP045
) -> Tensor:
    """Compute a message for each edge and reduce the messages of each node, in one pass.

    Args:
        program: The message: an elementwise expression over operands, each written as a letter
            and its position: `i` is gathered at `index`, `j` at `other`, `e` has a row for each
            edge, `s` is shared by all edges.
        operands: Floating-point tensors. Those gathered hold nodes at `dim`, those per edge hold
            edges there; an operand with fewer dimensions, or one row, is shared by all edges.
        index: Node to which each edge is reduced, `[E]`; int32 or int64.
        other: Node at the other end of each edge, `[E]`.
        size: Number of nodes; None stands for the largest value of `index` plus one.
        dim: Dimension that counts nodes and edges.
        reduce: `sum`, `mean`, `min`, `max` or `mul`.
        typed: The operands by whose dtypes that of the result is decided; None stands for all.

    Returns:
        Node values with `size` nodes at `dim`; a node without edges holds 0, or 1 for `mul`.

    Raises:
        ValueError: A gathered operand has another number of dimensions than the messages.
        RuntimeError: Shapes do not broadcast, or an index is out of range.
    """
    dtype = result_dtype(program, operands, reduce, typed)
    program, rows, at = as_rows(program, operands, dim)
    read = read_by_gradients(program, rows, reduce)
    rows = own_operands(rows, read, are_gathered(program, len(rows)))
    nodes = number_of_nodes(index, size)
    ptr, perm = csr(index, nodes)
    out = torch.ops.gnnscript.edge_reduce(program, rows, index, other, ptr, perm, reduce).to(dtype)
    return out if at == -out.dim() else out.movedim(0, at).contiguous()


def edge_aggregate_layers(
    program: str,
    operands: List[Tensor],  # noqa: UP006
    places: List[int],  # noqa: UP006
    weights: List[Tensor],  # noqa: UP006
    index: Tensor,
    other: Tensor,
    size: Optional[int] = None,  # noqa: UP045
    dim: int = 0,
    reduce: str = "sum",
    typed: Optional[List[int]] = None,  # noqa: UP006, UP045
) -> Tensor:
    """Reduce messages, some of whose values come from linear layers of edge features.

    Without gradients, on CPU, the layers run on some thousand edges at a time, those of some nodes:
    their outputs, `[E, F]`, stay in the caches and out of memory.

    Args:
        program: The message, as in `edge_aggregate`.
        operands: As in `edge_aggregate`; at `places` the input of a layer, `[E, K]`.
        places: Which operands go through a layer.
        weights: For each of them the layer's weight, `[F, K]`.
        index: As in `edge_aggregate`.
        other: As in `edge_aggregate`.
        size: As in `edge_aggregate`.
        dim: As in `edge_aggregate`.
        reduce: As in `edge_aggregate`.
        typed: As in `edge_aggregate`.

    Returns:
        As `edge_aggregate`.

    Raises:
        ValueError: As in `edge_aggregate`.
        RuntimeError: As in `edge_aggregate`.
    """
    step = 8192  # edges, whose values stay in a core's cache
    fits = index.size(0) >= 4 * step and not index.is_cuda and not torch.is_grad_enabled()
    fits = fits and dim in [0, -2]
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        fits = fits and not torch.compiler.is_compiling()
    for place in places:
        fits = fits and operands[place].dim() == 2 and operands[place].size(0) == index.size(0)
    for operand in operands:
        fits = fits and operand.dim() <= 2
    values = list(operands)
    for number, place in enumerate(places):
        given = operands[place]
        values[place] = linear_part(given[:0] if fits else given, weights[number])
    if not fits:
        return edge_aggregate(program, values, index, other, size, dim, reduce, typed)
    dtype = result_dtype(program, values, reduce, typed)
    nodes = number_of_nodes(index, size)
    program, rows, _ = as_rows(program, values, dim)
    ptr, perm = csr(index, nodes)
    starts = torch.arange(0, index.size(0), step, device=index.device)
    bounds: List[int] = torch.searchsorted(ptr, starts).tolist()  # noqa: UP006
    bounds.append(nodes)
    outs: List[Tensor] = []  # noqa: UP006
    for number in range(len(bounds) - 1):
        first, last = bounds[number], bounds[number + 1]
        if last > first:
            block = ptr[first : last + 1]
            edges = perm[int(block[0]) : int(block[-1])]
            own: List[Tensor] = []  # noqa: UP006
            for place, row in enumerate(rows):
                if place in places:
                    features = operands[place].index_select(0, edges)
                    layer = weights[places.index(place)]
                    own.append(linear_part(features, layer).to(row.dtype))
                elif f"i{place}" in program:
                    own.append(row[first:last])
                elif f"e{place}" in program:
                    own.append(row.index_select(0, edges))
                else:
                    own.append(row)
            out = torch.ops.gnnscript.edge_reduce(
                program,
                own,
                index.index_select(0, edges) - first,
                other.index_select(0, edges),
                block - block[0],
                torch.arange(edges.size(0), device=index.device),
                reduce,
            )
            outs.append(out)
    return torch.cat(outs).to(dtype)


def edge_values(
    program: str,
    operands: List[Tensor],  # noqa: UP006
    index: Tensor,
    other: Tensor,
    dim: int = 0,
    sum_dims: int = 0,
    typed: Optional[List[int]] = None,  # noqa: UP006, UP045
) -> Tensor:
    """Compute an elementwise expression of gathered values for each edge.

    Args:
        program: The expression, as in `edge_aggregate`.
        operands: As in `edge_aggregate`.
        index: Node at the end `i` of each edge, `[E]`.
        other: Node at the end `j` of each edge, `[E]`.
        dim: Dimension that counts nodes and edges.
        sum_dims: How many of the last dimensions to add up.
        typed: As in `edge_aggregate`.

    Returns:
        Edge values, with `E` at `dim`; without the dimensions that were added up.

    Raises:
        ValueError: As in `edge_aggregate`.
        RuntimeError: As in `edge_aggregate`.
    """
    dtype = result_dtype(program, operands, "sum", typed)
    program, rows, at = as_rows(program, operands, dim)
    read = read_by_gradients(program, rows, "sum")
    rows = own_operands(rows, read, are_gathered(program, len(rows)))
    out = torch.ops.gnnscript.edge_map(program, rows, index, other, sum_dims).to(dtype)
    at = at + sum_dims
    return out if at == -out.dim() else out.movedim(0, at).contiguous()


def edge_sample(
    program: str,
    operands: List[Tensor],  # noqa: UP006
    index: Tensor,
    other: Tensor,
    dim: int = 0,
    typed: Optional[List[int]] = None,  # noqa: UP006, UP045
) -> Tensor:
    """Compute `edge_values` of none of the edges: what has its shape, dtype and device.

    Args:
        program: As in `edge_values`.
        operands: As in `edge_values`.
        index: As in `edge_values`.
        other: As in `edge_values`.
        dim: As in `edge_values`.
        typed: As in `edge_values`.

    Returns:
        What `edge_values` returns, with no edges at `dim`, and without a gradient.

    Raises:
        ValueError: As in `edge_values`.
        RuntimeError: As in `edge_values`.
    """
    dtype = result_dtype(program, operands, "sum", typed)
    program, rows, at = as_rows(program, operands, dim)
    none: List[Tensor] = []  # noqa: UP006
    for number, row in enumerate(rows):
        none.append(row.detach()[:0] if f"e{number}" in program else row.detach())
    out = torch.ops.gnnscript.edge_map(program, none, index[:0], other[:0], 0).to(dtype)
    return out if at == -out.dim() else out.movedim(0, at)


def edge_products(
    program: str,
    operands: List[Tensor],  # noqa: UP006
    features: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],  # noqa: UP045
    rows: int,
    columns: int,
    index: Tensor,
    other: Tensor,
    size: Optional[int] = None,  # noqa: UP045
    left: bool = False,
    reduce: str = "sum",
) -> Tensor:
    """Reduce vectors times matrices that a linear layer makes for each edge, without the matrices.

    The matrix of an edge is `(weight @ features + bias).view(rows, columns)`. What is reduced are
    outer products of features and vectors; the layer acts on what they come to at each node.

    Args:
        program: The vectors: an elementwise expression over `operands`, as in `edge_aggregate`.
        operands: Values of nodes or edges, `[N, V]` or `[E, V]`.
        features: The layer's input, `[E, K]`, or `[1, K]` for all edges.
        weight: `[rows * columns, K]`.
        bias: `[rows * columns]`.
        rows: Rows of a matrix; `V` unless `left`.
        columns: Columns of a matrix; `V` if `left`.
        index: Node to which each edge is reduced, `[E]`.
        other: Node at the other end of each edge, `[E]`.
        size: Number of nodes; None stands for the largest value of `index` plus one.
        left: Whether the matrix stands on the left: `matrix @ vector`.
        reduce: `sum` or `mean`.

    Returns:
        `[N, columns]`, or `[N, rows]` if `left`.

    Raises:
        ValueError: A tensor has another number of dimensions.
        RuntimeError: Shapes do not fit, or an index is out of range.

    Source: the messages of ``NNConv``.
    """
    wide: List[Tensor] = []  # noqa: UP006
    for operand in operands:
        if operand.dim() != 2:
            raise ValueError(f"expected vectors of edges or nodes, got {operand.dim()} dimensions")
        wide.append(operand.unsqueeze(1))
    if features.dim() != 2:
        raise ValueError(f"expected features of shape [E, K], got {features.dim()} dimensions")
    outer = f"e{len(wide)} * ({program})"
    wide.append(features.unsqueeze(-1))
    # [N, K, V], and a matrix from K and V to what the products have.
    total = edge_aggregate(outer, wide, index, other, size, 0, reduce)
    layer = weight.view([rows, columns, weight.size(1)])
    layer = layer.permute([2, 1, 0]) if left else layer.permute([2, 0, 1])
    out = total.flatten(1) @ layer.flatten(0, 1)
    if bias is None:
        return out
    fixed = bias.view([rows, columns])
    plain = edge_aggregate(program, operands, index, other, size, 0, reduce)
    return out + plain @ (fixed.t() if left else fixed)


def linear_part(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,  # noqa: UP045
) -> Tensor:
    """The share that one value has in a linear layer of several, put side by side or added up.

    Args:
        x: The value, `[..., K]`, or `[..., 1]` where torch would have broadcast it against the
            others; of any dtype that torch would have promoted to theirs.
        weight: The columns of the layer's weight that act on it, `[F, K]`.
        bias: `[F]`.

    Returns:
        `[..., F]`, of the dtype of `weight`.

    Raises:
        RuntimeError: Shapes do not fit.
    """
    if x.dtype != weight.dtype:
        x = x.to(weight.dtype)
    elif weight.requires_grad:
        x = own_copy(x)
    width = weight.size(1)
    if x.size(-1) == 1 and width != 1:
        x = x.expand([-1] * (x.dim() - 1) + [width])
    return linear(x, weight, bias)


def add_edge_bias(
    out: Tensor,
    bias: Tensor,
    index: Tensor,
    size: Optional[int] = None,  # noqa: UP045
    dim: int = 0,
    reduce: str = "sum",
) -> Tensor:
    """Add what a bias of every message comes to at each node.

    Args:
        out: Reduced messages, `[..., N, ..., F]` with `N` at `dim`.
        bias: `[F]`, part of every message.
        index: Node of each edge, `[E]`.
        size: Number of nodes; None stands for the largest value of `index` plus one.
        dim: Dimension that counts nodes.
        reduce: `sum`: the bias for each edge of a node; `mean`: once, if the node has any.

    Returns:
        `out` with the bias added.

    Raises:
        RuntimeError: An index is out of range.
    """
    nodes = number_of_nodes(index, size)
    degree = csr(index, nodes)[0].diff()
    if reduce == "mean":
        degree = degree.clamp(max=1)
    shape = [1] * out.dim()
    shape[dim] = -1
    return out + degree.to(out.dtype).view(shape) * bias.to(out.dtype)


def add_to(left: Tensor, right: Tensor) -> Tensor:
    """Add two tensors, in the memory of the first where that makes no difference but in memory.

    Args:
        left: A tensor that nobody else holds.
        right: Broadcast to the first; one that shares no memory with it.

    Returns:
        The sum.

    Raises:
        RuntimeError: Shapes do not broadcast.
    """
    keeps = right.size() == left.size()
    if right.dim() == 1 and left.dim() > 1:
        keeps = right.size(0) == left.size(-1)
    if not keeps or torch.is_grad_enabled() or left.requires_grad or left.dtype != right.dtype:
        return left + right
    return left.add_(right)
