"""Functions of torch's that fix the sizes which they meet in programs of ``torch.export``.

Where a program is traced they would take the numbers of nodes and edges of the example for those of
every call. These do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.overrides import TorchFunctionMode

from gnnscript.ops.clusters import spread_least
from gnnscript.ops.exportable import holds

__all__ = [
    "LeavesSizesOpen",
    "bincount",
    "cdist",
    "combinations",
    "connected_components",
    "coo_to_csr",
    "fill_diagonal_",
    "one_hot",
    "repeat_interleave",
    "take_along_dim",
    "tril_indices",
    "triu_indices",
]


def bincount(
    input: Tensor,  # noqa: A002, as torch names it
    weights: Tensor | None = None,
    minlength: Any = 0,
) -> Tensor:
    """Count values, of nodes say, of which there are as many as the graph has.

    Args:
        input: Integers from 0 on, `[E]`.
        weights: What each of them counts, `[E]`; 1 by default.
        minlength: The number of counts, N, where it is a size that varies, as the number of nodes
            does. Of torch's own it is the least number: then only values tell whether the counts
            are as many as the nodes, and a program would have to assume that there are two or more.

    Returns:
        The counts, `[N]`: int64, or of weights float32 if they are and else float64.

    Raises:
        RuntimeError: A value is negative, or not below a `minlength` that varies.

    Source: ``torch.bincount``.
    """
    if isinstance(minlength, int):
        return torch.bincount(input, weights, minlength)
    inside = ((input >= 0) & (input < minlength)).all()
    holds(inside, "bincount: a value is negative or not below minlength")
    if weights is None:
        counted = torch.ones_like(input, dtype=torch.int64)
    else:
        counted = weights if weights.dtype == torch.float32 else weights.double()
    zeros = torch.zeros(minlength, dtype=counted.dtype, device=input.device)
    return zeros.index_add(0, input, counted)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """Compute distances of vectors, for numbers of them that vary: torch's own branches.

    Args:
        x1: Vectors, `[..., P, D]`.
        x2: Vectors, `[..., R, D]`.
        p: The norm, of at least 0.
        compute_mode: As for torch's own. By default, euclidean distances are computed by matrix
            products where there are more than 25 vectors on one side, if their number is fixed.

    Returns:
        The distances, `[..., P, R]`.

    Source: ``torch.cdist``.
    """
    if compute_mode is None or compute_mode == "use_mm_for_euclid_dist_if_necessary":
        many = any(statically_known_true(x.size(-2) > 25) for x in (x1, x2))
        compute_mode = f"{'use' if many else 'donot_use'}_mm_for_euclid_dist"
    return torch.cdist(x1, x2, p, compute_mode)


def coo_to_csr(index: Tensor, size: int, out_int32: bool = False) -> Tensor:
    """Turn sorted positions into pointers, for sizes that vary: torch's own fixes them.

    Args:
        index: Positions in ascending order, below `size`, `[E]`.
        size: How many positions there are.
        out_int32: Whether pointers are int32; int64 otherwise.

    Returns:
        Where the entries of each position begin, and the end, `[size + 1]`.

    Source: ``torch._convert_indices_from_coo_to_csr``.
    """
    positions = torch.arange(size + 1, dtype=index.dtype, device=index.device)
    return torch.searchsorted(index.contiguous(), positions, out_int32=out_int32)


def take_along_dim(values: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """Take values along a dimension, for sizes that vary: torch's own fixes them.

    Args:
        values: Values, of any shape.
        indices: int64 positions along `dim`, of a shape that broadcasts with that of `values`.
        dim: The dimension; None takes from the flattened values.

    Returns:
        The values taken, of the shape of `indices` broadcast.

    Source: ``torch.take_along_dim``.
    """
    if dim is None:
        return values.flatten().gather(0, indices.flatten())
    dim = dim % values.dim()

    def shape(tensor: Tensor, size: int) -> tuple[int, ...]:
        return (*tensor.shape[:dim], size, *tensor.shape[dim + 1 :])

    common = torch.broadcast_shapes(shape(values, 1), shape(indices, 1))  # type: ignore[no-untyped-call]
    before, after = common[:dim], common[dim + 1 :]
    spread = values.expand((*before, values.size(dim), *after))
    return spread.gather(dim, indices.expand((*before, indices.size(dim), *after)))


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Turn classes into rows of zeros with a one.

    Args:
        tensor: int64 classes, of any shape `[...]`.
        num_classes: Their number C; -1 for one more than the largest.

    Returns:
        int64 zeros and ones, `[..., C]`.

    Raises:
        RuntimeError: A class is negative, or not below `num_classes`.

    Source: ``torch.nn.functional.one_hot``.
    """
    if statically_known_true(num_classes < 0):
        return torch.nn.functional.one_hot(tensor)
    inside = ((tensor >= 0) & (tensor < num_classes)).all()
    holds(inside, "one_hot: a class is negative or not below num_classes")
    classes = torch.arange(num_classes, device=tensor.device)
    return (tensor.unsqueeze(-1) == classes).long()


