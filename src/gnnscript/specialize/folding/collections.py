"""Lists and dictionaries that the code builds itself: changed here, element by element.

``outs.append(x)`` or ``out_dict[key] = x`` is carried out while specialising, so that afterwards
each element is known, whatever its type. Python shares such an object between all variables that
hold it, so a change is made wherever it is held. A collection that changes under control flow
which is decided at run time cannot be known so: the function is then specialised again, with that
variable holding a list or dictionary of TorchScript's.
"""

from __future__ import annotations

import ast
from typing import Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import INT
from gnnscript.specialize import substitutes
from gnnscript.specialize.folding.base import Arguments, Binding, Folded, Folding, Opened
from gnnscript.specialize.folding.rewritten import parsed_expression
from gnnscript.specialize.helpers import is_display
from gnnscript.specialize.tree import base_of
from gnnscript.specialize.values import (
    Const,
    Dyn,
    Limited,
    Mapping,
    ModuleRef,
    Seq,
    Value,
    constant_items,
    literal,
    static_type,
)

_BY_POSITION = {"appendleft": "insert", "popleft": "pop"}


def is_collection(value: Value) -> bool:
    """Whether a value is a list or dictionary known by its elements."""
    return isinstance(value, Mapping) or (isinstance(value, Seq) and value.kind == "list")


