"""Work that depends on some tensors and numbers alone: what it reads, and what it binds."""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gnnscript.analyze.types import BOOL, DTYPE, INT, TENSOR, optional
from gnnscript.passes.uses import Uses, arguments, callee, is_random, known_to_torch
from gnnscript.specialize.helpers import Import
from gnnscript.specialize.program import Specialized
from gnnscript.specialize.tree import base_of, clone, is_simple

__all__ = ["PureWork", "Reads"]

# Ops of ours whose result depends on their arguments alone.
_OPS = frozenset(
    {
        "add_edge_bias", "check_edge_index", "csr", "edge_aggregate", "edge_sample", "edge_values",
        "gather", "scatter", "scatter_add", "scatter_max", "scatter_mean", "scatter_min",
        "scatter_mul", "scatter_sum", "segment", "softmax",
    }
)  # fmt: skip
# Functions and methods that are no operators of aten, and have no effects either.
_ALSO = frozenset({"_unwrap_optional", "item", "tolist", "unique"})
# Operators that do more than compute, or whose result depends on more than their arguments: on the
# context, such as autocast.
_NEVER = frozenset(
    {
        "addbmm", "addmm", "addmv", "backward", "baddbmm", "bilinear", "bmm", "cdist",
        "chain_matmul", "detach_", "dist", "dot", "einsum", "is_grad_enabled", "linear",
        "manual_seed", "matmul", "mm", "mv", "register_hook", "requires_grad_", "resize_", "set_",
        "set_grad_enabled", "tensordot", "warn",
    }
)  # fmt: skip
_BUILTINS = frozenset(
    {
        "abs", "bool", "enumerate", "float", "int", "isinstance", "len", "list", "max", "min",
        "range", "sum", "tuple", "zip",
    }
)  # fmt: skip
_STATEMENTS = (
    ast.AnnAssign, ast.Assert, ast.Assign, ast.AugAssign, ast.Break, ast.Continue, ast.Expr,
    ast.For, ast.If, ast.Pass, ast.Raise, ast.Return,
)  # fmt: skip
_NUMBERS = (INT, BOOL, DTYPE)


@dataclass
class Reads:
    """What code depends on, and what it binds.

    Args:
        tensors: Variables whose tensors it reads; ``self`` among them where it reads the module.
        numbers: Sizes, dtypes and other numbers, each by its text.
        bound: Variables that it binds in any case.
        perhaps: Variables that it binds on some of its ways.
        fits: Whether it depends on nothing else.
    """

    tensors: set[str] = field(default_factory=set)
    numbers: dict[str, ast.expr] = field(default_factory=dict)
    bound: set[str] = field(default_factory=set)
    perhaps: set[str] = field(default_factory=set)
    fits: bool = True

    @property
    def assigned(self) -> set[str]:
        """All variables that it may bind."""
        return self.bound | self.perhaps


