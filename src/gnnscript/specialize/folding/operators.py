"""Names, attributes, arithmetic and text."""

from __future__ import annotations

import ast
import builtins
import inspect
import types
import typing
from typing import Any

import torch

from gnnscript import _pyg
from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import (
    BOOL,
    FLOAT,
    INT,
    NONE,
    SPARSE,
    TENSOR,
    UNKNOWN,
    Type,
    from_annotation,
    is_optional,
    is_sparse,
    list_of,
)
from gnnscript.specialize import inference, sparse
from gnnscript.specialize.effects import has_effects
from gnnscript.specialize.folding.base import (
    OPERATORS,
    Arguments,
    Binding,
    Folded,
    Folding,
    MissingAttribute,
    store,
)
from gnnscript.specialize.folding.numbers import arithmetic
from gnnscript.specialize.folding.parting import several_types
from gnnscript.specialize.folding.torch_arguments import boolean_tensor
from gnnscript.specialize.helpers import as_list, is_shape, op_reference
from gnnscript.specialize.substitutes import int_pow
from gnnscript.specialize.values import (
    Choice,
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
    constant_items,
    is_object,
    literal,
    static_type,
)


class Operators(Folding):
    """The part of a frame that folds names, attributes and operators."""

    def fold_Name(self, node: ast.Name) -> Folded:
        binding = self.env.get(node.id)
        if binding is not None:
            value = binding.value
            if isinstance(value, Closure) and value.home is self and value.late:
                value = self.with_present(value)
            if isinstance(value, Poison):
                raise several_types(node.id, value)
            if isinstance(value, Const) and literal(value) is not None:
                return value, literal(value)
            if binding.name is None:
                return value, binding.node
            return value, ast.Name(binding.name, ast.Load())
        if node.id == "__class__" and self.cls is not None:
            return Const(self.cls), None
        try:
            found = self.source.resolve(node.id)
            self.program.read(self.source, node.id)
            return self.wrap(found), None
        except KeyError:
            raise UnsupportedError(
                f"'{node.id}' is not defined here",
                "assign it on every path that leads here",
            ) from None

    def fold_Attribute(self, node: ast.Attribute) -> Folded:
        known = self.parameter(node.value) if node.attr in ("shape", "ndim") else None
        if known is not None:
            return self.wrap(getattr(known, node.attr)), None
        holder, base = self.fold(node.value)
        return self.attribute(holder, base, node.attr)

    def attribute(self, holder: Value, base: ast.expr | None, name: str) -> Folded:
        """``holder.name``."""
        if isinstance(holder, ModuleRef):
            return self.module_attribute(holder, self.mangled(name))
        if isinstance(holder, Super):
            method = self.super_attribute(holder, name)
            if isinstance(method, Method) and isinstance(method.function, property):
                assert isinstance(method.owner, ModuleRef)
                cls = self.defining_class(method.owner, name, holder.after)
                return self.call_property(method.owner, method.function.fget, cls)
            return method, None
        if isinstance(holder, Const):
            flag = _pyg.library_flag(holder.value, name)
            if flag is not None:
                return Const(flag), None
            if isinstance(holder.value, types.ModuleType):
                self.program.read(holder.value, name)
            if inspect.isclass(holder.value) and _pyg.is_sparse_tensor(holder.value):
                maker = sparse.MAKERS.get(name)
                if maker is not None:
                    return Const(maker), None
            try:
                return self.wrap(getattr(holder.value, self.mangled(name))), None
            except AttributeError:
                raise MissingAttribute(
                    f"'{holder.value!r}' has no attribute '{name}'", "check the spelling"
                ) from None
        if isinstance(holder, Choice):
            return self.of_choice(holder, lambda held: self.attribute(held, None, name))
        if isinstance(holder, Seq) and holder.cls is not None and name in holder.cls._fields:
            position = holder.cls._fields.index(name)
            if isinstance(base, ast.Tuple):
                return holder.items[position], base.elts[position]
            return holder.items[position], ast.Attribute(
                self.needed(holder, base), name, ast.Load()
            )
        done = self.field(holder, base, name) or self.record_attribute(holder, base, name)
        if done is not None:
            return done
        if is_object(holder):
            raise UnsupportedError(
                f"the data object has no field '{name}' here",
                "assign it first, or give an example that has it to gnnscript.tensor_inputs",
            )
        t = static_type(holder)
        if t.name == "dtype" and name in _KINDS:
            return self._one_of(self.needed(holder, base), _KINDS[name])
        residual = ast.Attribute(self.needed(holder, base), name, ast.Load())
        if is_optional(t) and t != NONE:
            holder, base = self.unwrap(holder, self.needed(holder, base))
            return self.attribute(holder, base, name)
        if is_sparse(t) and name in ("layout", "is_sparse", "is_sparse_csr"):
            return Const(self._of_layout(t, name)), None
        if t == TENSOR or is_sparse(t):
            if name == "layout":
                return Const(torch.strided), None
            if name in ("is_sparse", "is_sparse_csr"):
                return Const(False), None
            if t == TENSOR and not hasattr(torch.Tensor, name):
                raise UnsupportedError(
                    f"what is taken for a tensor here is asked for '{name}', which no tensor has",
                    "annotate what is no tensor; a model that takes a data object scripts as "
                    "gnnscript.tensor_inputs(model, data)",
                )
            return self.recall(Dyn(inference.TENSOR_ATTRIBUTES.get(name, TENSOR)), residual)
        if t.name == "Tuple" and t.cls is not None and name in t.cls._fields:
            return self.recall(Dyn(t.args[t.cls._fields.index(name)]), residual)
        if t.name == "Class":
            return self.recall(Dyn(_declared_attribute(t.cls, name)), residual)
        named = name in ("values", "indices") and isinstance(base, ast.Call)  # of torch.sort, say
        return Dyn(TENSOR if named else UNKNOWN), residual

    @staticmethod
    def _of_layout(t: Type, name: str) -> Any:
        if t == SPARSE:
            raise UnsupportedError(
                "the code asks for the layout of a sparse tensor whose layout is not known here",
                "convert it first: 'to_sparse_coo()' or 'to_sparse_csr()'",
            )
        layout = getattr(torch, str(t.cls))
        known = {"is_sparse": torch.sparse_coo, "is_sparse_csr": torch.sparse_csr}
        return layout if name == "layout" else layout is known[name]

    def fold_Constant(self, node: ast.Constant) -> Folded:
        return Const(node.value), None

    def fold_UnaryOp(self, node: ast.UnaryOp) -> Folded:
        if isinstance(node.op, ast.Not):
            return self.condition(node)
        value, residual = self.fold(node.operand)
        if isinstance(value, Const):
            return Const(self.compute(node, OPERATORS[type(node.op)], value.value)), None
        value, residual = self.present(value, self.needed(value, residual))
        t = static_type(value)
        if isinstance(node.op, ast.UAdd) and t != BOOL:
            return value, residual  # TorchScript has no such operator
        if isinstance(node.op, ast.Invert) and t == INT:
            return value, ast.BinOp(ast.UnaryOp(ast.USub(), residual), ast.Sub(), ast.Constant(1))
        return Dyn(t), ast.UnaryOp(node.op, residual)

    def fold_BinOp(self, node: ast.BinOp) -> Folded:
        text = self.percent_text(node)
        if text is not None:
            return self.fold(text)
        spread = _spread(node)
        folded = self.attempt(
            lambda: self._operated(node, *self.in_order([node.left, node.right])),
            None if spread is None else lambda: self.fold(spread),
        )
        assert folded is not None
        return folded

    def _operated(self, node: ast.BinOp, first: Folded, second: Folded) -> Folded:
        (left, left_node), (right, right_node) = first, second
        if isinstance(left, Const) and isinstance(right, Const):
            value = self.compute(node, OPERATORS[type(node.op)], left.value, right.value)
            return self.wrap(value), None
        done = self.set_operator(node.op, first, second)
        done = done or self.record_operator(node.op, (left, left_node), (right, right_node))
        if done is not None:
            return done
        if isinstance(node.op, ast.BitOr) and isinstance(left, Mapping):
            return self._united((left, left_node), (right, right_node))
        items = [constant_items(left), constant_items(right)]
        if isinstance(node.op, ast.Add) and items[0] is not None and items[1] is not None:
            if not isinstance(left, Const) or not isinstance(left.value, str):
                return self._concatenate(left, left_node, right, right_node)
        if isinstance(node.op, ast.Mult) and isinstance(left, Seq) and isinstance(right, Const):
            if left_node is not None:
                held = self.hold("item", self.element_nodes(left_node, len(left.items)), set())
                assert isinstance(held, ast.Tuple)
                elements = held.elts * right.value
                return self.sequence(left.kind, list(left.items) * right.value, list(elements))
        left, left_node = self.present(left, self.needed(left, left_node))
        right, right_node = self.present(right, self.needed(right, right_node))
        bits = isinstance(node.op, (ast.BitAnd, ast.BitOr, ast.BitXor))
        if bits and TENSOR in (static_type(left), static_type(right)):
            left, left_node = boolean_tensor(self, (left, left_node))
            right, right_node = boolean_tensor(self, (right, right_node))
        if isinstance(node.op, ast.Pow) and static_type(left) == static_type(right) == INT:
            return self.int_power((left, left_node), (right, right_node))
        if isinstance(node.op, ast.Mod) and has_effects(left_node):
            # TorchScript computes it twice: once to see whether it is a text to format.
            (left, left_node), (right, right_node) = self.held_first(
                (left, left_node), (right, right_node)
            )
        if isinstance(node.op, ast.Mult):
            left_node, right_node = _repeated(left_node), _repeated(right_node)
        if isinstance(node.op, ast.Add):
            (left, left_node), (right, right_node) = self.alike(
                (left, left_node), (right, right_node)
            )
        t = arithmetic(static_type(left), static_type(right), node.op)
        return Dyn(t), ast.BinOp(left_node, node.op, right_node)

    def held_first(
        self, left: tuple[Value, ast.expr], right: tuple[Value, ast.expr]
    ) -> list[tuple[Value, ast.expr]]:
        """Operands of which the first is computed before, and so must be the other."""
        return [
            (value, self.hold("held", node, force=True) or node) for value, node in (left, right)
        ]

    def _united(self, left: Folded, right: Folded) -> Folded:
        """``left | right`` of dictionaries known by their entries."""
        items: dict[Any, Value] = {}
        nodes: dict[Any, ast.expr | None] = {}
        for side in (left, right):
            value, node = side
            if isinstance(value, Const) and isinstance(value.value, dict):
                entries = {key: self.wrap(item) for key, item in value.value.items()}
                value, node = self.mapping(entries, [literal(item) for item in entries.values()])
            if not isinstance(value, Mapping):
                raise UnsupportedError(
                    "a dictionary known by its entries is united with another", "name the entries"
                )
            items |= value.items
            nodes |= dict(zip(value.items, self.entries(value, node), strict=True))
        return self.mapping(items, list(nodes.values()))

    def _one_of(self, node: ast.expr, dtypes: tuple[torch.dtype, ...]) -> Folded:
        """Whether a dtype, a number in TorchScript, is one of several."""
        held = self.hold("dtype", node) or node
        tests: list[ast.expr] = [
            ast.Compare(held, [ast.Eq()], [self.needed(Const(dtype), literal(Const(dtype)))])
            for dtype in dtypes
        ]
        return Dyn(BOOL), ast.BoolOp(ast.Or(), tests)

    def int_power(self, base: Folded, exponent: Folded) -> Folded:
        """A power of integers: an integer again, unless the exponent is known to be negative."""
        known = exponent[0].value if isinstance(exponent[0], Const) else 0
        if known < 0:
            power = ast.BinOp(self.needed(*base), ast.Pow(), self.needed(*exponent))
            return Dyn(FLOAT), power
        return self.call_function(int_pow, Arguments([base, exponent], {}), None)

    def alike(
        self, left: tuple[Value, ast.expr], right: tuple[Value, ast.expr]
    ) -> list[tuple[Value, ast.expr]]:
        """Two sequences, both as lists where one is a shape: a tuple only in Python."""
        types = [static_type(left[0]), static_type(right[0])]
        if not any(t == list_of(INT) for t in types):
            return [left, right]
        sides: list[tuple[Value, ast.expr]] = []
        for given, t in zip((left, right), types, strict=True):
            value, node = given
            items = constant_items(value) if t.name in ("Tuple", "List") else None
            count = len(t.args) if t.name == "Tuple" else None
            if items is not None or count is not None:
                size = len(items) if items is not None else count or 0
                elements = self.element_nodes(node, size).elts
                known = items if items is not None else [Dyn(part) for part in t.args]
                elements = [
                    ast.Call(op_reference("as_int"), [element], [])
                    if static_type(item) == TENSOR
                    else element
                    for item, element in zip(known, elements, strict=True)
                ]
                sides.append((Dyn(list_of(INT)), ast.List(elements, ast.Load())))
            else:
                sides.append(given)
        if all(side is not given for side, given in zip(sides, (left, right), strict=True)):
            return sides
        if all(is_shape(node) for _, node in sides):
            return sides
        return [(v, as_list(n) if static_type(v) == list_of(INT) else n) for v, n in sides]

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

    def fold_Lambda(self, node: ast.Lambda) -> Folded:
        return self.closure(node), None

    def fold_NamedExpr(self, node: ast.NamedExpr) -> Folded:
        value, residual = self.fold(node.value)
        name = node.target.id
        if isinstance(value, Dyn) and (self.conditional or _named_again(name, self.current)):
            # In a variable of its own: what the statement has read before is read afterwards.
            residual = self.needed(value, residual)
            held = self.fresh(name)
            self.emit(store(held, residual))
            self.forget({name})
            self.env[name] = Binding(value, held)
        else:
            self.assign(node.target, value, residual)
        return self.fold_Name(ast.Name(name, ast.Load()))

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
            spelled = str(getattr(cls.value, "__name__", name))
            name = spelled if getattr(builtins, spelled, None) is cls.value else name
        return ast.Call(ast.Name(name, ast.Load()), args or [ast.Constant("")], [])


