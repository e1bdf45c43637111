"""Runs the passes on the methods of a specialised model."""

from __future__ import annotations

import ast

from gnnscript.passes.ends import move_edge_layers
from gnnscript.passes.joining import join_updates
from gnnscript.passes.stores import remove_dead_stores
from gnnscript.passes.tracing import trace
from gnnscript.specialize.helpers import Import, is_op
from gnnscript.specialize.program import Program, Specialized

__all__ = ["optimize"]

_METHODS = ("propagate", "edge_updater")
# What the native ops offer under the name and signature of the portable ones.
_NATIVE = frozenset(
    {
        "check_edge_index", "csr", "edge_softmax", "fps", "gather", "gspmm", "knn", "nearest",
        "radius", "scatter", "sddmm", "segment", "segment_reduce", "segment_reduces", "softmax",
    }
)  # fmt: skip


def optimize(program: Program, *, branches: bool = True) -> None:
    """Rewrites every conv and every layer of edges for the native ops.

    A model that takes gradients itself keeps the portable ops: those of the native ones come from
    Python, and a process that loads the saved model has none.

    Args:
        program: The model.
        branches: Whether the code may branch on sizes, as a graph does not.
    """
    if any(_takes_gradients(function.node) for function in program.functions()):
        return
    remove_dead_stores(program)
    join_updates(program)
    for owner in program.owners.values():
        for method in owner.methods:
            if method.name.rstrip("_0123456789") in _METHODS:
                _rewrite(method)
    for function in program.functions():
        if branches:
            move_edge_layers(function)
        _use_native(function.node)


def _rewrite(method: Specialized) -> None:
    body = trace(method)
    if body is not None:
        method.node.body = body


def _takes_gradients(node: ast.AST) -> bool:
    """Whether a piece of specialised code calls ``torch.autograd.grad`` or ``backward``."""
    for child in ast.walk(node):
        target = getattr(child, "target_", None)
        if isinstance(target, Import) and target.module == "torch.autograd" and target.name:
            return True
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute):
            holder = child.func.value
            if child.func.attr == "backward":
                return True
            if isinstance(holder, ast.Attribute) and holder.attr == "autograd":
                return True
    return False


def _use_native(node: ast.AST) -> None:
    """Has a piece of specialised code import the native ops."""
    for child in ast.walk(node):
        target = getattr(child, "target_", None)
        if isinstance(target, Import) and is_op(target) and target.name in _NATIVE:
            native = Import("gnnscript.ops.native", target.name, target.alias)
            child.target_ = native  # type: ignore[attr-defined]