class PureWork:
    """Tells such work from other code; functions are looked at once."""

    def __init__(self) -> None:
        self.uses = Uses()
        self._pure: dict[int, bool] = {}
        self._inner: dict[int, Reads] = {}
        self._texts: dict[int, str] = {}

    def is_pure(self, function: Specialized, statement: ast.stmt) -> bool:
        """Whether all that a statement does is to bind variables, and to change what they hold."""
        ends = (ast.Return, ast.Break, ast.Continue)
        if isinstance(statement, ast.Pass) or any(isinstance(n, ends) for n in ast.walk(statement)):
            return False
        return self._allows([statement]) and self.reads(function, [statement]).fits

    def reads(self, function: Specialized, body: list[ast.stmt]) -> Reads:
        """What statements depend on."""
        found = _Reader(function, self.inner_reads).all(body)
        whole = found.tensors
        found.numbers = {t: n for t, n in found.numbers.items() if _root(n) not in whole}
        return found

    def inner_reads(self, function: Specialized) -> Reads:
        """What the body of a function depends on: of its arguments, and of its module."""
        if id(function) not in self._inner:
            everything = {name for name, _ in function.parameters}
            self._inner[id(function)] = Reads(tensors=everything, fits=False)  # recursion
            self._inner[id(function)] = self.reads(function, function.node.body)
        return self._inner[id(function)]

    def text(self, body: list[ast.stmt]) -> str:
        """The text of statements and of all that they call: equal for equal work alone."""
        parts = [ast.unparse(ast.fix_missing_locations(statement)) for statement in body]
        for node in (n for statement in body for n in ast.walk(statement)):
            target = getattr(node, "target_", None)
            if isinstance(target, Import):
                parts.append(f"{target.alias}: {target.module}.{target.name}")
            if isinstance(node, ast.Call) and isinstance(target, Specialized):
                if id(target) not in self._texts:
                    self._texts[id(target)] = target.name  # recursion
                    self._texts[id(target)] = self.text([target.node])
                parts.append(self._texts[id(target)])
        return "\n".join(parts)

    def _allows(self, body: list[ast.stmt]) -> bool:
        return all(self._allows_node(node) for statement in body for node in ast.walk(statement))

    def _allows_node(self, node: ast.AST) -> bool:
        if isinstance(node, ast.stmt):
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            plain = not any(isinstance(target, ast.Attribute) for target in targets)
            return isinstance(node, _STATEMENTS) and plain
        if isinstance(node, ast.BinOp):
            return not isinstance(node.op, ast.MatMult)
        if isinstance(node, ast.Name):  # an object that has no name of its own may be any
            target = getattr(node, "target_", None)
            return not isinstance(target, Import) or bool(target.module)
        return self._allows_call(node) if isinstance(node, ast.Call) else True

    def _allows_call(self, node: ast.Call) -> bool:
        target = callee(node)
        if target is not None:
            return self._is_pure_function(target)
        if any(k.arg in ("out", "inplace") for k in node.keywords):
            return False
        func = node.func
        if isinstance(func, ast.Name):
            named = getattr(func, "target_", None)
            if isinstance(named, Import):
                return named.module.startswith("gnnscript.ops") and named.name in _OPS
            return named is None and (func.id in _BUILTINS or _is_exception(func.id))
        if not isinstance(func, ast.Attribute) or func.attr in _NEVER:
            return False
        imported = getattr(base_of(func), "target_", None)
        if isinstance(imported, Import):
            spelled = ast.unparse(func)
            ops = ".ops." in spelled and ".ops.aten." not in spelled
            if imported.name or imported.module.split(".")[0] not in ("torch", "math") or ops:
                return False
            if imported.module == "math":
                return True
        return func.attr in _ALSO or (known_to_torch(func.attr) and not is_random(func.attr))

    def _is_pure_function(self, function: Specialized) -> bool:
        key = id(function)
        if key not in self._pure:
            self._pure[key] = False  # recursion
            uses = [self.uses.of_parameter(function, name) for name, _ in function.parameters]
            self._pure[key] = (
                "self" not in self.inner_reads(function).tensors
                and not any(use.changed or use.stored for use in uses)
                and self._allows(function.node.body)
            )
        return self._pure[key]


