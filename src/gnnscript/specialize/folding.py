"""Folding of expressions: what is known is replaced by its value, the rest is kept as written."""

from __future__ import annotations

import ast
import inspect
import operator
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from gnnscript import _pyg
from gnnscript._errors import UnsupportedError
from gnnscript.analyze.sources import FunctionSource
from gnnscript.analyze.types import (
    BOOL,
    NONE,
    STR,
    TENSOR,
    UNKNOWN,
    Type,
    is_optional,
    join,
    of_value,
    strip_optional,
    tuple_of,
)
from gnnscript.specialize.helpers import absent, is_absent, reference, unwrap_optional
from gnnscript.specialize.inference import TENSOR_ATTRIBUTES
from gnnscript.specialize.values import (
    Closure,
    Const,
    Dyn,
    Mapping,
    Method,
    ModuleRef,
    Poison,
    Seq,
    Super,
    Value,
    arithmetic,
    constant_items,
    join_values,
    key_of,
    literal,
    static_type,
)

if TYPE_CHECKING:
    from gnnscript.specialize.program import Owner, Program

__all__ = ["Folded", "Folding", "MissingAttribute", "NeedsConstant"]

Folded = tuple[Value, "ast.expr | None"]

_OPERATORS: dict[type[ast.AST], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.MatMult: operator.matmul,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


class NeedsConstant(UnsupportedError):
    """Something must be known while specialising that is not: a module's index, a name."""


class MissingAttribute(UnsupportedError):
    """An attribute does not exist in this configuration: reading it raises, as in Python."""


class Folding:
    """The expression half of a :class:`~gnnscript.specialize.statements.Frame`."""

    def __init__(
        self, program: Program, source: FunctionSource, owner: Owner | None, cls: type | None
    ) -> None:
        self.program = program
        self.source = source
        self.owner = owner
        self.cls = cls
        self.env: dict[str, Any] = {}
        self.facts: dict[tuple[str, frozenset[str]], bool] = {}
        self.out: list[ast.stmt] = []
        self.current: ast.AST = source.node
        self.terminated = False
        self.conditional = 0
        self._open_lists: dict[str, ast.stmt] = {}

    # What the statement half provides ############################################

    def emit(self, statement: ast.stmt) -> None:
        raise NotImplementedError

    def fresh(self, wish: str) -> str:
        raise NotImplementedError

    def fold_Call(self, node: ast.Call) -> Folded:  # noqa: N802
        raise NotImplementedError

    def call_property(self, ref: ModuleRef, function: Any, cls: type) -> Folded:
        raise NotImplementedError

    # Entry points #################################################################

    def fold(self, node: ast.expr) -> Folded:
        """What is known of an expression, and the expression that computes it at run time.

        The second is ``None`` where the value has no form at run time (functions, modules).
        """
        handler = getattr(self, f"fold_{type(node).__name__}", None)
        if handler is None:
            raise UnsupportedError(
                f"'{ast.unparse(node)}' has no TorchScript form",
                "write it with tensors, numbers, strings, tuples, lists or dictionaries",
                self.source.location(node),
            )
        try:
            value, residual = handler(node)
        except UnsupportedError as error:
            if error.location is None:
                error.locate(self.source.location(node))
            raise
        if residual is not None and isinstance(residual, ast.Name) and is_absent(residual):
            residual = None
        if residual is None:
            residual = literal(value)
        return value, residual

    def fold_needed(self, node: ast.expr) -> tuple[Value, ast.expr]:
        """Like :meth:`fold`, for a value that must exist at run time."""
        value, residual = self.fold(node)
        return value, self.needed(value, residual)

    def needed(self, value: Value, residual: ast.expr | None) -> ast.expr:
        """The run-time expression of a value.

        Raises:
            UnsupportedError: The value exists only in Python.
        """
        if residual is not None and not is_absent(residual):
            return residual
        if isinstance(value, Const):
            found = reference(value.value)
            if found is not None:
                return found
            what = f"'{value.value!r}'" if len(repr(value.value)) < 60 else type(value.value)
        else:
            what = {
                ModuleRef: "a module",
                Method: "a method",
                Closure: "a function",
                Poison: "a value of several types",
            }.get(type(value), "a Python object")
        raise UnsupportedError(
            f"{what} is used as a value, which TorchScript cannot hold",
            "use it where its configuration is known, or pass tensors and numbers instead",
        )

    def wrap(self, value: Any) -> Value:
        """A Python object as a known value; modules of the model by their path."""
        if isinstance(value, torch.nn.Module):
            for name, module in self.program.root.module.named_modules(remove_duplicate=False):
                if module is value:
                    return ModuleRef(module, tuple(name.split(".")) if name else ())
            raise UnsupportedError(
                f"a '{type(value).__name__}' is used that is not registered in the model",
                "register it as an attribute of its module, or in a torch.nn.ModuleList",
            )
        if type(value) in (tuple, list) and any(isinstance(v, torch.nn.Module) for v in value):
            return Seq(tuple(self.wrap(v) for v in value), type(value).__name__)
        return Const(value)

    def fold_children(self, node: ast.AST) -> None:
        """Folds the parts of a target, for their errors alone."""

    def residual_of(self, node: ast.expr) -> ast.expr:
        """The residual of an expression used as a target."""
        return self.store_target(node)

    @staticmethod
    def as_load(node: ast.expr) -> ast.expr:
        """A target, as the expression that reads it."""
        copied = ast.parse(ast.unparse(node), mode="eval").body
        return ast.copy_location(copied, node)

    def store_target(self, node: ast.expr) -> ast.expr:
        """The residual form of ``x[...]`` or ``x.y`` as an assignment target."""
        if isinstance(node, ast.Subscript):
            _, base = self.fold_needed(node.value)
            return ast.Subscript(base, self.index(node.slice)[1], ast.Store())
        if isinstance(node, ast.Attribute):
            holder, base_node = self.fold(node.value)
            if isinstance(holder, ModuleRef):
                base_node = self.module_node(holder)
            return ast.Attribute(self.needed(holder, base_node), self.mangled(node.attr), ast.Store())
        raise UnsupportedError(
            f"'{ast.unparse(node)}' cannot be assigned to", "assign to plain names"
        )

    # Names and attributes #########################################################

    def mangled(self, name: str) -> str:
        """A private name as Python spells it inside a class."""
        if name.startswith("__") and not name.endswith("__") and self.cls is not None:
            return f"_{self.cls.__name__.lstrip('_')}{name}"
        return name

    def fold_Name(self, node: ast.Name) -> Folded:  # noqa: N802
        binding = self.env.get(node.id)
        if binding is not None:
            value = binding.value
            if isinstance(value, Poison):
                raise UnsupportedError(
                    f"'{node.id}' has no single type here: {value.reason}",
                    "use a different name on each path, or one type on all",
                )
            if isinstance(value, Const) and literal(value) is not None:
                return value, literal(value)
            if binding.name is None:
                return value, binding.node
            return value, ast.Name(binding.name, ast.Load())
        if node.id == "__class__" and self.cls is not None:
            return Const(self.cls), None
        try:
            return self.wrap(self.source.resolve(node.id)), None
        except KeyError:
            raise UnsupportedError(
                f"'{node.id}' is not defined here",
                "assign it on every path that leads here",
            ) from None

    def fold_Attribute(self, node: ast.Attribute) -> Folded:  # noqa: N802
        holder, base = self.fold(node.value)
        return self.attribute(holder, base, node.attr)

    def attribute(self, holder: Value, base: ast.expr | None, name: str) -> Folded:
        """``holder.name``."""
        if isinstance(holder, ModuleRef):
            return self.module_attribute(holder, self.mangled(name))
        if isinstance(holder, Super):
            return self.super_attribute(holder, name), None
        if isinstance(holder, Const):
            if _pyg.is_library_flag(holder.value, name):
                return Const(False), None
            try:
                return self.wrap(getattr(holder.value, self.mangled(name))), None
            except AttributeError:
                raise UnsupportedError(
                    f"'{holder.value!r}' has no attribute '{name}'", "check the spelling"
                ) from None
        if isinstance(holder, Seq) and holder.cls is not None and name in holder.cls._fields:
            position = holder.cls._fields.index(name)
            return holder.items[position], ast.Attribute(self.needed(holder, base), name, ast.Load())
        residual = ast.Attribute(self.needed(holder, base), name, ast.Load())
        t = static_type(holder)
        if is_optional(t) and t != NONE:
            holder, base = self.unwrap(holder, self.needed(holder, base))
            return self.attribute(holder, base, name)
        if t == TENSOR:
            if name == "layout":
                return Const(torch.strided), None
            return self.recall(Dyn(TENSOR_ATTRIBUTES.get(name, TENSOR)), residual)
        if t.name == "Tuple" and t.cls is not None and name in t.cls._fields:
            return self.recall(Dyn(t.args[t.cls._fields.index(name)]), residual)
        return Dyn(UNKNOWN), residual

    def module_node(self, ref: ModuleRef) -> ast.expr:
        """The expression that reaches a module from the method being written."""
        if self.owner is None:
            raise UnsupportedError(
                "a function outside of any module uses a module",
                "make it a method, or pass it what it needs of the module",
            )
        prefix = self.owner.ref.path
        if ref.path[: len(prefix)] != prefix:
            raise UnsupportedError(
                f"module '{'.'.join(ref.path)}' is used from '{'.'.join(prefix)}', "
                "which does not contain it",
                "register the module where it is used",
            )
        self.program.used[ref.path] = ref.module
        if self.program.lowers(ref.module):
            self.program.owner(ref)
        node: ast.expr = ast.Name("self", ast.Load())
        module = self.owner.ref.module
        for name in ref.path[len(prefix) :]:
            if isinstance(module, (torch.nn.ModuleList, torch.nn.Sequential)):
                node = ast.Subscript(node, ast.Constant(int(name)), ast.Load())
            elif isinstance(module, torch.nn.ModuleDict):
                node = ast.Subscript(node, ast.Constant(name), ast.Load())
            else:
                node = ast.Attribute(node, name, ast.Load())
            module = module._modules[name]  # type: ignore[assignment]
        return node

    def module_attribute(self, ref: ModuleRef, name: str) -> Folded:
        """``module.name``: a parameter, a submodule, a method, or a piece of configuration."""
        module = ref.module
        written = self.program.written.get((self.program.owner(ref).ref.path, name))
        if written is not None:
            self.program.owner(ref).attributes[name] = written
            return self.recall(Dyn(written), self._self_attribute(ref, name))
        if name == "training":
            return Dyn(BOOL), self._self_attribute(ref, name)
        if name in module._parameters or name in module._buffers:
            tensor = module._parameters.get(name, module._buffers.get(name))
            if tensor is None:
                return Const(None), None
            return Dyn(TENSOR), self._self_attribute(ref, name)
        if name in module._modules:
            child = module._modules[name]
            if child is None:
                return Const(None), None
            child_ref = ModuleRef(child, (*ref.path, name))
            if isinstance(child, torch.nn.ParameterList):
                return Seq((Dyn(TENSOR),) * len(child), "list"), self.module_node(child_ref)
            return child_ref, None
        static = inspect.getattr_static(module, name, None)
        if isinstance(static, property):
            return self.call_property(ref, static.fget, self.defining_class(ref, name))
        if isinstance(static, (types.FunctionType, classmethod, staticmethod)) or (
            static is not None and hasattr(static, "__wrapped__")
        ):
            if name not in vars(module):
                return self.bind_method(ref, static, name), None
        try:
            value = getattr(module, name)
        except AttributeError:
            raise MissingAttribute(
                f"'{type(module).__name__}' has no attribute '{name}' in this configuration",
                "set it in '__init__' on every path",
            ) from None
        t = of_value(value)
        if _holds_tensor(t):
            self.program.owner(ref).attributes[name] = t
            return Dyn(t), self._self_attribute(ref, name)
        return self.wrap(value), None

    def _self_attribute(self, ref: ModuleRef, name: str) -> ast.expr:
        return ast.Attribute(self.module_node(ref), name, ast.Load())

    @staticmethod
    def defining_class(ref: ModuleRef, name: str, after: type | None = None) -> type:
        """The class in the method resolution order that defines ``name``."""
        order = type(ref.module).__mro__
        start = order.index(after) + 1 if after is not None else 0
        return next(cls for cls in order[start:] if name in vars(cls))

    def bind_method(self, ref: ModuleRef, static: Any, name: str) -> Value:
        """A method of a module as a value."""
        if isinstance(static, staticmethod):
            return Const(static.__func__)
        if isinstance(static, classmethod):
            return Const(getattr(type(ref.module), name))
        return Method(ref, static, name)

    def super_attribute(self, holder: Super, name: str) -> Value:
        """``super().name``."""
        if not isinstance(holder.owner, ModuleRef):
            raise UnsupportedError("'super()' is used outside of a module", "call the function")
        try:
            cls = self.defining_class(holder.owner, name, holder.after)
        except StopIteration:
            raise UnsupportedError(f"no parent class has '{name}'", "check the spelling") from None
        return Method(holder.owner, vars(cls)[name], f"{cls.__name__}.{name}")

    # What may be None #############################################################

    def recall(self, value: Value, residual: ast.expr) -> Folded:
        """Applies what an enclosing test has said of an expression that is not a variable."""
        t = static_type(value)
        if not is_optional(t) or t == NONE:
            return value, residual
        known = self.facts.get(_fact(residual))
        if known is None:
            return value, residual
        return (Dyn(strip_optional(t)), unwrap_optional(residual)) if known else (Const(None), None)

    def unwrap(self, value: Value, residual: ast.expr) -> tuple[Value, ast.expr]:
        """Asserts that a value is not ``None``, because it is used as if it were not."""
        inner = Dyn(strip_optional(static_type(value)))
        if not isinstance(residual, ast.Name) or self.conditional:
            return inner, unwrap_optional(residual)
        test = ast.Compare(residual, [ast.IsNot()], [ast.Constant(None)])
        self.emit(ast.Assert(test, None))
        for name, binding in list(self.env.items()):
            if binding.name == residual.id:
                self.env[name] = type(binding)(inner, binding.name)
        return inner, residual

    def refine(self, test: ast.expr, outcome: bool) -> None:
        """Applies to the variables what a test says of them."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self.refine(test.operand, not outcome)
        elif isinstance(test, ast.BoolOp):
            if isinstance(test.op, ast.And) is outcome:
                for part in test.values:
                    self.refine(part, outcome)
        elif isinstance(test, ast.Compare) and len(test.ops) == 1:
            if isinstance(test.comparators[0], ast.Constant) and test.comparators[0].value is None:
                if isinstance(test.ops[0], (ast.Is, ast.Eq)):
                    self._set_none(test.left, outcome)
                elif isinstance(test.ops[0], (ast.IsNot, ast.NotEq)):
                    self._set_none(test.left, not outcome)
        elif isinstance(test, ast.Call):
            if isinstance(test.func, ast.Name) and test.func.id == "isinstance" and outcome:
                self._set_none(test.args[0], False)
        elif isinstance(test, (ast.Name, ast.Attribute)) and outcome:
            self._set_none(test, False)

    refine_facts = refine

    def _set_none(self, node: ast.expr, none: bool) -> None:
        if isinstance(node, ast.Name):
            binding = self.env.get(node.id)
            if binding is None or not isinstance(binding.value, Dyn):
                return
            t = binding.value.type
            if is_optional(t) and t != NONE:
                value = Const(None) if none else Dyn(strip_optional(t))
                self.env[node.id] = type(binding)(value, binding.name)
            return
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            value, residual = self.fold(node)
            if residual is not None and is_optional(static_type(value)):
                self.facts[_fact(residual)] = not none

    # Truth ########################################################################

    def condition(self, node: ast.expr) -> Folded:
        """An expression as a condition: decided, or of a type that TorchScript can test."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            value, residual = self.condition(node.operand)
            if isinstance(value, Const):
                return Const(not value.value), None
            assert residual is not None
            return Dyn(BOOL), _negated(residual)
        if isinstance(node, ast.BoolOp):
            return self._junction(node)
        return self.truth(*self.fold(node))

    def truth(self, value: Value, residual: ast.expr | None) -> Folded:
        """Whether a value counts as true."""
        if isinstance(value, Const):
            return Const(bool(value.value)), None
        if isinstance(value, ModuleRef):
            sized = isinstance(value.module, (torch.nn.ModuleList, torch.nn.ModuleDict))
            return Const(len(value.module) > 0 if sized else True), None  # type: ignore[arg-type]
        if isinstance(value, (Method, Closure, Super)):
            return Const(True), None
        if isinstance(value, (Seq, Mapping)):
            return Const(len(value.items) > 0), None
        node = self.needed(value, residual)
        t = static_type(value)
        if is_optional(t):
            given = ast.Compare(node, [ast.IsNot()], [ast.Constant(None)])
            inner, rest = self.truth(Dyn(strip_optional(t)), node)
            if isinstance(inner, Const):
                return Dyn(BOOL), given
            assert rest is not None
            return Dyn(BOOL), ast.BoolOp(ast.And(), [given, rest])
        if t.name == "Tuple":
            return Const(len(t.args) > 0), None
        if t.name in ("List", "Dict", "str"):
            length = ast.Call(ast.Name("len", ast.Load()), [node], [])
            return Dyn(BOOL), ast.Compare(length, [ast.Gt()], [ast.Constant(0)])
        if t.name == "Class":
            return Const(True), None
        return Dyn(BOOL), node

    def _junction(self, node: ast.BoolOp) -> Folded:
        """``and`` / ``or`` as a condition, each part seen in the light of those before it."""
        conjunction = isinstance(node.op, ast.And)
        kept: list[ast.expr] = []
        env, facts = self.env, self.facts
        self.env, self.facts = dict(env), dict(facts)
        self.conditional += 1
        try:
            for part in node.values:
                value, residual = self.condition(part)
                if isinstance(value, Const):
                    if bool(value.value) is not conjunction:
                        if not kept or all(_is_effect_free(k) for k in kept):
                            return Const(not conjunction), None
                        kept.append(ast.Constant(not conjunction))
                        break
                    continue
                assert residual is not None
                kept.append(residual)
                self.refine(part, conjunction)
        finally:
            self.conditional -= 1
            self.env, self.facts = env, facts
        if not kept:
            return Const(conjunction), None
        return Dyn(BOOL), kept[0] if len(kept) == 1 else ast.BoolOp(node.op, kept)

    def fold_BoolOp(self, node: ast.BoolOp) -> Folded:  # noqa: N802
        value, residual = self.fold(node.values[0])
        decided = self.truth(value, residual)[0]
        if isinstance(decided, Const):
            if bool(decided.value) is isinstance(node.op, ast.Or) or len(node.values) == 1:
                return value, residual
            rest = node.values[1:]
            tail = rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
            return self.fold(ast.copy_location(tail, node))
        if static_type(value) == BOOL:
            return self._junction(node)
        rest = node.values[1:]
        tail = rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
        first = node.values[0]
        arms = (first, tail) if isinstance(node.op, ast.Or) else (tail, first)
        return self.fold(ast.copy_location(ast.IfExp(first, *arms), node))

    def fold_IfExp(self, node: ast.IfExp) -> Folded:  # noqa: N802
        test, condition = self.condition(node.test)
        if isinstance(test, Const):
            return self.fold(node.body if test.value else node.orelse)
        assert condition is not None
        arms = []
        env, facts = self.env, self.facts
        self.conditional += 1
        try:
            for outcome, arm in ((True, node.body), (False, node.orelse)):
                self.env, self.facts = dict(env), dict(facts)
                self.refine(node.test, outcome)
                arms.append(self.fold(arm))
        finally:
            self.conditional -= 1
            self.env, self.facts = env, facts
        (value_a, node_a), (value_b, node_b) = arms
        value = join_values(value_a, value_b)
        if isinstance(value, Poison):
            raise UnsupportedError(
                f"'{ast.unparse(node)}' has no single type: {value.reason}",
                "give both sides one type",
            )
        if not isinstance(value, (Dyn, Seq, Mapping)):
            return value, literal(value)
        return value, ast.IfExp(
            condition, self.needed(value_a, node_a), self.needed(value_b, node_b)
        )

    # Operators ####################################################################

    def fold_Constant(self, node: ast.Constant) -> Folded:  # noqa: N802
        return Const(node.value), None

    def fold_UnaryOp(self, node: ast.UnaryOp) -> Folded:  # noqa: N802
        if isinstance(node.op, ast.Not):
            return self.condition(node)
        value, residual = self.fold(node.operand)
        if isinstance(value, Const):
            return Const(self.compute(node, _OPERATORS[type(node.op)], value.value)), None
        value, residual = self.present(value, self.needed(value, residual))
        return Dyn(static_type(value)), ast.UnaryOp(node.op, residual)

    def compute(self, node: ast.expr, function: Any, *args: Any) -> Any:
        """Evaluates an operation on constants."""
        try:
            return function(*args)
        except Exception as error:
            raise UnsupportedError(
                f"'{ast.unparse(node)}' fails: {type(error).__name__}: {error}",
                "it fails in the same way when the model runs in Python; correct it there",
            ) from error

    def present(self, value: Value, residual: ast.expr) -> tuple[Value, ast.expr]:
        """An operand, which cannot be ``None``."""
        t = static_type(value)
        if is_optional(t) and t != NONE:
            return self.unwrap(value, residual)
        return value, residual

    def fold_BinOp(self, node: ast.BinOp) -> Folded:  # noqa: N802
        left, left_node = self.fold(node.left)
        right, right_node = self.fold(node.right)
        if isinstance(left, Const) and isinstance(right, Const):
            value = self.compute(node, _OPERATORS[type(node.op)], left.value, right.value)
            return self.wrap(value), None
        items = [constant_items(left), constant_items(right)]
        if isinstance(node.op, ast.Add) and items[0] is not None and items[1] is not None:
            if not isinstance(left, Const) or not isinstance(left.value, str):
                return self._concatenate(left, left_node, right, right_node)
        if isinstance(node.op, ast.Mult) and isinstance(left, Seq) and isinstance(right, Const):
            if left_node is not None:
                elements = self.element_nodes(left_node, len(left.items)).elts * right.value
                return self.sequence(left.kind, list(left.items) * right.value, list(elements))
        left, left_node = self.present(left, self.needed(left, left_node))
        right, right_node = self.present(right, self.needed(right, right_node))
        t = arithmetic(static_type(left), static_type(right), node.op)
        return Dyn(t), ast.BinOp(left_node, node.op, right_node)

    def _concatenate(
        self, left: Value, left_node: ast.expr | None, right: Value, right_node: ast.expr | None
    ) -> Folded:
        items: list[Value] = []
        nodes: list[ast.expr | None] = []
        for value, node in ((left, left_node), (right, right_node)):
            parts = constant_items(value) or []
            items += parts
            if node is None:
                nodes += [literal(part) for part in parts]
            else:
                nodes += self.element_nodes(node, len(parts)).elts
        kind = left.kind if isinstance(left, Seq) else type(getattr(left, "value", ())).__name__
        return self.sequence(kind, items, nodes)

    def sequence(
        self, kind: str, items: list[Value], nodes: list[ast.expr | None], cls: Any = None
    ) -> Folded:
        """A tuple or list display."""
        if all(isinstance(item, Const) for item in items) and cls is None:
            values = [item.value for item in items if isinstance(item, Const)]
            return Const(tuple(values) if kind == "tuple" else values), None
        value = Seq(tuple(items), kind, cls)
        present = [
            node if node is not None else literal(item) or reference_of(item) or absent()
            for item, node in zip(items, nodes, strict=True)
        ]
        return value, (
            ast.Tuple(present, ast.Load()) if kind == "tuple" else ast.List(present, ast.Load())
        )

    def fold_Compare(self, node: ast.Compare) -> Folded:  # noqa: N802
        if len(node.ops) > 1:
            parts: list[ast.expr] = []
            left = node.left
            for op, right in zip(node.ops, node.comparators, strict=True):
                parts.append(ast.copy_location(ast.Compare(left, [op], [right]), node))
                left = right
            return self._junction(ast.BoolOp(ast.And(), parts))
        op = node.ops[0]
        left_value, left_node = self.fold(node.left)
        right_value, right_node = self.fold(node.comparators[0])
        if isinstance(left_value, Const) and isinstance(right_value, Const):
            result = self.compute(node, _OPERATORS[type(op)], left_value.value, right_value.value)
            return self.wrap(result), None
        for value, other in ((left_value, right_value), (right_value, left_value)):
            if isinstance(other, Const) and other.value is None:
                if isinstance(op, (ast.Is, ast.Eq, ast.IsNot, ast.NotEq)):
                    t = static_type(value)
                    same = isinstance(op, (ast.Is, ast.Eq))
                    if t == NONE:
                        return Const(same), None
                    if not isinstance(value, Dyn) or not (is_optional(t) or t == UNKNOWN):
                        return Const(not same), None
                    kept = self.needed(value, left_node if value is left_value else right_node)
                    test: ast.cmpop = ast.Is() if same else ast.IsNot()
                    return Dyn(BOOL), ast.Compare(kept, [test], [ast.Constant(None)])
        if isinstance(op, (ast.Is, ast.IsNot)):
            if isinstance(left_value, (ModuleRef, Method)) or isinstance(
                right_value, (ModuleRef, Method)
            ):
                same = key_of(left_value) == key_of(right_value)
                return Const(same is isinstance(op, ast.Is)), None
            op = ast.Eq() if isinstance(op, ast.Is) else ast.NotEq()
        if isinstance(op, (ast.In, ast.NotIn)) and isinstance(right_value, (Mapping, ModuleRef)):
            if isinstance(left_value, Const):
                names = (
                    right_value.items
                    if isinstance(right_value, Mapping)
                    else right_value.module._modules
                )
                return Const((left_value.value in names) is isinstance(op, ast.In)), None
        if isinstance(op, (ast.In, ast.NotIn)):
            right_items = constant_items(right_value)
            if right_items == []:
                return Const(isinstance(op, ast.NotIn)), None
            if isinstance(right_node, ast.Tuple):
                right_node = ast.List(right_node.elts, ast.Load())
        left_value, left_node = self.present(left_value, self.needed(left_value, left_node))
        right_value, right_node = self.present(right_value, self.needed(right_value, right_node))
        tensor = TENSOR in (static_type(left_value), static_type(right_value))
        result_type = TENSOR if tensor and not isinstance(op, (ast.In, ast.NotIn)) else BOOL
        return Dyn(result_type), ast.Compare(left_node, [op], [right_node])

    # Sequences ####################################################################

    def element_nodes(self, residual: ast.expr, count: int) -> ast.Tuple:
        """The elements of a sequence expression, each as an expression."""
        if isinstance(residual, (ast.Tuple, ast.List)) and len(residual.elts) == count:
            return ast.Tuple(residual.elts, ast.Load())
        if not isinstance(residual, (ast.Name, ast.Attribute, ast.Subscript)):
            name = self.fresh("items")
            self.emit(ast.Assign([ast.Name(name, ast.Store())], residual))
            residual = ast.Name(name, ast.Load())
        return ast.Tuple(
            [ast.Subscript(residual, ast.Constant(i), ast.Load()) for i in range(count)],
            ast.Load(),
        )

    @staticmethod
    def element_type(t: Type) -> Value:
        """What iteration over a value of type ``t`` yields."""
        if t.name == "List" and t.args:
            return Dyn(t.args[0])
        if t.name == "Dict" and t.args:
            return Dyn(t.args[0])
        if t == TENSOR:
            return Dyn(TENSOR)
        if t.name == "Tuple" and t.args:
            joined: Type | None = t.args[0]
            for other in t.args[1:]:
                joined = join(joined, other) if joined is not None else None
            return Dyn(joined or UNKNOWN)
        return Dyn(UNKNOWN)

    def fold_Tuple(self, node: ast.Tuple) -> Folded:  # noqa: N802
        return self._display(node.elts, "tuple")

    def fold_List(self, node: ast.List) -> Folded:  # noqa: N802
        value, residual = self._display(node.elts, "list")
        if isinstance(value, Const) and not value.value:
            return Seq((), "list"), ast.List([], ast.Load())
        return value, residual

    def _display(self, elements: list[ast.expr], kind: str) -> Folded:
        items: list[Value] = []
        nodes: list[ast.expr | None] = []
        for element in elements:
            if isinstance(element, ast.Starred):
                value, residual = self.fold(element.value)
                parts = self.known_items(value)
                items += parts
                if residual is None or isinstance(value, Const):
                    nodes += [literal(part) for part in parts]
                else:
                    nodes += self.element_nodes(residual, len(parts)).elts
                continue
            value, residual = self.fold(element)
            items.append(value)
            nodes.append(residual)
        return self.sequence(kind, items, nodes)

    def known_items(self, value: Value) -> list[Value]:
        """The elements of a sequence whose length must be known."""
        items = constant_items(value)
        if items is None and isinstance(value, ModuleRef):
            items = list(self.module_items(value))
        if items is None and isinstance(value, Dyn) and value.type.name == "Tuple":
            items = [Dyn(t) for t in value.type.args]
        if items is None:
            raise NeedsConstant(
                "a sequence is unpacked whose length is known only at run time",
                "unpack tuples and lists of fixed length",
            )
        return items

    def fold_Dict(self, node: ast.Dict) -> Folded:  # noqa: N802
        items: dict[str, Value] = {}
        nodes: list[ast.expr | None] = []
        for key, element in zip(node.keys, node.values, strict=True):
            if key is None:
                inner, _ = self.fold(element)
                if not (isinstance(inner, Mapping) or isinstance(inner, Const)):
                    raise NeedsConstant("'**' of an unknown dictionary", "name its entries")
                extra = inner.items if isinstance(inner, Mapping) else inner.value
                items |= {k: v if isinstance(v, Value) else self.wrap(v) for k, v in extra.items()}
                nodes += [literal(v) for v in items.values()][len(nodes) :]
                continue
            key_value, _ = self.fold(key)
            value, residual = self.fold(element)
            if not (isinstance(key_value, Const) and isinstance(key_value.value, str)):
                return self._open_dict(node)
            items[key_value.value] = value
            nodes.append(residual)
        if not items:
            return Dyn(Type("Dict", (STR, TENSOR))), ast.Dict([], [])
        for name, node_ in zip(items, nodes, strict=False):
            self.mapping_nodes[id(items[name])] = node_
        return self.mapping(items, nodes)

    def _open_dict(self, node: ast.Dict) -> Folded:
        """A dictionary display whose keys are no known strings."""
        types: list[Type | None] = [None, None]
        columns: list[list[ast.expr]] = [[], []]
        for side, parts in enumerate((node.keys, node.values)):
            for part in parts:
                value, residual = self.fold_needed(part)  # type: ignore[arg-type]
                t = static_type(value)
                if types[side] is not None and types[side] != t:
                    raise UnsupportedError(
                        f"a dictionary holds {'values' if side else 'keys'} of type "
                        f"'{types[side]}' and '{t}'",
                        "TorchScript's dictionaries have one type of key and one of value",
                    )
                types[side] = t
                columns[side].append(residual)
        t = Type("Dict", (types[0] or STR, types[1] or TENSOR))
        return Dyn(t), ast.Dict(list(columns[0]), columns[1])

    @staticmethod
    def mapping(items: dict[str, Value], nodes: list[ast.expr | None]) -> Folded:
        """A dictionary display."""
        elements = [
            node if node is not None else literal(item) or reference_of(item) or absent()
            for item, node in zip(items.values(), nodes, strict=True)
        ]
        keys: list[ast.expr | None] = [ast.Constant(name) for name in items]
        return Mapping(items), ast.Dict(keys, elements)

    @property
    def mapping_nodes(self) -> dict[int, ast.expr | None]:
        """Run-time expressions of the values in known dictionaries."""
        return self.__dict__.setdefault("_mapping_nodes", {})

    def module_items(self, ref: ModuleRef) -> Iterator[Value]:
        """Iteration over a container of modules."""
        if isinstance(ref.module, (torch.nn.ModuleList, torch.nn.Sequential)):
            for name, child in ref.module._modules.items():
                assert child is not None
                yield ModuleRef(child, (*ref.path, name))
        elif isinstance(ref.module, torch.nn.ModuleDict):
            yield from (Const(name) for name in ref.module._modules)
        else:
            raise UnsupportedError(
                f"a '{type(ref.module).__name__}' is iterated over, which is no container",
                "use torch.nn.ModuleList",
            )

    def index(self, node: ast.expr) -> tuple[Value, ast.expr]:
        """A subscript's index, known as far as it is."""
        if isinstance(node, ast.Slice):
            parts = [
                (Const(None), None) if p is None else self.fold(p)
                for p in (node.lower, node.upper, node.step)
            ]
            nodes = [
                None if isinstance(v, Const) and v.value is None else self.needed(v, n)
                for v, n in parts
            ]
            if all(isinstance(v, Const) for v, _ in parts):
                known = Const(slice(*(v.value for v, _ in parts if isinstance(v, Const))))
                return known, ast.Slice(*nodes)
            return Dyn(UNKNOWN), ast.Slice(*nodes)
        if isinstance(node, ast.Tuple):
            folded = [self.index(element) for element in node.elts]
            if all(isinstance(v, Const) for v, _ in folded):
                known = Const(tuple(v.value for v, _ in folded if isinstance(v, Const)))
                return known, ast.Tuple([n for _, n in folded], ast.Load())
            return Dyn(UNKNOWN), ast.Tuple([n for _, n in folded], ast.Load())
        value, residual = self.fold(node)
        if isinstance(value, ModuleRef):
            raise NeedsConstant("a module is used as an index", "use its name or position")
        value, residual = self.present(value, self.needed(value, residual))
        return value, residual

    def fold_Subscript(self, node: ast.Subscript) -> Folded:  # noqa: N802
        holder, base = self.fold(node.value)
        position, index = self.index(node.slice)
        return self.subscript(holder, base, position, index)

    def subscript(
        self, holder: Value, base: ast.expr | None, position: Value, index: ast.expr
    ) -> Folded:
        """``holder[position]``."""
        known = isinstance(position, Const)
        at = position.value if isinstance(position, Const) else None
        if isinstance(holder, ModuleRef):
            return self._module_item(holder, position)
        if isinstance(holder, Mapping):
            if not known or at not in holder.items:
                raise NeedsConstant("a dictionary is asked for an unknown key", "use its names")
            item = holder.items[at]
            if isinstance(base, ast.Dict):
                return item, base.values[list(holder.items).index(at)]
            return item, self.mapping_nodes.get(id(item))
        if isinstance(holder, Const) and known:
            return self.wrap(self.compute(index, operator.getitem, holder.value, at)), None
        if isinstance(holder, Seq) and known:
            if isinstance(at, slice):
                nodes: list[ast.expr | None] = [None] * len(holder.items)
                if base is not None:
                    nodes = list(self.element_nodes(base, len(holder.items)).elts)
                return self.sequence(holder.kind, list(holder.items[at]), nodes[at])
            item = self.compute(index, operator.getitem, holder.items, at)
            if isinstance(base, (ast.Tuple, ast.List)):
                return item, base.elts[at]
            if base is None:
                return item, literal(item)
            return self.recall(item, ast.Subscript(base, index, ast.Load()))
        if isinstance(holder, (Const, Seq)) and (
            isinstance(holder, Seq) and base is None or literal(holder) is None and base is None
        ):
            raise NeedsConstant(
                "an index that is known only at run time picks from Python objects",
                "use a constant index, or a loop over the objects",
            )
        holder_node = self.needed(holder, base)
        t = static_type(holder)
        if is_optional(t) and t != NONE:
            holder, holder_node = self.unwrap(holder, holder_node)
            t = static_type(holder)
        residual = ast.Subscript(holder_node, index, ast.Load())
        if t.name == "Tuple":
            if not known:
                element = self.element_type(t)
                return element, residual
            picked = self.compute(index, operator.getitem, t.args, at)
            if isinstance(at, slice):
                return Dyn(tuple_of(*picked)), residual
            return self.recall(Dyn(picked), residual)
        if t.name == "List" and t.args:
            is_slice = isinstance(index, ast.Slice)
            return (Dyn(t) if is_slice else self.recall(Dyn(t.args[0]), residual)[0]), residual
        if t.name == "Dict" and t.args:
            return self.recall(Dyn(t.args[1]), residual)
        if t in (TENSOR, STR):
            return Dyn(t), residual
        return Dyn(UNKNOWN), residual

    def _module_item(self, ref: ModuleRef, position: Value) -> Folded:
        if not isinstance(position, Const):
            raise NeedsConstant(
                "a module is picked by an index that is known only at run time",
                "loop over the container, or use a constant index",
            )
        at = position.value
        if isinstance(ref.module, torch.nn.ModuleDict):
            if at in ref.module._modules:
                child = ref.module._modules[at]
                assert child is not None
                return ModuleRef(child, (*ref.path, at)), None
        elif isinstance(ref.module, (torch.nn.ModuleList, torch.nn.Sequential)):
            children = list(self.module_items(ref))
            if isinstance(at, slice):
                return Seq(tuple(children[at]), "list"), None
            if -len(children) <= at < len(children):
                return children[at], None
        raise UnsupportedError(
            f"'{type(ref.module).__name__}' at '{'.'.join(ref.path)}' has no item {at!r}",
            "use an index that exists",
        )

    # Text #########################################################################

    def fold_JoinedStr(self, node: ast.JoinedStr) -> Folded:  # noqa: N802
        parts: list[ast.expr] = []
        text: str | None = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                parts.append(part)
                text = None if text is None else text + part.value
                continue
            assert isinstance(part, ast.FormattedValue)
            value, residual = self.fold(part.value)
            if isinstance(value, Const):
                shown = {115: str, 114: repr, 97: ascii}.get(part.conversion, lambda v: v)(
                    value.value
                )
                spec, _ = self.fold(part.format_spec) if part.format_spec else (Const(""), None)
                piece = format(shown, spec.value if isinstance(spec, Const) else "")
                parts.append(ast.Constant(piece))
                text = None if text is None else text + piece
                continue
            if isinstance(value, ModuleRef):
                parts.append(ast.Constant(str(value.module)))
                text = None if text is None else text + str(value.module)
                continue
            if part.format_spec is not None:
                raise UnsupportedError(
                    "a format specification has no TorchScript form", "format without one"
                )
            text = None
            parts.append(ast.FormattedValue(self.needed(value, residual), -1, None))
        if text is not None:
            return Const(text), None
        return Dyn(STR), ast.JoinedStr(parts)

    def message_text(self, node: ast.expr) -> ast.expr:
        """The text of an error; formatting that TorchScript lacks is simplified."""
        if isinstance(node, ast.JoinedStr):
            plain = [
                ast.FormattedValue(p.value, -1, None) if isinstance(p, ast.FormattedValue) else p
                for p in node.values
            ]
            node = ast.copy_location(ast.JoinedStr(plain), node)
        try:
            value, residual = self.fold(node)
            return self.needed(value, residual)
        except UnsupportedError:
            return ast.Constant(ast.unparse(node))

    def message(self, node: ast.expr) -> ast.expr:
        """The exception of a ``raise``."""
        if isinstance(node, ast.Call):
            cls, _ = self.fold(node.func)
            args = [self.message_text(arg) for arg in node.args[:1]]
        else:
            cls, _ = self.fold(node)
            args = []
        name = "RuntimeError"
        if isinstance(cls, Const) and inspect.isclass(cls.value):
            import builtins

            if getattr(builtins, cls.value.__name__, None) is cls.value:
                name = cls.value.__name__
        return ast.Call(ast.Name(name, ast.Load()), args or [ast.Constant("")], [])

    def fold_Lambda(self, node: ast.Lambda) -> Folded:  # noqa: N802
        return Closure(node, self.source, self.cls, self.env), None

    def fold_NamedExpr(self, node: ast.NamedExpr) -> Folded:  # noqa: N802
        if self.conditional:
            raise UnsupportedError("':=' inside a condition", "assign on a line of its own")
        value, residual = self.fold(node.value)
        self.assign(node.target, value, residual)
        return self.fold_Name(ast.Name(node.target.id, ast.Load()))

    def assign(self, target: ast.expr, value: Value, residual: ast.expr | None) -> None:
        raise NotImplementedError


def _fact(residual: ast.expr) -> tuple[str, frozenset[str]]:
    names = frozenset(n.id for n in ast.walk(residual) if isinstance(n, ast.Name))
    return ast.unparse(residual), names


def _is_effect_free(node: ast.expr) -> bool:
    return not any(isinstance(n, ast.Call) for n in ast.walk(node)) or all(
        isinstance(n.func, (ast.Name, ast.Attribute))
        for n in ast.walk(node)
        if isinstance(n, ast.Call)
    )


def _negated(node: ast.expr) -> ast.expr:
    opposite: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Is: ast.IsNot, ast.IsNot: ast.Is}
    if isinstance(node, ast.Compare) and type(node.ops[0]) in opposite:
        return ast.Compare(node.left, [opposite[type(node.ops[0])]()], node.comparators)
    return ast.UnaryOp(ast.Not(), node)


def _holds_tensor(t: Type) -> bool:
    return t == TENSOR or any(_holds_tensor(arg) for arg in t.args)


def reference_of(value: Value) -> ast.expr | None:
    """The name of a known object, if it has one."""
    return reference(value.value) if isinstance(value, Const) else None
