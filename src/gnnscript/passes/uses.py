"""What specialised code does with tensors: whether it changes, stores or returns them."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from gnnscript.passes.effects import may_change_arguments
from gnnscript.specialize.helpers import Import
from gnnscript.specialize.inference import TENSOR_ATTRIBUTES
from gnnscript.specialize.program import Specialized
from gnnscript.specialize.tree import base_of

__all__ = [
    "Reader",
    "Use",
    "Uses",
    "arguments",
    "callee",
    "is_in_place",
    "is_random",
    "is_view",
    "known_to_torch",
    "returns_new",
]

# Functions that may return what they are given, which their schemas do not say.
_PASSING_ON = frozenset(
    {
        "alpha_dropout", "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_tensors", "bool",
        "byte", "char", "coalesce", "cpu", "cuda", "double", "dropout", "einsum",
        "feature_alpha_dropout", "feature_dropout", "float", "half", "hsplit", "int", "long",
        "meshgrid", "pin_memory", "short", "sum_to_size", "to_dense", "to_sparse",
        "to_sparse_coo", "to_sparse_csc", "to_sparse_csr", "type", "type_as", "vsplit", "dsplit",
        "bfloat16", "cartesian_prod", "conj_physical", "tensor_split", "list", "tuple",
        "_unwrap_optional", "as_tensor",
    }
)  # fmt: skip


@functools.cache
def _overloads(name: str) -> tuple[Any, ...]:
    packet = getattr(torch.ops.aten, name, None)
    return () if packet is None else tuple(getattr(packet, o) for o in packet.overloads())


@functools.cache
def known_to_torch(name: str) -> bool:
    """Whether ``aten`` has an operator of a name."""
    return bool(torch._C._jit_get_schemas_for_operator(f"aten::{name}"))


@functools.cache
def returns_new(name: str) -> bool:
    """Whether an operator returns one tensor, and always a new one."""
    overloads = _overloads(name)
    own = [overload for overload in overloads if "out" not in overload._overloadname]
    single = all(
        len(overload._schema.returns) == 1 and str(overload._schema.returns[0].type) == "Tensor"
        for overload in own
    )
    return bool(own) and single and not is_view(name) and not is_in_place(name)


@functools.cache
def is_random(name: str) -> bool:
    """Whether an operator of ``aten`` draws random numbers."""
    tag = torch.Tag.nondeterministic_seeded
    return any(tag in overload.tags for overload in _overloads(name))


@functools.cache
def is_view(name: str) -> bool:
    """Whether the result of an operator may share memory with its arguments."""
    return name in _PASSING_ON or any(
        returned.alias_info is not None and not returned.alias_info.is_write
        for overload in _overloads(name)
        for returned in overload._schema.returns
    )


def is_in_place(name: str) -> bool:
    """Whether a method changes its tensor, by torch's convention of names."""
    return name.endswith("_") and not name.endswith("__")


@dataclass(frozen=True)
class Use:
    """What becomes of a tensor.

    Args:
        changed: It may be written to.
        stored: It may be kept by an object, or handed to code that is not known.
        returned: What is returned may share memory with it.
    """

    changed: bool = False
    stored: bool = False
    returned: bool = False


def arguments(call: ast.Call, target: Specialized) -> list[tuple[str, ast.expr]]:
    """The arguments of a call of a specialised function, each with its parameter's name."""
    names = [a.arg for a in target.node.args.args]
    if target.owner is not None and names[:1] == ["self"]:
        names = names[1:]
    given = list(zip(names, call.args, strict=False))
    return given + [(k.arg, k.value) for k in call.keywords if k.arg is not None]


