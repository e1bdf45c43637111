"""Rewrites specialised code for ``torch.compile`` and ``torch.export``.

``if torch.any(index < 0): raise ValueError()`` and ``assert index.max() < n`` look at values. Their
programs have no branches to do so, but assertions.
"""

from __future__ import annotations

import ast

from gnnscript.specialize.helpers import Import, is_op, op_reference
from gnnscript.specialize.program import Program

__all__ = ["make_exportable"]


# Functions of torch's that take the sizes of an example for those of every call.
_FIXING = {
    "_convert_indices_from_coo_to_csr": "coo_to_csr",
    "take_along_dim": "take_along_dim",
}


def make_exportable(program: Program) -> None:
    """Has every check of a specialised model go through ``holds`` or ``refused``."""
    for function in program.functions():
        _Exportable().visit(function.node)


class _Exportable(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.stmt:
        """``if test: raise``, also with further tests behind it."""
        self.generic_visit(node)
        if len(node.body) == 1 and isinstance(node.body[0], ast.Raise):
            node.test = _asserted(node.test, False, _message(node.body[0].exc))
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """``x.take_along_dim(index, dim)`` and the like, which fix sizes."""
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr in _FIXING:
            module = isinstance(getattr(node.func.value, "target_", None), Import)
            args = node.args if module else [node.func.value, *node.args]
            function = op_reference(_FIXING[node.func.attr])
            return ast.copy_location(ast.Call(function, args, node.keywords), node)
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        """``assert test``."""
        node.test = _asserted(node.test, True, _message(node.msg))
        return node


def _asserted(test: ast.expr, outcome: bool, message: str) -> ast.expr:
    """A test that is an assertion of its outcome where only values tell it."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = _asserted(test.operand, not outcome, message)
        return ast.copy_location(ast.UnaryOp(test.op, inner), test)
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) is outcome:
        parts = [_asserted(part, outcome, message) for part in test.values]
        return ast.copy_location(ast.BoolOp(test.op, parts), test)
    if isinstance(test, ast.Constant):
        return test
    if isinstance(test, ast.Call) and _is_as_bool(test.func):
        test = test.args[0]
    function = op_reference("holds" if outcome else "refused")
    return ast.copy_location(ast.Call(function, [test, ast.Constant(message)], []), test)


def _is_as_bool(function: ast.expr) -> bool:
    target = getattr(function, "target_", None)
    return isinstance(target, Import) and is_op(target) and target.name == "as_bool"


def _message(error: ast.expr | None) -> str:
    """What is said where the check fails, without what is known only when it does."""
    if isinstance(error, ast.Call):
        return _message(error.args[0] if error.args else None)
    if isinstance(error, ast.Constant) and isinstance(error.value, str):
        return error.value
    if isinstance(error, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "..." for part in error.values)
        return "".join(map(str, parts))
    return "a check of the model failed"
