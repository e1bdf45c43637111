"""Rewrites specialised code for ``torch.compile`` and ``torch.export``.

``if torch.any(index < 0): raise ValueError()`` and ``assert index.max() < n`` look at values. Their
programs have no branches to do so, but assertions. Nor do they branch on whether a size that values
decide is 0 or 1, as some of torch's functions do: at lines where this is found, it is asserted that
it is not. Nor is a tensor of theirs marked as one to differentiate by: another is, that is equal.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping
from typing import Any

from gnnscript.specialize.helpers import Import, import_reference, is_op, op_reference
from gnnscript.specialize.program import Program
from gnnscript.specialize.tree import names_read

__all__ = ["ANYWHERE", "make_exportable", "rebind_marked"]

# Stands for a line: numbers that values decide are asserted to be no less than 0, wherever they are
# taken. Of a class, a node or a graph with the largest number that is what they are.
ANYWHERE = ("", 0)

# Functions of torch's that take the sizes of an example for those of every call, or branch on them.
_FIXING = {
    "F.one_hot": "one_hot",
    "torch.bincount": "bincount",
    "torch.cdist": "cdist",
    "torch.combinations": "combinations",
    "torch.ops.aten.sparse_compressed_tensor": "sparse_compressed_tensor",
    "torch.repeat_interleave": "repeat_interleave",
    "torch.sparse_coo_tensor": "sparse_coo_tensor",
    "torch._convert_indices_from_coo_to_csr": "coo_to_csr",
    "torch.take_along_dim": "take_along_dim",
    "torch.tril_indices": "tril_indices",
    "torch.triu_indices": "triu_indices",
}
_FIXING_METHODS = ("bincount", "fill_diagonal_", "repeat_interleave", "take_along_dim")


_PRODUCTS = ("torch.matmul", "torch.mm", "torch.sparse.mm")


# What ``math.floor(a / b)`` and ``math.ceil(a / b)`` are. Of sizes, a program rounds integers only.
_ROUNDED = {"math.floor": "floor_div", "math.ceil": "ceil_div"}
# Of these, arguments are types.
_TYPED = ("annotate", "isinstance")


def make_exportable(program: Program, least: Mapping[tuple[str, int], int] | None = None) -> None:
    """Has every check of a specialised model go through ``holds`` or ``refused``.

    Args:
        program: The model.
        least: By file and line, the least size that tensors may have which are given to functions
            there, where only values tell the size.
    """
    for function in program.functions():
        _fix_messages(function.node)
        _Exportable(least or {}).visit(function.node)


def _fix_messages(function: ast.FunctionDef) -> None:
    """Takes sizes out of messages that are put together first: to spell one is to fix it."""
    raised = [n for n in ast.walk(function) if isinstance(n, ast.Raise)]
    in_errors = Counter[str]()
    for statement in raised:
        in_errors.update(names_read(statement))
    read = Counter(names_read(function))
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.JoinedStr):
            continue
        names = [getattr(target, "id", "") for target in node.targets]
        if all(read[name] == in_errors[name] for name in names):
            node.value = ast.copy_location(ast.Constant(_message(node.value)), node.value)


def rebind_marked(program: Program) -> None:
    """Has ``x.requires_grad_()`` be ``x = x.requires_grad_()``, of which a graph has the result."""
    for function in program.functions():
        _Marked().visit(function.node)


class _Marked(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        """A call whose result is not used."""
        method = node.value.func if isinstance(node.value, ast.Call) else None
        if isinstance(method, ast.Attribute) and method.attr == "requires_grad_":
            marked = method.value
            if isinstance(marked, ast.Name) and not hasattr(marked, "target_"):
                target = ast.Name(marked.id, ast.Store())
                return ast.copy_location(ast.Assign([target], node.value), node)
        return node


class _Exportable(ast.NodeTransformer):
    def __init__(self, least: Mapping[tuple[str, int], int]) -> None:
        self._least = least
        self._here = 0
        self._counts = ANYWHERE in least

    def visit(self, node: ast.AST) -> Any:
        """Knows the line of the statement that it is in."""
        if not isinstance(node, ast.stmt):
            return super().visit(node)
        around = self._here
        self._here = self._least.get(getattr(node, "origin", ("", 0)), 0)
        try:
            return super().visit(node)
        finally:
            self._here = around

    def visit_If(self, node: ast.If) -> ast.stmt:
        """``if test: raise``, also with further tests behind it."""
        self.generic_visit(node)
        if len(node.body) == 1 and isinstance(node.body[0], ast.Raise):
            node.test = _asserted(node.test, False, _message(node.body[0].exc))
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Functions that have another form in programs, and lines where sizes are asserted."""
        self.generic_visit(node)
        node = _replaced(node)
        if self._counts and _op(node.func) == "as_int":
            return ast.copy_location(
                ast.Call(op_reference("ordinary"), [node, ast.Constant(0)], []), node
            )
        if self._here and _name(node.func) not in _TYPED:
            node.args = [self._ordinary(arg) for arg in node.args]
            for keyword in node.keywords:
                keyword.value = self._ordinary(keyword.value)
            if isinstance(node.func, ast.Attribute):
                node.func.value = self._ordinary(node.func.value)
        return node

    def _ordinary(self, node: ast.expr) -> ast.expr:
        """A value whose sizes are asserted to be large enough, if it may have any."""
        local = isinstance(node, ast.Name) and node.id != "self" and not hasattr(node, "target_")
        if not local and not isinstance(node, _VALUES):
            return node
        function = op_reference("ordinary")
        return ast.copy_location(ast.Call(function, [node, ast.Constant(self._here)], []), node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        """``a @ b``, which may be sparse."""
        self.generic_visit(node)
        if not isinstance(node.op, ast.MatMult):
            return node
        call = ast.Call(op_reference("matmul"), [node.left, node.right], [])
        return ast.copy_location(call, node)

    def visit_Slice(self, node: ast.Slice) -> ast.expr:
        """``x[start:end]``, whose bounds may be tensors."""
        self.generic_visit(node)
        for name in ("lower", "upper", "step"):
            value = getattr(node, name)
            if isinstance(value, (ast.Name, ast.Subscript)):
                setattr(node, name, ast.Call(op_reference("bound"), [value], []))
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        """``assert test``."""
        node.test = _asserted(node.test, True, _message(node.msg))
        return node


# The expressions that may be tensors or sizes.
_VALUES = (ast.BinOp, ast.Call, ast.List, ast.Subscript, ast.Tuple, ast.UnaryOp)


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _replaced(node: ast.Call) -> ast.Call:
    """A call of a function that fixes sizes, branches on them or does what no program does."""
    function, first = ast.unparse(node.func), (*node.args, None)[0]
    call: tuple[str, list[ast.expr]] | None = None
    if function in _FIXING:
        call = _FIXING[function], node.args
    elif isinstance(node.func, ast.Attribute) and node.func.attr in _FIXING_METHODS:
        call = node.func.attr, [node.func.value, *node.args]
    elif isinstance(first, ast.BinOp) and isinstance(first.op, ast.Div) and function in _ROUNDED:
        call = _ROUNDED[function], [first.left, first.right]
    elif isinstance(first, ast.Call) and function == "int" and _name(first.func) == "item":
        assert isinstance(first.func, ast.Attribute)
        call = "as_int", [first.func.value]
    elif function in _PRODUCTS and len(node.args) == 2 and not node.keywords:
        call = "matmul", node.args
    elif isinstance(node.func, ast.Attribute) and node.func.attr == "requires_grad_":
        call = "differentiable", [node.func.value, *node.args]
    elif function == "torch.autograd.grad":  # what it goes through is never let go of
        kept = [k for k in node.keywords if k.arg != "retain_graph"]
        node.keywords = [*kept, ast.keyword("retain_graph", ast.Constant(True))]
    elif _op(node.func) == "connected_components":
        node.func = import_reference("gnnscript.ops.varying", "connected_components", "components")
    elif function == "float" and first is not None:
        call = "as_float", node.args
    elif function == "len":
        call = "length", node.args
    elif function == "warnings.warn":
        call = "warn", [ast.Constant(_message(first, "a warning of the model"))]
    if call is None:
        return node
    return ast.copy_location(ast.Call(op_reference(call[0]), call[1], node.keywords), node)


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
    if isinstance(test, ast.Call) and _op(test.func) == "as_bool":
        test = test.args[0]
    function = op_reference("holds" if outcome else "refused")
    return ast.copy_location(ast.Call(function, [test, ast.Constant(message)], []), test)


def _op(function: ast.expr) -> str | None:
    """The name of an op of ours."""
    target = getattr(function, "target_", None)
    return target.name if isinstance(target, Import) and is_op(target) else None


def _message(error: ast.expr | None, otherwise: str = "a check of the model failed") -> str:
    """What is said where the check fails, without what is known only when it does."""
    if isinstance(error, ast.Call):
        return _message(error.args[0] if error.args else None, otherwise)
    if isinstance(error, ast.Constant) and isinstance(error.value, str):
        return error.value
    if isinstance(error, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "..." for part in error.values)
        return "".join(map(str, parts))
    return otherwise
