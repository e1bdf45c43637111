"""Leads eager calls of PyG's rendered ``propagate`` and ``edge_updater`` to the native ops."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from gnnscript.script.eager import NOT_RUN, run

__all__ = ["led", "restore", "taken_over"]

_METHODS = ("propagate", "edge_updater")
_ORIGINAL = "__gnnscript_original__"


def led(original: Callable[..., Any]) -> Callable[..., Any]:
    """The function that stands in for a rendered one.

    It has the globals of the rendered module and names the rendered function as the one that it
    wraps, so that whoever reads its source (``inspect``, TorchScript) reads PyG's.
    """
    name = original.__name__
    order = list(inspect.signature(original).parameters)[2:]
    names = frozenset(order)

    def call(self: Any, edge_index: Any, *args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(order, args, strict=False)), **kwargs} if args else kwargs
        if (
            torch.compiler.is_compiling()
            or len(given) < len(args) + len(kwargs)
            or not names.issuperset(given)
        ):
            return original(self, edge_index, *args, **kwargs)
        out = run(self, name, edge_index, given)
        return original(self, edge_index, *args, **kwargs) if out is NOT_RUN else out

    stand_in = types.FunctionType(
        call.__code__, original.__globals__ | _own_globals(), name, None, call.__closure__
    )
    functools.update_wrapper(stand_in, original)
    setattr(stand_in, _ORIGINAL, original)
    return stand_in


def _own_globals() -> dict[str, Any]:
    from gnnscript.script.eager import NOT_RUN, run

    return {"torch": torch, "run": run, "NOT_RUN": NOT_RUN}


def taken_over(base: type) -> None:
    """Leads the functions of classes that were rendered before."""
    for cls in _classes(base):
        for method in _METHODS:
            rendered = vars(cls).get(f"_jinja_{method}")
            if rendered is None or hasattr(rendered, _ORIGINAL):
                continue
            generic = vars(cls).get(f"_orig_{method}")
            if rendered is not generic and vars(cls).get(method) is rendered:
                stand_in: Any = led(rendered)  # type: ignore[arg-type]
                _replace(cls, rendered, stand_in)


def restore(base: type) -> None:
    """Gives all classes back the functions that PyG rendered."""
    for cls in _classes(base):
        for value in list(vars(cls).values()):
            original = getattr(value, _ORIGINAL, None)
            if isinstance(value, types.FunctionType) and original is not None:
                _replace(cls, value, original)


def _replace(cls: type, old: Any, new: Any) -> None:
    for name, value in list(vars(cls).items()):
        if value is old:
            setattr(cls, name, new)


def _classes(base: type) -> Iterator[type]:
    seen: set[type] = set()
    waiting = [base]
    while waiting:
        cls = waiting.pop()
        if cls not in seen:
            seen.add(cls)
            waiting += type.__subclasses__(cls)
            yield cls
