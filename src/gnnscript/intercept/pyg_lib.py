"""Supplies the ops of ``pyg_lib`` that PyG's eager code asks for, where that library is missing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch

from gnnscript import _pyg, ops

__all__ = ["supply"]

# Modules of PyG that import an op by name, or None where the library is missing.
_IMPORTERS = {"torch_geometric.nn.conv.spline_conv": ("spline_basis", "spline_weighting")}


def supply() -> Callable[[], None]:
    """Registers our ops as ``torch.ops.pyg.*``, as far as nobody else has.

    They are composed of other ops, so autograd, devices and ``torch.compile`` see through them.

    Returns:
        A function that takes it back.
    """
    typing = importlib.import_module("torch_geometric.typing")
    missing = [
        name for name, (flag, _) in _pyg.PYG_LIB_OPS.items() if not getattr(typing, flag, False)
    ]
    library: Any = torch.library.Library("pyg", "FRAGMENT")  # type: ignore[no-untyped-call]
    flags: dict[str, bool | None] = {}
    for name in missing:
        flag, schema = _pyg.PYG_LIB_OPS[name]
        library.define(name + schema)
        library.impl(name, getattr(ops, name), "CompositeImplicitAutograd")
        flags.setdefault(flag, getattr(typing, flag, None))
        setattr(typing, flag, True)
    named = [
        (module, name)
        for where, names in _IMPORTERS.items()
        if (module := sys.modules.get(where)) is not None
        for name in names
        if name in missing and getattr(module, name, None) is None
    ]
    for module, name in named:
        setattr(module, name, getattr(torch.ops.pyg, name))

    def take_back() -> None:
        for module, name in named:
            setattr(module, name, None)
        for flag, value in flags.items():
            if value is None:
                delattr(typing, flag)
            else:
                setattr(typing, flag, value)
        library._destroy()

    return take_back
