"""Tuples, lists and dictionaries: known by their elements as far as possible."""

from __future__ import annotations

import ast
import collections
import functools
import operator
from collections.abc import Sequence
from typing import Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import (
    INT,
    NONE,
    NUMBER,
    STR,
    TENSOR,
    UNKNOWN,
    Type,
    has_tuple_keys,
    is_optional,
    join,
    list_of,
    tuple_of,
)
from gnnscript.specialize.effects import has_effects
from gnnscript.specialize.folding.base import (
    Arguments,
    Fails,
    Folded,
    Folding,
    NeedsConstant,
    Opened,
)
from gnnscript.specialize.folding.builtin_sequences import parts_of
from gnnscript.specialize.folding.rewritten import located
from gnnscript.specialize.folding.sets import changes_order, unread_keys
from gnnscript.specialize.helpers import absent, filled_range, reference, torch_name
from gnnscript.specialize.program import is_runtime
from gnnscript.specialize.values import (
    Choice,
    Const,
    Dyn,
    Mapping,
    ModuleRef,
    Seq,
    Value,
    constant_items,
    has_slice,
    is_mixed,
    literal,
    script_key,
    static_type,
)


class Sequences(Folding):
    """The part of a frame that folds displays and subscripts."""

    def sequence(
        self,
        kind: str,
        items: list[Value],
        nodes: list[ast.expr | None],
        cls: Any = None,
        *,
        keep: bool = False,
    ) -> Folded:
        """A tuple or list display; a constant where all elements are, unless ``keep`` is set."""
        if all(isinstance(item, Const) for item in items) and cls is None and not keep:
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
    def element_type(t: Type) -> Dyn:
        """What iteration over a value of type ``t`` yields."""
        if t.name == "List" and t.args:
            return Dyn(t.args[0])
        if has_tuple_keys(t):
            raise unread_keys(t)
        if t.name == "Dict" and t.args:
            return Dyn(t.args[0])
        if t == TENSOR:
            return Dyn(TENSOR)
        if t.name == "Set":
            raise changes_order(t)
        if t.name == "Tuple" and t.args:
            joined: Type | None = t.args[0]
            for other in t.args[1:]:
                joined = join(joined, other) if joined is not None else None
            return Dyn(joined or UNKNOWN)
        return Dyn(UNKNOWN)

    def fold_Tuple(self, node: ast.Tuple) -> Folded:
        return self._display(node.elts, "tuple")

    def fold_List(self, node: ast.List) -> Folded:
        value, residual = self._display(node.elts, "list")
        if isinstance(value, Const) and not value.value:
            return Seq((), "list"), ast.List([], ast.Load())
        return value, residual

    def _display(self, elements: list[ast.expr], kind: str) -> Folded:
        items: list[Value] = []
        nodes: list[ast.expr | None] = []
        wholes = [getattr(e, "value") if isinstance(e, ast.Starred) else e for e in elements]  # noqa: B009
        for element, (value, residual) in zip(elements, self.in_order(wholes), strict=True):
            if isinstance(element, ast.Starred):
                if static_type(value).name == "List" and constant_items(value) is None:
                    return self._added(elements)
                parts = self.known_items(value)
                items += parts
                if residual is None or isinstance(value, Const):
                    nodes += [literal(part) for part in parts]
                else:
                    nodes += self.element_nodes(residual, len(parts)).elts
                continue
            items.append(value)
            nodes.append(residual)
        return self.sequence(kind, items, nodes)

    def _added(self, elements: list[ast.expr]) -> Folded:
        """``[*a, b]`` with a list whose length only the run knows: ``a + [b]``."""
        lists = [
            ast.copy_location(
                element.value if isinstance(element, ast.Starred) else ast.List([element]), element
            )
            for element in elements
        ]
        added = functools.reduce(lambda a, b: ast.BinOp(a, ast.Add(), b), lists)
        return self.fold(located(added, elements[0]))

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

    def fold_Dict(self, node: ast.Dict) -> Folded:
        items: dict[Any, Value] = {}
        nodes: dict[Any, ast.expr | None] = {}
        mark = len(self.out)
        folded = self.in_order(node.values)
        for key, (inner, spread) in zip(node.keys, folded, strict=True):
            if key is None:
                if isinstance(inner, Mapping):
                    items |= inner.items
                    nodes |= dict(zip(inner.items, self.entries(inner, spread), strict=True))
                elif isinstance(inner, Const) and isinstance(inner.value, dict):
                    items |= {k: self.wrap(v) for k, v in inner.value.items()}
                    nodes |= {k: literal(Const(v)) for k, v in inner.value.items()}
                else:
                    raise NeedsConstant("'**' of an unknown dictionary", "name its entries")
                continue
            key_value, _ = self.fold(key)
            if not (
                isinstance(key_value, Const) and isinstance(key_value.value, (str, int, tuple))
            ):
                del self.out[mark:]
                return self._open_dict(node)
            items[key_value.value], nodes[key_value.value] = inner, spread
        return self.mapping(items, list(nodes.values()))

    def transposed(self, node: ast.Call) -> Folded | None:
        """``zip(*rows)`` of tuples whose number only the run knows: their columns, as lists."""
        if len(node.args) != 1 or not isinstance(node.args[0], ast.Starred):
            return None
        value, residual = self.fold(node.args[0].value)
        row = static_type(value).args[0] if static_type(value).name == "List" else UNKNOWN
        if not isinstance(value, Dyn) or row.name != "Tuple" or not row.args:
            return None
        rows = self.hold("rows", self.needed(value, residual))
        assert rows is not None
        nodes: list[ast.expr | None] = []
        for position in range(len(row.args)):
            name = self.fresh("row")
            part = ast.Subscript(ast.Name(name, ast.Load()), ast.Constant(position), ast.Load())
            turn = ast.comprehension(ast.Name(name, ast.Store()), rows, [], 0)
            nodes.append(self.hold("column", ast.ListComp(part, [turn])))
        return self.sequence("list", [Dyn(list_of(t)) for t in row.args], nodes)

    def entries(self, holder: Mapping, base: ast.expr | None) -> list[ast.expr | None]:
        """The values of a dictionary, each as an expression."""
        if isinstance(base, ast.Dict):
            return list(base.values)
        if base is None and not is_runtime(holder):
            return [literal(item) for item in holder.items.values()]
        if base is None or not static_type(holder).known:
            raise UnsupportedError(
                "a dictionary with entries of several types is passed inside of a tuple or list",
                "pass it as an argument of its own",
            )
        return [
            ast.Subscript(base, ast.Constant(script_key(key)), ast.Load()) for key in holder.items
        ]

    def _open_dict(self, node: ast.Dict) -> Folded:
        """A dictionary display whose keys are no known strings."""
        types: list[Type | None] = [None, None]
        columns: list[list[ast.expr]] = [[], []]
        sides = ([key for key in node.keys if key is not None], node.values)
        for side, parts in enumerate(sides):
            for part in parts:
                value, residual = self.fold_needed(part)
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
    def mapping(
        items: dict[Any, Value],
        nodes: list[ast.expr | None],
        default: Value | None = None,
        cls: type = dict,
    ) -> Folded:
        """A dictionary display; for a data object one of its fields."""
        elements = [
            node if node is not None else literal(item) or reference_of(item) or absent()
            for item, node in zip(items.values(), nodes, strict=True)
        ]
        keys: list[ast.expr | None] = [literal(Const(script_key(name))) for name in items]
        return Mapping(items, default, cls), ast.Dict(keys, elements)

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
            found: list[Folded] = []
            for element in node.elts:
                mark = len(self.out)
                indices = self._indices(element)
                self.settle(found, mark)
                found += indices
            folded = [(value, self.needed(value, kept)) for value, kept in found]
            if all(isinstance(v, Const) for v, _ in folded):
                known = Const(tuple(v.value for v, _ in folded if isinstance(v, Const)))
                return known, ast.Tuple([n for _, n in folded], ast.Load())
            return _key(folded), ast.Tuple([n for _, n in folded], ast.Load())
        return self._as_index(*self.fold(node))

    def _indices(self, node: ast.expr) -> list[tuple[Value, ast.expr]]:
        """What one element of a subscript's tuple stands for, ``*parts`` for several."""
        if not isinstance(node, ast.Starred):
            return [self.index(node)]
        value, residual = self.fold(node.value)
        self.known_items(value)  # raises where there are none
        parts = parts_of(self, (value, residual))  # type: ignore[arg-type]
        return [self._as_index(*part) for part in parts or ()]

    def _as_index(self, value: Value, residual: ast.expr | None) -> tuple[Value, ast.expr]:
        if isinstance(value, ModuleRef):
            raise NeedsConstant("a module is used as an index", "use its name or position")
        if has_slice(value):
            return value if isinstance(value, Const) else Dyn(UNKNOWN), self.spelled(
                value, residual
            )
        if isinstance(value, Const) and isinstance(value.value, range):
            r = value.value
            bounds = [
                literal(Const(bound)) or ast.Constant(0) for bound in (r.start, r.stop, r.step)
            ]
            return Dyn(TENSOR), ast.Call(torch_name("torch.arange"), bounds, [])
        if isinstance(value, Seq) and value.kind == "tuple" and not is_mixed(value):
            parts = self.element_nodes(self.needed(value, residual), len(value.items)).elts
            indices = [self._as_index(*p) for p in zip(value.items, parts, strict=True)]
            return _key(indices), ast.Tuple([node for _, node in indices], ast.Load())
        value, residual = self.present(value, self.needed(value, residual))
        if static_type(value) == NUMBER:
            return Dyn(INT), ast.Call(ast.Name("int", ast.Load()), [residual], [])
        if isinstance(value, Dyn) and filled_range(residual) is not residual:
            assert isinstance(residual, ast.Call)
            return Dyn(TENSOR), ast.Call(torch_name("torch.arange"), residual.args, [])
        return value, residual

    def spelled(self, value: Value, residual: ast.expr | None) -> ast.expr:
        """An index that a variable holds, ``slice(0, n)`` or a tuple with it, as it is spelled."""
        at = value.value if isinstance(value, Const) else None
        if isinstance(at, slice):
            bounds = (at.start, at.stop, at.step)
            return ast.Slice(*(None if b is None else literal(Const(b)) for b in bounds))
        if isinstance(value, Const) and not isinstance(at, tuple):
            return self.needed(value, residual)
        parts = parts_of(self, (value, residual))  # type: ignore[arg-type]
        if parts is None or not has_slice(value):
            return self.needed(value, residual)
        if isinstance(value, Seq) and value.cls is slice:
            return ast.Slice(
                *(
                    None if isinstance(v, Const) and v.value is None else self.needed(v, n)
                    for v, n in parts
                )
            )
        return ast.Tuple([self.spelled(*part) for part in parts], ast.Load())

    def fold_Subscript(self, node: ast.Subscript) -> Folded:
        defaulting = self.defaulting(node)
        if defaulting is not None:
            return self.read_default(node, defaulting)
        found = [self.fold(node.value)]
        mark = len(self.out)
        position, index = self.index(node.slice)
        if has_effects(index):
            index = self.held_index(index)
        self.settle(found, mark)
        return self.subscript(*found[0], position, index)

    def _by_edge_type(
        self, holder: Value, position: Value, index: ast.expr
    ) -> tuple[Value, Value, ast.expr]:
        """A dictionary by edge types, of which the run picks one: by the strings for them."""
        t = static_type(position)
        items: Any = holder.items if isinstance(holder, Mapping) else ()
        if isinstance(holder, Const) and isinstance(holder.value, dict):
            items = holder.value
        if t.name == "Tuple" and set(t.args) == {INT} and isinstance(holder, Const) and items:
            known = {",".join(map(str, key)): value for key, value in items.items()}
            return Const(known), Dyn(STR), self.set_key(position, index)
        if t.name != "Tuple" or set(t.args) != {STR} or not items:
            return holder, position, index
        if not all(isinstance(key, tuple) for key in items):
            return holder, position, index
        parts = ast.List(self.element_nodes(index, len(t.args)).elts, ast.Load())
        joined = ast.Call(ast.Attribute(ast.Constant("__"), "join", ast.Load()), [parts], [])
        if isinstance(holder, Const):
            holder = Const({script_key(key): value for key, value in items.items()})
        return holder, Dyn(STR), joined

    def subscript(
        self, holder: Value, base: ast.expr | None, position: Value, index: ast.expr
    ) -> Folded:
        """``holder[position]``."""
        known = isinstance(position, Const)
        at = position.value if isinstance(position, Const) else None
        if isinstance(holder, Choice):
            return self.of_choice(holder, lambda one: self.subscript(one, None, position, index))
        if isinstance(holder, ModuleRef):
            if isinstance(position, Const):
                return self.module_item(holder, position)
            return self.pick_module(holder, position, index)
        if not known:
            holder, position, index = self._by_edge_type(holder, position, index)
        if isinstance(holder, Mapping):
            if known and at in holder.items:
                item = holder.items[at]
                return item, self.entries(holder, base)[list(holder.items).index(at)]
            if not known and holder.default is not None and self.holding(holder):
                raise Opened(
                    self,
                    self.holding(holder),
                    "a dictionary that makes what is missing is asked for a key of run time",
                    "give its entries one type",
                )
            if known and issubclass(holder.cls, collections.Counter):
                return Const(0), None
            if known and holder.default is not None:
                item, node = self.call(holder.default, Arguments([], {}), None)
                self.set_item(holder, base, position, item, node)
                return item, node
            if known:
                raise Fails(
                    f"a dictionary is asked for the key {at!r}, which it does not have",
                    f"use one of {list(holder.items)}",
                    KeyError(at),
                )
            if not holder.items or holder.default or not static_type(holder).known:
                raise NeedsConstant(
                    "a dictionary is asked for an unknown key", f"use one of {list(holder.items)}"
                )
        if isinstance(holder, Const) and known:
            return self.wrap(self.compute(index, operator.getitem, holder.value, at)), None
        if not known and static_type(holder).name == "Tuple":
            given = Arguments([(position, index)], {})
            done = self.record_method(holder, base, "__getitem__", given)
            if done is not None:
                return done
        if not known:
            holder, base = self.table(holder, base, static_type(position)) or (holder, base)
        if isinstance(holder, Seq) and known:
            if isinstance(at, slice):
                nodes: list[ast.expr | None] = [None] * len(holder.items)
                if base is not None:
                    nodes = list(self.element_nodes(base, len(holder.items)).elts)
                return self.sequence(holder.kind, list(holder.items[at]), nodes[at])
            item = self.compute(index, operator.getitem, holder.items, at)
            if isinstance(base, (ast.Tuple, ast.List)):
                assert isinstance(at, int)
                return item, base.elts[at]
            if base is None:
                return item, literal(item)
            return self.recall(item, ast.Subscript(base, index, ast.Load()))
        if isinstance(holder, (Const, Seq)) and (
            (isinstance(holder, Seq) and base is None) or (literal(holder) is None and base is None)
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
        holder_node = filled_range(holder_node)
        if t in (TENSOR, UNKNOWN) and static_type(position) == list_of(TENSOR):
            # A tuple of tensors in Python, such as ``edge_index.unbind()``: one for each dimension.
            picked_by = torch_name("torch.ops.aten.index")
            return Dyn(TENSOR), ast.Call(picked_by, [holder_node, index], [])
        if has_tuple_keys(t):
            index = self.set_key(position, index)
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
            residual.raises_ = (KeyError,)  # type: ignore[attr-defined]
            return self.recall(Dyn(t.args[1]), residual)
        if t == TENSOR and static_type(position) == TENSOR:
            residual.rows_ = True  # type: ignore[attr-defined]  # what the passes cannot tell
        if t in (TENSOR, STR):
            return Dyn(t), residual
        return Dyn(UNKNOWN), residual


def reference_of(value: Value) -> ast.expr | None:
    """The name of a known object, if it has one."""
    return reference(value.value) if isinstance(value, Const) else None


def _key(parts: Sequence[Folded]) -> Value:
    """The tuple that an index is, if it may be a key of a dictionary."""
    types = [static_type(value) for value, _ in parts]
    return Dyn(tuple_of(*types) if set(types) in ({INT}, {STR}) else UNKNOWN)
