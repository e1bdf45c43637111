"""What the native ops return, in shapes and dtypes alone: for torch.compile and torch.export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnnscript.ops.attention_gradients import attention_shapes
from gnnscript.ops.edge_gradients import feature_shape

__all__ = ["register"]


def _csr(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    return (
        index.new_empty([size + 1], dtype=torch.int64),
        index.new_empty([index.size(0)], dtype=torch.int64),
    )


def _gather(src: Tensor, index: Tensor) -> Tensor:
    return src.new_empty([index.size(0), *src.shape[1:]])


def _segment_reduce(src: Tensor, ptr: Tensor, perm: Tensor | None, reduce: str) -> Tensor:
    return src.new_empty([ptr.size(0) - 1, *src.shape[1:]])


def _scatter_reduce(src: Tensor, index: Tensor, size: int, reduce: str) -> Tensor:
    return src.new_empty([size, *src.shape[1:]])


def _segment_reduces(
    src: Tensor, ptr: Tensor, perm: Tensor | None, reduces: list[str]
) -> list[Tensor]:
    return [_segment_reduce(src, ptr, perm, reduce) for reduce in reduces]


def _segment_reduce_backward(
    grad: Tensor, src: Tensor, out: Tensor, ptr: Tensor, perm: Tensor | None, reduce: str
) -> Tensor:
    return src.new_empty(src.shape)


def _segment_expand(src: Tensor, ptr: Tensor, perm: Tensor | None, edges: int) -> Tensor:
    return src.new_empty([edges, *src.shape[1:]])


def _edge_softmax(src: Tensor, ptr: Tensor, perm: Tensor | None) -> Tensor:
    return src.new_empty(src.shape)


def _edge_softmax_backward(grad: Tensor, out: Tensor, ptr: Tensor, perm: Tensor | None) -> Tensor:
    return out.new_empty(out.shape)


def _found(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty([2, torch.library.get_ctx().new_dynamic_size()], dtype=torch.int64)


def _fps(src: Tensor, *_: Any) -> Tensor:
    return src.new_empty([torch.library.get_ctx().new_dynamic_size()], dtype=torch.int64)


def _edge_reduce(
    program: str,
    operands: list[Tensor],
    index: Tensor,
    other: Tensor,
    ptr: Tensor,
    perm: Tensor,
    reduce: str,
) -> Tensor:
    return operands[0].new_empty([ptr.size(0) - 1, *feature_shape(program, operands)])


def _edge_map(
    program: str, operands: list[Tensor], index: Tensor, other: Tensor, sum_dims: int
) -> Tensor:
    shape = feature_shape(program, operands)
    return operands[0].new_empty([index.size(0), *shape[: len(shape) - sum_dims]])


def _edge_attention(
    score: str,
    score_operands: list[Tensor],
    sum_dims: int,
    message: str,
    operands: list[Tensor],
    index: Tensor,
    other: Tensor,
    ptr: Tensor,
    perm: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    scored, messages, _ = attention_shapes(score, score_operands, sum_dims, message, operands)
    like, rows = operands[0], ptr.size(0) - 1
    wide = torch.promote_types(like.dtype, torch.float32)
    high = like.new_empty([rows, *scored], dtype=wide)
    return like.new_empty([rows, *messages]), high, torch.empty_like(high)


def _edge_attention_backward(
    score: str,
    score_operands: list[Tensor],
    sum_dims: int,
    message: str,
    operands: list[Tensor],
    index: Tensor,
    *rest: Tensor,
) -> tuple[Tensor, Tensor]:
    scored, _, _ = attention_shapes(score, score_operands, sum_dims, message, operands)
    weight = operands[0].new_empty([index.size(0), *scored])
    return weight, torch.empty_like(weight)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty([x.size(0), weight.size(0)])


def register() -> None:
    """Registers the fake kernels; once, after the library has been loaded."""
    kernels: dict[str, Callable[..., Any]] = {
        "edge_reduce": _edge_reduce,
        "edge_map": _edge_map,
        "edge_attention": _edge_attention,
        "edge_attention_backward": _edge_attention_backward,
        "csr": _csr,
        "fps": _fps,
        "gather": _gather,
        "linear": _linear,
        "knn": _found,
        "radius": _found,
        "scatter_reduce": _scatter_reduce,
        "segment_reduce": _segment_reduce,
        "segment_reduces": _segment_reduces,
        "segment_reduce_backward": _segment_reduce_backward,
        "segment_expand": _segment_expand,
        "edge_softmax": _edge_softmax,
        "edge_softmax_backward": _edge_softmax_backward,
    }
    for name, function in kernels.items():
        torch.library.register_fake(f"gnnscript::{name}", function)
