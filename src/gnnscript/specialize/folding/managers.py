"""Context managers of Python's: classes, generators and stacks, written out around their block."""

from __future__ import annotations

import ast
import contextlib
import inspect
from typing import Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.sources import FunctionSource, function_source
from gnnscript.specialize.folding.base import Arguments, Binding, Folded, Folding
from gnnscript.specialize.folding.collections import is_collection
from gnnscript.specialize.folding.leaving import Leave, Managed, split_at_yield, with_exits
from gnnscript.specialize.folding.rewritten import located
from gnnscript.specialize.helpers import is_context
from gnnscript.specialize.values import (
    Closure,
    Const,
    Mapping,
    Method,
    ModuleRef,
    Value,
    literal,
)


class Managers(Folding):
    """The part of a frame that enters and leaves context managers that are Python's."""

    def managed(self, node: ast.With) -> bool:
        """Writes out a ``with`` statement whose contexts Python has made, if one is among them."""
        if len(node.items) > 1:
            if not any(map(self._is_python, node.items)):
                return False
            first, *rest = node.items
            inner = located(ast.With(rest, node.body), node)
            self.block([located(ast.With([first], [inner]), node)])
            return True
        (item,) = node.items
        context, target = item.context_expr, item.optional_vars
        if not self._is_python(item):
            return False
        if isinstance(context, ast.IfExp):
            chosen, other = (
                located(ast.With([ast.withitem(arm, target)], node.body), node)
                for arm in (context.body, context.orelse)
            )
            self.block([located(ast.If(context.test, [chosen], [other]), node)])
            return True
        value: Value
        if isinstance(context, ast.Call):
            value, _ = self.fold(context.func)
            function = _function(value)
            if function is contextlib.ExitStack:
                self._stacked(node.body, item)
                return True
            if function is contextlib.suppress:
                raise UnsupportedError(
                    "'contextlib.suppress' catches errors, which a scripted model cannot",
                    "test the condition before, instead of catching the error afterwards",
                )
            generator = _generator(function)
            if generator is not None:
                self._generated(node, value, generator)
                return True
        self._protocol(node, target)
        return True

    def _is_python(self, item: ast.withitem) -> bool:
        context = item.context_expr
        if isinstance(context, ast.IfExp):
            return True
        value, _ = self.fold(context.func if isinstance(context, ast.Call) else context)
        if not isinstance(context, ast.Call):
            return _enters(value)
        function = _function(value)
        if function in (contextlib.ExitStack, contextlib.suppress, contextlib.nullcontext):
            return True
        return _generator(function) is not None or (
            inspect.isclass(function) and is_context(function)
        )

    # Stacks ##########################################################################

    def _stacked(self, body: list[ast.stmt], item: ast.withitem) -> None:
        """``with ExitStack() as stack``: what follows an entered context is that one's block."""
        target = item.optional_vars
        if target is None:
            self.block(body)
            return
        if not isinstance(target, ast.Name):
            raise UnsupportedError("a stack of contexts is not held by a plain name", "give it one")
        for position, statement in enumerate(body):
            if self.terminated:
                return
            if not any(getattr(n, "id", None) == target.id for n in ast.walk(statement)):
                self.block([statement])
                continue
            if isinstance(statement, ast.If):
                decided, _ = self.condition(statement.test)
                if isinstance(decided, Const):
                    branch = statement.body if decided.value else statement.orelse
                    self._stacked([*branch, *body[position + 1 :]], item)
                    return
            entered = _entered(statement, target.id)
            if entered is None:
                raise UnsupportedError(
                    f"'{ast.unparse(statement)}' uses a stack of contexts, and does more than "
                    "enter one",
                    "call 'enter_context' in a statement of its own, under conditions that the "
                    "configuration decides",
                    self.source.location(statement),
                )
            rest = ast.With([item], body[position + 1 :] or [ast.Pass()])  # which may enter more
            self.block([located(ast.With([entered], [rest]), statement)])
            return

    # Classes #########################################################################

    def _protocol(self, node: ast.With, target: ast.expr | None) -> None:
        """``__enter__``, the block, and ``__exit__`` before each way out of it."""
        context = node.items[0].context_expr
        name = self.fresh("context")
        self.mutated.add(name)
        self.block([located(ast.Assign([ast.Name(name, ast.Store())], context), context)])
        held = self.env[name].value
        if isinstance(held, Const) and isinstance(held.value, contextlib.nullcontext):
            self.env[name] = Binding(self.wrap(held.value.enter_result), None)
            cls: Any = contextlib.nullcontext
            same = True
        else:
            cls = held.cls if isinstance(held, Mapping) else type(_instance(held))
            if not is_context(cls):
                raise UnsupportedError(
                    "a context changes what it holds in a loop that is decided at run time",
                    "leave the loop before the block, or let the context hold nothing",
                )
            _refuse_suppression(cls, self.source.location(node))
            same = _returns_itself(cls)
        if cls is contextlib.nullcontext:
            if target is not None:
                read: ast.expr = ast.Name(name, ast.Load())
                if isinstance(held, Mapping):
                    read = ast.Attribute(read, "enter_result", ast.Load())
                self.block([located(ast.Assign([target], read), node)])
            self.block(node.body)
            return
        enter = ast.Call(_method(name, "__enter__"), [], [])
        first: list[ast.stmt] = [ast.Expr(enter)]
        if target is not None and same:
            first.append(ast.Assign([target], ast.Name(name, ast.Load())))
        elif target is not None:
            first = [ast.Assign([target], enter)]
        if target is not None and same:
            self.mutated |= {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
        nothing: list[ast.expr] = [ast.Constant(None) for _ in range(3)]
        leave: ast.stmt = ast.Expr(ast.Call(_method(name, "__exit__"), nothing, []))
        body = with_exits(node.body, [located(leave, node)], self.fresh)
        self.block([*(located(statement, node) for statement in first), *body])

    # Generators ######################################################################

    def _generated(self, node: ast.With, callee: Value, function: Any) -> None:
        """What a generator does before it yields, the block, and what it does afterwards."""
        assert isinstance(node.items[0].context_expr, ast.Call)
        target = node.items[0].optional_vars
        source = function_source(function)
        assert isinstance(source.node, ast.FunctionDef)
        parts = split_at_yield(source.node.body)
        if parts is None:
            raise UnsupportedError(
                f"'{source.node.name}' is a context that yields in more than one place, or under "
                "a condition",
                "have it yield once, at the top of its body or inside of 'try'",
                source.location(),
            )
        given = self.arguments(node.items[0].context_expr)
        if isinstance(callee, Method):
            given = Arguments([(callee.owner, None), *given.args], given.kwargs)
        bound, nodes = self.bind_call(source, given)
        kept = _kept(parts)
        held = {name: self.fresh(name) for name in (*bound, *kept)}
        for name, value in bound.items():
            self.bind(held[name], value, nodes.get(name) or literal(value))
        results = self._part(source, parts, bound, nodes, kept)
        self.mutated |= set(held.values())
        for name, folded in zip(kept, results[1:], strict=True):
            self.bind(held[name], *folded)
        if target is not None:
            self.assign(target, *self._given(parts, held, results[0]))
        read = {n.id for s in parts.behind for n in ast.walk(s) if isinstance(n, ast.Name)}

        def leave() -> None:
            now = {name: self.fold_Name(ast.Name(held[name], ast.Load())) for name in held}
            behind = {name: value for name, (value, _) in now.items() if name in read}
            spelled = {name: made for name, (_, made) in now.items() if name in read}
            self.flatten(behind, spelled)
            last = Managed(parts.behind, ast.Constant(None), [])
            self._part(source, last, behind, spelled, [])

        end = located(Leave(leave), node)
        self.block(with_exits(node.body, [end] if parts.behind else [], self.fresh))

    def _given(self, parts: Managed, held: dict[str, str], result: Folded) -> Folded:
        """What the block is given; a variable of the generator's as the object that it holds.

        Raises:
            UnsupportedError: A collection of the generator's is given inside of something else.
        """
        if isinstance(parts.given, ast.Name) and parts.given.id in held:
            return self.fold_Name(ast.Name(held[parts.given.id], ast.Load()))
        for name in {n.id for n in ast.walk(parts.given) if isinstance(n, ast.Name)} & held.keys():
            if is_collection(self.env[held[name]].value):
                raise UnsupportedError(
                    f"a context gives its block '{name}', a list or dictionary, inside of "
                    "something else",
                    "yield the list or dictionary itself",
                )
        return result

    def _part(
        self,
        source: FunctionSource,
        parts: Managed,
        bound: dict[str, Value],
        nodes: dict[str, ast.expr | None],
        kept: list[str],
    ) -> list[Folded]:
        """Calls a part of a generator; returns what it gives and the variables it keeps."""
        assert isinstance(source.node, ast.FunctionDef)
        found: list[ast.expr] = [parts.given, *(ast.Name(name, ast.Load()) for name in kept)]
        end = located(ast.Return(ast.Tuple(found, ast.Load())), source.node)
        body = [*parts.before, end]
        node = ast.copy_location(
            ast.FunctionDef(source.node.name, source.node.args, body, []), source.node
        )
        part = FunctionSource(source.function, node, source.file, source.lines)
        owner = self.owner_for(list(bound.values()))
        key = ("part", source.node.name, ast.dump(node))
        done = self.program.specialize(part, bound, owner, self.cls, key=key)
        value, made = self.call_specialized(done, nodes)
        items = self.known_items(value)
        if made is None or isinstance(value, Const):
            return [(item, literal(item)) for item in items]
        elements = self.element_nodes(self.hold("entered", made) or made, len(items)).elts
        return list(zip(items, elements, strict=True))

    def _stmt_Leave(self, node: Leave) -> None:
        node.run()


def _entered(statement: ast.stmt, stack: str) -> ast.withitem | None:
    """``value = stack.enter_context(context)`` as an item of ``with``."""
    target: ast.expr | None = None
    call = getattr(statement, "value", None)
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
    elif not isinstance(statement, ast.Expr):
        return None
    func = getattr(call, "func", None)
    if not (isinstance(func, ast.Attribute) and func.attr == "enter_context"):
        return None
    if getattr(func.value, "id", None) != stack or not isinstance(call, ast.Call):
        return None
    return ast.withitem(call.args[0], target)


def _method(holder: str, name: str) -> ast.expr:
    return ast.Attribute(ast.Name(holder, ast.Load()), name, ast.Load())


def _function(value: Value) -> Any:
    """What a call of ``value`` calls."""
    if isinstance(value, Const):
        return value.value
    return value.function if isinstance(value, Method) else None


def _generator(function: Any) -> Any:
    """The generator that ``contextlib.contextmanager`` has made a context of."""
    code = getattr(function, "__code__", None)
    inner = getattr(function, "__wrapped__", None)
    if code is None or code.co_filename != contextlib.contextmanager.__code__.co_filename:
        return None
    return inner if inspect.isgeneratorfunction(inner) else None


def _instance(value: Value) -> Any:
    return value.module if isinstance(value, ModuleRef) else getattr(value, "value", None)


def _enters(value: Value) -> bool:
    """Whether a value is a context that Python has made."""
    if isinstance(value, Mapping):
        return is_context(value.cls)
    return not isinstance(value, Closure) and is_context(type(_instance(value)))


def _returns_itself(cls: type) -> bool:
    """Whether ``__enter__`` gives the context itself."""
    node = function_source(cls.__enter__).node  # type: ignore[attr-defined]
    found = [n.value for n in ast.walk(node) if isinstance(n, ast.Return)]
    own = node.args.args[0].arg
    return bool(found) and all(isinstance(v, ast.Name) and v.id == own for v in found)


def _refuse_suppression(cls: type, location: Any) -> None:
    source = function_source(cls.__exit__)  # type: ignore[attr-defined]
    for node in ast.walk(source.node):
        if isinstance(node, ast.Return) and node.value is not None:
            if not isinstance(node.value, ast.Constant) or node.value.value:
                raise UnsupportedError(
                    f"'{cls.__name__}.__exit__' decides whether errors are caught, which a "
                    "scripted model cannot",
                    "return nothing from it",
                    location,
                )


def _kept(parts: Managed) -> list[str]:
    """The variables that are assigned before the block and read behind it."""
    nodes = [n for s in parts.before for n in ast.walk(s)]
    assigned = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    read = {n.id for s in parts.behind for n in ast.walk(s) if isinstance(n, ast.Name)}
    return sorted(assigned & read)
