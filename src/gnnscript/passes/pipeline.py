"""Runs the passes on the methods of a specialised model."""

from __future__ import annotations

import ast

from gnnscript.passes.tracing import trace
from gnnscript.specialize.helpers import Import, is_op
from gnnscript.specialize.program import Program, Specialized

__all__ = ["optimize"]

_METHODS = ("propagate", "edge_updater")
# What the native ops offer under the name and signature of the portable ones.
_NATIVE = frozenset(
    {
        "check_edge_index", "csr", "fps", "gather", "knn", "nearest", "radius", "scatter",
        "segment", "softmax",
    }
)  # fmt: skip


def optimize(program: Program) -> None:
    """Rewrites ``propagate`` and ``edge_updater`` of every conv, for the native ops."""
    for owner in program.owners.values():
        for method in owner.methods:
            if method.name.rstrip("_0123456789") in _METHODS:
                _rewrite(method)
    for function in program.functions():
        _use_native(function.node)


def _rewrite(method: Specialized) -> None:
    body = trace(method)
    if body is not None:
        method.node.body = body


def _use_native(node: ast.AST) -> None:
    """Has a piece of specialised code import the native ops."""
    for child in ast.walk(node):
        target = getattr(child, "target_", None)
        if isinstance(target, Import) and is_op(target) and target.name in _NATIVE:
            native = Import("gnnscript.ops.native", target.name, target.alias)
            child.target_ = native  # type: ignore[attr-defined]
