"""Runs the passes on the methods of a specialised model."""

from __future__ import annotations

import ast

from gnnscript.ops.library import TORCH_SCATTER
from gnnscript.passes.complex_numbers import holds_complex, is_complex, owns_complex
from gnnscript.passes.ends import move_edge_layers
from gnnscript.passes.in_place import scatter_anew
from gnnscript.passes.joining import join_updates
from gnnscript.passes.layers import use_linear
from gnnscript.passes.stores import remove_dead_stores
from gnnscript.passes.tracing import trace
from gnnscript.specialize.helpers import Import, is_op
from gnnscript.specialize.program import Program, Specialized

__all__ = ["optimize", "use_torch_scatter"]

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
    scatter_anew(program)
    remove_dead_stores(program)
    join_updates(program)
    asks = holds_complex(program)
    for owner in program.owners.values():
        for method in owner.methods:
            if method.name.rstrip("_0123456789") in _METHODS:
                if not asks:
                    _rewrite(method)
                elif branches and not owns_complex(method):
                    _rewrite_real(method)
    for function in program.functions():
        if branches and not asks:
            move_edge_layers(function)
            use_linear(function)
        _import_ops(function.node, "gnnscript.ops.native", _NATIVE)


def use_torch_scatter(program: Program) -> None:
    """Has every reduction of a model run on torch_scatter."""
    for function in program.functions():
        _import_ops(function.node, "gnnscript.ops.scatter_library", TORCH_SCATTER)


def _rewrite(method: Specialized) -> None:
    body = trace(method)
    if body is not None:
        method.node.body = body


def _rewrite_real(method: Specialized) -> None:
    """Keeps the body of a method for calls with complex numbers."""
    body, test = trace(method), is_complex(method)
    if body is not None and test is not None:
        method.node.body = [ast.If(test=test, body=method.node.body, orelse=body)]


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


def _import_ops(node: ast.AST, module: str, names: frozenset[str]) -> None:
    """Has a piece of specialised code import ops from a module of ours."""
    for child in ast.walk(node):
        target = getattr(child, "target_", None)
        if isinstance(target, Import) and is_op(target) and target.name in names:
            child.target_ = Import(module, target.name, target.alias)  # type: ignore[attr-defined]
