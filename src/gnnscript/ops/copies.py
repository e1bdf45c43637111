"""Tensors that an op keeps for its gradient, which their owner may write to in the meantime.

PyG gathers a copy of node values for each edge, and adds edge features without keeping them, so
code written for it changes both in place before the gradient is computed. What our gradients read
of the caller's tensors is therefore a copy that shares the memory until somebody writes to either,
which torch notices (copy on write): whoever writes pays for the copy.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor

__all__ = ["kept_copy", "register"]

# Tensors are read by several threads, but to share memory so is a change of its owner.
_lock = threading.Lock()

# Of a memory that is larger by more, the owner's first write would copy too much.
_LARGEST = 4


def _lazy_copy(x: Tensor) -> Tensor | None:
    """Copy a tensor as soon as somebody writes to it.

    Args:
        x: Any tensor.

    Returns:
        The copy, with a gradient; None where memory cannot be shared so, or its address may be
        known to others than torch: a leaf's to an optimizer or a CUDA graph, an array's to NumPy.
    """
    if type(x) is not Tensor or torch._C._functorch.is_functorch_wrapped_tensor(x):
        return None
    if x.is_leaf and (x.requires_grad or not x.is_cpu):
        return None
    if x.layout != torch.strided or x.device.type not in ("cpu", "cuda"):
        return None
    storage = x.untyped_storage()
    if not storage.resizable() or storage.nbytes() > _LARGEST * x.numel() * x.element_size():
        return None
    try:
        with _lock:
            return torch._lazy_clone(x)
    except (AttributeError, RuntimeError):  # memory that another library has allocated
        return None


def kept_copy(x: Tensor, always: bool) -> Tensor:
    """Copy a tensor when somebody writes to it; where that cannot be, at once, or not at all.

    Args:
        x: Any tensor.
        always: Whether to copy it at once then.

    Returns:
        The copy, with a gradient, or the tensor.
    """
    copy = _lazy_copy(x)
    if copy is not None:
        return copy
    return x.clone() if always else x


_library: Any = None  # what is registered goes with it


def register() -> None:
    """Registers the copies; once, after the library has been loaded.

    Without this package a process computes no gradients, and the library's kernel copies nothing.
    """
    global _library  # noqa: PLW0603
    _library = torch.library.Library("gnnscript", "IMPL")  # type: ignore[no-untyped-call]
    for key in ("AutogradCPU", "AutogradCUDA"):
        _library.impl("own_copy", kept_copy, key)
