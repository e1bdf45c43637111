"""One sort of the edges for all layers of a scripted model.

Layers ask for the rows of the same index, each with a number of nodes that it reads off its own
tensor: to TorchScript these are different calls. A model that has several of them keeps, while its
``forward`` runs, what it has sorted.
"""

from __future__ import annotations

import ast

from gnnscript.passes.repeats import share_repeats
from gnnscript.specialize.helpers import Import, import_reference, is_op
from gnnscript.specialize.program import Program
from gnnscript.specialize.tree import free_name, names_read

__all__ = ["share_plans"]

# The ops that sort edges.
_SORTING = frozenset(
    {
        "add_edge_bias", "csr", "edge_aggregate", "edge_aggregate_layers", "edge_attend",
        "edge_products", "gspmm", "scatter", "softmax",
    }
)  # fmt: skip


def share_plans(program: Program) -> None:
    """Has the ``forward`` of the root keep what several calls ask for: sorted edges, equal work."""
    calls = sum(_sorts(node) for f in program.functions() for node in ast.walk(f.node))
    owner = program.owners.get(id(program.root.module))
    repeats = share_repeats(program)
    if owner is None or (calls < 2 and not repeats):
        return
    for method in owner.methods:
        if method.name == "forward":
            taken = set(names_read(method.node)) | {a.arg for a in method.node.args.args}
            taken |= {n.id for n in ast.walk(method.node) if isinstance(n, ast.Name)}
            body = _ended(method.node.body, taken)
            if not isinstance(body[-1], (ast.Return, ast.Raise)):
                body.append(_call(False))
            method.node.body = [_call(True), *body]


def _sorts(node: ast.AST) -> bool:
    target = getattr(node, "target_", None)
    return isinstance(target, Import) and is_op(target) and target.name in _SORTING


def _call(active: bool) -> ast.Expr:
    function = import_reference("gnnscript.ops.fused", "share_plans", "share_plans")
    return ast.Expr(ast.Call(function, [ast.Constant(active)], []))


def _ended(body: list[ast.stmt], taken: set[str]) -> list[ast.stmt]:
    """A block that forgets what is kept before it returns."""
    done: list[ast.stmt] = []
    for statement in body:
        for name in ("body", "orelse"):
            if isinstance(inner := getattr(statement, name, None), list):
                setattr(statement, name, _ended(inner, taken))
        if isinstance(statement, ast.Return):
            value = statement.value
            if value is not None and any(isinstance(n, ast.Call) for n in ast.walk(value)):
                out = free_name("out", taken)
                held = ast.Assign([ast.Name(out, ast.Store())], value)
                if hasattr(statement, "origin"):
                    held.origin = statement.origin  # type: ignore[attr-defined]
                done.append(held)
                statement.value = ast.Name(out, ast.Load())
            done.append(_call(False))
        done.append(statement)
    return done
