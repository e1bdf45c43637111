"""The native ops under ``torch.vmap``, by which vectorised Jacobians come: one call for each."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["register"]

_OPS = (
    "csr",
    "edge_attention",
    "edge_attention_backward",
    "edge_map",
    "edge_reduce",
    "edge_softmax",
    "edge_softmax_backward",
    "gather",
    "linear",
    "scatter_reduce",
    "segment_expand",
    "segment_reduce",
    "segment_reduce_backward",
    "segment_reduces",
)


_library: Any = None  # what is registered goes with it


def register() -> None:
    """Registers the rules; once, after the library has been loaded."""
    global _library  # noqa: PLW0603
    _library = torch.library.Library("gnnscript", "IMPL")  # type: ignore[no-untyped-call]
    for name in _OPS:
        op = getattr(torch.ops.gnnscript, name)
        torch.library.register_vmap(f"gnnscript::{name}", functools.partial(_batched, op))
        _library.impl(name, functools.partial(_batched_by_level, op), "Batched")


def _batched(op: Any, info: Any, in_dims: Any, *args: Any) -> tuple[Any, Any]:
    """The rule for ``torch.vmap``."""
    values, structure = pytree.tree_flatten(args)
    dims, _ = pytree.tree_flatten(in_dims, is_leaf=lambda dim: dim is None)
    moved = [
        value if dim is None else value.movedim(dim, 0)
        for value, dim in zip(values, dims, strict=True)
    ]
    out = _one_by_one(op, moved, [dim is not None for dim in dims], structure, info.batch_size)
    return out, pytree.tree_map(lambda _: 0, out)


def _batched_by_level(op: Any, *args: Any) -> Any:
    """The rule for the vmap of old, by which autograd takes batches of gradients."""
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    values, structure = pytree.tree_flatten(args)
    moved = [
        torch._remove_batch_dim(value, level, 1, 0) if isinstance(value, Tensor) else value
        for value in values
    ]
    tensors = [isinstance(value, Tensor) for value in values]
    size = max(value.size(0) for value in moved if isinstance(value, Tensor))
    moved = [
        value.expand(size, *value.shape[1:]) if isinstance(value, Tensor) else value
        for value in moved
    ]
    out = _one_by_one(op, moved, tensors, structure, size)
    return pytree.tree_map(lambda stacked: torch._add_batch_dim(stacked, 0, level), out)


def _one_by_one(
    op: Any, values: list[Any], batched: list[bool], structure: pytree.TreeSpec, size: int
) -> Any:
    """Calls an op for each position of the first dimension of what is batched."""
    results = []
    for position in range(size):
        pairs = zip(values, batched, strict=True)
        chosen = [value[position] if many else value for value, many in pairs]
        results.append(op(*pytree.tree_unflatten(chosen, structure)))
    if isinstance(results[0], Tensor):
        return torch.stack(results)
    return type(results[0])([torch.stack(parts) for parts in zip(*results, strict=True)])
