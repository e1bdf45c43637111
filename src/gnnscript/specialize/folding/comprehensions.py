"""Comprehensions: over what is known they are written out, else kept."""

from __future__ import annotations

import ast
from typing import Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import UNKNOWN, Type, dict_of, has_tuple_keys, list_of
from gnnscript.specialize.folding.base import Binding, Folded, Folding
from gnnscript.specialize.folding.builtin_sequences import parts_of
from gnnscript.specialize.folding.rewritten import as_loops
from gnnscript.specialize.folding.sets import is_set
from gnnscript.specialize.values import Const, Dyn, Seq, Value, static_type


class Comprehensions(Folding):
    """The part of a frame that folds comprehensions."""

    def fold_ListComp(self, node: ast.ListComp | ast.GeneratorExp) -> Folded:
        saved, scope, mark = self.env, self.scope, len(self.out)
        self.env, self.scope = dict(saved), saved if scope is None else scope
        try:
            found: list[Folded] = []
            if self._write_out(node.generators, lambda: found.append(self.fold(node.elt))):
                self._leave_scope(node.generators, saved)
                return self.sequence("list", [v for v, _ in found], [n for _, n in found])
            self.env = dict(saved)
            del self.out[mark:]
            if self._is_plain(node):
                kept = self._keep(node.generators, lambda: self._made_element(node.elt))
                if kept is not None:
                    generators, element = kept
                    listed = ast.ListComp(element[1], generators)
                    return Dyn(list_of(_element(element[0]))), listed
            del self.out[mark:]
        finally:
            self.env, self.scope = saved, scope
        return self._looped(node)

    def fold_GeneratorExp(self, node: ast.GeneratorExp) -> Folded:
        if any(isinstance(child, ast.NamedExpr) for child in ast.walk(node)):
            raise UnsupportedError(
                "':=' inside of a generator, which its reader may leave before its end",
                "make it a list, or assign in a loop",
            )
        return self.fold_ListComp(node)

    def refuse_late(self, name: str, node: ast.GeneratorExp) -> None:
        """Refuses a generator whose variables change before it is read, as it is read here at once.

        Args:
            name: The variable that it is assigned to.
            node: The generator.
        """
        parts = [node.elt, *(t for g in node.generators for t in g.ifs)]
        parts += [g.iter for g in node.generators[1:]]
        used = {n.id for part in parts for n in ast.walk(part) if isinstance(n, ast.Name)}
        names = [n for n in ast.walk(self.source.node) if isinstance(n, ast.Name)]
        last = max((n.lineno for n in names if n.id == name), default=0)
        for found in names:
            later = node.lineno < found.lineno <= last and not isinstance(found.ctx, ast.Load)
            if later and found.id in used:
                raise UnsupportedError(
                    f"the generator '{name}' uses '{found.id}', which changes before it is read",
                    "make it a list, or give the variable another name",
                )

    def _leave_scope(self, generators: list[ast.comprehension], env: dict[str, Binding]) -> None:
        """Takes over what is the function's: what ``:=`` assigns, and collections that changed."""
        targets = [n for g in generators for n in ast.walk(g.target)]
        own = {n.id for n in targets if isinstance(n, ast.Name)}
        env.update({name: held for name, held in self.env.items() if name not in own})

    def _is_plain(self, node: ast.ListComp | ast.GeneratorExp) -> bool:
        """Whether TorchScript has a comprehension: one loop without conditions."""
        first, *rest = node.generators
        if rest or first.ifs:
            return False
        return isinstance(first.target, ast.Name) or (
            self.element_type(static_type(self.fold(first.iter)[0])).type.name == "Tuple"
        )

    def _looped(self, node: ast.ListComp | ast.GeneratorExp) -> Folded:
        """A comprehension that TorchScript lacks, as loops that append to a list."""
        if any(isinstance(child, ast.Lambda) for child in ast.walk(node)):
            raise UnsupportedError(
                "a comprehension whose length is known only at run time makes functions",
                "define the function before",
            )
        name = self.fresh("items")
        self.mutated.add(name)
        self.opened.add(name)
        self.block(as_loops(node, name, self.fresh))
        return self.fold_Name(ast.Name(name, ast.Load()))

    def fold_DictComp(self, node: ast.DictComp) -> Folded:
        saved, scope, mark = self.env, self.scope, len(self.out)
        self.env, self.scope = dict(saved), saved if scope is None else scope
        try:
            found: list[tuple[Value, Folded]] = []
            done = self._write_out(
                node.generators,
                lambda: found.append((self.fold(node.key)[0], self.fold(node.value))),
            )
            if done and all(
                isinstance(k, Const) and isinstance(k.value, (str, int, tuple)) for k, _ in found
            ):
                names = [key.value for key, _ in found if isinstance(key, Const)]
                items = {name: value for name, (_, (value, _)) in zip(names, found, strict=True)}
                nodes = {name: made for name, (_, (_, made)) in zip(names, found, strict=True)}
                self._leave_scope(node.generators, saved)
                return self.mapping(items, list(nodes.values()))
            self.env = dict(saved)
            del self.out[mark:]
            kept = self._keep(
                node.generators,
                lambda: (self.fold_needed(node.key), self._made_element(node.value)),
            )
            if kept is None:
                raise UnsupportedError(
                    "an element of this comprehension takes several statements",
                    "write a loop that fills the dictionary",
                )
            generators, (key_pair, value_pair) = kept
            t = dict_of(static_type(key_pair[0]), _element(value_pair[0]))
            key = self.set_key(*key_pair) if has_tuple_keys(t) else key_pair[1]
            return Dyn(t), ast.DictComp(key, value_pair[1], generators)
        finally:
            self.env, self.scope = saved, scope

    def _made_element(self, node: ast.expr) -> tuple[Value, ast.expr]:
        """An element that exists at run time; a set, which each element has for itself."""
        value, residual = self.fold(node)
        if isinstance(value, Const) and is_set(value.value):
            value, residual = self.runtime_set(value, None)
        return value, self.needed(value, residual)

    def _write_out(self, generators: list[ast.comprehension], turn: Any) -> bool:
        """Runs ``turn`` for every known combination; false where a sequence is not known."""
        if not generators:
            turn()
            return True
        first, rest = generators[0], generators[1:]
        value, residual = self.fold(first.iter)
        parts = parts_of(self, (value, residual))  # type: ignore[arg-type]
        if parts is None:
            return False
        for item, node in [(item, self.hold("item", node, set())) for item, node in parts]:
            self.bind_inline(first.target, item, node)
            tests = [self.condition(test)[0] for test in first.ifs]
            if not all(isinstance(test, Const) for test in tests):
                return False
            if all(test.value for test in tests if isinstance(test, Const)):
                if not self._write_out(rest, turn):
                    return False
        return True

    def _keep(
        self, generators: list[ast.comprehension], element: Any
    ) -> tuple[list[ast.comprehension], Any] | None:
        """A comprehension that stays one; ``None`` where an element takes statements."""
        if len(generators) != 1 or generators[0].ifs:
            raise UnsupportedError(
                "this comprehension has no TorchScript form",
                "write a loop that appends to a list",
            )
        value, residual = self.fold(generators[0].iter)
        iterable = self.needed(value, residual)
        target = self.loop_target(generators[0].target, self.element_type(static_type(value)))
        self.conditional += 1
        try:
            with self.nested(self.env) as body:
                found = element()
        finally:
            self.conditional -= 1
        return None if body else ([ast.comprehension(target, iterable, [], 0)], found)


def _element(value: Value) -> Type:
    """The type of an element; of an empty list, what is in it shows where it is filled."""
    empty = isinstance(value, Seq) and value.kind == "list" and not value.items
    return list_of(UNKNOWN) if empty else static_type(value)
