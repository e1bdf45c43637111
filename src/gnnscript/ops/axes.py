"""Axes taken apart, reordered, reduced, repeated and joined: what a pattern of einops says."""

from typing import List  # noqa: UP035  TorchScript reads it

from torch import Tensor

__all__ = ["regroup_axes"]


def regroup_axes(
    x: Tensor,
    left: List[List[int]],  # noqa: UP006
    right: List[List[int]],  # noqa: UP006
    lengths: List[int],  # noqa: UP006
    reduction: str = "",
) -> Tensor:
    """Regroup the axes of a tensor.

    Args:
        x: A tensor.
        left: For each dimension of `x` the axes that it is made of, by number; `[-1]` stands for
            any number of dimensions.
        right: The same for the result, where -2 joins these dimensions. Axes that are missing are
            reduced, further ones repeat.
        lengths: The size of each axis; -1 for what `x` tells.
        reduction: `sum`, `mean`, `min`, `max`, `prod`, `any` or `all`.

    Returns:
        The tensor, with a dimension for each group of `right`.

    Raises:
        ValueError: `x` has another number of dimensions, or sizes that the axes do not make up.

    Source: ``rearrange``, ``reduce`` and ``repeat`` of einops.
    """
    rest = x.dim() - len(left)
    several = False
    for group in left:
        if group == [-1]:
            several = True
            rest += 1
    if rest < 0 or (rest > 0 and not several):
        raise ValueError(f"expected {len(left)} dimensions, got {x.dim()}")
    sizes = list(lengths)
    where = [-1 for _ in lengths]
    shape: List[int] = []  # noqa: UP006
    first = 0  # of what the ellipsis stands for
    at = 0
    for group in left:
        if group == [-1]:
            first = len(shape)
            for _ in range(rest):
                shape.append(x.size(at))
                at += 1
        else:
            known, unknown = 1, -1
            for axis in group:
                if sizes[axis] < 0:
                    unknown = axis
                else:
                    known *= sizes[axis]
            if unknown >= 0:
                sizes[unknown] = x.size(at) // known
                known *= sizes[unknown]
            if known != x.size(at):
                raise ValueError(
                    f"dimension {at} is of size {x.size(at)}, which its axes do not make up"
                )
            for axis in group:
                where[axis] = len(shape)
                shape.append(sizes[axis])
            at += 1
    order: List[int] = []  # noqa: UP006
    spread: List[int] = []  # noqa: UP006
    added: List[int] = []  # noqa: UP006
    final: List[int] = []  # noqa: UP006
    for group in right:
        total = 1
        for axis in group:
            if axis < 0:
                for number in range(first, first + rest):
                    order.append(number)
                    spread.append(shape[number])
                    total *= shape[number]
            else:
                if where[axis] >= 0:
                    order.append(where[axis])
                else:
                    added.append(len(spread))
                spread.append(sizes[axis])
                total *= sizes[axis]
        if group == [-1]:
            final.extend(shape[first : first + rest])
        else:
            final.append(total)
    kept = len(order)
    for number in range(len(shape)):
        if number not in order:
            order.append(number)
    out = x.reshape(shape).permute(order)
    if len(order) > kept:
        out = _reduced(out.flatten(kept), reduction)
    for number in added:
        out = out.unsqueeze(number)
    return out.expand(spread).reshape(final)


def _reduced(x: Tensor, reduction: str) -> Tensor:
    """Reduces the last dimension."""
    if reduction == "sum":
        return x.sum(-1)
    if reduction == "mean":
        return x.mean(-1)
    if reduction == "max":
        return x.amax(-1)
    if reduction == "min":
        return x.amin(-1)
    if reduction == "prod":
        return x.prod(-1)
    if reduction == "any":
        return x.any(-1)
    if reduction == "all":
        return x.all(-1)
    raise ValueError(f"unknown reduction '{reduction}'")
