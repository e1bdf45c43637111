"""The sorted edges of an index, kept while the index lives: layers and gradients share them."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["cached_csr", "keep_csr"]

_CAPACITY = 16


@dataclass(frozen=True)
class _Plan:
    """The sorted edges of an index.

    Args:
        owner: What the index is a view of.
        contents: The index as it was, where it has no versions.
        ptr: As of ``csr``.
        perm: As of ``csr``.
    """

    owner: weakref.ref[Any]
    contents: Tensor | None
    ptr: Tensor
    perm: Tensor


class _Plans:
    """A few results of ``csr``, keyed by the identity, version and view of an index."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], _Plan] = OrderedDict()

    def find(self, index: Tensor, size: int) -> tuple[Tensor, Tensor] | None:
        key, owner = _key(index, size)
        plan = self._kept.get(key)
        if plan is None or plan.owner() is not owner:
            return None
        if plan.contents is not None and not torch.equal(plan.contents, index):
            return None
        return plan.ptr, plan.perm

    def keep(self, index: Tensor, size: int, ptr: Tensor, perm: Tensor) -> None:
        kept = self._kept
        key, owner = _key(index, size)
        reference = weakref.ref(owner, lambda _: kept.pop(key, None))
        kept[key] = _Plan(reference, index.clone() if index.is_inference() else None, ptr, perm)
        while len(kept) > _CAPACITY:
            kept.popitem(last=False)


_plans = _Plans()


def cached_csr(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Returns ``torch.ops.gnnscript.csr(index, size)``, sorted once per index and version.

    The rows of an ``edge_index`` are new tensors in every layer, so the key is the tensor that they
    are views of. A change in place counts as a new version; one behind torch's back, through a
    NumPy array that shares the memory, is not seen. On CPU, tensors of inference mode, which have
    no versions, are compared with a copy, which takes a fraction of what sorting does.
    """
    # Asked for first: dynamo does not trace the other questions.
    if torch.compiler.is_compiling() or not _may_keep(index):
        return torch.ops.gnnscript.csr(index, size)  # type: ignore[no-any-return]
    found = _plans.find(index, size)
    if found is not None:
        return found
    ptr, perm = torch.ops.gnnscript.csr(index, size)
    _plans.keep(index, size, ptr, perm)
    return ptr, perm


def keep_csr(index: Tensor, ptr: Tensor, perm: Tensor | None) -> None:
    """Has :func:`cached_csr` return what somebody knows of an index.

    Args:
        index: Node of each edge, `[E]`.
        ptr: Where the edges of each node begin and end, `[N + 1]`.
        perm: The edges in sorted order, `[E]`; None where they are sorted.
    """
    if not _may_keep(index):
        return
    size = ptr.numel() - 1
    if _plans.find(index, size) is None:
        if perm is None:
            perm = torch.arange(index.numel(), device=index.device)
        _plans.keep(index, size, ptr.long(), perm.long())


def _key(index: Tensor, size: int) -> tuple[tuple[Any, ...], Any]:
    """By what the rows of an index are told, and the tensor or memory that they are views of."""
    inference = index.is_inference()
    version = None if inference else index._version
    owner: Any = index._base if index._base is not None else index
    if inference:  # where views do not know their tensor
        owner = index.untyped_storage()
    return (
        id(owner), version, index.storage_offset(), index.stride(), index.shape, index.dtype, size,
    ), owner  # fmt: skip


def _may_keep(index: Tensor) -> bool:
    """Says whether an index is a plain tensor in a plain eager call, which nobody records."""
    return (
        type(index) is Tensor
        # To compare contents on a device would be to wait for it.
        and (index.is_cpu or not index.is_inference())
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
        # Memory of a CUDA graph's pool is written anew by each replay.
        and not (index.is_cuda and torch.cuda.is_current_stream_capturing())
    )
