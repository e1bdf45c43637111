"""Folding of statements: control flow that is decided here goes, the rest is written out."""

from __future__ import annotations

import ast
from contextlib import contextmanager
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.annotations import _type, parameter_types
from gnnscript.analyze.sources import FunctionSource
from gnnscript.analyze.types import (
    BOOL,
    INT,
    NONE,
    TENSOR,
    UNKNOWN,
    Type,
    alternatives,
    is_optional,
    is_subtype,
    list_of,
    strip_optional,
)
from gnnscript.specialize.calling import NoReturn
from gnnscript.specialize.comprehensions import Comprehensions
from gnnscript.specialize.folding import MissingAttribute, NeedsConstant
from gnnscript.specialize.helpers import annotation, is_absent
from gnnscript.specialize.tree import is_simple
from gnnscript.specialize.program import Owner, Program, is_runtime
from gnnscript.specialize.values import (
    Closure,
    Const,
    Dyn,
    Mapping,
    ModuleRef,
    Poison,
    Seq,
    Value,
    constant_items,
    generalize,
    join_values,
    key_of,
    literal,
    static_type,
)

__all__ = ["Binding", "Frame"]

UNROLL_LIMIT = 256


@dataclass(frozen=True, eq=False)
class Binding:
    """A variable: what is known of it, and the name that holds it in the specialised code."""

    value: Value
    name: str | None
    node: ast.expr | None = None


class _Break(Exception):
    """A ``break`` whose condition was decided, inside an unrolled loop."""


class _Continue(Exception):
    """A ``continue`` whose condition was decided, inside an unrolled loop."""