class Uses:
    """What the functions of one model do with their arguments; each is looked at once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], Use] = {}

    def of_parameter(self, function: Specialized, name: str) -> Use:
        """What a function does with one of its arguments."""
        key = (id(function), name)
        if key not in self._known:
            self._known[key] = Use(changed=True, stored=True, returned=True)  # recursion
            self._known[key] = self.of_names(function, function.node.body, {name})
        return self._known[key]

    def of_names(self, function: Specialized, body: list[ast.stmt], names: set[str]) -> Use:
        """What statements of a function do with what its variables hold before them."""
        reader = Reader(self, function, set(names))
        reader.block(body)
        return Use(reader.changed, reader.stored, reader.returned)


class Reader:
    """Follows, statement by statement, which variables may share memory with some tensors."""

    def __init__(self, uses: Uses, function: Specialized, names: set[str]) -> None:
        self.uses = uses
        self.function = function
        self.names = names
        self.changed = self.stored = self.returned = False

    # Statements ###################################################################

    def block(self, body: Iterable[ast.stmt]) -> None:
        """Follows statements one after the other."""
        for statement in body:
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        """Follows one statement."""
        if isinstance(node, ast.If):
            self.calls(node.test)
            before = set(self.names)
            self.block(node.body)
            after, self.names = self.names, before
            self.block(node.orelse)
            self.names |= after
        elif isinstance(node, (ast.For, ast.While)):
            before = set(self.names)
            for _ in range(2):  # what one turn leaves, the next one finds
                if isinstance(node, ast.For):
                    self.calls(node.iter)
                    self.assign(node.target, self.shares(node.iter))
                else:
                    self.calls(node.test)
                self.block(node.body)
                self.names |= before
            self.block(node.orelse)
        elif isinstance(node, ast.With):
            for item in node.items:
                self.calls(item.context_expr)
            self.block(node.body)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            if node.value is not None:
                self.calls(node.value)
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    self.bind(target, node.value)
        elif isinstance(node, ast.AugAssign):
            self.calls(node.value)
            self.calls(node.target)
            self.changed |= self.shares(node.target)
        elif isinstance(node, ast.Return):
            if node.value is not None:
                self.calls(node.value)
                self.returned |= self.shares(node.value)
        else:
            self.calls(node)

    def bind(self, target: ast.expr, value: ast.expr) -> None:
        """Follows an assignment; ``a, b = x, y`` binds each to its own value."""
        parts = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        if parts and len(target.elts) == len(value.elts):  # type: ignore[attr-defined]
            shared = [self.shares(item) for item in value.elts]  # type: ignore[attr-defined]
            for part, one in zip(target.elts, shared, strict=True):  # type: ignore[attr-defined]
                self.assign(part, one)
        else:
            self.assign(target, self.shares(value))

    def assign(self, target: ast.expr, shares: bool) -> None:
        """Notes that a target holds what shares memory with the tensors, or does not."""
        if isinstance(target, ast.Name):
            (self.names.add if shares else self.names.discard)(target.id)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for part in target.elts:
                self.assign(part, shares)
        elif isinstance(target, ast.Subscript):
            self.changed |= self.shares(target.value)
            self.stored |= shares and not isinstance(target.value, ast.Name)
            if shares and isinstance(target.value, ast.Name):  # a list that holds it from here on
                self.names.add(target.value.id)
        else:
            self.stored |= shares

    # Expressions ##################################################################

    def shares(self, node: ast.expr) -> bool:
        """Whether the value of an expression may share memory with the tensors."""
        if isinstance(node, ast.Name):
            return node.id in self.names and not hasattr(node, "target_")
        if isinstance(node, ast.Attribute):
            return node.attr not in TENSOR_ATTRIBUTES and self.shares(node.value)
        if isinstance(node, (ast.Subscript, ast.Starred)):
            return self.shares(node.value)
        if isinstance(node, ast.UnaryOp):
            return isinstance(node.op, ast.UAdd) and self.shares(node.operand)
        if isinstance(node, (ast.Constant, ast.Compare)):
            return False
        if isinstance(node, ast.BinOp):  # a new tensor, unless it is a list
            sides = (node.left, node.right)
            return any(map(_is_list, sides)) and any(map(self.shares, sides))
        if isinstance(node, ast.Call):
            return self.call_shares(node)
        parts = [child for child in ast.walk(node) if isinstance(child, ast.expr)]
        return any(self.shares(part) for part in parts if part is not node)

    def call_shares(self, node: ast.Call) -> bool:
        """Whether the result of a call may share memory with the tensors."""
        values = [*node.args, *(k.value for k in node.keywords)]
        target = callee(node)
        if target is not None:
            return any(
                self.shares(value) and self.uses.of_parameter(target, name).returned
                for name, value in arguments(node, target)
            )
        shared = any(self.shares(value) for value in values)
        kind, name = self.kind(node.func)
        if kind == "op":
            return False
        if kind == "method":
            assert isinstance(node.func, ast.Attribute)
            if is_in_place(name):
                return self.shares(node.func.value)
            return is_view(name) and (shared or self.shares(node.func.value))
        if kind == "torch":
            return (is_view(name) or is_in_place(name) or _may_write(node)) and shared
        return shared

    def calls(self, node: ast.AST) -> None:
        """Notes what the calls in an expression do."""
        for child in ast.walk(node):
            if isinstance(child, ast.comprehension) and self.shares(child.iter):
                self.assign(child.target, True)
        for child in ast.walk(node):
            if isinstance(child, ast.Call):
                self.call(child)

    def call(self, node: ast.Call) -> None:
        """Notes what a call does."""
        target = callee(node)
        if target is not None:
            for name, value in arguments(node, target):
                if self.shares(value):
                    use = self.uses.of_parameter(target, name)
                    self.changed |= use.changed
                    self.stored |= use.stored
            return
        values = [*node.args, *(k.value for k in node.keywords)]
        shared = any(self.shares(value) for value in values)
        kind, name = self.kind(node.func)
        if kind == "method":
            assert isinstance(node.func, ast.Attribute)
            owner = self.shares(node.func.value)
            self.changed |= is_in_place(name) and owner
            if name in ("append", "extend", "insert") and shared:
                held = node.func.value
                if isinstance(held, ast.Name):
                    self.names.add(held.id)
                else:
                    self.stored = True
        elif kind == "torch":
            self.changed |= (is_in_place(name) or _may_write(node)) and shared
        elif kind == "module":
            self.changed |= shared and may_change_arguments(self.object(node.func))
        elif kind == "unknown":
            self.stored |= shared

    def kind(self, func: ast.expr) -> tuple[str, str]:
        """Whose function is called, and its name."""
        if isinstance(func, ast.Name):
            target = getattr(func, "target_", None)
            if target is None:
                return "torch", func.id  # a builtin
            ours = isinstance(target, Import) and target.module.startswith("gnnscript.ops")
            return ("op", target.name) if ours else ("unknown", func.id)
        if isinstance(func, ast.Attribute):
            target = getattr(base_of(func), "target_", None)
            if isinstance(target, Import):
                ours = not target.name and target.module.split(".")[0] in ("torch", "math")
                return ("torch" if ours else "unknown"), func.attr
            held = self.object(func)
            if isinstance(held, torch.nn.Module):
                return "module", func.attr
            if held is None and isinstance(base_of(func), ast.Name) and self.is_self(func):
                return "unknown", func.attr
            return "method", func.attr
        if isinstance(self.object(func), torch.nn.Module):
            return "module", ""
        return "unknown", ""

    def is_self(self, node: ast.expr) -> bool:
        """Whether an expression is ``self.name``."""
        return (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        )

    def object(self, node: ast.expr) -> Any:
        """The object of the model that an expression means, ``None`` if it is none."""
        if isinstance(node, ast.Name):
            owner = self.function.owner
            return owner.ref.module if owner is not None and node.id == "self" else None
        if isinstance(node, ast.Attribute):
            return getattr(self.object(node.value), node.attr, None)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            held, at = self.object(node.value), node.slice.value
            if isinstance(held, torch.nn.ModuleDict) and isinstance(at, str):
                return held[at]
            if isinstance(held, (torch.nn.ModuleList, torch.nn.Sequential)) and type(at) is int:
                return held[at]
        return None


def callee(node: ast.Call) -> Specialized | None:
    """The specialised function that is called, if it is one."""
    target = getattr(node, "target_", None)
    return target if isinstance(target, Specialized) else None


def _may_write(node: ast.Call) -> bool:
    """Whether a call of a function of torch asks for its result in the memory of an argument.

    ``relu(x, True)`` does; other functions' flags are taken for the same.
    """
    flags = (isinstance(arg, ast.Constant) and arg.value is True for arg in node.args)
    return any(k.arg in ("out", "inplace") for k in node.keywords) or any(flags)


def _is_list(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id == "list"
    return isinstance(node, (ast.List, ast.ListComp))
