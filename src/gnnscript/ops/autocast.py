"""What autocast does to the arguments of the native ops.

Sums of halves are accumulated in single precision anyway, so reductions take what they are given. A
softmax is computed in float32, as autocast has it for ``torch.softmax``. A program over edges may
meet halves, from a linear layer, beside float32: they are promoted, as autocast does for
``torch.scatter_add``. With a softmax in between they are computed in float32. Linear layers are
torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["register"]

_KEYS = ("AutocastCPU", "AutocastCUDA")


def _softmax(src: Tensor, ptr: Tensor, perm: Tensor | None) -> Tensor:
    return torch.ops.gnnscript.edge_softmax(_single(src), ptr, perm)  # type: ignore[no-any-return]


def _single(tensor: Tensor) -> Tensor:
    halves = (torch.float16, torch.bfloat16)
    return tensor.to(torch.float32) if tensor.dtype in halves else tensor


def _promoted(operands: list[Tensor]) -> list[Tensor]:
    dtype = operands[0].dtype
    for operand in operands:
        dtype = torch.promote_types(dtype, operand.dtype)
    return [operand.to(dtype) for operand in operands]


def _edge_reduce(program: str, operands: list[Tensor], *rest: Any) -> Tensor:
    return torch.ops.gnnscript.edge_reduce(program, _promoted(operands), *rest)  # type: ignore[no-any-return]


def _edge_map(program: str, operands: list[Tensor], *rest: Any) -> Tensor:
    return torch.ops.gnnscript.edge_map(program, _promoted(operands), *rest)  # type: ignore[no-any-return]


def _edge_attention(
    score: str,
    score_operands: list[Tensor],
    sum_dims: int,
    message: str,
    operands: list[Tensor],
    *rest: Any,
) -> Any:
    single = [_single(operand) for operand in _promoted(score_operands + operands)]
    count = len(score_operands)
    return torch.ops.gnnscript.edge_attention(
        score, single[:count], sum_dims, message, single[count:], *rest
    )


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    dtype = torch.get_autocast_dtype(x.device.type)
    given = None if bias is None else bias.to(dtype)
    return torch.nn.functional.linear(x.to(dtype), weight.to(dtype), given)


def _without_autocast(key: str, function: Callable[..., Any]) -> Callable[..., Any]:
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def call(*args: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return function(*args)

    return call


# A library's registrations end with it.
_kept: list[torch.library.Library] = []


def register() -> None:
    """Registers the rules; once, after the library has been loaded."""
    library = torch.library.Library("gnnscript", "IMPL")  # type: ignore[no-untyped-call]
    for key in _KEYS:
        for name, rule in (
            ("edge_softmax", _softmax),
            ("edge_reduce", _edge_reduce),
            ("edge_map", _edge_map),
            ("edge_attention", _edge_attention),
            ("linear", _linear),
        ):
            library.impl(name, _without_autocast(key, rule), key)  # type: ignore[no-untyped-call]
    _kept.append(library)
