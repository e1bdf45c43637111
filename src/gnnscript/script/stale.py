"""Keeps TorchScript from taking an object for an operator that is gone."""

from __future__ import annotations

import inspect
from typing import Any

import torch

__all__ = ["forget_stale_operators"]


def forget_stale_operators(root: torch.nn.Module) -> None:
    """Removes what a model consists of from the operators that TorchScript knows by ``id``.

    It keeps the identity of each operator that was ever looked up. Where one gets another overload,
    Python's object for it is made anew; that of the first is freed, and a number, a tuple or a
    function that comes to lie in its place is compiled as that operator: "builtin cannot be used as
    a value".

    Args:
        root: The model that is about to be compiled.
    """
    known: dict[int, str] = torch.jit._builtins._get_builtin_table()  # type: ignore[no-untyped-call]
    for module in root.modules():
        held = [*vars(module).values()]
        for cls in type(module).__mro__:
            held += vars(cls).values()
        forward = inspect.unwrap(getattr(type(module), "forward"))  # noqa: B009
        held += getattr(forward, "__globals__", {}).values()
        for value in held:
            if id(value) in known and not _may_be_operator(value):
                del known[id(value)]


def _may_be_operator(value: Any) -> bool:
    """Whether an object is one that TorchScript may know as an operator: a function of torch's."""
    place = getattr(value, "__module__", None) or ""
    ours = inspect.isfunction(value) or inspect.isclass(value)
    return callable(value) and not (ours and place.split(".")[0] != "torch")