class Collections(Folding):
    """The part of a frame that changes collections."""

    def known_collection(self, name: str, value: Value, node: ast.expr | None) -> Folded | None:
        """A collection to be changed in place, in a form that can be, unless it is opened."""
        if isinstance(value, Limited) and name in self.opened:
            raise UnsupportedError(
                f"the deque '{name}' is of limited length, and changes under a condition or in a "
                "loop that is decided at run time",
                "use a list, and its slices",
            )
        if name not in self.mutated or name in self.opened:
            return None
        if isinstance(value, Const) and type(value.value) in (list, dict):
            return self._thawed(value.value)
        if not is_collection(value) or node is None:
            return None
        if isinstance(value, Seq) and not isinstance(node, (ast.List, ast.Tuple)):
            node = self.element_nodes(node, len(value.items))
        if isinstance(node, ast.Tuple):
            node = ast.List(node.elts, ast.Load())
        return value, self.hold(name, node)

    def _thawed(self, value: Any) -> Folded | None:
        if isinstance(value, dict):
            entries: list[Value] = [self.wrap(item) for item in value.values()]
            return self.mapping(
                dict(zip(value, entries, strict=True)), [literal(item) for item in entries]
            )
        inner = [id(item) for item in value if isinstance(item, (list, dict))]
        if len(set(inner)) < len(inner):
            raise UnsupportedError(
                "a list that holds one list or dictionary several times is changed",
                "make each of its own: [[0] * 2 for _ in range(n)]",
            )
        items = tuple(self.wrap(item) for item in value)
        nodes = [literal(item) for item in items]
        if any(node is None for node in nodes):
            return None
        return Seq(items, "list"), ast.List([n for n in nodes if n is not None], ast.Load())

    def reachable(self) -> list[Value]:
        """All collections that variables hold at this point."""
        found: list[Value] = []
        for binding in self.env.values():
            _collect(binding.value, found)
        return found

    def replace_held(self, old: Value, new: Value, node: ast.expr) -> None:
        """Makes every variable that holds ``old``, itself or inside, hold ``new`` instead."""
        holders = {
            name: changed
            for name, binding in self.env.items()
            if (changed := self._replaced(binding.value, binding.read, old, new, node)) is not None
        }
        if self.conditional or any(old is value for known in self.frozen for value in known):
            raise Opened(
                self,
                {name for name in holders if name not in self.opened},
                "a list or dictionary that is not the function's own, or holds elements of "
                "several types, is changed under a condition or in a loop that is decided at "
                "run time, or in a function that it is passed to",
                "return the new value and assign it, or give its elements one type",
            )
        for name, (value, held) in holders.items():
            self.forget({name})
            self.env[name] = Binding(value, None, held)

    def _replaced(
        self, value: Value, node: ast.expr | None, old: Value, new: Value, new_node: ast.expr
    ) -> Folded | None:
        if value is old:
            return new, new_node
        if not isinstance(value, (Seq, Mapping)) or not contains(value, old):
            return None
        if isinstance(value, Mapping):
            items, nodes = list(value.items.values()), self.entries(value, node)
        else:
            items = list(value.items)
            nodes = [literal(item) for item in items]
            if node is not None:
                nodes = list(self.element_nodes(node, len(items)).elts)
        for position, (item, item_node) in enumerate(zip(items, nodes, strict=True)):
            changed = self._replaced(item, item_node, old, new, new_node)
            if changed is not None:
                items[position], nodes[position] = changed
        if isinstance(value, Mapping):
            entries = dict(zip(value.items, items, strict=True))
            return self.mapping(entries, nodes, value.default, value.cls)
        return self.sequence(value.kind, items, nodes, value.cls)

    def refuse_lost(self, place: ast.expr, base: ast.expr) -> None:
        """What is changed at ``place`` must be held by a variable, not made where it is read.

        Raises:
            Opened: A variable known by its elements, of which an index of run time picks one.
        """
        if not isinstance(place, ast.Subscript) or not is_display(base):
            return
        root = base_of(place)
        names = {root.id} if isinstance(root, ast.Name) else set()
        raise Opened(
            self,
            names - self.opened,
            "an element of a list or dictionary is changed that an index known only at run time "
            "picks",
            "use a constant index, or give all elements one type",
        )

    def set_item(
        self, holder: Value, base: ast.expr | None, key: Value, value: Value, node: ast.expr | None
    ) -> None:
        """``holder[key] = value`` for a collection known by its elements."""
        if not isinstance(key, Const):
            raise Opened(
                self,
                self.holding(holder),
                "an element of a list or dictionary is set by an index known only at run time",
                "use a constant index, or give all elements one type",
            )
        node = self.hold("item", node)
        if isinstance(holder, Mapping):
            nodes = dict(zip(holder.items, self.entries(holder, base), strict=True))
            items = holder.items | {key.value: value}
            nodes[key.value] = node
            changed = self.mapping(items, list(nodes.values()), holder.default, holder.cls)
            self.replace_held(holder, *_needed(changed))
            return
        assert isinstance(holder, Seq)
        elements, parts = list(holder.items), self._elements(holder, base)
        at: Any = key.value
        if isinstance(at, slice):
            self._assign_slice(holder, base, at, (value, node))
            return
        self.compute(ast.Constant("list assignment"), elements.__getitem__, at)
        elements[at], parts[at] = value, node
        self.replace_held(holder, *self._list(elements, parts))

    def _stmt_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.env.pop(target.id, None)
                continue
            if isinstance(target, ast.Attribute):
                holder, _ = self.fold(target.value)
                if isinstance(holder, ModuleRef) and not hasattr(holder.module, target.attr):
                    continue  # lent for a call: nothing reads it until it is written again
            if isinstance(target, ast.Subscript):
                holder, base = self.fold(target.value)
                if is_collection(holder):
                    self.delete_item(holder, base, self.index(target.slice)[0])
                    continue
                index = self.index(target.slice)[1]
                if static_type(holder).name == "List" and isinstance(index, ast.Slice):
                    self._delete_slice(holder, self.needed(holder, base), index)
                    continue
            self.emit(ast.Delete([self.store_target(target)]))

    def _delete_slice(self, holder: Value, node: ast.expr, index: ast.Slice) -> None:
        """``del values[a:b]`` of a list of run time, which other variables may hold too."""
        names = [self.fresh(wish) for wish in ("values", "gone")]
        self.env[names[0]] = Binding(holder, None, node)
        places = parsed_expression(f"list(range(len({names[0]})))", self.current)
        value, listed = self.fold(places)
        self.bind(names[1], value, ast.Subscript(self.needed(value, listed), index, ast.Load()))
        kept = f"[{names[0]}[i] for i in range(len({names[0]})) if i not in {names[1]}]"
        found = self.fold(parsed_expression(kept, self.current))
        self.refill(node, found)

    def put_slice(self, holder: Value, node: ast.expr, index: ast.Slice, given: Folded) -> None:
        """``values[a:b] = given`` of a list of run time, which other variables may hold too."""
        if index.step is not None:
            raise UnsupportedError(
                "every n-th element of a list is assigned, which TorchScript cannot",
                "assign them one by one",
            )
        bounds: list[Folded] = [
            (Const(None), None) if bound is None else (Dyn(INT), bound)
            for bound in (index.lower, index.upper)
        ]
        args = [(holder, node), *bounds, given]
        found = self.call_function(substitutes.with_slice, Arguments(args, {}), None)
        self.refill(node, found)

    def refill(self, node: ast.expr, values: Folded) -> None:
        """Gives a list of run time other elements, seen by every variable that holds it."""
        held = self.hold("values", self.needed(*values), force=True)
        assert held is not None
        given: list[tuple[str, list[ast.expr]]] = [("clear", []), ("extend", [held])]
        for name, args in given:
            self.emit(ast.Expr(ast.Call(ast.Attribute(node, name, ast.Load()), args, [])))

    def delete_item(self, holder: Value, base: ast.expr | None, key: Value) -> None:
        """``del holder[key]``."""
        if isinstance(holder, Seq) and isinstance(key, Const) and isinstance(key.value, slice):
            self._put_slice(holder, base, key.value, [], [])
            return
        self.change(holder, base, "pop", Arguments([(key, literal(key))], {}))

    def _assign_slice(self, holder: Seq, base: ast.expr | None, at: slice, given: Folded) -> None:
        """``holder[at] = given``."""
        more = self.known_items(given[0])
        nodes = [literal(item) for item in more]
        if given[1] is not None and not isinstance(given[0], Const):
            nodes = [
                self.hold("item", n, set()) for n in self.element_nodes(given[1], len(more)).elts
            ]
        self._put_slice(holder, base, at, more, nodes)

    def _put_slice(
        self,
        holder: Seq,
        base: ast.expr | None,
        at: slice,
        items: list[Value],
        nodes: list[ast.expr | None],
    ) -> None:
        elements, parts = list(holder.items), self._elements(holder, base)
        for held, given in ((elements, items), (parts, nodes)):
            if items or (at.step or 1) == 1:
                self.compute(ast.Constant("list assignment"), held.__setitem__, at, given)
            else:
                del held[at]
        self.replace_held(holder, *self._list(elements, parts))

    def holding(self, value: Value) -> set[str]:
        """The variables that hold a collection, itself or inside, and that are not open yet."""
        return {
            name for name, b in self.env.items() if b.value is value or contains(b.value, value)
        } - self.opened

    def _elements(self, holder: Seq, base: ast.expr | None) -> list[ast.expr | None]:
        if base is None:
            return [literal(item) for item in holder.items]
        return list(self.element_nodes(base, len(holder.items)).elts)

    def _list(self, items: list[Value], nodes: list[ast.expr | None]) -> tuple[Value, ast.expr]:
        """A list as a value of its own: also an empty one, or one of constants, may change."""
        value, node = self.sequence("list", items, nodes, keep=True)
        assert node is not None
        return value, node

    def change(self, holder: Value, base: ast.expr | None, name: str, given: Arguments) -> Folded:
        """Calls a method that changes a collection in place."""
        if given.kwargs and name not in ("update", "sort", "move_to_end", "popitem"):
            raise UnsupportedError(f"'{name}' is given keywords", "pass them by position")
        if isinstance(holder, Mapping):
            return self._change_mapping(holder, base, name, given)
        assert isinstance(holder, Seq)
        items, nodes = list(holder.items), self._elements(holder, base)
        result: Folded = (Const(None), None)
        front = name == "appendleft"
        if name in ("appendleft", "popleft"):  # of a deque
            start: Folded = (Const(0), None)
            name, given = _BY_POSITION[name], Arguments([start, *given.args], {})
        if name in ("append", "insert"):
            value, node = given.args[-1]
            at = len(items) if name == "append" else self._position(given)
            items.insert(at, value)
            nodes.insert(at, self.hold("item", node))
        elif name == "extend":
            value, node = given.args[0]
            if constant_items(value) is None and static_type(value).name != "Tuple":
                raise Opened(
                    self,
                    self.holding(holder),
                    "a list is extended by a list whose length is known only at run time",
                    "give all elements one type",
                )
            more = self.known_items(value)
            items += more
            if node is None or isinstance(value, Const):
                nodes += [literal(item) for item in more]
            else:
                nodes += [self.hold("item", n) for n in self.element_nodes(node, len(more)).elts]
        elif name == "pop":
            at = self._position(given) if given.args else -1
            self.compute(ast.Constant("pop"), items.__getitem__, at)
            result = items.pop(at), nodes.pop(at)
        elif name in ("clear", "reverse"):
            for part in (items, nodes):
                getattr(part, name)()
        else:
            raise Opened(
                self,
                self.holding(holder),
                f"'{name}' changes a list whose elements are values of run time",
                "use a tensor, or a list of numbers",
            )
        value, node = self._list(items, nodes)
        if isinstance(holder, Limited):
            beyond = max(len(items) - holder.limit, 0)
            kept = slice(None, len(items) - beyond) if front else slice(beyond, None)
            value, node = self._list(items[kept], nodes[kept])
            assert isinstance(value, Seq)
            value = Limited(value.items, "list", None, holder.limit)
        self.replace_held(holder, value, node)
        return result

    def _position(self, given: Arguments) -> int:
        position = given.args[0][0]
        if not (isinstance(position, Const) and isinstance(position.value, int)):
            raise UnsupportedError(
                "a position in a list is known only at run time", "use a constant"
            )
        return position.value

    def _change_mapping(
        self, holder: Mapping, base: ast.expr | None, name: str, given: Arguments
    ) -> Folded:
        nodes = dict(zip(holder.items, self.entries(holder, base), strict=True))
        items = dict(holder.items)
        result: Folded = (Const(None), None)
        if name in ("pop", "setdefault"):
            key = given.args[0][0]
            if not isinstance(key, Const):
                raise Opened(
                    self,
                    self.holding(holder),
                    f"'{name}' with a key known only at run time",
                    "use a constant key, or give all entries one type",
                )
            if key.value in items and name == "setdefault":
                return items[key.value], nodes[key.value]
            if name == "setdefault":
                value, node = given.args[1] if len(given.args) > 1 else (Const(None), None)
                items[key.value], nodes[key.value] = value, self.hold("item", node)
                result = items[key.value], nodes[key.value]
            elif key.value in items:
                result = items.pop(key.value), nodes.pop(key.value)
            else:
                if len(given.args) < 2:
                    self.compute(ast.Constant("pop"), items.pop, key.value)
                return given.args[1]
        elif name == "update":
            for value, node in given.args:
                added, spelled = value, node
                if isinstance(value, Const) and isinstance(value.value, dict):
                    added, spelled = self._thawed(value.value) or (value, node)
                if not isinstance(added, Mapping):
                    raise UnsupportedError(
                        "'update' with a dictionary known only at run time", "name its entries"
                    )
                items |= added.items
                parts = [self.hold("item", n) for n in self.entries(added, spelled)]
                nodes |= dict(zip(added.items, parts, strict=True))
            for key_, (value, node) in given.kwargs.items():
                items[key_], nodes[key_] = value, self.hold("item", node)
        elif name == "clear":
            items, nodes = {}, {}
        elif name == "move_to_end" and isinstance(given.args[0][0], Const):
            key = given.args[0][0]
            last = [*given.args[1:], *given.kwargs.values(), (Const(True), None)][0][0]
            order = [k for k in items if k != key.value]
            order.insert(len(order) if getattr(last, "value", True) else 0, key.value)
            self.compute(ast.Constant("move_to_end"), items.__getitem__, key.value)
            items, nodes = {k: items[k] for k in order}, {k: nodes[k] for k in order}
        elif name == "popitem" and items:
            first = [*given.args, *given.kwargs.values(), (Const(True), None)][0][0]
            at = list(items)[-1 if getattr(first, "value", True) else 0]
            value, node = items.pop(at), nodes.pop(at)
            result = self.sequence("tuple", [Const(at), value], [literal(Const(at)), node])
        else:
            raise UnsupportedError(f"a dictionary has no '{name}'", "check the spelling")
        changed = self.mapping(items, list(nodes.values()), holder.default, holder.cls)
        self.replace_held(holder, *_needed(changed))
        return result


def _collect(value: Value, found: list[Value]) -> None:
    if is_collection(value):
        found.append(value)
    if isinstance(value, Mapping):
        for item in value.items.values():
            _collect(item, found)
    elif isinstance(value, Seq):
        for item in value.items:
            _collect(item, found)


def contains(value: Value, wanted: Value) -> bool:
    """Whether a collection holds another, at any depth."""
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items.values()
    elif isinstance(value, Seq):
        items = value.items
    return any(item is wanted or contains(item, wanted) for item in items)


def _needed(folded: Folded) -> tuple[Value, ast.expr]:
    value, node = folded
    assert node is not None
    return value, node
