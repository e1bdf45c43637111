"""Assignments to parts of tensors, by indices of several kinds at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["split"]


def split(
    indices: tuple[Any, ...], known: Callable[[Any], Any], dims: int
) -> tuple[tuple[Any, ...], list[Any]] | None:
    """Tells what of an index gives a view from what picks elements of it by tensors.

    Args:
        indices: The index, of which a tensor is one.
        known: Says of an index what it is for the examples.
        dims: How many dimensions the tensor has that is indexed.

    Returns:
        The index of the view, and for each of its dimensions a tensor or None; None where a list
        is an index.
    """
    taken = 0
    for index in indices:
        held = known(index)
        if isinstance(held, list):
            return None
        if held is not None and held is not Ellipsis:
            taken += _covers(held)
    view: list[Any] = []
    picked: list[Any] = []
    for index in indices:
        held = known(index)
        if held is Ellipsis:
            view += [slice(None)] * (dims - taken)
            picked += [None] * (dims - taken)
        elif isinstance(held, torch.Tensor):
            view += [slice(None)] * _covers(held)
            picked.append(index)
        else:
            view.append(index)
            if not isinstance(held, int) or isinstance(held, bool):
                picked.append(None)
    return tuple(view), picked


def _covers(index: Any) -> int:
    """How many dimensions an index takes: a mask has as many as it is for."""
    mask = isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
    return index.dim() if mask else 1