class Frame(Comprehensions):
    """Specialises the body of one function."""

    def __init__(
        self, program: Program, source: FunctionSource, owner: Owner | None, cls: type | None
    ) -> None:
        super().__init__(program, source, owner, cls)
        self.origin: tuple[str, int] | None = None
        self.depth_of_branches = 0
        self.returns: list[Value] = []
        self._loops: list[list[dict[str, Binding]] | None] = []
        self._parameters: list[ast.arg] = []
        self._variants: dict[str, list[tuple[Type, str]]] = {}
        self._taken: set[str] = {
            node.id for node in ast.walk(source.node) if isinstance(node, ast.Name)
        } | {node.arg for node in ast.walk(source.node) if isinstance(node, ast.arg)}
        self._declared: dict[str, Type] = {}
        self._mutated = _mutated_names(source.node)

    # Parameters and results #######################################################

    def bind_parameters(self, bound: dict[str, Value]) -> list[tuple[str, Type]]:
        """Binds each parameter to what is known of it; returns those that remain."""
        remain: list[tuple[str, Type]] = []
        try:
            declared = parameter_types(self.source, self.cls)
        except (TypeError, ValueError):
            declared = {}
        for name, value in bound.items():
            if isinstance(value, Mapping):
                items: dict[str, Value] = {}
                for item_name, item in value.items.items():
                    if is_runtime(item):
                        remain.append(self._parameter(item_name, item, UNKNOWN))
                    items[item_name] = item
                    self.mapping_nodes[id(item)] = ast.Name(item_name, ast.Load())
                    self.env[f"{name}[{item_name}]"] = Binding(item, item_name)
                self.env[name] = Binding(Mapping(items), None)
            elif is_runtime(value):
                remain.append(self._parameter(name, value, declared.get(name, UNKNOWN)))
            else:
                self.env[name] = Binding(value, None)
        return remain

    def _parameter(self, name: str, value: Value, declared: Type) -> tuple[str, Type]:
        t = static_type(value)
        if not t.known:
            t = alternatives(declared)[0] if declared.known else TENSOR
            if isinstance(value, Dyn):
                value = Dyn(t)
        if isinstance(value, Seq) and value.kind == "list" and name in self._mutated:
            value = Dyn(t)
        if isinstance(value, Poison):
            raise UnsupportedError(
                f"'{name}' cannot be passed on: {value.reason}",
                "give it one type on every path",
            )
        self._variants[name] = [(t, name)]
        self._parameters.append(ast.arg(name, annotation(t)))
        self.env[name] = Binding(value, name)
        return name, t

    def result(self) -> Value:
        """What is known of the function's result."""
        if not self.returns:
            return Const(None) if not self.terminated else Poison("the call always raises")
        value = self.returns[0]
        for other in self.returns[1:]:
            value = join_values(value, other)
        if isinstance(value, Poison):
            raise UnsupportedError(
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
        if any(isinstance(n, (ast.Yield, ast.YieldFrom)) for n in ast.walk(node)):
            raise UnsupportedError(
                f"'{node.name}' is a generator, which TorchScript cannot express",
                "collect the values in a list and return it",
                self.source.location(),
            )
        self.block(node.body)
        if not self.terminated:
            if self.returns and not all(key_of(r) == key_of(Const(None)) for r in self.returns):
                self.emit(ast.Return(ast.Constant(None)))
            self.returns.append(Const(None))

    def finish(self, name: str) -> ast.FunctionDef:
        """The residual function."""
        value = self.result()
        args = list(self._parameters)
        if self.owner is not None:
            args.insert(0, ast.arg("self"))
        t = static_type(value)
        if isinstance(value, Poison):
            t = UNKNOWN
        return ast.FunctionDef(
            name=name,
            args=ast.arguments([], args, None, [], [], None, []),
            body=self.out,
            decorator_list=[],
            returns=annotation(t) if t.known else None,
        )

    # Statements ###################################################################

    def block(self, statements: list[ast.stmt]) -> None:
        """Folds statements in order, up to the first that leaves the block."""
        for statement in statements:
            if self.terminated:
                return
            self._statement(statement)

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
            if self.conditional:
                raise UnsupportedError(
                    "a call that always raises stands inside a condition",
                    "raise in a statement of its own",
                    self.source.location(node),
                ) from None
            self.terminated = True
        except UnsupportedError as error:
            if isinstance(error, MissingAttribute) and self.depth_of_branches:
                text = ast.Constant(error.cause)
                error_class = ast.Name("AttributeError", ast.Load())
                self.emit(ast.Raise(ast.Call(error_class, [text], []), None))
                self.terminated = True
                return
            if error.location is None:
                error.locate(self.source.location(node))
            raise
        finally:
            self.current = previous

    def emit(self, statement: ast.stmt) -> None:
        """Appends a statement to the specialised code."""
        self.out.append(self._stamped(statement))

    @contextmanager
    def _into(self, env: dict[str, Binding]) -> Iterator[list[ast.stmt]]:
        """Collects statements of a nested block, starting from ``env``."""
        out, self.out = self.out, []
        saved, terminated, facts = self.env, self.terminated, self.facts
        self.env, self.terminated, self.facts = env, False, dict(facts)
        try:
            yield self.out
        finally:
            self.out = out
            self.env, self.terminated, self.facts = saved, terminated, facts

    def _stmt_Expr(self, node: ast.Expr) -> None:  # noqa: N802
        if isinstance(node.value, ast.Constant):
            return
        _, residual = self.fold(node.value)
        if residual is not None and not isinstance(residual, (ast.Constant, ast.Name)):
            self.emit(ast.Expr(residual))

    def _stmt_Pass(self, node: ast.Pass) -> None:  # noqa: N802
        pass

    def _stmt_Import(self, node: ast.Import | ast.ImportFrom) -> None:  # noqa: N802
        namespace: dict[str, Any] = {"__builtins__": __builtins__}
        for key in ("__package__", "__name__"):
            namespace[key] = self.source.function.__globals__.get(key)
        code = compile(ast.Module([node], []), self.source.file, "exec", dont_inherit=True)
        eval(code, namespace)
        for alias in node.names:
            name = alias.asname or alias.name.split(".")[0]
            self.env[name] = Binding(Const(namespace[name]), None)

    _stmt_ImportFrom = _stmt_Import

    def _stmt_FunctionDef(self, node: ast.FunctionDef) -> None:  # noqa: N802
        self.env[node.name] = Binding(Closure(node, self.source, self.cls, self.env), None)

    def _stmt_Delete(self, node: ast.Delete) -> None:  # noqa: N802
        for target in node.targets:
            if not isinstance(target, ast.Name):
                self.fold_children(target)
                self.emit(ast.Delete([self.residual_of(target)]))
            else:
                self.env.pop(target.id, None)

    def _stmt_Return(self, node: ast.Return) -> None:  # noqa: N802
        value, residual = self.fold(node.value) if node.value else (Const(None), None)
        if isinstance(value, Poison):
            self.terminated = True
            if residual is not None:
                self.emit(ast.Expr(residual))
            return
        self.returns.append(value)
        if residual is None:
            residual = literal(value)
        self.emit(ast.Return(residual))
        self.terminated = True

    def _stmt_Raise(self, node: ast.Raise) -> None:  # noqa: N802
        self.emit(ast.Raise(self.message(node.exc) if node.exc else None, None))
        self.terminated = True

    def _stmt_Assert(self, node: ast.Assert) -> None:  # noqa: N802
        value, residual = self.condition(node.test)
        if isinstance(value, Const):
            if not value.value:
                text = f"assertion fails: {ast.unparse(node.test)}"
                if isinstance(node.msg, ast.Constant):
                    text = str(node.msg.value)
                self.emit(
                    ast.Raise(
                        ast.Call(
                            ast.Name("AssertionError", ast.Load()), [ast.Constant(text)], []
                        ),
                        None,
                    )
                )
                self.terminated = True
            return
        assert residual is not None
        message = self.message_text(node.msg) if node.msg is not None else None
        self.emit(ast.Assert(residual, message))
        self.refine(node.test, True)

    def _stmt_With(self, node: ast.With) -> None:  # noqa: N802
        items = []
        for item in node.items:
            context = item.context_expr
            if item.optional_vars is not None:
                raise UnsupportedError(
                    "'with ... as' has no TorchScript form", "use the context without 'as'"
                )
            _, residual = self.fold(context)
            if residual is None:
                raise UnsupportedError(
                    f"'with {ast.unparse(context)}' has no TorchScript form",
                    "move it out of what runs in the scripted model",
                )
            items.append(ast.withitem(residual))
        env = dict(self.env)
        with self._into(env) as body:
            self.block(node.body)
            terminated = self.terminated
        self.env, self.terminated = env, terminated
        self.emit(ast.With(items, body or [ast.Pass()]))

    def _stmt_Try(self, node: ast.Try) -> None:  # noqa: N802
        if not node.finalbody and not node.orelse and all(map(_only_raises, node.handlers)):
            self.block(node.body)  # the handlers only change the message of the error
            return
        raise UnsupportedError(
            "'try' has no TorchScript form: exceptions cannot be caught in a scripted model",
            "test the condition before, instead of catching the error afterwards",
        )

    # Assignment ###################################################################

    def _stmt_Assign(self, node: ast.Assign) -> None:  # noqa: N802
        if len(node.targets) == 1 and self._parallel(node.targets[0], node.value):
            return
        value, residual = self.fold(node.value)
        for target in node.targets:
            self.assign(target, value, residual)

    def _parallel(self, target: ast.expr, value: ast.expr) -> bool:
        """``a, b = x, y``: one by one where no name on the left is read on the right."""
        if not (
            isinstance(target, (ast.Tuple, ast.List))
            and isinstance(value, (ast.Tuple, ast.List))
            and len(target.elts) == len(value.elts)
            and not any(isinstance(e, ast.Starred) for e in [*target.elts, *value.elts])
        ):
            return False
        written = {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
        read = {n.id for n in ast.walk(value) if isinstance(n, ast.Name)}
        if written & read:
            return False
        for part, item in zip(target.elts, value.elts, strict=True):
            self.assign(part, *self.fold(item))
        return True

    def _stmt_AnnAssign(self, node: ast.AnnAssign) -> None:  # noqa: N802
        if isinstance(node.target, ast.Name):
            declared = _type(ast.unparse(node.annotation), self.source, self.cls)
            if declared.known and declared.name not in ("Union", "Class"):
                self._declared[node.target.id] = declared
        if node.value is not None:
            value, residual = self.fold(node.value)
            self.assign(node.target, value, residual)

    def _stmt_AugAssign(self, node: ast.AugAssign) -> None:  # noqa: N802
        load = ast.copy_location(
            ast.BinOp(self.as_load(node.target), node.op, node.value), node
        )
        if isinstance(node.target, ast.Name):
            before = self.env.get(node.target.id)
            held = before.value if before is not None else None
            if isinstance(held, Dyn) and held.type == TENSOR and before is not None:
                _, operand = self.fold_needed(node.value)
                name = ast.Name(before.name or node.target.id, ast.Store())
                self.emit(ast.AugAssign(name, node.op, operand))
                return
            self.assign(node.target, *self.fold(load))
            return
        value, _ = self.fold(self.as_load(node.target))
        if isinstance(value, Dyn) and value.type in (TENSOR, UNKNOWN):
            _, operand = self.fold_needed(node.value)
            self.emit(ast.AugAssign(self.store_target(node.target), node.op, operand))
            return
        self.assign(node.target, *self.fold(load))

    def assign(self, target: ast.expr, value: Value, residual: ast.expr | None) -> None:
        """Binds ``value``, computed by ``residual``, to an assignment target."""
        if isinstance(target, ast.Name):
            self.bind(target.id, value, residual)
        elif isinstance(target, (ast.Tuple, ast.List)):
            self._unpack(target, value, residual)
        elif isinstance(target, ast.Attribute):
            self._assign_attribute(target, value, residual)
        elif isinstance(target, ast.Subscript):
            self.emit(ast.Assign([self.store_target(target)], self.needed(value, residual)))
        else:
            raise UnsupportedError(
                f"assignment to '{ast.unparse(target)}' has no TorchScript form",
                "assign to plain names",
            )

    def bind(self, name: str, value: Value, residual: ast.expr | None) -> None:
        """Binds a variable, under another name where its type changes."""
        self.facts = {k: v for k, v in self.facts.items() if name not in k[1]}
        if residual is None:
            residual = literal(value)
        if isinstance(value, Poison) or residual is None:
            self.env[name] = Binding(value, None)
            return
        if is_absent(residual) or (isinstance(value, Mapping) and name not in self._mutated):
            self.env[name] = Binding(value, None, self._held(name, residual))
            return
        if isinstance(value, Mapping):
            value = Dyn(static_type(value))
        if isinstance(value, (Seq, Const)) and name in self._mutated:
            items = constant_items(value)
            t = static_type(value)
            if items is not None and t.name in ("List", "Dict"):
                value = Dyn(list_of(UNKNOWN) if not items and t.name == "List" else t)
        t = static_type(value)
        declared = self._declared.get(name)
        annotate = False
        if declared is not None and declared.name == "Tuple" and isinstance(value, Seq):
            declared = None  # what is known of each element says more
        if declared is not None and is_subtype(t, declared):
            if isinstance(value, Seq) and t != strip_optional(declared):
                value = Dyn(strip_optional(declared))
            annotate = name not in {n for n, _ in self._variants.get(name, [])} and t != declared
            t = declared
            if isinstance(value, Dyn) and not value.type.known:
                value = Dyn(declared)
            annotate = annotate and not self._variants.get(name)
        residual_name = self.variable(name, t)
        store = ast.Name(residual_name, ast.Store())
        if annotate or (declared is not None and isinstance(residual, (ast.List, ast.Dict))):
            self.emit(ast.AnnAssign(store, annotation(t), residual, 1))
        elif isinstance(residual, ast.Name) and residual.id == residual_name:
            pass
        else:
            self.emit(ast.Assign([store], residual))
            if isinstance(residual, ast.List) and not residual.elts:
                self._open_lists[residual_name] = self.out[-1]
        self.env[name] = Binding(value, residual_name)

    def _held(self, name: str, residual: ast.expr) -> ast.expr:
        """A collection known by its elements: gives a name to each that is computed."""
        if isinstance(residual, ast.Dict):
            values = self._held(name, ast.Tuple(list(residual.values), ast.Load()))
            assert isinstance(values, ast.Tuple)
            return ast.Dict(residual.keys, values.elts)
        if not isinstance(residual, (ast.Tuple, ast.List)):
            return residual
        elements: list[ast.expr] = []
        for element in residual.elts:
            if not is_absent(element) and not is_simple(element):
                held = self.fresh(name)
                self.emit(_store(held, element))
                element = ast.Name(held, ast.Load())
            elements.append(self._held(name, element) if is_absent(element) else element)
        return type(residual)(elements, ast.Load())

    def bind_inline(self, target: ast.expr, value: Value, residual: ast.expr | None) -> None:
        """Binds a comprehension's variable to an expression, without a statement."""
        if isinstance(target, ast.Name):
            self.env[target.id] = Binding(value, None, residual)
            return
        if isinstance(target, (ast.Tuple, ast.List)):
            items = self.known_items(value)
            nodes: list[ast.expr | None] = [literal(item) for item in items]
            if residual is not None and not isinstance(value, Const):
                nodes = list(self.element_nodes(residual, len(items)).elts)
            for part, item, node in zip(target.elts, items, nodes, strict=True):
                self.bind_inline(part, item, node)
            return
        raise UnsupportedError(
            f"'for {ast.unparse(target)}' has no TorchScript form", "loop over plain names"
        )

    def loop_target(self, target: ast.expr, element: Value) -> ast.expr:
        """Binds a comprehension's variable that stays; returns the target."""
        found = self._loop_target(ast.For(target, ast.Constant(None), [], []), element)
        assert found is not None
        return found

    def variable(self, name: str, t: Type) -> str:
        """The name that holds variable ``name`` when it has type ``t``."""
        variants = self._variants.setdefault(name, [])
        for known, residual in variants:
            if is_subtype(t, known):
                return residual
        residual, number = name, 0
        while variants and (number == 0 or residual in self._taken):
            number += 1
            residual = f"{name}_{number}"
        self._taken.add(residual)
        variants.append((t, residual))
        return residual

    def fresh(self, wish: str) -> str:
        """A variable name that is not in use."""
        name, number = wish, 0
        while name in self._taken:
            number += 1
            name = f"{wish}_{number}"
        self._taken.add(name)
        return name

    def _unpack(
        self, target: ast.Tuple | ast.List, value: Value, residual: ast.expr | None
    ) -> None:
        starred = [i for i, e in enumerate(target.elts) if isinstance(e, ast.Starred)]
        items = constant_items(value)
        if items is None and isinstance(value, Dyn) and value.type.name == "Tuple":
            items = [Dyn(t) for t in value.type.args]
        if items is not None and starred:
            at, behind = starred[0], len(target.elts) - starred[0] - 1
            stop = len(items) - behind
            middle = Seq(tuple(items[at:stop]), "list")
            items = [*items[:at], middle, *items[stop:]]
            if residual is not None and not isinstance(value, Const):
                residual = self.element_nodes(residual, len(constant_items(value) or []))
                elements = residual.elts
                residual = ast.Tuple(
                    [*elements[:at], ast.List(elements[at:stop], ast.Load()), *elements[stop:]],
                    ast.Load(),
                )
        if items is None:
            self._unpack_unknown(target, value, residual)
            return
        if len(items) != len(target.elts):
            raise UnsupportedError(
                f"{len(items)} values are unpacked into {len(target.elts)} names",
                "give as many names as there are values",
            )
        targets = [e.value if isinstance(e, ast.Starred) else e for e in target.elts]
        plain = all(isinstance(t, ast.Name) for t in targets)
        if residual is None or isinstance(residual, (ast.Tuple, ast.List, ast.Name)):
            nodes: list[ast.expr | None] = [None] * len(items)
            if residual is not None:
                nodes = list(self.element_nodes(residual, len(items)).elts)
            if isinstance(residual, (ast.Tuple, ast.List)) and self._overlap(targets, residual):
                self._swap(targets, items, nodes)
                return
            for part, item, node in zip(targets, items, nodes, strict=True):
                self.assign(part, item, node if is_runtime(item) else literal(item))
            return
        names = []
        for part, item in zip(targets, items, strict=True):
            name = part.id if isinstance(part, ast.Name) else self.fresh("item")
            names.append(self.variable(name, static_type(item)))
        store = [ast.Name(name, ast.Store()) for name in names]
        self.emit(ast.Assign([ast.Tuple(list(store), ast.Store())], residual))
        for part, item, name in zip(targets, items, names, strict=True):
            if plain and isinstance(part, ast.Name):
                self.facts = {k: v for k, v in self.facts.items() if part.id not in k[1]}
                self.env[part.id] = Binding(item, name)
            else:
                self.assign(part, item, ast.Name(name, ast.Load()))

    @staticmethod
    def _overlap(targets: list[ast.expr], residual: ast.expr) -> bool:
        written = {t.id for t in targets if isinstance(t, ast.Name)}
        return any(isinstance(n, ast.Name) and n.id in written for n in ast.walk(residual))

    def _swap(
        self, targets: list[ast.expr], items: list[Value], nodes: list[ast.expr | None]
    ) -> None:
        names = []
        for target, item in zip(targets, items, strict=True):
            name = target.id if isinstance(target, ast.Name) else self.fresh("item")
            names.append(self.variable(name, static_type(item)))
        values = [self.needed(i, n) for i, n in zip(items, nodes, strict=True)]
        store = ast.Tuple([ast.Name(name, ast.Store()) for name in names], ast.Store())
        self.emit(ast.Assign([store], ast.Tuple(values, ast.Load())))
        for target, item, name in zip(targets, items, names, strict=True):
            if isinstance(target, ast.Name):
                self.env[target.id] = Binding(generalize(item), name)
            else:
                self.assign(target, item, ast.Name(name, ast.Load()))

    def _unpack_unknown(
        self, target: ast.Tuple | ast.List, value: Value, residual: ast.expr | None
    ) -> None:
        node = self.needed(value, residual)
        t = static_type(value)
        element = t.args[0] if t.name == "List" and t.args else UNKNOWN
        if t == TENSOR:
            if not isinstance(node, ast.Name):
                name = self.fresh("pair")
                self.emit(ast.Assign([ast.Name(name, ast.Store())], node))
                node = ast.Name(name, ast.Load())
            for position, part in enumerate(target.elts):
                row = ast.Subscript(node, ast.Constant(position), ast.Load())
                self.assign(part, Dyn(TENSOR), row)
            return
        names = []
        for part in target.elts:
            if isinstance(part, (ast.Tuple, ast.List)):
                names.append(self.fresh("item"))
            elif isinstance(part, ast.Name):
                names.append(self.variable(part.id, element))
            else:
                raise UnsupportedError(
                    f"'{ast.unparse(target)} = ...' cannot be unpacked here",
                    "unpack into plain names",
                )
        store = [ast.Name(name, ast.Store()) for name in names]
        self.emit(ast.Assign([ast.Tuple(list(store), ast.Store())], node))
        for part, name in zip(target.elts, names, strict=True):
            self.assign(part, Dyn(element), ast.Name(name, ast.Load()))

    def _assign_attribute(
        self, target: ast.Attribute, value: Value, residual: ast.expr | None
    ) -> None:
        holder, base = self.fold(target.value)
        if isinstance(holder, ModuleRef):
            module = holder.module
            name = self.mangled(target.attr)
            if residual is None:
                residual = literal(value)
            if residual is None:
                raise UnsupportedError(
                    f"'{ast.unparse(target)}' is assigned something that TorchScript cannot "
                    "hold as an attribute",
                    "assign tensors, numbers, strings, or tuples and lists of them",
                )
            if name not in module._buffers and name not in module._parameters:
                t = self.program.record_write(holder, name, static_type(value))
                del t
            node = ast.Attribute(self.module_node(holder), name, ast.Store())
            self.emit(ast.Assign([node], residual))
            return
        node = ast.Attribute(self.needed(holder, base), target.attr, ast.Store())
        self.emit(ast.Assign([node], self.needed(value, residual)))

    # Branches #####################################################################

    def _stmt_If(self, node: ast.If) -> None:  # noqa: N802
        value, test = self.condition(node.test)
        if isinstance(value, Const):
            self.block(node.body if value.value else node.orelse)
            return
        assert test is not None
        arms = []
        self.depth_of_branches += 1
        try:
            for outcome, statements in ((True, node.body), (False, node.orelse)):
                with self._into(dict(self.env)) as body:
                    self.refine(node.test, outcome)
                    self.block(statements)
                    arms.append((self.env, body, self.terminated))
        finally:
            self.depth_of_branches -= 1
        (env_a, body_a, left_a), (env_b, body_b, left_b) = arms
        if left_a and left_b:
            self.terminated = True
        elif left_a or left_b:
            self.env = env_b if left_a else env_a
        else:
            self.env = self._merge([(env_a, body_a), (env_b, body_b)])
        self.emit(ast.If(test, body_a or [ast.Pass()], body_b))
        if left_a != left_b:
            self.refine_facts(node.test, left_b)

    def _merge(
        self, arms: list[tuple[dict[str, Binding], list[ast.stmt]]]
    ) -> dict[str, Binding]:
        """Joins variables where paths meet; copies them to a common name where they differ."""
        merged: dict[str, Binding] = {}
        first = arms[0][0]
        for name in first:
            if not all(name in env for env, _ in arms):
                continue
            bindings = [env[name] for env, _ in arms]
            value = bindings[0].value
            for other in bindings[1:]:
                value = join_values(value, other.value)
            names = {b.name for b in bindings}
            if isinstance(value, Poison) or value is first[name].value and len(names) == 1:
                merged[name] = Binding(value, first[name].name if len(names) == 1 else None)
                continue
            if not is_runtime(value) and literal(value) is None:
                merged[name] = Binding(value, None)
                continue
            residual = self.variable(name, static_type(value)) if len(names) > 1 else names.pop()
            if residual is None:
                if all(key_of(b.value) == key_of(value) for b in bindings):
                    merged[name] = Binding(value, None)
                    continue
                residual = self.variable(name, static_type(value))
            for (_, body), binding in zip(arms, bindings, strict=True):
                if binding.name != residual:
                    node = (
                        ast.Name(binding.name, ast.Load())
                        if binding.name is not None
                        else literal(binding.value)
                    )
                    if node is not None:
                        body.append(self._stamped(_store(residual, node)))
            merged[name] = Binding(value, residual)
        return merged

    def _stamped(self, statement: ast.stmt) -> ast.stmt:
        here = (self.source.file, getattr(self.current, "lineno", self.source.node.lineno))
        statement.origin = self.origin or here  # type: ignore[attr-defined]
        return statement

    # Loops ########################################################################

    def _stmt_For(self, node: ast.For) -> None:  # noqa: N802
        if node.orelse:
            raise UnsupportedError("'for ... else' has no TorchScript form", "use a flag")
        value, residual = self.fold(node.iter)
        items = constant_items(value)
        if isinstance(value, Const) and isinstance(value.value, range):
            if len(value.value) > 1 and self._as_loop(node, Dyn(INT), self._range(value.value)):
                return
        if items is None and isinstance(value, ModuleRef):
            items = list(self.module_items(value))
        if items is not None:
            nodes: list[ast.expr | None] = [None] * len(items)
            if residual is not None and not isinstance(value, Const):
                nodes = list(self.element_nodes(residual, len(items)).elts)
            self._unroll(node, items, nodes)
            return
        element = self.element_type(static_type(value))
        self._loop(node, element, self.needed(value, residual))

    @staticmethod
    def _range(r: range) -> ast.expr:
        bounds = [r.stop] if r.start == 0 and r.step == 1 else [r.start, r.stop]
        bounds += [r.step] if r.step != 1 else []
        args = [literal(Const(bound)) for bound in bounds]
        return ast.Call(ast.Name("range", ast.Load()), [a for a in args if a is not None], [])

    def _as_loop(self, node: ast.For, element: Value, iterable: ast.expr) -> bool:
        """Writes a loop over constants as a loop, unless its body needs to know the constant."""
        out = len(self.out)
        saved = (dict(self.env), dict(self.facts), list(self.returns), self.terminated)
        variants = {name: list(known) for name, known in self._variants.items()}
        try:
            self._loop(node, element, iterable)
        except NeedsConstant:
            del self.out[out:]
            self.env, self.facts, self.returns, self.terminated = saved
            self._variants = variants
            return False
        return True

    def _unroll(self, node: ast.For, items: list[Value], nodes: list[ast.expr | None]) -> None:
        if len(items) > UNROLL_LIMIT:
            raise UnsupportedError(
                f"a loop over {len(items)} constants would be written out {len(items)} times",
                f"iterate over at most {UNROLL_LIMIT} of them",
            )
        self._loops.append(None)
        depth, self.depth_of_branches = self.depth_of_branches, 0
        try:
            for item, item_node in zip(items, nodes, strict=True):
                if self.terminated:
                    break
                try:
                    self.assign(node.target, item, item_node)
                    self.block(node.body)
                except _Continue:
                    continue
                except _Break:
                    break
        finally:
            self._loops.pop()
            self.depth_of_branches = depth

    def _loop(self, node: ast.For | ast.While, element: Value, iterable: ast.expr | None) -> None:
        assigned = _assigned_names(node.body)
        entry = dict(self.env)
        for name in assigned & set(entry):
            self._open_variable(name, entry)
        before = dict(entry)
        for _ in range(8):
            env = dict(before)
            exits: list[dict[str, Binding]] = []
            mark = len(self.returns)
            with self._into(env) as body:
                self._loops.append(exits)
                try:
                    test: ast.expr | None = None
                    if isinstance(node, ast.While):
                        value, test = self.condition(node.test)
                        if isinstance(value, Const):
                            test = ast.Constant(True)
                        self.refine(node.test, True)
                    target = self._loop_target(node, element)
                    self.block(node.body)
                finally:
                    self._loops.pop()
                ends = exits + ([] if self.terminated else [self.env])
                wider = self._widen(before, ends, assigned)
                if wider is None:
                    if not self.terminated:
                        body.extend(self._copies(before, self.env, assigned))
                    break
            before = wider
            del self.returns[mark:]
        else:
            raise UnsupportedError(
                "the types of the loop's variables do not settle", "give each one type"
            )
        for name in sorted(assigned & set(before)):
            self._enter_loop(name, before[name])
        after = {
            name: binding
            for name, binding in before.items()
            if name not in _target_names(node)
        }
        if isinstance(node, ast.While):
            assert test is not None
            self.emit(ast.While(test, body or [ast.Pass()], []))
        else:
            assert target is not None and iterable is not None
            self.emit(ast.For(target, iterable, body or [ast.Pass()], []))
        self.env = after

    def _loop_target(self, node: ast.For | ast.While, element: Value) -> ast.expr | None:
        if isinstance(node, ast.While):
            return None
        if isinstance(node.target, ast.Name):
            name = self.variable(node.target.id, static_type(element))
            self.env[node.target.id] = Binding(element, name)
            return ast.Name(name, ast.Store())
        if isinstance(node.target, ast.Tuple) and isinstance(element, Dyn):
            parts = element.type.args or (UNKNOWN,) * len(node.target.elts)
            elements = [
                self._loop_target(ast.For(e, node.iter, [], []), Dyn(t))
                for e, t in zip(node.target.elts, parts, strict=True)
            ]
            return ast.Tuple([e for e in elements if e is not None], ast.Store())
        raise UnsupportedError(
            f"the loop target '{ast.unparse(node.target)}' has no TorchScript form",
            "iterate over plain names",
        )

    def _open_variable(self, name: str, env: dict[str, Binding]) -> None:
        """A variable that the loop assigns: only its type is known inside."""
        binding = env[name]
        value = generalize(binding.value)
        if isinstance(value, Const) and value.value is not None:
            return
        if isinstance(value, (Dyn, Seq, Const)):
            t = static_type(value)
            env[name] = Binding(value, self.variable(name, t) if t != NONE else binding.name)

    def _widen(
        self,
        before: dict[str, Binding],
        ends: list[dict[str, Binding]],
        assigned: set[str],
    ) -> dict[str, Binding] | None:
        wider = dict(before)
        changed = False
        for name in assigned & set(before):
            value = before[name].value
            for env in ends:
                if name in env:
                    value = join_values(value, generalize(env[name].value))
            if key_of(value) != key_of(before[name].value):
                if isinstance(value, Const):
                    value = Dyn(static_type(value))
                changed = True
                residual = None
                if not isinstance(value, Poison):
                    residual = self.variable(name, static_type(value))
                wider[name] = Binding(value, residual)
        return wider if changed else None

    def _copies(
        self, before: dict[str, Binding], env: dict[str, Binding], assigned: set[str]
    ) -> list[ast.stmt]:
        copies = []
        for name in sorted(assigned & set(before)):
            wanted, held = before[name], env.get(name)
            if held is None or wanted.name is None or held.name == wanted.name:
                continue
            node = ast.Name(held.name, ast.Load()) if held.name else literal(held.value)
            if node is not None:
                copies.append(self._stamped(_store(wanted.name, node)))
        return copies

    def _enter_loop(self, name: str, binding: Binding) -> None:
        """Gives a loop variable its name and type before the loop."""
        held = self.env[name]
        if binding.name is None or isinstance(binding.value, Const):
            return
        t = static_type(binding.value)
        node = literal(held.value)
        if node is None and held.name is not None:
            node = ast.Name(held.name, ast.Load())
        if node is None:
            return
        if held.name == binding.name and static_type(held.value) == t:
            return
        if is_optional(t) and not is_optional(static_type(held.value)) or t.name == "Optional":
            store = ast.Name(binding.name, ast.Store())
            self.emit(ast.AnnAssign(store, annotation(t), node, 1))
        elif held.name != binding.name:
            self.emit(_store(binding.name, node))

    def _stmt_While(self, node: ast.While) -> None:  # noqa: N802
        value, _ = self.condition(node.test)
        if isinstance(value, Const) and not value.value:
            return
        self._loop(node, Dyn(BOOL), None)

    def _stmt_Break(self, node: ast.Break) -> None:  # noqa: N802
        self._leave_loop(ast.Break(), _Break())

    def _stmt_Continue(self, node: ast.Continue) -> None:  # noqa: N802
        self._leave_loop(ast.Continue(), _Continue())

    def _leave_loop(self, statement: ast.stmt, signal: Exception) -> None:
        exits = self._loops[-1]
        if exits is None:
            if self.depth_of_branches:
                raise UnsupportedError(
                    "a loop over modules or constants is left under a condition that is known "
                    "only at run time",
                    "compute on every turn, and choose among the results afterwards",
                )
            raise signal
        exits.append(dict(self.env))
        self.emit(statement)
        self.terminated = True


def _only_raises(handler: ast.ExceptHandler) -> bool:
    returns = any(isinstance(n, ast.Return) for n in ast.walk(handler))
    return isinstance(handler.body[-1], ast.Raise) and not returns


def _store(name: str, node: ast.expr) -> ast.stmt:
    return ast.Assign([ast.Name(name, ast.Store())], node)


def _assigned_names(body: list[ast.stmt]) -> set[str]:
    return {
        node.id
        for statement in body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del))
    }


def _target_names(node: ast.For | ast.While) -> set[str]:
    if isinstance(node, ast.While):
        return set()
    return {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}


def _mutated_names(node: ast.AST) -> set[str]:
    """Lists and dictionaries that are changed in place: their length is not known."""
    names = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute):
            in_place = ("append", "extend", "insert", "pop", "clear", "update", "remove", "sort")
            if child.func.attr in in_place and isinstance(child.func.value, ast.Name):
                names.add(child.func.value.id)
        elif isinstance(child, ast.Subscript) and not isinstance(child.ctx, ast.Load):
            if isinstance(child.value, ast.Name):
                names.add(child.value.id)
        elif isinstance(child, ast.AugAssign) and isinstance(child.target, ast.Name):
            names.add(child.target.id)
    return names


