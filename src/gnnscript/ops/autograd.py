"""Gradients of the native ops: ops of the same family, so that they have gradients in turn.

Where a gradient is not differentiated again, one kernel computes it. Where it may be, it is made
of differentiable ops.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnscript.ops.differentiation import register_gradient
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


def _expand_context(
    ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, int], output: Tensor
) -> None:
    _, ptr, perm, _ = inputs
    ctx.save_for_backward(ptr, perm)


def _expand_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    ptr, perm = ctx.saved_tensors
    return _ops.segment_reduce(grad, ptr, perm, "sum"), None, None, None


def _reduce_context(
    ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, str], output: Tensor
) -> None:
    src, ptr, perm, reduce = inputs
    ctx.reduce = reduce
    ctx.edges = src.size(0)
    if reduce in _LINEAR:
        ctx.save_for_backward(None, None, ptr, perm)
    else:
        ctx.save_for_backward(src, _kept(output, reduce), ptr, perm)


def _reduce_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    src, out, ptr, perm = ctx.saved_tensors
    return _edge_gradient(grad, src, out, ptr, perm, ctx.reduce, ctx.edges), None, None, None


def _reduces_context(
    ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, list[str]], output: list[Tensor]
) -> None:
    src, ptr, perm, reduces = inputs
    ctx.reduces = reduces
    kept = [_kept(out, reduce) for out, reduce in zip(output, reduces, strict=True)]
    ctx.save_for_backward(src, ptr, perm, *kept)


def _reduces_backward(
    ctx: Any, grads: list[Tensor | None]
) -> tuple[Tensor | None, None, None, None]:
    src, ptr, perm, *outputs = ctx.saved_tensors
    total = None
    for grad, out, reduce in zip(grads, outputs, ctx.reduces, strict=True):
        if grad is not None:
            share = _edge_gradient(grad, src, out, ptr, perm, reduce, src.size(0))
            total = share if total is None else total + share
    return total, None, None, None


_LINEAR = ("sum", "add", "mean", "any")


def _kept(out: Tensor, reduce: str) -> Tensor | None:
    """A result, where its gradient reads it; others may be written to."""
    return None if reduce in (*_LINEAR, "var", "mul", "prod") else out


def _scatter_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, str], output: Tensor) -> None:
    src, index, size, reduce = inputs
    ctx.reduce, ctx.size = reduce, size
    kept = (None, None) if reduce in _LINEAR else (src, _kept(output, reduce))
    ctx.save_for_backward(*kept, index)


def _scatter_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    src, out, index = ctx.saved_tensors
    if ctx.reduce not in _LINEAR:
        rows = cached_csr(index, ctx.size)
        share = _edge_gradient(grad, src, out, *rows, ctx.reduce, index.size(0))
        return share, None, None, None
    if ctx.reduce == "mean":
        ones = torch.ones_like(index, dtype=torch.float64)
        count = _ops.scatter_reduce(ones, index, ctx.size, "sum").clamp(min=1)
        grad = grad / count.to(grad.dtype).view([-1] + [1] * (grad.dim() - 1))
    return _ops.gather(grad, index), None, None, None


def _edge_gradient(
    grad: Tensor,
    src: Tensor,
    out: Tensor | None,
    ptr: Tensor,
    perm: Tensor | None,
    reduce: str,
    edges: int,
) -> Tensor:
    """Returns the gradient to the edges of one reduction."""
    if reduce not in _LINEAR and not torch.is_grad_enabled():
        kept = grad if out is None else out  # of the same shape, and not read
        return _ops.segment_reduce_backward(grad, src, kept, ptr, perm, reduce)  # type: ignore[no-any-return]

    def expand(rows: Tensor) -> Tensor:
        return _ops.segment_expand(rows, ptr, perm, edges)  # type: ignore[no-any-return]

    if reduce in ("sum", "add", "any"):  # any: to all edges of a node, as in PyG
        return expand(grad)
    count = ptr.diff().clamp(min=1).view([-1] + [1] * (grad.dim() - 1)).to(grad.dtype)
    if reduce == "mean":
        return expand(grad / count)
    if reduce in ("min", "amin", "max", "amax"):
        assert out is not None
        chosen = (src == expand(out)).to(grad.dtype)
        ties = _ops.segment_reduce(chosen, ptr, perm, "sum").clamp(min=1)
        return expand(grad / ties) * chosen
    if reduce in ("mul", "prod"):
        zero = src == 0
        zeros = expand(_ops.segment_reduce(zero.to(grad.dtype), ptr, perm, "sum"))
        others = torch.where(zero, 1, src)
        product = expand(_ops.segment_reduce(others, ptr, perm, "mul"))
        # The product of the other edges: of a zero all the rest, of the others only without zeros.
        return expand(grad) * torch.where(zeros == zero, product / others, 0)
    if reduce == "logsumexp":
        assert out is not None
        return expand(grad) * (src - expand(out)).exp()
    mean = _ops.segment_reduce(src, ptr, perm, "mean")
    if reduce == "var":
        return expand(2 / count * grad) * (src - expand(mean))
    if reduce == "std":
        assert out is not None
        flat = out == 0
        scale = torch.where(flat, 0, grad / (count * torch.where(flat, 1, out)))
        return expand(scale) * (src - expand(mean))
    raise AssertionError(reduce)


def _softmax_context(
    ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor
) -> None:
    _, ptr, perm = inputs
    ctx.save_for_backward(output, ptr, perm)


def _softmax_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    out, ptr, perm = ctx.saved_tensors
    if not torch.is_grad_enabled():
        return _ops.edge_softmax_backward(grad, out, ptr, perm), None, None
    total = _ops.segment_reduce(out * grad, ptr, perm, "sum")
    return out * (grad - _ops.segment_expand(total, ptr, perm, out.size(0))), None, None


def _linear_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    x, weight, bias = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, weight)


def _linear_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    x, weight = ctx.saved_tensors
    return grad @ weight, grad.t() @ x, grad.sum(0) if ctx.has_bias else None


def register() -> None:
    """Registers the gradients; once, after the library has been loaded."""
    for name, backward, context in (
        ("gather", _gather_backward, _gather_context),
        ("segment_expand", _expand_backward, _expand_context),
        ("segment_reduce", _reduce_backward, _reduce_context),
        ("segment_reduces", _reduces_backward, _reduces_context),
        ("scatter_reduce", _scatter_backward, _scatter_context),
        ("edge_softmax", _softmax_backward, _softmax_context),
        ("linear", _linear_backward, _linear_context),
    ):
        register_gradient(name, backward, context)
