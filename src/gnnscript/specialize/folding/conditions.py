"""Tests: what they decide here, and what they say of the variables behind them."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, cast

import torch

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import (
    BOOL,
    INT,
    NONE,
    TENSOR,
    UNKNOWN,
    Type,
    is_optional,
    strip_optional,
)
from gnnscript.specialize.effects import has_effects
from gnnscript.specialize.folding.base import (
    OPERATORS,
    Binding,
    Folded,
    Folding,
    NoReturn,
    SeveralTypes,
    store,
)
from gnnscript.specialize.folding.numbers import as_number
from gnnscript.specialize.folding.rewritten import alternative, as_branches, located
from gnnscript.specialize.helpers import unwrap_optional
from gnnscript.specialize.tree import is_simple
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
    join_values,
    key_of,
    literal,
    static_type,
)


class Conditions(Folding):
    """The part of a frame that folds conditions."""

    def recall(self, value: Value, residual: ast.expr) -> Folded:
        """Applies what an enclosing test has said of an expression that is not a variable."""
        t = static_type(value)
        if not is_optional(t) or t == NONE:
            return value, residual
        known = self.facts.get(_fact(residual))
        if known is None:
            return value, residual
        return (Dyn(strip_optional(t)), unwrap_optional(residual)) if known else (Const(None), None)

    def forget(self, names: set[str]) -> None:
        """Drops what tests have said of expressions in which one of these names occurs."""
        self.facts = {k: v for k, v in self.facts.items() if not names & k[1]}

    def note(self, residual: ast.expr, t: Type) -> None:
        """Remembers of an attribute whether what it was just assigned is ``None``."""
        if t == NONE or not is_optional(t):
            self.facts[_fact(residual)] = t != NONE

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

    def _set_none(self, node: ast.expr, none: bool) -> None:
        if isinstance(node, ast.Name):
            binding = self.env.get(node.id)
            if binding is None or not isinstance(binding.value, Dyn):
                return
            t = binding.value.type
            if is_optional(t) and t != NONE:
                value: Value = Const(None) if none else Dyn(strip_optional(t))
                self.env[node.id] = type(binding)(value, binding.name)
            return
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            value, residual = self.fold(node)
            if residual is not None and is_optional(static_type(value)):
                self.facts[_fact(residual)] = not none

    def condition(self, node: ast.expr) -> Folded:
        """An expression as a condition: decided, or of a type that TorchScript can test."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            value, residual = self.condition(node.operand)
            if isinstance(value, Const):
                return Const(not value.value), None
            assert residual is not None
            return Dyn(BOOL), _negated(residual)
        if isinstance(node, ast.Compare) and len(node.ops) > 1:
            node = self._chain(node)
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
        if t.name in ("List", "Dict", "Set", "str"):
            length = ast.Call(ast.Name("len", ast.Load()), [node], [])
            return Dyn(BOOL), ast.Compare(length, [ast.Gt()], [ast.Constant(0)])
        if t.name == "Class":
            return Const(True), None
        return Dyn(BOOL), node

    def _junction(self, node: ast.BoolOp, first: Folded | None = None) -> Folded:
        """``and`` / ``or`` as a condition, each part seen in the light of those before it."""
        conjunction = isinstance(node.op, ast.And)
        # The first is evaluated in any case, and so is the next where it is known.
        value, residual = self.truth(*first) if first else self.condition(node.values[0])
        rest = list(node.values)
        while isinstance(value, Const):
            rest.pop(0)
            if bool(value.value) is not conjunction or not rest:
                return Const(bool(value.value)), None
            value, residual = self.condition(rest[0])
        assert residual is not None
        kept = [residual]
        env, facts = self.env, self.facts
        self.env, self.facts = dict(env), dict(facts)
        self.conditional += 1
        try:
            for number in range(1, len(rest)):
                self.refine(rest[number - 1], conjunction)
                value, residual, body = self._tested(rest[number], env)
                decided = isinstance(value, Const) and bool(value.value) is not conjunction
                if body or (decided and has_effects(kept)):
                    tail = ast.copy_location(ast.BoolOp(node.op, rest[number:]), node)
                    return self._apart(tail, _joined(node.op, kept), env)
                if decided:
                    return Const(not conjunction), None
                if residual is not None:
                    kept.append(residual)
        finally:
            self.conditional -= 1
            self.env, self.facts = env, facts
        return Dyn(BOOL), _joined(node.op, kept)

    def _tested(
        self, node: ast.expr, env: dict[str, Binding]
    ) -> tuple[Value, ast.expr | None, list[ast.stmt]]:
        """A condition that may not be evaluated, and what has to run before if it is."""
        with self.nested(dict(self.env)) as body:
            value, residual = self.condition(node)
            self._rejoin(node, env, self.env, body)
            known = self.env, self.facts
        if not body:
            self.env, self.facts = known
        return value, residual, body

    def _apart(self, tail: ast.BoolOp, before: ast.expr, env: dict[str, Binding]) -> Folded:
        """``before and tail`` where statements have to run before the tail: in a branch."""
        test = ast.Name(self.fresh("test"), ast.Load())
        self.emit(store(test.id, before))
        value, residual, body = self._tested(tail, env)
        residual = residual or literal(value)
        assert residual is not None
        body.append(self.stamped(store(test.id, residual)))
        asked = test if isinstance(tail.op, ast.And) else _negated(test)
        self.emit(ast.If(asked, body, []))
        return Dyn(BOOL), test

    def _rejoin(
        self,
        node: ast.expr,
        env: dict[str, Binding],
        inside: dict[str, Binding],
        body: list[ast.stmt],
    ) -> None:
        """Joins the variables that ``:=`` assigns in what may not be evaluated."""
        for name in {n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr)}:
            outside = env.pop(name, None)
            if outside is not None and name in inside:
                otherwise: list[ast.stmt] = []
                env[name] = self.met(name, [inside[name], outside], [body, otherwise])
                self.out.extend(otherwise)

    def fold_BoolOp(self, node: ast.BoolOp) -> Folded:
        chosen = alternative(node)
        if chosen is not None:
            return self.fold(chosen)
        value, residual = self.fold(node.values[0])
        decided = self.truth(value, residual)[0]
        rest = node.values[1:]
        if isinstance(decided, Const):
            if bool(decided.value) is isinstance(node.op, ast.Or) or not rest:
                return value, residual
            tail = rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
            return self.fold(ast.copy_location(tail, node))
        tail = rest[0] if len(rest) == 1 else ast.copy_location(ast.BoolOp(node.op, rest), node)
        first = node.values[0]
        if static_type(value) == BOOL:
            with self.nested(dict(self.env)):
                self.refine(first, isinstance(node.op, ast.And))
                other = static_type(self.fold(tail)[0])
            if other not in (BOOL, UNKNOWN):  # it is one of the two, not whether they are true
                raise SeveralTypes(
                    node,
                    f"'{ast.unparse(node)}' has no single type: it is 'bool' or '{other}'",
                    "write 'a if test else b', both of one type",
                )
            return self._junction(node, (value, residual))
        if residual is not None and not is_simple(residual):  # it is evaluated once
            first = ast.copy_location(ast.Name(self.fresh("first"), ast.Load()), node)
            self.bind(first.id, value, residual)
        arms = (first, tail) if isinstance(node.op, ast.Or) else (tail, first)
        return self.fold(ast.copy_location(ast.IfExp(first, *arms), node))

    def _chain(self, node: ast.Compare) -> ast.BoolOp:
        """``a < b < c`` as ``a < b and b < c``, each computed once."""
        lefts: list[ast.expr] = [node.left]
        rights: list[ast.expr] = []
        for middle in node.comparators[:-1]:
            held = middle
            if not is_simple(middle):
                name = self.fresh("between")
                held = ast.Name(name, ast.Load())
                rights.append(ast.NamedExpr(ast.Name(name, ast.Store()), middle))
            else:
                rights.append(middle)
            lefts.append(held)
        rights.append(node.comparators[-1])
        parts: list[ast.expr] = [
            ast.Compare(left, [op], [right])
            for left, op, right in zip(lefts, node.ops, rights, strict=True)
        ]
        return located(ast.BoolOp(ast.And(), parts), node)

    def fold_or_branch(
        self, node: ast.expr, write: Callable[[ast.expr], ast.stmt]
    ) -> Folded | None:
        """Folds an expression; ``None`` where it is a choice of several types, written as branches.

        Args:
            node: The expression.
            write: The statement that uses the value of a branch.
        """

        def branch() -> None:
            self.block([as_branches(cast("ast.IfExp", node), write)])

        return self.attempt(
            lambda: self.fold(node), branch if isinstance(node, ast.IfExp) else None
        )

    def fold_IfExp(self, node: ast.IfExp) -> Folded:
        test, condition = self.condition(node.test)
        if isinstance(test, Const):
            return self.fold(node.body if test.value else node.orelse)
        assert condition is not None
        arms: list[Folded | None] = []
        bodies: list[list[ast.stmt]] = []
        for outcome, arm in ((True, node.body), (False, node.orelse)):
            folded, body = self._arm(node, outcome, arm)
            arms.append(folded)
            bodies.append(body)
        if None in arms:
            return self._one_arm(condition, arms, bodies)
        (value_a, node_a), (value_b, node_b) = cast("list[Folded]", arms)
        if static_type(value_a) == INT and isinstance(value_b, Const) and value_b.value == 0:
            kept = self.needed(value_a, node_a)
            if ast.dump(kept) == ast.dump(condition):  # `size or 0` is the size
                return value_a, kept
        kinds = {static_type(value_a).name, static_type(value_b).name}
        if kinds == {"List", "Tuple"} and node_a is not None and node_b is not None:
            (value_a, node_a), (value_b, node_b) = self.alike((value_a, node_a), (value_b, node_b))
        value = join_values(value_a, value_b, numbers=True)
        called = is_called(value_a) and is_called(value_b)
        if isinstance(value, Poison) and called and not self.conditional:
            return Choice(self.hold("chosen", condition) or condition, value_a, value_b), None
        if isinstance(value, Poison):
            raise SeveralTypes(
                node,
                f"'{ast.unparse(node)}' has no single type: {value.reason}",
                "give both sides one type",
            )
        if any(bodies):
            name = self.fresh("chosen")
            held = [Binding(value_a, None, node_a), Binding(value_b, None, node_b)]
            self.env[name] = self.met(name, held, bodies)
            self.emit(ast.If(condition, bodies[0] or [ast.Pass()], bodies[1]))
            return self.fold_Name(ast.Name(name, ast.Load()))
        if not isinstance(value, (Dyn, Seq, Mapping)):
            return value, literal(value)
        return value, ast.IfExp(
            condition,
            as_number(self.needed(value_a, node_a), value, value_a),
            as_number(self.needed(value_b, node_b), value, value_b),
        )

    def _arm(
        self, node: ast.IfExp, outcome: bool, arm: ast.expr
    ) -> tuple[Folded | None, list[ast.stmt]]:
        """One side of a choice, and what has to run before; nothing where it always raises."""
        env = self.env
        self.conditional += 1
        try:
            with self.nested(dict(env)) as body:
                self.refine(node.test, outcome)
                folded: Folded | None = None
                try:
                    folded = self.fold(arm)
                except NoReturn:
                    self.never_returns()
                self._rejoin(arm, env, self.env, body)
        finally:
            self.conditional -= 1
        return folded, body

    def _one_arm(
        self, condition: ast.expr, arms: list[Folded | None], bodies: list[list[ast.stmt]]
    ) -> Folded:
        """A choice of which one side, or both, raise."""
        chosen = next((arm for arm in arms if arm is not None), None)
        if chosen is None:
            self.emit(ast.If(condition, *bodies))
            raise NoReturn
        if arms[0] is not None:
            bodies, condition = bodies[::-1], _negated(condition)
        self.emit(ast.If(condition, bodies[0], []))
        self.out.extend(bodies[1])
        return chosen

    def fold_Compare(self, node: ast.Compare) -> Folded:
        if len(node.ops) > 1:
            return self.fold_BoolOp(self._chain(node))
        op = node.ops[0]
        (left_value, left_node), (right_value, right_node) = self.in_order(
            [node.left, node.comparators[0]]
        )
        if isinstance(left_value, Const) and isinstance(right_value, Const):
            result = self.compute(node, OPERATORS[type(op)], left_value.value, right_value.value)
            return self.wrap(result), None
        done = self.set_comparison(op, (left_value, left_node), (right_value, right_node))
        if done is not None:
            return done
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
            if left_value is right_value and isinstance(left_value, (Seq, Mapping)):
                return Const(isinstance(op, ast.Is)), None
            types = {static_type(left_value), static_type(right_value)}
            if "Tuple" in {t.name for t in types} or isinstance(left_value, (Seq, Mapping)):
                raise UnsupportedError(
                    f"'{ast.unparse(node)}' asks whether two collections are one object",
                    "compare what they hold, or remember it in a variable of its own",
                )
            # TorchScript compares the identity of tensors, lists and dictionaries as well.
            if not all(t == TENSOR or t.name in ("List", "Dict") for t in types):
                op = ast.Eq() if isinstance(op, ast.Is) else ast.NotEq()
        if isinstance(op, (ast.In, ast.NotIn)) and isinstance(right_value, (Mapping, ModuleRef)):
            if isinstance(left_value, Const):
                names: Any = right_value.items if isinstance(right_value, Mapping) else ()
                if isinstance(right_value, ModuleRef):
                    names = right_value.module
                return Const((left_value.value in names) is isinstance(op, ast.In)), None
        if isinstance(op, (ast.In, ast.NotIn)) and static_type(right_value) == TENSOR:
            left_node, right_node = (
                self.needed(left_value, left_node),
                self.needed(right_value, right_node),
            )
            equal = ast.Compare(right_node, [ast.Eq()], [left_node])
            some = ast.Call(ast.Attribute(equal, "any", ast.Load()), [], [])
            held = ast.Call(ast.Name("bool", ast.Load()), [some], [])
            return Dyn(BOOL), held if isinstance(op, ast.In) else _negated(held)
        if isinstance(op, (ast.In, ast.NotIn)):
            right_items = constant_items(right_value)
            if right_items == []:
                return Const(isinstance(op, ast.NotIn)), None
            if isinstance(right_value, Const) and isinstance(right_value.value, dict):
                found = self.table(right_value, right_node, static_type(left_value))
                right_value, right_node = found or (right_value, right_node)
            if isinstance(right_node, ast.Tuple):
                right_node = ast.List(right_node.elts, ast.Load())
        left_value, left_node = self.present(left_value, self.needed(left_value, left_node))
        right_value, right_node = self.present(right_value, self.needed(right_value, right_node))
        if isinstance(op, (ast.Eq, ast.NotEq)):
            (left_value, left_node), (right_value, right_node) = self.alike(
                (left_value, left_node), (right_value, right_node)
            )
        types = {static_type(left_value), static_type(right_value)}
        result_type = BOOL
        if not isinstance(op, (ast.In, ast.NotIn, ast.Is, ast.IsNot)):  # of tensors: a tensor
            result_type = next((t for t in (TENSOR, UNKNOWN) if t in types), BOOL)
        return Dyn(result_type), ast.Compare(left_node, [op], [right_node])


def is_called(value: Value) -> bool:
    """Whether a value is a function or module, of which two can only be called."""
    if isinstance(value, Const):
        return callable(value.value)
    return isinstance(value, (Choice, Closure, Method, ModuleRef))


def _fact(residual: ast.expr) -> tuple[str, frozenset[str]]:
    names = frozenset(n.id for n in ast.walk(residual) if isinstance(n, ast.Name))
    return ast.unparse(residual), names


def _negated(node: ast.expr) -> ast.expr:
    opposite: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Is: ast.IsNot, ast.IsNot: ast.Is}
    if isinstance(node, ast.Compare) and type(node.ops[0]) in opposite:
        return ast.Compare(node.left, [opposite[type(node.ops[0])]()], node.comparators)
    return ast.UnaryOp(ast.Not(), node)


def _joined(op: ast.boolop, parts: list[ast.expr]) -> ast.expr:
    return parts[0] if len(parts) == 1 else ast.BoolOp(op, parts)
