"""Comparing what a deployed model computes with what the original does."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gnnscript.deploy.manifest import Check, DeployError
from gnnscript.deploy.signature import Signature
from gnnscript.deploy.structure import flat_outputs, invoke, named_tensors, refilled

__all__ = ["SEED", "assert_close", "compare", "own_form"]

SEED = 20_231
"""That of the random numbers that a model draws while it is compared."""

_HALF = (torch.float16, torch.bfloat16)


def assert_close(found: Tensor, expected: Tensor, *, rtol: float, atol: float) -> None:
    """Raises AssertionError where two results differ by more than rounding.

    Of dtypes of 16 bits, two units in the last place of the largest value are granted at least:
    sums in another order differ by that.
    """
    if expected.dtype in _HALF:
        unit = torch.finfo(expected.dtype).eps
        rtol, atol = max(rtol, 2 * unit), max(atol, 2 * unit * _largest(expected.abs()))
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol, equal_nan=True)


def compare(
    model: nn.Module,
    saved: Any,
    example: dict[str, Any],
    signature: Signature,
    *,
    rtol: float,
    atol: float,
) -> Check:
    """Compares a deployed model with the one it was made of, on all calls of the signature.

    Args:
        model: The original.
        saved: What was read back: takes the arguments of the signature's calls by name.
        example: The arguments of the original, in its own form.
        signature: The inputs, and the calls to make.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Raises:
        DeployError: They differ.
    """
    # What a model remembers of one call must not reach the next, where it can be made to forget.
    fresh = isinstance(saved, torch.jit.ScriptModule)
    original = copy.deepcopy(model)
    max_abs, max_rel = 0.0, 0.0
    for number, call in enumerate(signature.calls):
        own = own_form(example, signature, call)
        # Copies, because a model may write to what it is given.
        one = (copy.deepcopy(original) if fresh else original), copy.deepcopy(own)
        other = (copy.deepcopy(saved) if fresh else saved), copy.deepcopy(call)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(SEED)
            want = flat_outputs(invoke(*one), numbers=True)
            torch.manual_seed(SEED)
            got = flat_outputs(invoke(*other), numbers=True)
        if len(want) != len(got):
            raise DeployError(
                f"the saved model returns {len(got)} tensors and the original {len(want)}"
            )
        for (name, expected), (_, found) in zip(want, got, strict=True):
            found = found.reshape(expected.shape) if found.numel() == 1 else found  # noqa: PLW2901
            try:
                assert_close(found, expected, rtol=rtol, atol=atol)
            except AssertionError as error:
                raise DeployError(
                    f"the saved model differs from the original in call {number}, result "
                    f"'{name}': {' '.join(str(error).split())}; where that is rounding, pass "
                    "larger rtol and atol"
                ) from None
            wide = torch.complex128 if expected.is_complex() else torch.float64
            difference = _largest((found.to(wide) - expected.to(wide)).abs())
            max_abs = max(max_abs, difference)
            max_rel = max(max_rel, difference / (_largest(expected.to(wide).abs()) or 1.0))
    against = "scripted" if isinstance(model, torch.jit.ScriptModule) else "eager"
    return Check(against, len(signature.calls), max_abs, max_rel, rtol, atol)


def own_form(
    example: Mapping[str, Any], signature: Signature, call: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of the original, which may want in tuples what a deployed model takes flat.

    Args:
        example: The arguments of the original for one call.
        signature: The inputs of the deployed model.
        call: The arguments of the deployed model, by name.
    """
    tensors = {
        spec.name: tensor for spec, tensor in zip(signature.inputs, _tensors(call), strict=True)
    }
    return {name: refilled(name, value, tensors) for name, value in example.items()}


def _tensors(call: Mapping[str, Any]) -> list[Tensor]:
    return [tensor for name, value in call.items() for _, tensor in named_tensors(name, value)]


def _largest(tensor: Tensor) -> float:
    return float(tensor.detach().nan_to_num(posinf=0.0).max()) if tensor.numel() else 0.0
