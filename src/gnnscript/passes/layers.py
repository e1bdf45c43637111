"""Has linear layers run on ``ops.linear``: in a method, and in the sequences that it calls."""

from __future__ import annotations

import ast

import torch

from gnnscript.passes.calls import torch_function
from gnnscript.passes.held import held_module, is_watched
from gnnscript.specialize.helpers import import_reference
from gnnscript.specialize.program import Specialized
from gnnscript.specialize.tree import clone, is_simple

__all__ = ["use_linear"]


def use_linear(method: Specialized) -> None:
    """Rewrites the linear layers of one method: calls of the function, and of torch's modules."""
    _Layers(method).visit(method.node)


class _Layers(ast.NodeTransformer):
    def __init__(self, method: Specialized) -> None:
        self.method = method

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """A call, those in its arguments first."""
        self.generic_visit(node)
        if torch_function(node.func) == "linear" and 2 <= len(node.args) <= 3:
            if all(keyword.arg == "bias" for keyword in node.keywords):
                node.func = _linear()
            return node
        if len(node.args) != 1 or node.keywords or not is_simple(node.func):
            return node
        module = held_module(node.func, self.method)
        if module is None or isinstance(getattr(node, "target_", None), Specialized):
            return node
        return _called(module, node.func, node.args[0]) or node


def _called(module: torch.nn.Module, func: ast.expr, given: ast.expr) -> ast.expr | None:
    """What a call of a module with linear layers comes to; None for one without."""
    if is_watched(module):
        return None
    if type(module) is torch.nn.Linear:
        args = [given, ast.Attribute(clone(func), "weight", ast.Load())]
        if module._parameters["bias"] is not None:
            args.append(ast.Attribute(clone(func), "bias", ast.Load()))
        return ast.Call(_linear(), args, [])
    if type(module) is not torch.nn.Sequential:
        return None
    value, found = given, False
    for number, child in enumerate(module):
        place = ast.Subscript(clone(func), ast.Constant(number), ast.Load())
        inner = _called(child, place, value)
        found = found or inner is not None
        value = inner or ast.Call(place, [value], [])
    return value if found else None


def _linear() -> ast.Name:
    return import_reference("gnnscript.ops.linear", "linear", "linear")