def _named_again(name: str, statement: ast.AST) -> bool:
    """Whether a statement that assigns to ``name`` by ``:=`` names it a second time, or repeats.

    Of a compound statement, what stands before its blocks.
    """
    header: ast.AST = statement
    for part in ("test", "iter", "subject"):
        header = getattr(statement, part, header)
    nodes = list(ast.walk(header))
    if any(isinstance(n, (ast.ListComp, ast.GeneratorExp, ast.DictComp)) for n in nodes):
        return True
    return sum(isinstance(n, ast.Name) and n.id == name for n in nodes) > 1


# The dtypes of which a property of theirs is true.
_KINDS = {
    "is_floating_point": (torch.float32, torch.float64, torch.float16, torch.bfloat16),
    "is_complex": (torch.complex64, torch.complex128, torch.complex32),
}


def _repeated(node: ast.expr) -> ast.expr:
    """An operand of ``*``: what TorchScript repeats is a list, and so it is in Python then."""
    return ast.List(node.elts, ast.Load()) if isinstance(node, ast.Tuple) else node


def _declared_attribute(cls: type, name: str) -> Type:
    """The type that a class which TorchScript compiles declares for an attribute."""
    try:
        hints = typing.get_type_hints(cls)
    except (NameError, TypeError):
        return UNKNOWN
    return from_annotation(hints[name]) if name in hints else UNKNOWN


def _spread(node: ast.BinOp) -> ast.IfExp | None:
    """``(1 if w is None else w) / x`` with the operator on both sides, which are alike then."""
    chosen = node.left if isinstance(node.left, ast.IfExp) else node.right
    if not isinstance(chosen, ast.IfExp):
        return None
    arms = [
        ast.copy_location(
            ast.BinOp(arm, node.op, node.right)
            if chosen is node.left
            else ast.BinOp(node.left, node.op, arm),
            node,
        )
        for arm in (chosen.body, chosen.orelse)
    ]
    return ast.copy_location(ast.IfExp(chosen.test, *arms), node)
