"""What stands in programs of ``torch.compile`` and ``torch.export`` for what they cannot hold.

They have no branches, so a check of values is an assertion in them. Scripted code keeps its checks.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import (
    guard_or_false,
    guard_or_true,
)

__all__ = [
    "as_float",
    "bound",
    "ceil_div",
    "differentiable",
    "floor_div",
    "holds",
    "length",
    "ordinary",
    "refused",
    "warn",
]


def holds(condition: Any, message: str) -> Any:
    """Assert a condition where only values tell it; answer it where that can be.

    Args:
        condition: A tensor of one element, a ``SymBool`` or a plain value.
        message: What the assertion says when it fails.

    Returns:
        True for what is asserted; another condition as it is.

    Raises:
        RuntimeError: The program runs on values for which an assertion fails.
    """
    if isinstance(condition, Tensor):
        torch._assert_async(condition, message)
        return True
    if not isinstance(condition, (bool, torch.SymBool)):
        return condition
    if guard_or_false(condition) is guard_or_true(condition):  # known
        return guard_or_false(condition)
    # Dynamo of torch 2.10 takes no message that closes over a variable.
    torch._check(condition, lambda said=message: said)  # type: ignore[no-untyped-call]
    return True


def refused(condition: Any, message: str) -> Any:
    """Assert that a condition does not hold; see :func:`holds`.

    Args:
        condition: As in :func:`holds`.
        message: As in :func:`holds`.

    Returns:
        False for what is asserted; another condition as it is.

    Raises:
        RuntimeError: As in :func:`holds`.
    """
    if isinstance(condition, Tensor):
        torch._assert_async(condition.logical_not(), message)
        return False
    if not isinstance(condition, (bool, torch.SymBool)):
        return condition
    if guard_or_false(condition) is guard_or_true(condition):
        return guard_or_false(condition)
    torch._check(torch.sym_not(condition), lambda said=message: said)  # type: ignore[no-untyped-call]
    return False


def ordinary(value: Any, least: int) -> Any:
    """Assert of sizes that only values tell that they are none of those torch treats apart.

    Where a size may be 0, or 1 and broadcast, torch branches, and a program has no branches.

    Args:
        value: A tensor, a size, or a tuple or list of these.
        least: 1 where no size may be 0, 2 where none may be 1 either.

    Returns:
        The value as it is.

    Raises:
        RuntimeError: The program runs on values that give a smaller size.
    """
    if isinstance(value, Tensor):
        for size in value.shape:
            _at_least(size, least)
    elif isinstance(value, (tuple, list)):
        for item in value:
            ordinary(item, least)
    elif isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool):
        _at_least(value, least)
    return value


def _at_least(size: Any, least: int) -> None:
    large = size >= least
    if guard_or_false(large) is guard_or_true(large):  # known
        return
    torch._check(large, lambda said=f"expected a size of at least {least}": said)  # type: ignore[no-untyped-call]
    for other in range(least):  # does not follow for torch
        torch._check(torch.sym_not(size == other))  # type: ignore[no-untyped-call]


def bound(value: Any) -> Any:
    """Take a tensor as the bound of a slice, of which ``torch.export`` makes a constant.

    Args:
        value: A tensor of one element, or any other bound, which is returned as it is.

    Returns:
        The number that it holds.

    Raises:
        RuntimeError: The program runs on values that give a negative bound.
    """
    if not isinstance(value, Tensor):
        return value
    number = value.item()
    torch._check(number >= 0, lambda: "expected a bound of at least 0")  # type: ignore[no-untyped-call]
    return number


def as_float(value: Any) -> Any:
    """Return ``float(value)``, of which ``torch.export`` makes a constant where it is a tensor's.

    Args:
        value: A tensor of one element, or a number.

    Returns:
        The number; one that is known when the program runs where values decide it.

    Raises:
        RuntimeError: The tensor has not exactly one element.
    """
    if isinstance(value, Tensor):
        value = (value if value.is_floating_point() else value.to(torch.float64)).item()
    elif isinstance(value, (torch.SymInt, torch.SymFloat)):
        value = torch.sym_float(value)  # type: ignore[no-untyped-call]
    return value if isinstance(value, torch.SymFloat) else float(value)


def length(value: Any) -> Any:
    """Return ``len(value)``, of which ``torch.export`` makes a constant where it is a tensor's.

    Args:
        value: A tensor, or anything else that has a length.
    """
    return value.size(0) if isinstance(value, Tensor) else len(value)


# Programs of torch.compile cannot mark a tensor of theirs, but have one that is marked. What is
# summed up for it is of no use to anybody.
_MARKED = torch.zeros((), requires_grad=True)
_MARKED.register_post_accumulate_grad_hook(lambda marked: setattr(marked, "grad", None))  # type: ignore[no-untyped-call]


def differentiable(value: Any, requires_grad: bool = True) -> Any:
    """Return what ``value.requires_grad_()`` makes of a tensor, without a change of the tensor.

    Args:
        value: A tensor; a module, whose method is called.
        requires_grad: Whether to differentiate by it.

    Returns:
        The tensor itself where it is as it should be, else another of the same values.
    """
    if not isinstance(value, Tensor):
        return value.requires_grad_(requires_grad)
    if value.requires_grad == requires_grad:
        return value
    if not requires_grad:
        return value.detach()
    if torch.compiler.is_dynamo_compiling():
        return value + _MARKED.to(value)
    return value.detach().requires_grad_()


def floor_div(a: Any, b: Any) -> Any:
    """Return ``math.floor(a / b)``; in integers for sizes that only values tell.

    Args:
        a: A number.
        b: A number.
    """
    return a // b if _undecided(a) and isinstance(b, int) else math.floor(a / b)


def ceil_div(a: Any, b: Any) -> Any:
    """Return ``math.ceil(a / b)``; in integers for sizes that only values tell.

    Args:
        a: A number.
        b: A number.
    """
    return -(-a // b) if _undecided(a) and isinstance(b, int) else math.ceil(a / b)


def _undecided(number: Any) -> bool:
    """Whether a number is an integer of which not even the sign is known."""
    if not isinstance(number, (int, torch.SymInt)):
        return False
    positive = number >= 0
    return guard_or_false(positive) is not guard_or_true(positive)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def warn(message: str) -> None:
    """Warn when a program is made, as it cannot when it runs.

    Args:
        message: The message.

    Source: ``warnings.warn``.
    """
    warnings.warn(message, stacklevel=2)
