"""From which sizes on a compiled model is right: compilers treat 0 and 1 apart, or not at all.

What branches on ``x.size(0) == 1``, or broadcasts where it holds, is compiled for the example,
which has more nodes than that.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from gnnscript.deploy.comparing import SEED, assert_close, own_form
from gnnscript.deploy.signature import Signature
from gnnscript.deploy.structure import flat_outputs, invoke

__all__ = ["Run", "least_sizes"]

Run: TypeAlias = "Callable[[Sequence[dict[str, Tensor]]], Iterable[Sequence[Tensor] | None]]"
"""Runs a compiled model on several inputs: for each its results, or None where it fails."""


def least_sizes(
    model: nn.Module,
    run: Run,
    example: Mapping[str, Any],
    signature: Signature,
    *,
    rtol: float,
    atol: float,
) -> dict[str, int]:
    """Runs a compiled model on graphs of one or no node or edge, and compares it with the original.

    Args:
        model: The original.
        run: Runs the compiled one.
        example: The arguments of the original, in its own form.
        signature: The inputs of the compiled one.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Returns:
        For each symbol whose size has to be larger than 0 the least that gives what the original
        gives. What the original does not take either does not count.
    """
    tried: list[tuple[str, int, dict[str, Tensor], list[Tensor]]] = []
    for symbol in signature.symbols:
        for size in (1, 0):
            call = _shrunk(signature, symbol, size)
            expected = _expected(model, example, signature, call)
            if expected is None:
                break
            tried.append((symbol, size, call, expected))
    least: dict[str, int] = {}
    found = run([copy.deepcopy(call) for _, _, call, _ in tried])
    for (symbol, size, _, expected), results in zip(tried, found, strict=True):
        if symbol not in least and not _agree(results, expected, rtol, atol):
            least[symbol] = size + 1
    return least


def _shrunk(signature: Signature, symbol: str, size: int) -> dict[str, Tensor]:
    """The example with another size; edges go where there is no node, others move to nodes left."""
    first = signature.calls[0]
    sizes = {symbol: size}
    for spec in signature.inputs:
        if size == 0 and symbol in spec.index:
            sizes |= {other: 0 for other in spec.shape if isinstance(other, str)}
    call = {}
    for spec in signature.inputs:
        tensor = first[spec.name].clone()
        for dim, name in enumerate(spec.shape):
            if isinstance(name, str) and name in sizes:
                tensor = tensor.narrow(dim, 0, min(sizes[name], tensor.size(dim))).contiguous()
        for row, below in enumerate(spec.index):
            if below is not None and sizes.get(below):
                part = tensor[row] if len(spec.index) > 1 else tensor
                part.remainder_(sizes[below])
        call[spec.name] = tensor
    return call


def _expected(
    model: nn.Module, example: Mapping[str, Any], signature: Signature, call: dict[str, Tensor]
) -> list[Tensor] | None:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        try:
            given = own_form(example, signature, copy.deepcopy(call))
            results = flat_outputs(invoke(copy.deepcopy(model), given), numbers=True)
        except Exception:  # the original does not take it either
            return None
    return [tensor.detach() for _, tensor in results]


def _agree(
    results: Sequence[Tensor] | None, expected: Sequence[Tensor], rtol: float, atol: float
) -> bool:
    if results is None or len(results) != len(expected):
        return False
    try:
        for one, other in zip(results, expected, strict=True):
            same = one.reshape(other.shape) if one.numel() == other.numel() == 1 else one
            assert_close(same, other, rtol=rtol, atol=atol)
    except AssertionError:
        return False
    return True
