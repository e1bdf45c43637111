"""One sort of the edges for all layers of a scripted model.

Layers ask for the rows of the same index, each with a number of nodes that it reads off its own
tensor: to TorchScript these are different calls. A model that has several of them keeps, while its
``forward`` runs, what it has sorted.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from gnnscript.passes.repeats import share_repeats
from gnnscript.specialize.helpers import Import, import_reference, is_op
from gnnscript.specialize.program import Program, Specialized
from gnnscript.specialize.tree import free_name, names_read

__all__ = ["share_plans"]

# The ops that sort edges.
_SORTING = frozenset(
    {
        "add_edge_bias", "csr", "edge_aggregate", "edge_aggregate_layers", "edge_attend",
        "edge_products", "gspmm", "scatter", "softmax",
    }
)  # fmt: skip


def share_plans(program: Program, *, exported: bool = False) -> None:
    """Has the ``forward`` of the root keep what several calls ask for: sorted edges, equal work.

    Args:
        program: The model.
        exported: Whether its code is for ``torch.compile`` and ``torch.export``, which find equal
            sorts themselves.
    """
    repeats = share_repeats(program, exported=exported)
    owner = program.owners.get(id(program.root.module))
    for method in owner.methods if owner is not None else ():
        if method.name != "forward":
            continue
        if repeats or (not exported and _sorts(method.node.body, []) > 1):
            taken = set(names_read(method.node)) | {a.arg for a in method.node.args.args}
            taken |= {n.id for n in ast.walk(method.node) if isinstance(n, ast.Name)}
            body = _ended(method.node.body, taken)
            if not isinstance(body[-1], (ast.Return, ast.Raise)):
                body.append(_call(False))
            method.node.body = [_call(True), *body]


def _sorts(body: Sequence[ast.AST], within: list[Specialized]) -> int:
    """How many times code asks for sorted edges: none, once, or more often."""
    count = 0
    for at, node in enumerate(body):
        if count > 1:
            break
        if isinstance(node, ast.If):
            count += _sorts([node.test], within)
            ends = isinstance(node.body[-1], (ast.Return, ast.Raise))
            other = [*node.orelse, *(body[at + 1 :] if ends else ())]
            count += max(_sorts(node.body, within), _sorts(other, within))
            if ends:
                break
            continue
        inner = _sorts([*ast.iter_child_nodes(node)], within)
        count += 2 * inner if isinstance(node, (ast.For, ast.While, ast.ListComp)) else inner
        target = getattr(node, "target_", None)
        if isinstance(target, Import):
            count += is_op(target) and target.name in _SORTING
        elif isinstance(node, ast.Call) and isinstance(target, Specialized):
            if target not in within:
                count += _sorts(target.node.body, [*within, target])
    return count


def _call(active: bool) -> ast.Expr:
    function = import_reference("gnnscript.ops.known", "share_plans", "share_plans")
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
