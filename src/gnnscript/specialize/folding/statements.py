"""Statements: control flow that is decided here goes, the rest is written out."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.sources import FunctionSource
from gnnscript.analyze.types import UNKNOWN, holds_number
from gnnscript.specialize.effects import has_effects
from gnnscript.specialize.folding.assignment import Assignment
from gnnscript.specialize.folding.base import (
    Binding,
    Fails,
    MissingAttribute,
    NoReturn,
    SeveralResults,
    SeveralTypes,
    store,
)
from gnnscript.specialize.folding.calls import Calls
from gnnscript.specialize.folding.catching import Catching
from gnnscript.specialize.folding.closures import Closures
from gnnscript.specialize.folding.collections import Collections
from gnnscript.specialize.folding.comprehensions import Comprehensions
from gnnscript.specialize.folding.conditions import Conditions, is_called
from gnnscript.specialize.folding.construction import Construction
from gnnscript.specialize.folding.contexts import Contexts
from gnnscript.specialize.folding.defaults import Defaults
from gnnscript.specialize.folding.empties import Empties
from gnnscript.specialize.folding.functions import Functions
from gnnscript.specialize.folding.loops import Loops
from gnnscript.specialize.folding.managers import Managers
from gnnscript.specialize.folding.matching import Matching
from gnnscript.specialize.folding.modules import Modules
from gnnscript.specialize.folding.numbers import as_number, either
from gnnscript.specialize.folding.objects import Objects
from gnnscript.specialize.folding.operators import Operators
from gnnscript.specialize.folding.ordering import Ordering
from gnnscript.specialize.folding.outliving import Outliving
from gnnscript.specialize.folding.parameters import Parameters
from gnnscript.specialize.folding.parting import apart, meet, part_at_choice, part_at_optional
from gnnscript.specialize.folding.picking import Picking
from gnnscript.specialize.folding.records import Records
from gnnscript.specialize.folding.rewritten import collected, tests_nested, yields
from gnnscript.specialize.folding.sequences import Sequences
from gnnscript.specialize.folding.sets import Sets
from gnnscript.specialize.folding.shared import Shared
from gnnscript.specialize.folding.sorting import Sorting
from gnnscript.specialize.folding.tables import Tables
from gnnscript.specialize.folding.texts import Texts
from gnnscript.specialize.folding.torch_calls import TorchCalls
from gnnscript.specialize.folding.unpacking import Unpacking
from gnnscript.specialize.helpers import annotation
from gnnscript.specialize.program import is_runtime
from gnnscript.specialize.tree import clone, is_simple
from gnnscript.specialize.values import (
    Choice,
    Const,
    Mapping,
    Poison,
    Seq,
    Value,
    entry_names,
    has_mapping,
    join_values,
    key_of,
    literal,
    packed_type,
    static_type,
)

if TYPE_CHECKING:
    from gnnscript.specialize.program import Owner, Program


class Frame(
    Assignment,
    Ordering,
    Collections,
    Loops,
    Outliving,
    Managers,
    Comprehensions,
    Functions,
    Calls,
    Closures,
    TorchCalls,
    Sequences,
    Sets,
    Operators,
    Conditions,
    Catching,
    Construction,
    Contexts,
    Defaults,
    Empties,
    Matching,
    Modules,
    Parameters,
    Picking,
    Objects,
    Records,
    Shared,
    Sorting,
    Tables,
    Texts,
    Unpacking,
):
    """Specialises the body of one function."""

    def __init__(
        self, program: Program, source: FunctionSource, owner: Owner | None, cls: type | None
    ) -> None:
        super().__init__(program, source, owner, cls)
        # Whether dictionaries are returned to specialised code, which knows their keys.
        self.packs = True

    def result(self) -> Value:
        """What is known of the function's result."""
        if not self.returns:
            return Const(None) if not self.terminated else Poison("the call always raises")
        value = self.returns[0]
        for other in self.returns[1:]:
            value = join_values(value, other)
        if isinstance(value, Poison):
            value = either(self.returns) or value
        if isinstance(value, Poison):
            raise SeveralResults(
                f"'{getattr(self.source.node, 'name', 'lambda')}' returns values of different "
                f"types: {value.reason}",
                "return one type on every path, or decide by a constructor option, which is "
                "known when the model is scripted",
                self.source.location(),
            )
        return value

    def run(self) -> None:
        """Folds the function's own body."""
        node = self.source.node
        if isinstance(node, ast.AsyncFunctionDef):
            raise UnsupportedError("the function is a coroutine", "write it with 'def'")
        if isinstance(node, ast.Lambda):
            self._statement(ast.copy_location(ast.Return(node.body), node.body))
            return
        self.block(self._collected(node) if yields(node) else node.body)
        if not self.terminated:
            if self.borrowed:
                self._statement(ast.copy_location(ast.Return(), node))
                return
            if self.returns and not all(key_of(r) == key_of(Const(None)) for r in self.returns):
                self.emit(ast.Return(ast.Constant(None)))
            self.returns.append(Const(None))

    def _collected(self, node: ast.FunctionDef) -> list[ast.stmt]:
        """The body of a generator, of which all values are computed before they are used."""
        items = self.fresh("items")
        self.mutated.add(items)
        body = collected(node, items)
        if body is None:
            raise UnsupportedError(
                f"'{node.name}' is a generator that is sent values, which TorchScript cannot "
                "express",
                "collect the values in a list and return it",
                self.source.location(),
            )
        return body

    def finish(self, name: str) -> ast.FunctionDef:
        """The residual function."""
        value = self.result()
        args = list(self.parameters)
        if self.owner is not None:
            args.insert(0, ast.arg("self"))
        t = packed_type(value) if self.packs else static_type(value)
        if isinstance(value, Poison) or (has_mapping(value) and not is_runtime(value)):
            t = UNKNOWN
        return ast.FunctionDef(
            name=name,
            args=ast.arguments([], args, None, [], [], None, []),
            body=self.out,
            decorator_list=[],
            returns=annotation(t) if t.known and not holds_number(t) else None,
        )

    def block(self, statements: list[ast.stmt]) -> None:
        """Folds statements in order, up to the first that leaves the block."""
        for number, statement in enumerate(statements, start=1):
            if self.terminated:
                return
            both = apart(self, statement, statements[number:]) if self.parted else None
            self._statement(both or statement)
            if both is not None:
                return

    def _statement(self, node: ast.stmt) -> None:
        previous, self.current = self.current, node
        handler = getattr(self, f"_stmt_{type(node).__name__}", None)
        try:
            if handler is None:
                raise UnsupportedError(
                    f"the statement '{type(node).__name__.lower()}' has no TorchScript form",
                    "move it out of what runs in the scripted model",
                )
            handler(node)
        except NoReturn:
            self.never_returns()
        except UnsupportedError as raised:
            error = raised
            if isinstance(error, SeveralTypes):
                error = part_at_choice(self, node, error)
            elif isinstance(error, SeveralResults):
                error = part_at_optional(self, node, error)
            if isinstance(error, MissingAttribute) and self.depth_of_branches:
                text = ast.Constant(error.cause)
                error_class = ast.Name("AttributeError", ast.Load())
                self.emit_raise(ast.Call(error_class, [text], []), AttributeError)
                return
            if isinstance(error, Fails) and has_effects(self.out):
                error.always = False
            if error.location is None:
                error.locate(self.source.location(node))
            error.called_from(self.source.location(node))
            if error is raised:
                raise
            raise error from raised
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError) as error:
            raise UnsupportedError(
                f"gnnscript does not understand this ({type(error).__name__}: {error})",
                "write it in smaller steps, and report it: this is a gap in gnnscript",
                self.source.location(node),
            ) from error
        finally:
            self.current = previous

    def emit(self, statement: ast.stmt) -> None:
        """Appends a statement to the specialised code."""
        self.out.append(self.stamped(statement))

    def stamped(self, statement: ast.stmt) -> ast.stmt:
        here = (self.source.file, getattr(self.current, "lineno", self.source.node.lineno))
        statement.origin = self.origin or here  # type: ignore[attr-defined]
        return statement

    @contextmanager
    def nested(self, env: dict[str, Binding], *, always: bool = False) -> Iterator[list[ast.stmt]]:
        """Collects statements of a nested block, starting from ``env``.

        Collections that exist already keep their elements in a block that does not run
        ``always`` exactly once, if anything that follows it sees them.
        """
        out, self.out = self.out, []
        saved, terminated, facts = self.env, self.terminated, self.facts
        self.env, self.terminated, self.facts = env, False, dict(facts)
        self.frozen.append([] if always else self.reachable())
        try:
            yield self.out
        except Fails as error:
            error.always = False  # the block may not run
            raise
        finally:
            self.frozen.pop()
            self.out = out
            self.env, self.terminated, self.facts = saved, terminated, facts

    def _stmt_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return
        if self.grow_default(node.value):
            return
        _, residual = self.fold(node.value)
        unused = residual is None or is_simple(residual)
        if isinstance(residual, ast.Dict):
            unused = all(is_simple(value) for value in residual.values)
        if not unused and residual is not None:
            self.emit(ast.Expr(residual))

    def _stmt_Global(self, node: ast.Global) -> None:
        assigned = self.assigned_names(self.source.node.body) & set(node.names)  # type: ignore[arg-type]
        if assigned:
            raise UnsupportedError(
                f"a global variable is assigned: '{', '.join(sorted(assigned))}'",
                "keep it in an attribute of the module",
            )

    def _stmt_Pass(self, node: ast.Pass) -> None:
        pass

    def _stmt_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        namespace: dict[str, Any] = {"__builtins__": __builtins__}
        for key in ("__package__", "__name__"):
            namespace[key] = self.source.function.__globals__.get(key)
        code = compile(ast.Module([node], []), self.source.file, "exec", dont_inherit=True)
        self.compute(ast.Constant(ast.unparse(node)), eval, code, namespace)
        for alias in node.names:
            name = alias.asname or alias.name.split(".")[0]
            self.env[name] = Binding(Const(namespace[name]), None)

    _stmt_ImportFrom = _stmt_Import

    def _stmt_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.env[node.name] = Binding(self.closure(node), None)

    def _stmt_Return(self, node: ast.Return) -> None:
        # The types of a choice may be alike to the caller, or an option decide.
        folded = self.fold_or_branch(node.value or ast.Constant(None), ast.Return)
        if folded is None:
            return
        value, residual = folded
        if isinstance(value, Poison):
            self.terminated = True
            if residual is not None:
                self.emit(ast.Expr(residual))
            return
        if self.borrowed:
            value, residual = self.hand_back(value, residual)
        self.returns.append(value)
        if residual is None:
            residual = literal(value)
        if has_mapping(value):
            residual = self._packed(value, residual) if self.packs else self.needed(value, residual)
        if self.restore:
            residual = self.hold("value", residual)
            self.out.extend(self.stamped(clone(statement)) for statement in self.restore[::-1])
        self.emit(ast.Return(residual))
        self.terminated = True

    def _packed(self, value: Value, node: ast.expr | None) -> ast.expr | None:
        """Dictionaries known by their entries go to the caller as tuples."""
        if isinstance(value, Seq) and value.kind == "list" and not value.items:
            return ast.List([], ast.Load())
        if not is_runtime(value):
            return literal(value)
        if not has_mapping(value):
            return self.needed(value, node)
        if isinstance(value, Mapping):
            pairs = zip(value.items.values(), self.entries(value, node), strict=True)
        else:
            assert isinstance(value, Seq)
            assert node is not None
            elements = self.element_nodes(node, len(value.items)).elts
            pairs = zip(value.items, elements, strict=True)
        parts = [
            self._constants(item)
            if isinstance(item, Mapping) and not is_runtime(item)
            else self._packed(item, entry)
            for item, entry in pairs
        ]
        return ast.Tuple([part or ast.Constant(None) for part in parts], ast.Load())

    def _constants(self, value: Value) -> ast.expr | None:
        """A dictionary that is known altogether, in the type in which it is handed back."""
        if not isinstance(value, Mapping):
            return literal(value)
        parts = [self._constants(item) for item in value.items.values()]
        return ast.Tuple([part or ast.Constant(None) for part in parts], ast.Load())

    def _stmt_If(self, node: ast.If) -> None:
        node = tests_nested(node)
        value, test = self.condition(node.test)
        if isinstance(value, Const):
            self.block(node.body if value.value else node.orelse)
            return
        assert test is not None
        arms = []
        self.depth_of_branches += 1
        try:
            for outcome, statements in ((True, node.body), (False, node.orelse)):
                with self.nested(dict(self.env), always=_leaves_function(statements)) as body:
                    self.refine(node.test, outcome)
                    self.block(statements)
                    arms.append((self.env, body, self.terminated))
        finally:
            self.depth_of_branches -= 1
        (env_a, body_a, left_a), (env_b, body_b, left_b) = arms
        if not (left_a or left_b):
            test = self._chosen(test, env_a, env_b)
        if left_a and left_b:
            self.terminated = True
        elif left_a or left_b:
            self.env = env_b if left_a else env_a
        else:
            self.env = self.merge([(env_a, body_a), (env_b, body_b)])
            meet(self, node, self.env)
        self.emit(ast.If(test, body_a or [ast.Pass()], body_b))
        if left_a != left_b:
            self.refine(node.test, left_b)

    def _chosen(
        self, test: ast.expr, first: dict[str, Binding], second: dict[str, Binding]
    ) -> ast.expr:
        """Makes variables that hold a function or module on both paths hold the choice."""
        for name in first.keys() & second.keys():
            held, other = first[name].value, second[name].value
            if held is other or not (is_called(held) and is_called(other)):
                continue
            if isinstance(join_values(held, other), Poison):
                test = self.hold("chosen", test) or test
                first[name] = second[name] = Binding(Choice(test, held, other), None)
        return test

    def merge(self, arms: list[tuple[dict[str, Binding], list[ast.stmt]]]) -> dict[str, Binding]:
        """Joins variables where paths meet; copies them to a common name where they differ."""
        merged: dict[str, Binding] = {}
        bodies = [body for _, body in arms]
        for name in arms[0][0]:
            if all(name in env for env, _ in arms):
                bindings = [env[name] for env, _ in arms]
                merged[name] = self.met(name, bindings, bodies)
        return merged

    def met(self, name: str, bindings: list[Binding], bodies: list[list[ast.stmt]]) -> Binding:
        """What holds a variable behind the point where paths meet."""
        first, names = bindings[0], {b.name for b in bindings}
        if all(b.value is first.value and b.node is first.node for b in bindings):
            if len(names) == 1:
                return first
        value = first.value
        for other in bindings[1:]:
            value = join_values(value, other.value, numbers=True)
        if isinstance(value, Poison):
            return Binding(value, None)
        if not is_runtime(value) and literal(value) is None and not isinstance(value, Mapping):
            return Binding(value, None)
        if has_mapping(value) or (isinstance(value, Seq) and not static_type(value).known):
            return self._met_inside(name, value, bindings, bodies)
        residual = names.pop() if len(names) == 1 else None
        if residual is None:
            if names == {None} and all(
                b.node is None and key_of(b.value) == key_of(value) for b in bindings
            ):
                return Binding(value, None)
            residual = self.variable(name, static_type(value))
            if self.is_narrowed(name, residual, static_type(value)):
                residual = self.variable_apart(name, static_type(value))
        for body, binding in zip(bodies, bindings, strict=True):
            if binding.name != residual:
                node = binding.read or literal(binding.value)
                if node is not None:
                    node = as_number(node, value, binding.value)
                    body.append(self.stamped(store(residual, node)))
        return Binding(value, residual)

    def _met_inside(
        self, name: str, value: Value, bindings: list[Binding], bodies: list[list[ast.stmt]]
    ) -> Binding:
        """The same for a collection that no variable of TorchScript's holds: by its elements."""
        assert isinstance(value, (Seq, Mapping))
        columns: list[list[Binding]] = []
        for binding in bindings:
            held, node = binding.value, binding.read
            if isinstance(held, Mapping):
                items, nodes = list(held.items.values()), self.entries(held, node)
            else:
                items = self.known_items(held)
                nodes = [literal(item) for item in items]
                if node is not None and not isinstance(held, Const):
                    nodes = list(self.element_nodes(node, len(items)).elts)
            columns.append(
                [
                    Binding(item, element.id)
                    if isinstance(element, ast.Name)
                    else Binding(item, None, element)
                    for item, element in zip(items, nodes, strict=True)
                ]
            )
        keys = value.items if isinstance(value, Mapping) else range(len(value.items))
        found = [
            self.met(part, list(row), bodies)
            for part, row in zip(entry_names(name, keys), zip(*columns, strict=True), strict=True)
        ]
        reads = [binding.read or literal(binding.value) for binding in found]
        values = [binding.value for binding in found]
        if isinstance(value, Mapping):
            entries = dict(zip(value.items, values, strict=True))
            folded = self.mapping(entries, reads, value.default, value.cls)
        else:
            folded = self.sequence(value.kind, values, reads, value.cls, keep=True)
        return Binding(folded[0], None, folded[1])


def _leaves_function(block: list[ast.stmt]) -> bool:
    """Whether nothing of a function follows a block: no other path sees what it has changed."""
    return bool(block) and isinstance(block[-1], (ast.Return, ast.Raise))
