"""Loops: written out over what is known, kept with settled types otherwise."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import (
    BOOL,
    FLOAT,
    INT,
    NONE,
    TENSOR,
    UNKNOWN,
    is_optional,
    list_of,
)
from gnnscript.specialize.folding.base import Binding, Folding, NeedsConstant, Opened, store
from gnnscript.specialize.folding.iterators import by_rows, refuse_changes_between
from gnnscript.specialize.folding.numbers import as_number
from gnnscript.specialize.folding.rewritten import (
    noting_that_it_ran,
    target_names,
    tested_apart,
    unpacked_inside,
    unpacked_parts,
    with_flags,
    without_else,
)
from gnnscript.specialize.helpers import annotation, is_absent, torch_name
from gnnscript.specialize.values import (
    Const,
    Dyn,
    ModuleRef,
    Poison,
    Seq,
    Value,
    constant_items,
    generalize,
    has_mapping,
    join_values,
    key_of,
    literal,
    static_type,
)

if TYPE_CHECKING:
    from gnnscript.specialize.folding.statements import Frame

UNROLL_LIMIT = 256


class _Break(Exception):
    """A ``break`` whose condition was decided, inside an unrolled loop."""


class _LeftAtRunTime(UnsupportedError):
    """An unrolled loop is left under a condition of run time."""


class _Continue(Exception):
    """A ``continue`` whose condition was decided, inside an unrolled loop."""


def _as_tensor(node: ast.expr, wanted: Value, held: Value) -> ast.expr:
    """A number as the tensor that a loop makes of it; without dimensions, it promotes alike."""
    node = as_number(node, wanted, held)
    if static_type(wanted) != TENSOR or static_type(held) not in (INT, FLOAT):
        return node
    return ast.Call(torch_name("torch.tensor"), [node], [])


class Loops(Folding):
    """The part of a frame that folds loops."""

    def _stmt_For(self, node: ast.For) -> None:
        if node.orelse:
            self.block(without_else(node, self.fresh("left")))
            return
        frame = cast("Frame", self)
        refuse_changes_between(frame, node)
        node = by_rows(frame, node)
        value, residual = self.fold(node.iter)
        items = constant_items(value)
        if isinstance(value, Const) and isinstance(value.value, range):
            iterable = self._range(value.value)
            if (
                len(value.value) > 1
                and not self.outliving(node)
                and self._stays(
                    lambda: self._loop(node, Dyn(INT), iterable),
                    short=len(value.value) <= UNROLL_LIMIT,
                )
            ):
                return
        if items is None and isinstance(value, ModuleRef):
            items = list(self.module_items(value))
        if items is not None:
            nodes: list[ast.expr | None] = [None] * len(items)
            if residual is not None and not isinstance(value, Const):
                elements = self.element_nodes(residual, len(items)).elts
                changing = self.assigned_names(node.body) | target_names(node)
                nodes = [self.hold("item", element, changing) for element in elements]
            before = self._snapshot()
            try:
                self._unroll(node, items, nodes)
            except _LeftAtRunTime:
                self._return_to(before)
                flagged = with_flags(node, self.fresh("left"), self.fresh("skipped"))
                self.block(flagged[:1])
                assert isinstance(flagged[1], ast.For)
                self._unroll(flagged[1], items, nodes)
            return
        element = self.element_type(static_type(value))
        if element.type.name != "Tuple" and not isinstance(node.target, ast.Name):
            node = unpacked_inside(node, self.fresh("item"))
        if isinstance(node.target, ast.Tuple):
            if any(isinstance(part, (ast.Tuple, ast.List)) for part in node.target.elts):
                node = unpacked_parts(node, self.fresh)
        self._loop(node, element, self.needed(value, residual))

    @staticmethod
    def _range(r: range) -> ast.expr:
        bounds = [r.stop] if r.start == 0 and r.step == 1 else [r.start, r.stop]
        bounds += [r.step] if r.step != 1 else []
        args = [literal(Const(bound)) for bound in bounds]
        return ast.Call(ast.Name("range", ast.Load()), [a for a in args if a is not None], [])

    def assigned_names(self, body: list[ast.stmt]) -> set[str]:
        """The variables that a block assigns, also by functions that it may call."""
        nodes = [node for statement in body for node in ast.walk(statement)]
        names = {
            node.id
            for node in nodes
            if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del))
        }
        if any(isinstance(node, ast.Call) for node in nodes):
            names |= self.assigned_inside
        return names

    def _stays(self, write: Callable[[], None], *, short: bool = True) -> bool:
        """Writes a loop over constants as a loop, unless its types or names do not settle so.

        Args:
            write: Does it.
            short: Whether it may be written out instead, which is preferred to picking modules.
        """
        before = self._snapshot()
        self.trials += 1
        self.program.trials += short
        try:
            write()
        except UnsupportedError:
            self._return_to(before)
            return False
        finally:
            self.trials -= 1
            self.program.trials -= short
        return True

    def _snapshot(self) -> tuple[Any, ...]:
        """What has been written and is known so far."""
        known = (dict(self.env), dict(self.facts), list(self.returns), self.terminated)
        variants = {name: list(types) for name, types in self.variants.items()}
        return len(self.out), known, variants

    def _return_to(self, before: tuple[Any, ...]) -> None:
        """Takes back what was written since."""
        written, known, self.variants = before
        del self.out[written:]
        self.env, self.facts, self.returns, self.terminated = known

    def _unroll(self, node: ast.For, items: list[Value], nodes: list[ast.expr | None]) -> None:
        if len(items) > UNROLL_LIMIT:
            raise UnsupportedError(
                f"a loop over {len(items)} constants would be written out {len(items)} times",
                f"iterate over at most {UNROLL_LIMIT} of them",
            )
        self.loops.append(None)
        depth, self.depth_of_branches = self.depth_of_branches, 0
        # A turn may change what a later one is given: the elements are held like a variable.
        turns = self.fresh("turns")
        held = self.sequence("tuple", items, nodes, keep=True)
        self.env[turns] = Binding(held[0], None, held[1])
        try:
            for position in range(len(items)):
                if self.terminated:
                    break
                now = self.env[turns]
                assert isinstance(now.value, Seq)
                assert isinstance(now.node, ast.Tuple)
                item, item_node = now.value.items[position], now.node.elts[position]
                try:
                    whole = isinstance(item_node, ast.Name) and is_absent(item_node)
                    self.assign(node.target, item, None if whole else item_node)
                    self.block(node.body)
                except _Continue:
                    continue
                except _Break:
                    break
        finally:
            self.env.pop(turns, None)
            self.loops.pop()
            self.depth_of_branches = depth

    def _loop(self, node: ast.For | ast.While, element: Value, iterable: ast.expr | None) -> None:
        outliving = self.outliving(node)
        assigned = self.assigned_names(node.body)
        entry = dict(self.env)
        for name in assigned & set(entry):
            self._open_variable(name, entry)
        before = dict(entry)
        for _ in range(8):
            env = dict(before)
            exits: list[dict[str, Binding]] = []
            mark = len(self.returns)
            with self.nested(env) as body:
                self.forget(assigned | {"self"})
                self.loops.append(exits)
                try:
                    test: ast.expr | None = None
                    if isinstance(node, ast.While):
                        self.conditional += 1  # nothing may be written before the loop
                        try:
                            value, test = self.condition(node.test)
                        finally:
                            self.conditional -= 1
                        if body:
                            raise UnsupportedError(
                                "the test of a loop takes several statements",
                                "assign it to a variable before the loop and at its end",
                            )
                        if isinstance(value, Const):
                            test = ast.Constant(True)
                        self.refine(node.test, True)
                    target = self._loop_target(node, element)
                    self.block(node.body)
                finally:
                    self.loops.pop()
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
        defined = self.defined_before(outliving, ends)
        if defined:
            ran = self.fresh("ran")
            self.bind(ran, Const(False), ast.Constant(False))
            self._loop(noting_that_it_ran(node, ran, self.fresh("turn")), element, iterable)
            self.check_that_it_ran(node, ran, defined)
            return
        for name in sorted(assigned & set(before)):
            self._enter_loop(name, before[name])
        after = {
            name: _filled(binding, [env[name] for env in ends if name in env])
            for name, binding in before.items()
            if name not in target_names(node)
        }
        if isinstance(node, ast.While):
            assert test is not None
            self.emit(ast.While(test, body or [ast.Pass()], []))
        else:
            assert target is not None
            assert iterable is not None
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

    def loop_target(self, target: ast.expr, element: Value) -> ast.expr:
        """Binds a comprehension's variable that stays; returns the target."""
        found = self._loop_target(ast.For(target, ast.Constant(None), [], []), element)
        assert found is not None
        return found

    def _open_variable(self, name: str, env: dict[str, Binding]) -> None:
        """A variable that the loop assigns: only its type is known inside."""
        binding = env[name]
        value = generalize(binding.value)
        if has_mapping(value):
            raise Opened(
                self,
                {name} - self.opened,
                f"the dictionary '{name}' is assigned in a loop that is decided at run time",
                "loop over a fixed number of layers, or give its entries one type",
            )
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
                    value = join_values(value, generalize(env[name].value), numbers=True)
            sums = not self.trials and self._sums_tensors(name, before, ends)
            if isinstance(value, Poison) and sums:
                value = Dyn(TENSOR)
                self.summed.add(name)
            if key_of(value) != key_of(before[name].value):
                if isinstance(value, Const):
                    value = Dyn(static_type(value))
                changed = True
                residual = None
                if not isinstance(value, Poison):
                    residual = self.variable(name, static_type(value))
                wider[name] = Binding(value, residual)
        return wider if changed else None

    @staticmethod
    def _sums_tensors(
        name: str, before: dict[str, Binding], ends: list[dict[str, Binding]]
    ) -> bool:
        """Whether a variable is a number before the loop, and a tensor behind a turn."""
        bindings = [before[name], *(env[name] for env in ends if name in env)]
        if any(isinstance(binding.value, Poison) for binding in bindings):
            return False
        return {static_type(binding.value) for binding in bindings} <= {INT, FLOAT, TENSOR}

    def _copies(
        self, before: dict[str, Binding], env: dict[str, Binding], assigned: set[str]
    ) -> list[ast.stmt]:
        copies = []
        for name in sorted(assigned & set(before)):
            wanted, held = before[name], env.get(name)
            if held is None or wanted.name is None or held.name == wanted.name:
                continue
            node = held.read or literal(held.value)
            if node is not None:
                node = _as_tensor(node, wanted.value, held.value)
                copies.append(self.stamped(store(wanted.name, node)))
        return copies

    def _enter_loop(self, name: str, binding: Binding) -> None:
        """Gives a loop variable its name and type before the loop."""
        held = self.env[name]
        if binding.name is None or isinstance(binding.value, Const):
            return
        t = static_type(binding.value)
        node = literal(held.value) or held.read
        if node is None:
            return
        if held.name == binding.name and static_type(held.value) == t:
            return
        node = _as_tensor(node, binding.value, held.value)
        if (is_optional(t) and not is_optional(static_type(held.value))) or t.name == "Optional":
            target = ast.Name(binding.name, ast.Store())
            self.emit(ast.AnnAssign(target, annotation(t), node, 1))
        elif held.name != binding.name:
            self.emit(store(binding.name, node))

    def _stmt_While(self, node: ast.While) -> None:
        if node.orelse:
            self.block(without_else(node, self.fresh("left")))
            return
        if any(isinstance(child, ast.NamedExpr) for child in ast.walk(node.test)):
            self.block(tested_apart(node, self.fresh("test")))
            return
        with self.nested(dict(self.env)) as body:
            value, _ = self.condition(node.test)
        if body and not isinstance(value, Const):
            self.block(tested_apart(node, self.fresh("test")))
        elif not isinstance(value, Const):
            self._loop(node, Dyn(BOOL), None)
        elif value.value and not self._stays(lambda: self._loop(node, Dyn(BOOL), None)):
            self._unroll_while(node)

    def _unroll_while(self, node: ast.While) -> None:
        """Writes out a loop whose condition is decided on every turn."""
        self.loops.append(None)
        depth, self.depth_of_branches = self.depth_of_branches, 0
        try:
            for _ in range(UNROLL_LIMIT):
                value, _ = self.condition(node.test)
                if not isinstance(value, Const):
                    raise NeedsConstant(
                        "the condition of a loop over modules is known only at run time",
                        "loop over the container of the modules",
                    )
                if not value.value or self.terminated:
                    return
                try:
                    self.block(node.body)
                except _Continue:
                    continue
                except _Break:
                    return
        finally:
            self.loops.pop()
            self.depth_of_branches = depth
        raise UnsupportedError(
            f"a loop would be written out more than {UNROLL_LIMIT} times", "use fewer turns"
        )

    def _stmt_Break(self, node: ast.Break) -> None:
        self._leave_loop(ast.Break(), _Break())

    def _stmt_Continue(self, node: ast.Continue) -> None:
        self._leave_loop(ast.Continue(), _Continue())

    def _leave_loop(self, statement: ast.stmt, signal: Exception) -> None:
        exits = self.loops[-1]
        if exits is None:
            if self.depth_of_branches:
                raise _LeftAtRunTime(
                    "a loop over modules or constants is left under a condition that is known "
                    "only at run time",
                    "compute on every turn, and choose among the results afterwards",
                )
            raise signal
        exits.append(dict(self.env))
        self.emit(statement)
        self.terminated = True


def _filled(binding: Binding, ends: list[Binding]) -> Binding:
    """A list, with the type of what the loop has put into it where it was empty before."""
    if not isinstance(binding.value, Dyn) or binding.value.type != list_of(UNKNOWN):
        return binding
    same = (end for end in ends if end.name == binding.name)
    known = (end for end in same if isinstance(end.value, Dyn) and end.value.type.known)
    return next(known, binding)
