"""Gives an op its gradient, as ``torch.library.register_autograd`` does, with less to do per call.

On small graphs most of a call's time goes to what stands around the kernel. torch's own function
takes every argument apart and together again by ``pytree``, forward and backward; which arguments
hold tensors is known from the schema.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["register_gradient"]

Backward = Callable[..., Any]
Context = Callable[[Any, tuple[Any, ...], Any], None]

_kept: list[torch.library.Library] = []  # a library's registrations end with it


def register_gradient(name: str, backward: Backward, context: Context) -> None:
    """Registers the gradient of one op.

    Args:
        name: The op's name, without ``gnnscript::``.
        backward: Called with the context and what flows back to each output (a list, where the
            output is one), and ``ctx.needs_input_grad`` as nested as the arguments; returns as many
            gradients as there are arguments, a list for a list.
        context: Called with the context, the arguments and the output: keeps what `backward` reads.
    """
    op = getattr(torch.ops.gnnscript, name).default
    schema = op._schema
    assert not any(argument.has_default_value() for argument in schema.arguments)
    kinds = [str(argument.type) for argument in schema.arguments]
    lists = [place for place, kind in enumerate(kinds) if kind == "List[Tensor]"]
    single = [place for place, kind in enumerate(kinds) if kind in ("Tensor", "Optional[Tensor]")]
    returns_list = str(schema.returns[0].type) == "List[Tensor]"
    after, below = torch._C._after_autograd_keyset, torch._C._AutoDispatchBelowAutograd

    def forward(ctx: Any, keys: Any, args: tuple[Any, ...], *_: Tensor) -> Any:
        with below():
            out = op.redispatch(keys & after, *args)
        context(ctx, args, out)
        ctx.lengths = [len(args[place]) for place in lists]
        return tuple(out) if returns_list else out

    def backward_flat(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        flags = ctx.needs_input_grad
        needed: list[Any] = [False] * len(kinds)
        at = 2
        for place in single:
            needed[place] = flags[at]
            at += 1
        for place, length in zip(lists, ctx.lengths, strict=True):
            needed[place] = flags[at : at + length]
            at += length
        ctx.needs_input_grad = needed
        try:
            found = backward(ctx, list(grads)) if returns_list else backward(ctx, *grads)
        finally:
            ctx.needs_input_grad = flags
        flat = [None, None, *(found[place] for place in single)]
        for place in lists:
            flat += found[place]
        return tuple(flat)

    function: Any = type(
        f"{name}_autograd",
        (torch.autograd.Function,),
        {"forward": staticmethod(forward), "backward": staticmethod(backward_flat)},
    )
    apply = function.apply

    def call(keys: Any, *args: Any) -> Any:
        if not (torch.is_grad_enabled() and torch._C._any_requires_grad(*args)):
            with below():
                return op.redispatch(keys & after, *args)
        tensors = _tensors(args, single, lists)
        out = apply(keys, args, *tensors)
        return list(out) if returns_list else out

    library = torch.library.Library("gnnscript", "IMPL")  # type: ignore[no-untyped-call]
    library.impl(name, call, "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]
    _kept.append(library)


def _tensors(
    args: tuple[Any, ...], single: Sequence[int], lists: Sequence[int]
) -> list[Tensor | None]:
    """The tensors among the arguments of a call, those in lists behind the others."""
    tensors = [args[place] for place in single]
    for place in lists:
        tensors += args[place]
    return tensors
