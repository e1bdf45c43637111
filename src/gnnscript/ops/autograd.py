"""Gradients of the native ops: ops of the same family, so that they have gradients in turn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnscript.ops.plans import cached_csr

__all__ = ["register"]

_ops = torch.ops.gnnscript


def _gather_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    src, index = inputs
    ctx.save_for_backward(index)
    ctx.num_nodes = src.size(0)


def _gather_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (index,) = ctx.saved_tensors
    ptr, perm = cached_csr(index, ctx.num_nodes)
    return _ops.segment_reduce(grad, ptr, perm, "sum"), None


def register() -> None:
    """Registers the gradients; once, after the library has been loaded."""
    torch.library.register_autograd(
        "gnnscript::gather", _gather_backward, setup_context=_gather_context
    )
