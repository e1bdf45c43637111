"""Whether a module that the passes do not look into may change the tensors it is given."""

from __future__ import annotations

import ast
import types
from collections.abc import Iterable
from typing import Any

import torch

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.sources import function_source

__all__ = ["may_change_arguments"]

_VIEWS = frozenset(
    {
        "view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze",
        "transpose", "permute", "t", "T", "mT", "movedim", "swapaxes", "expand", "expand_as",
        "broadcast_to", "narrow", "select", "chunk", "split", "tensor_split", "unbind", "diagonal",
        "contiguous", "detach", "to", "float", "double", "half", "type", "real", "data", "unfold",
    }
)  # fmt: skip
_PASSING_ON = (torch.nn.Identity, torch.nn.Dropout, torch.nn.Flatten, torch.nn.Unflatten)
_DEEPEST = 8


def may_change_arguments(called: Any, depth: int = 0) -> bool:
    """Whether calling a module or function may change a tensor among its arguments in place.

    Args:
        called: The module or function.
        depth: How many calls led here.

    Returns:
        False if its code, as far as it has a source, changes only values of its own.
    """
    if depth > _DEEPEST:
        return True
    if isinstance(called, torch.nn.Module):
        kind = type(called)
        if kind is torch.nn.Sequential:
            return _first_may(called.children(), depth)
        if getattr(called, "inplace", False):
            return True
        if kind.__module__.startswith("torch.nn."):
            return False
        if isinstance(called, torch.jit.ScriptModule) or called._forward_pre_hooks:
            return True
        return _function_may(kind.forward, called, depth)
    if isinstance(called, (types.FunctionType, types.MethodType)):
        name = called.__module__ or ""
        if name.split(".")[0] == "torch":
            return False
        owner = called.__self__ if isinstance(called, types.MethodType) else None
        return _function_may(getattr(called, "__func__", called), owner, depth)
    return not isinstance(called, (type, types.BuiltinFunctionType))


def _first_may(modules: Iterable[torch.nn.Module], depth: int) -> bool:
    """The same of modules one behind the other: the first that makes a new value ends it."""
    for module in modules:
        if may_change_arguments(module, depth + 1):
            return True
        if not isinstance(module, _PASSING_ON):
            return False
    return False


def _function_may(function: Any, owner: Any, depth: int) -> bool:
    try:
        source = function_source(function)
    except UnsupportedError:
        return True
    node = source.node
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    names = {a.arg for a in given}
    own = given[0].arg if owner is not None and given else ""
    reader = _Reader(source, own, owner, names - {own}, depth)
    for statement in node.body if isinstance(node.body, list) else [node.body]:
        reader.visit(statement)
        reader.rebind(statement)
    return reader.found


class _Reader(ast.NodeVisitor):
    """Looks for changes of what the arguments of a function hold."""

    def __init__(self, source: Any, own: str, owner: Any, names: set[str], depth: int) -> None:
        self.source, self.own, self.owner, self.depth = source, own, owner, depth
        self.names = names
        self.bound: dict[str, Any] = {}
        self.found = False

    def rebind(self, statement: ast.stmt | ast.expr) -> None:
        """A name that holds a new value from here on."""
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            if not self.shares(statement.value):
                self.names.discard(statement.targets[0].id)

    def shares(self, node: ast.expr) -> bool:
        """Whether an expression may be an argument, or a view of one."""
        if isinstance(node, ast.Name):
            return node.id in self.names
        if isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred)):
            return self.shares(node.value)
        if isinstance(node, (ast.Tuple, ast.List)):
            return any(self.shares(item) for item in node.elts)
        if isinstance(node, ast.IfExp):
            return self.shares(node.body) or self.shares(node.orelse)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            views = node.func.attr in _VIEWS
            return views and (self.shares(node.func.value) or any(map(self.shares, node.args)))
        return False

    def visit_Assign(self, node: ast.Assign) -> None:
        """``name = view`` is another name; ``name[...] = value`` a change."""
        self.generic_visit(node)
        for target in node.targets:
            if isinstance(target, (ast.Subscript, ast.Attribute)):
                self.found |= self.shares(target.value)
            elif self.shares(node.value):
                self.names |= {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """``name += value``."""
        self.generic_visit(node)
        self.found |= self.shares(node.target)

    def visit_For(self, node: ast.For) -> None:
        """``for layer in self.layers``."""
        held = self.object(node.iter)
        if isinstance(node.target, ast.Name):
            if isinstance(held, torch.nn.Module):
                self.bound[node.target.id] = list(held.children())
            elif self.shares(node.iter):
                self.names.add(node.target.id)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """A call of a method that changes its tensor, or that is handed an argument."""
        self.generic_visit(node)
        values = [*node.args, *(k.value for k in node.keywords)]
        shared = any(self.shares(value) for value in values)
        func = node.func
        if isinstance(func, ast.Attribute) and func.attr.strip("_") + "_" == func.attr:
            self.found |= shared or self.shares(func.value)
        if not shared or self.found:
            return
        for keyword in node.keywords:
            plain = isinstance(keyword.value, ast.Constant) and not keyword.value.value
            self.found |= keyword.arg == "inplace" and not plain
            self.found |= keyword.arg == "out" and self.shares(keyword.value)
        if isinstance(func, ast.Attribute) and self.shares(func.value):
            return  # a method of a tensor
        called = self.object(func)
        each = called if isinstance(called, list) else [called]
        self.found |= any(may_change_arguments(one, self.depth + 1) for one in each)

    def object(self, node: ast.expr) -> Any:
        """The object that an expression means, ``None`` if it is not known."""
        if isinstance(node, ast.Name):
            if node.id == self.own:
                return self.owner
            if node.id in self.bound:
                return self.bound[node.id]
            try:
                return self.source.resolve(node.id)
            except KeyError:
                return None
        if isinstance(node, ast.Attribute):
            return getattr(self.object(node.value), node.attr, None)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            held, at = self.object(node.value), node.slice.value
            if isinstance(held, (torch.nn.ModuleList, torch.nn.Sequential)) and type(at) is int:
                return held[at]
        return None
