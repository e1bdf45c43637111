"""Leaves out shortcuts, for graphs that cannot branch on values.

Some code looks at values only to spare itself work: edges that are sorted already need not be
sorted, and if all are kept, none need be taken out. Both ways lead to the same result.
"""

from __future__ import annotations

import ast

from gnnscript.specialize.program import Program

__all__ = ["omit_shortcuts"]

# For each function, what its tests call, and what holds for the longer way.
_SHORTCUTS = {
    # Without edges it does not ask whether there are some: by then all are known to be single.
    "torch_geometric.utils._coalesce.coalesce": {"all": False, "len": True},
    "torch_geometric.utils._to_dense_adj.to_dense_adj": {"max": True},
    "torch_geometric.nn.conv.gat_conv.GATConv.edge_update": {"numel": False},
    "torch_geometric.nn.dense.linear.HeteroLinear.forward": {"any": True},
    # Where all vectors are zero, so is what it computes of them.
    "torch_geometric.nn.models.visnet.VecLayerNorm.max_min_norm": {"all": False},
}


def omit_shortcuts(program: Program) -> None:
    """Has a specialised model take the longer way always, where both are known to be the same.

    They are for ``if not mask.all(): x = x[mask]``, and for functions that are known.
    """
    for specialized in program.functions():
        function = specialized.source.function
        known = _SHORTCUTS.get(f"{function.__module__}.{function.__qualname__}", {})
        for node in ast.walk(specialized.node):
            if isinstance(node, ast.If):
                if _filters(node):
                    node.test = ast.copy_location(ast.Constant(True), node.test)
                for called, outcome in known.items():
                    if any(_calls(node.test, called)):
                        node.test = ast.copy_location(ast.Constant(outcome), node.test)


def _filters(node: ast.If) -> bool:
    """Whether this is ``if not mask.all():``, and all that follows is ``x = x[mask]``."""
    calls = _calls(node.test, "all")
    masks = [ast.unparse(call.value) for call in calls if isinstance(call, ast.Attribute)]
    if len(masks) != 1 or not isinstance(node.test, ast.UnaryOp) or node.orelse:
        return False
    test = ast.unparse(node.test)
    return test in (f"not {masks[0]}.all()", f"not as_bool({masks[0]}.all())") and all(
        isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Subscript)
        and [ast.unparse(target) for target in statement.targets]
        == [ast.unparse(statement.value.value)]
        and ast.unparse(statement.value.slice)
        in (masks[0], f"(:, {masks[0]})", f"(..., {masks[0]})")
        and masks[0] != ast.unparse(statement.targets[0])
        for statement in node.body
    )


def _calls(test: ast.expr, called: str) -> list[ast.expr]:
    """The calls of a method or function in a test."""
    calls = [node.func for node in ast.walk(test) if isinstance(node, ast.Call)]
    return [
        call for call in calls if called in (getattr(call, "attr", ""), getattr(call, "id", ""))
    ]
