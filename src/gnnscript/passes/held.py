"""Which module a piece of specialised code means."""

from __future__ import annotations

import ast
from typing import Any

import torch

from gnnscript.specialize.helpers import has_forward_hooks
from gnnscript.specialize.program import Specialized

__all__ = ["held_module", "is_watched"]


def held_module(node: ast.expr, method: Specialized) -> torch.nn.Module | None:
    """The module that an expression such as ``self.mlp[0]`` means in a method."""
    found: Any = None
    if isinstance(node, ast.Name):
        arguments = method.node.args.args
        if method.owner is not None and node.id == arguments[0].arg:
            found = method.owner.ref.module
    elif isinstance(node, ast.Attribute):
        holder = held_module(node.value, method)
        found = holder._modules.get(node.attr) if holder is not None else None
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        holder = held_module(node.value, method)
        key = node.slice.value
        if isinstance(holder, (torch.nn.Sequential, torch.nn.ModuleList)):
            # By its place: those of a sequence may have names.
            children = list(holder._modules.values())
            found = children[key] if isinstance(key, int) and key < len(children) else None
        elif isinstance(holder, torch.nn.Module):
            found = holder._modules.get(str(key))
    return found if isinstance(found, torch.nn.Module) else None


def is_watched(module: torch.nn.Module | None) -> bool:
    """Whether the calls of a module must take place as they stand."""
    if module is None:
        return True
    return has_forward_hooks(module) or "forward" in vars(module)