def repeat_interleave(
    input: Tensor,  # noqa: A002, as torch names it
    repeats: Any = None,
    dim: int | None = None,
    *,
    output_size: int | None = None,
) -> Tensor:
    """Repeat each element; one number of times for all is no reason to read values.

    Args:
        input: Values, of any shape; alone, the numbers of times to repeat each position.
        repeats: How many times, or for each element how many.
        dim: The dimension of the elements; None repeats the flattened values.
        output_size: The size that comes out, if it is known.

    Returns:
        The values, each as often as asked for.

    Source: ``torch.repeat_interleave``.
    """
    if repeats is None:
        return torch.repeat_interleave(input, output_size=output_size)
    if not isinstance(repeats, (int, torch.SymInt)):
        return torch.repeat_interleave(input, repeats, dim, output_size=output_size)
    if dim is None:
        input, dim = input.flatten(), 0  # noqa: A001
    dim = dim % input.dim()
    spread = input.unsqueeze(dim + 1)
    shape: list[Any] = [-1] * spread.dim()
    shape[dim + 1] = repeats
    return spread.expand(shape).flatten(dim, dim + 1)


def tril_indices(row: int, col: int, offset: int = 0, **options: Any) -> Tensor:
    """Find the rows and columns of a matrix's lower triangle.

    Args:
        row: The number of rows.
        col: The number of columns.
        offset: How far above the main diagonal the triangle ends.
        options: `dtype`, `device` and `layout`, as for torch's own.

    Returns:
        Rows and columns, `[2, K]`, row by row; int64 by default.

    Source: ``torch.tril_indices``.
    """
    return _triangular(row, col, offset, upper=False, **options)


def triu_indices(row: int, col: int, offset: int = 0, **options: Any) -> Tensor:
    """Find the rows and columns of a matrix's upper triangle.

    Args:
        row: The number of rows.
        col: The number of columns.
        offset: How far above the main diagonal the triangle begins.
        options: `dtype`, `device` and `layout`, as for torch's own.

    Returns:
        Rows and columns, `[2, K]`, row by row; int64 by default.

    Source: ``torch.triu_indices``.
    """
    return _triangular(row, col, offset, upper=True, **options)


def _triangular(
    row: int,
    col: int,
    offset: int,
    *,
    upper: bool,
    dtype: torch.dtype = torch.long,
    device: Any = None,
    layout: torch.layout = torch.strided,  # noqa: ARG001
) -> Tensor:
    above = torch.arange(col, device=device) - torch.arange(row, device=device).unsqueeze(-1)
    chosen = above >= offset if upper else above <= offset
    return chosen.nonzero().t().to(dtype)


def combinations(
    input: Tensor,  # noqa: A002, as torch names it
    r: int = 2,
    with_replacement: bool = False,
) -> Tensor:
    """List all pairs, or tuples of `r`, of some values.

    Args:
        input: Values, `[N]`.
        r: How many make a tuple.
        with_replacement: Whether a value may be in a tuple repeatedly.

    Returns:
        The tuples, `[K, r]`.

    Source: ``torch.combinations``.
    """
    if r != 2:
        return torch.combinations(input, r, with_replacement)
    size = input.size(0)
    return input[triu_indices(size, size, 0 if with_replacement else 1, device=input.device).t()]


def connected_components(row: Tensor, col: Tensor, num_nodes: int) -> tuple[int, Tensor]:
    """Number the components of a graph; see :func:`gnnscript.ops.clusters.connected_components`.

    How often the smallest nodes spread is known to values only, so a loop is part of the program.

    Args:
        row: One node of each edge, `[E]`, int64.
        col: The other node of each edge, `[E]`, int64.
        num_nodes: How many nodes there are, N.

    Returns:
        The number of components, and the component of each node, `[N]`, int64.
    """
    ends = torch.stack([row, col])  # a loop takes no two views of one tensor

    def spread(label: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        after = spread_least(label, ends[0], ends[1])
        return after, (after != label).any()

    nodes = torch.arange(num_nodes, device=row.device)
    changed = torch.ones((), dtype=torch.bool, device=row.device)
    carried = nodes, changed
    label, _ = while_loop(lambda _, more: more.clone(), spread, carried)  # type: ignore[no-untyped-call]
    first, place = torch.unique(label, return_inverse=True)
    return first.numel(), place


def fill_diagonal_(matrix: Tensor, fill_value: float, wrap: bool = False) -> Tensor:
    """Write a value to the main diagonal of a matrix, in place.

    Args:
        matrix: A matrix, `[P, Q]`, or a tensor with equal sizes.
        fill_value: The value.
        wrap: Whether the diagonal of a tall matrix begins again where it has ended.

    Returns:
        The matrix.

    Source: ``torch.Tensor.fill_diagonal_``.
    """
    if matrix.dim() != 2 or wrap:
        return matrix.fill_diagonal_(fill_value, wrap)
    matrix.diagonal().fill_(fill_value)
    return matrix


_STAND_INS: dict[Any, Callable[..., Any]] = {
    torch.Tensor.bincount: bincount,
    torch.Tensor.fill_diagonal_: fill_diagonal_,
    torch.Tensor.repeat_interleave: repeat_interleave,
    torch.Tensor.take_along_dim: take_along_dim,
    torch.bincount: bincount,
    torch.cdist: cdist,
    torch.combinations: combinations,
    torch.nn.functional.one_hot: one_hot,
    torch.repeat_interleave: repeat_interleave,
    torch.take_along_dim: take_along_dim,
}


class LeavesSizesOpen(TorchFunctionMode):
    """Has the functions here stand in for torch's own, in modules that are traced as they are."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Calls what stands in for a function, or the function itself."""
        return _STAND_INS.get(func, func)(*args, **(kwargs or {}))