class _Reader(ast.NodeVisitor):
    """Collects what statements depend on, one after the other."""

    def __init__(self, function: Specialized, inner: Callable[[Specialized], Reads]) -> None:
        self.types = function.types
        self.inner = inner
        self.found = Reads()
        self.depth = 0

    def all(self, body: list[ast.stmt]) -> Reads:
        """What statements depend on."""
        for statement in body:
            self.visit(statement)
        return self.found

    # Statements ###################################################################

    def visit_Assign(self, node: ast.Assign) -> None:
        """The value comes first."""
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """The annotation is no value."""
        if node.value is not None:
            self.visit(node.value)
        self.visit(node.target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Reads what it changes."""
        self.visit(node.value)
        if isinstance(node.target, ast.Name):
            self.read(node.target.id)
        self.visit(node.target)

    def visit_If(self, node: ast.If) -> None:
        """What both branches bind is bound."""
        self.visit(node.test)
        first = self.branch(node.body)
        second = self.branch(node.orelse)
        self.found.perhaps |= (first ^ second) - self.found.bound
        self.found.bound |= first & second

    def visit_For(self, node: ast.For) -> None:
        """A loop may have no turns."""
        self.visit(node.iter)
        self.found.perhaps |= self.branch([node], loop=True) - self.found.bound

    def branch(self, body: list[Any], *, loop: bool = False) -> set[str]:
        """Visits statements that may not run; returns what they bind."""
        before = set(self.found.bound)
        self.depth += 1
        for statement in body:
            if loop:
                self.visit(statement.target)
                for inner in statement.body:
                    self.visit(inner)
            else:
                self.visit(statement)
        self.depth -= 1
        bound, self.found.bound = self.found.bound - before, before
        return bound

    # Expressions ##################################################################

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """One of its branches is not computed."""
        self.visit(node.test)
        self.depth += 1
        self.visit(node.body)
        self.visit(node.orelse)
        self.depth -= 1

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """Only the first operand is computed in any case."""
        self.visit(node.values[0])
        self.depth += 1
        for value in node.values[1:]:
            self.visit(value)
        self.depth -= 1

    def visit_ListComp(self, node: ast.ListComp) -> None:
        """The generators bind what the element reads."""
        self.depth += 1
        for generator in node.generators:
            self.visit(generator)
        self.visit(node.elt)
        self.depth -= 1

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """Its variable is bound to the elements."""
        self.visit(node.iter)
        self.visit(node.target)
        for test in node.ifs:
            self.visit(test)

    def visit_Call(self, node: ast.Call) -> None:
        """The function is no value, unless it is a method of one."""
        if self.size(
            node, node.func, bool(node.args) or _is(node.func, "dim", "get_device", "numel")
        ):
            return
        target = callee(node)
        if target is not None:
            self.visit_inner(node, target)
            return
        if isinstance(node.func, ast.Attribute) and not hasattr(base_of(node.func), "target_"):
            self.visit(node.func.value)
        for part in [*node.args, *(k.value for k in node.keywords)]:
            self.visit(part)

    def visit_inner(self, node: ast.Call, target: Specialized) -> None:
        """A function may look at no more than the sizes of what it is given."""
        inner = self.inner(target)
        for name, value in arguments(node, target):
            sizes = [n for n in inner.numbers.values() if _root(n) == name]
            if name in inner.tensors or not sizes or not self.is_tensor(value):
                self.visit(value)
            else:
                for size in sizes:
                    self.visit(clone(size, {name: value}))

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """``x.shape[0]`` is a number; a store to an element changes the whole."""
        if isinstance(node.slice, (ast.Constant, ast.UnaryOp)) and self.size(node, node.value):
            return
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """``x.dtype`` is a number."""
        if not self.size(node, node) and not hasattr(base_of(node), "target_"):
            self.visit(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        """A variable is read or bound."""
        if hasattr(node, "target_"):
            return
        if isinstance(node.ctx, ast.Store):
            self.found.bound.add(node.id)
        else:
            self.read(node.id)

    def read(self, name: str) -> None:
        """Notes that the value of a variable is read."""
        if name in self.found.bound:
            return
        if name == "self":
            self.found.tensors.add(name)
            self.found.fits = False
        elif self.types.get(name) in (TENSOR, optional(TENSOR)):
            self.found.tensors.add(name)
        elif self.types.get(name) in _NUMBERS:
            number: ast.expr = ast.Name(name, ast.Load())
            if self.types[name] == BOOL:
                number = ast.Call(ast.Name("int", ast.Load()), [number], [])
            self.found.numbers[name] = number
        else:
            self.found.fits = False

    def size(self, node: ast.expr, func: ast.expr, called: bool | None = None) -> bool:
        """Takes a size, dtype or device of a tensor that is not read otherwise for a number.

        Args:
            node: The whole expression.
            func: The attribute of the tensor.
            called: Whether it is called with what it needs to be a number; None if not called.
        """
        if not isinstance(func, ast.Attribute) or not is_simple(func.value):
            return False
        names: tuple[str, ...] = ("dtype", "device") if node is func else ("shape",)
        if called is not None:
            names = ("size", "dim", "numel", "get_device") if called else ()
        if func.attr not in names or not self.is_tensor(func.value):
            return False
        text = ast.unparse(node)
        always = func.attr not in ("size", "shape")
        if self.depth and not always and text not in self.found.numbers:
            return False  # the tensor need not have such a dimension
        if func.attr == "device":
            node = ast.Call(ast.Attribute(func.value, "get_device", ast.Load()), [], [])
        self.found.numbers[text] = node
        return True

    def is_tensor(self, node: ast.expr) -> bool:
        """Whether an expression is a tensor from before, one of a pair of them, or the module's."""
        root = base_of(node)
        if not isinstance(root, ast.Name) or hasattr(root, "target_"):
            return False
        if root.id in self.found.bound:
            return False
        if root.id == "self":
            return node is not root
        held = self.types.get(root.id)
        if isinstance(node, ast.Subscript) and node.value is root and held is not None:
            at = node.slice.value if isinstance(node.slice, ast.Constant) else None
            if held.name != "Tuple" or not isinstance(at, int) or at >= len(held.args):
                return False
            return held.args[at] == TENSOR
        return node is root and held == TENSOR


def _root(node: ast.expr) -> str:
    """The variable that a number is of; none for those of the module."""
    names = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
    return "" if "self" in names else names[-1]


def _is(func: ast.expr, *names: str) -> bool:
    return isinstance(func, ast.Attribute) and func.attr in names


def _is_exception(name: str) -> bool:
    found = getattr(builtins, name, None)
    return inspect.isclass(found) and issubclass(found, Exception)
