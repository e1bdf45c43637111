"""The order in which values are computed: that of Python."""

from __future__ import annotations

import ast

from gnnscript.specialize.effects import has_effects, is_settled
from gnnscript.specialize.folding.base import Folded, Folding, store
from gnnscript.specialize.helpers import is_absent
from gnnscript.specialize.tree import is_simple, names_read


class Ordering(Folding):
    """The part of a frame that has values computed before others."""

    def hold(
        self,
        name: str,
        node: ast.expr | None,
        changing: set[str] | None = None,
        *,
        force: bool = False,
    ) -> ast.expr | None:
        """Gives a name to each element of a collection that is known by its elements.

        So it is computed once, and what its variables are given later does not reach it.

        Args:
            name: The name wished for.
            node: The collection, or one of its elements.
            changing: The variables that may change before the element is used; by default all.
            force: Whether to do so in an expression that may not be evaluated as well.
        """
        if node is None or isinstance(node, ast.Constant):
            return node
        if isinstance(node, (ast.Tuple, ast.List)):
            elements = [
                self.hold(name, element, changing, force=force) or element for element in node.elts
            ]
            return type(node)(elements, ast.Load())
        if isinstance(node, ast.Dict):
            values = [
                self.hold(name, value, changing, force=force) or value for value in node.values
            ]
            return ast.Dict(node.keys, values)
        stable = changing is not None and is_simple(node) and not changing & set(names_read(node))
        stable = stable or (isinstance(node, ast.Name) and node.id in self.assigned_once)
        stable = stable or (self.conditional > 0 and not force and not has_effects(node))
        if is_absent(node) or stable:
            return node
        held = self.fresh(name)
        self.assigned_once.add(held)
        self.emit(store(held, node))
        return ast.Name(held, ast.Load())

    def in_order(self, nodes: list[ast.expr]) -> list[Folded]:
        """Folds expressions of which each is evaluated before the next."""
        found: list[Folded] = []
        for node in nodes:
            mark = len(self.out)
            folded = self.fold(node)
            self.settle(found, mark)
            found.append(folded)
        return found

    def settle(self, found: list[Folded], mark: int) -> None:
        """Computes values before the statements that were written after they were folded.

        Args:
            found: The values; what holds them is put in their places.
            mark: The number of statements there were when the last of them was folded.
        """
        written = self.out[mark:]
        if not found or not has_effects(written):
            return
        del self.out[mark:]
        for number, (value, node) in enumerate(found):
            if not is_settled(node):
                found[number] = value, self.hold("held", node, force=True)
        self.out.extend(written)

    def held_index(self, index: ast.expr) -> ast.expr:
        """An index, computed here: TorchScript computes it a second time to see its type."""
        if isinstance(index, ast.Slice):
            return ast.Slice(
                *(p and self.held_index(p) for p in (index.lower, index.upper, index.step))
            )
        if isinstance(index, ast.Tuple):
            return ast.Tuple([self.held_index(part) for part in index.elts], ast.Load())
        return self.hold("index", index, force=True) or index

    def placed(self, target: ast.Subscript) -> ast.Subscript:
        """``x[...]`` as a target, its index computed here if it matters when that happens."""
        with self.nested(dict(self.env)) as body:
            _, kept = self.index(target.slice)
        return self.in_variables(target) if body or has_effects(kept) else target

    def placed_behind(
        self, target: ast.Subscript, residual: ast.expr | None
    ) -> tuple[ast.Subscript, ast.expr | None]:
        """``x[...]`` as a target, whose index Python computes when it has the value."""
        with self.nested(dict(self.env)) as body:
            _, kept = self.index(target.slice)
        settled = all(is_settled(n) for n in ast.walk(kept) if isinstance(n, ast.expr))
        acts = residual is not None and has_effects(residual)
        if body or has_effects(kept) or (acts and not settled):
            residual = self.hold("held", residual, force=True)
            target = self.in_variables(target)
        return target, residual

    def in_variables(self, target: ast.Subscript) -> ast.Subscript:
        """``x[...]`` with its index in variables, so that it may be repeated."""
        return ast.copy_location(
            ast.Subscript(target.value, self._in_variables(target.slice), target.ctx), target
        )

    def _in_variables(self, index: ast.expr) -> ast.expr:
        """An index with variables in place of what is computed."""
        if is_simple(index) or isinstance(index, ast.Starred):
            return index
        if isinstance(index, ast.Tuple):
            parts = [self._in_variables(part) for part in index.elts]
            return ast.copy_location(ast.Tuple(parts, ast.Load()), index)
        if isinstance(index, ast.Slice):
            bounds = [p and self._in_variables(p) for p in (index.lower, index.upper, index.step)]
            return ast.copy_location(ast.Slice(*bounds), index)
        name = self.fresh("index")
        self.bind(name, *self.fold(index))
        return ast.copy_location(ast.Name(name, ast.Load()), index)
