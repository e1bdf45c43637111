"""Assignments: one name in the specialised code for each type a variable has."""

from __future__ import annotations

import ast
import builtins
import collections
import inspect
from dataclasses import replace

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.annotations import annotation_type
from gnnscript.analyze.types import (
    NONE,
    NUMBER,
    TENSOR,
    UNKNOWN,
    Type,
    dict_of,
    has_tuple_keys,
    is_optional,
    is_subtype,
    list_of,
    strip_optional,
)
from gnnscript.specialize.folding.base import Arguments, Binding, Folding, Learned
from gnnscript.specialize.folding.collections import is_collection
from gnnscript.specialize.folding.mutation import changed_sets
from gnnscript.specialize.folding.numbers import as_held
from gnnscript.specialize.folding.sets import is_set
from gnnscript.specialize.helpers import (
    annotation,
    filled_range,
    is_absent,
    stored_name,
    torch_name,
)
from gnnscript.specialize.tree import free_name, names_read
from gnnscript.specialize.values import (
    Const,
    Defaulting,
    Dyn,
    Mapping,
    ModuleRef,
    Poison,
    Seq,
    Value,
    constant_items,
    has_mapping,
    has_slice,
    is_motley,
    is_object,
    literal,
    static_type,
)


class Assignment(Folding):
    """The part of a frame that binds variables."""

    def _stmt_Assign(self, node: ast.Assign) -> None:
        if len(node.targets) == 1 and self._parallel(node.targets[0], node.value):
            return
        if isinstance(node.value, ast.GeneratorExp) and isinstance(node.targets[0], ast.Name):
            self.refuse_late(node.targets[0].id, node.value)
        # Of two types, perhaps, which what reads the variable does not tell apart.
        folded = self.fold_or_branch(node.value, lambda arm: ast.Assign(node.targets, arm))
        if folded is None:
            return
        value, residual = folded
        if len(node.targets) > 1:
            residual = self.hold("value", residual, set())
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

    def _stmt_AnnAssign(self, node: ast.AnnAssign) -> None:
        if isinstance(node.target, ast.Name):
            declared = annotation_type(ast.unparse(node.annotation), self.source, self.cls)
            if declared.known and declared.name not in ("Union", "Class"):
                self.declared[node.target.id] = declared
        if node.value is not None:
            value, residual = self.fold(node.value)
            self.assign(node.target, value, residual)

    def _stmt_AugAssign(self, node: ast.AugAssign) -> None:
        defaulting = self.defaulting(node.target)
        if defaulting is not None:
            self.add_to_default(node, defaulting)
            return
        load = ast.copy_location(ast.BinOp(self.as_load(node.target), node.op, node.value), node)
        if isinstance(node.target, ast.Name):
            before = self.env.get(node.target.id)
            held = before.value if before is not None else None
            in_place = not isinstance(node.op, ast.MatMult)  # of which tensors have no such form
            grows = in_place and isinstance(held, Dyn) and held.type == TENSOR
            if grows and before is not None and node.target.id not in self.summed:
                _, operand = self.fold_needed(node.value)
                target = ast.Name(before.name or node.target.id, ast.Store())
                self.emit(ast.AugAssign(target, node.op, operand))
                return
            if held is not None and before is not None and is_collection(held):
                if isinstance(held, Seq) and isinstance(node.op, ast.Add):
                    self.change(held, before.read, "extend", Arguments([self.fold(node.value)], {}))
                    return
                if isinstance(held, Mapping) and isinstance(node.op, ast.BitOr):
                    self.change(held, before.read, "update", Arguments([self.fold(node.value)], {}))
                    return
            if held is not None and before is not None:
                if self._extends(node, held, before.read):
                    return
                if static_type(held).name == "Set":
                    if self.augment_set((held, before.read), node.op, self.fold(node.value)):
                        return
            self.assign(node.target, *self.fold(load))
            return
        if isinstance(node.target, ast.Subscript):
            node = ast.copy_location(
                ast.AugAssign(self.placed(node.target), node.op, node.value), node
            )
            load = ast.copy_location(
                ast.BinOp(self.as_load(node.target), node.op, node.value), node
            )
        value, element = self.fold(self.as_load(node.target))
        if self._extends(node, value, element):
            return
        anew = isinstance(node.op, ast.MatMult)
        if isinstance(value, Dyn) and value.type in (TENSOR, UNKNOWN) and not anew:
            _, operand = self.fold_needed(node.value)
            if isinstance(node.target, (ast.Subscript, ast.Attribute)):
                holder, _ = self.fold(node.target.value)
                if is_collection(holder):
                    held_in = self.hold("item", element, set())
                    assert isinstance(held_in, ast.Name)
                    self.emit(ast.AugAssign(ast.Name(held_in.id, ast.Store()), node.op, operand))
                    return
            place = self.store_target(node.target)
            self.emit(ast.AugAssign(place, node.op, operand))
            return
        self.assign(node.target, *self.fold(load))

    def _extends(self, node: ast.AugAssign, held: Value, read: ast.expr | None) -> bool:
        """Carries out ``values += more`` of a list of run time, which others may hold too."""
        t = static_type(held)
        if not isinstance(held, Dyn) or not isinstance(node.op, ast.Add) or read is None:
            return False
        if t.name == "List" and not t.known and isinstance(node.target, ast.Name):
            self.learn_as(node.target.id, static_type(self.fold(node.value)[0]))
        if t.name != "List" or not t.known or filled_range(read) is not read:
            return False
        value, more = self.fold_needed(node.value)
        given = static_type(value)
        if given.name == "Tuple":
            more = ast.List(self.element_nodes(more, len(given.args)).elts, ast.Load())
        self.emit(ast.Expr(ast.Call(ast.Attribute(read, "extend", ast.Load()), [more], [])))
        return True

    def assign(self, target: ast.expr, value: Value, residual: ast.expr | None) -> None:
        """Binds ``value``, computed by ``residual``, to an assignment target."""
        if isinstance(target, ast.Name):
            self.bind(target.id, value, residual)
        elif isinstance(target, (ast.Tuple, ast.List)):
            self.unpack(target, value, residual)
        elif isinstance(target, ast.Attribute):
            self._assign_attribute(target, value, residual)
        elif isinstance(target, ast.Subscript):
            target, residual = self.placed_behind(target, residual)
            holder, base = self.fold(target.value)
            if is_collection(holder):
                self.set_item(holder, base, self.index(target.slice)[0], value, residual)
                return
            self.fill_item(target, holder, value)
            self._first_entry(base, self.index(target.slice)[0], value)
            self.forget(set(names_read(self.as_load(target))))
            if static_type(self.index(target.slice)[0]) == list_of(TENSOR):
                self._put(target, value, residual)
                return
            place = self.store_target(target)
            assert isinstance(place, ast.Subscript)
            if static_type(holder).name == "List" and isinstance(place.slice, ast.Slice):
                self.put_slice(holder, place.value, place.slice, (value, residual))
                return
            held = static_type(holder)
            if held.name == "Dict" and held.known:
                value, residual = self.as_typed(value, residual, held.args[1])
            self.emit(ast.Assign([place], self.needed(value, residual)))
        else:
            raise UnsupportedError(
                f"assignment to '{ast.unparse(target)}' has no TorchScript form",
                "assign to plain names",
            )

    def _first_entry(self, base: ast.expr | None, key: Value, value: Value) -> None:
        """Gives an empty dictionary the types of the first entry that is put into it."""
        made = self.open_lists.get(base.id) if isinstance(base, ast.Name) else None
        if not isinstance(made, ast.Assign) or not isinstance(made.value, ast.Dict):
            return
        assert isinstance(base, ast.Name)
        empty = isinstance(value, Seq) and not value.items
        t = dict_of(static_type(key), UNKNOWN if empty else static_type(value))
        for name, binding in self.env.items():
            if binding.name == base.id and t.known:
                raise Learned(self, name, t)

    def _put(self, target: ast.expr, value: Value, residual: ast.expr | None) -> None:
        """``x[tuple(edge_index)] = value``: a tensor for each dimension, in a list."""
        place = self.store_target(target)
        assert isinstance(place, ast.Subscript)
        given = self.needed(value, residual)
        if static_type(value) != TENSOR:
            given = ast.Call(torch_name("torch.tensor"), [given], [])
        given = ast.Call(ast.Attribute(given, "to", ast.Load()), [place.value], [])
        put = torch_name("torch.ops.aten.index_put_")
        self.emit(ast.Expr(ast.Call(put, [place.value, place.slice, given], [])))

    def bind(self, name: str, value: Value, residual: ast.expr | None) -> None:
        """Binds a variable, under another name where its type changes."""
        self.forget({name})
        if residual is None:
            residual = literal(value)
        if isinstance(value, Const) and is_set(value.value) and self._set_changes(name):
            known_type = self.declared.get(name) or self.learned.get(name)
            value, residual = self.runtime_set(value, known_type)
        known = self.known_collection(name, value, residual)
        if known is not None:
            self.env[name] = Binding(known[0], None, known[1])
            return
        if isinstance(value, Poison) or residual is None:
            self.env[name] = Binding(value, None)
            return
        by_parts = has_mapping(value) or has_slice(value) or is_motley(value)
        if is_absent(residual) or (by_parts and name not in self.opened):
            self.env[name] = Binding(value, None, self.hold(name, residual))
            return
        if isinstance(value, Mapping):
            value = opened(value)
        if isinstance(value, (Seq, Const)) and name in self.mutated:
            items = constant_items(value)
            t = static_type(value)
            if items is not None and t.name in ("List", "Dict"):
                value = Dyn(list_of(UNKNOWN) if not items and t.name == "List" else t)
        declared = self.declared.get(name) or self.learned.get(name)
        if isinstance(residual, (ast.ListComp, ast.DictComp)) and declared is not None:
            value, typed = self.as_typed(value, residual, declared)
            residual = typed or residual
        residual = filled_range(residual)
        t = static_type(value)
        annotate = False
        if declared is not None and declared.name == "Tuple" and isinstance(value, Seq):
            declared = None  # what is known of each element says more
        if declared is not None and declared.name == "Dict" and isinstance(residual, ast.Dict):
            if not residual.keys and isinstance(value, Dyn):
                value, t = (
                    replace(value, type=declared),
                    declared,
                )  # an empty one has no keys to tell their type
        if declared is not None and isinstance(residual, ast.List) and isinstance(value, Dyn):
            if t.name == declared.name == "List" and is_subtype(t.args[0], declared.args[0]):
                value, t = Dyn(declared), declared  # a new list may hold what was declared
        if declared is not None and is_subtype(t, declared):
            if isinstance(value, Seq) and t != strip_optional(declared):
                value = Dyn(strip_optional(declared))
            annotate = t != declared and not self.variants.get(name)
            t = declared
            if isinstance(value, Dyn) and not value.type.known:
                value = Dyn(declared)
        again = bool(self.variants.get(name))
        if again and declared == t:
            residual = self.as_typed(value, residual, t)[1] or residual
        residual_name = self.variable(name, t)
        if self.is_narrowed(name, residual_name, t):
            residual_name = self.variable_apart(name, t)
        store = ast.Name(residual_name, ast.Store())
        first = isinstance(residual, (ast.List, ast.Dict)) and not again
        if annotate or (declared is not None and first):
            self.emit(ast.AnnAssign(store, annotation(t), residual, 1))
        elif isinstance(residual, ast.Name) and residual.id == residual_name:
            pass
        else:
            self.emit(ast.Assign([store], residual))
            if isinstance(residual, (ast.List, ast.Dict)) and not _parts(residual):
                self.open_lists[residual_name] = self.out[-1]
        self.env[name] = Binding(value, residual_name)

    def _set_changes(self, name: str) -> bool:
        """Whether a variable that holds a set may hold other elements later."""
        stored = [
            n
            for n in ast.walk(self.source.node)
            if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)
        ]
        own = [
            call
            for call in ast.walk(self.source.node)
            if isinstance(call, ast.Call) and not hasattr(builtins, getattr(call.func, "id", ""))
        ]
        given = [arg for call in own for arg in [*call.args, *(k.value for k in call.keywords)]]
        passed = any(isinstance(arg, ast.Name) and arg.id == name for arg in given)
        changed = self.mutated | changed_sets(self.source.node)
        return len(stored) > 1 or passed or name in changed

    def is_narrowed(self, name: str, held_as: str, t: Type) -> bool:
        """Whether a test has said of a variable that it is not ``None``, which it may be again.

        TorchScript holds whoever assigns it in a block within to what the test has said. In a loop
        a variable keeps its name: ``break`` and ``continue`` leave with what it holds.
        """
        if self.loops:
            return False
        before = self.env.get(name)
        if before is None or before.name != held_as or not is_optional(t) or t == NONE:
            return False
        return not is_optional(static_type(before.value))

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

    def variable(self, name: str, t: Type) -> str:
        """The name that holds variable ``name`` when it has type ``t``."""
        variants = self.variants.setdefault(name, [])
        for known, residual in variants:
            if is_subtype(t, known):
                return residual
        residual, number = name, 0
        while variants and (number == 0 or residual in self.taken):
            number += 1
            residual = f"{name}_{number}"
        self.taken.add(residual)
        variants.append((t, residual))
        return residual

    def variable_apart(self, name: str, t: Type) -> str:
        """Another name for variable ``name``, where the one it has cannot hold ``t``."""
        residual = self.fresh(name)
        self.variants[name].append((t, residual))
        return residual

    def fresh(self, wish: str) -> str:
        """A variable name that is not in use."""
        return free_name(wish, self.taken)

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
            setter = inspect.getattr_static(type(module), name, None)
            if isinstance(setter, property) and setter.fset is not None:
                owner = (self.program.owner(holder).ref, None)
                given = Arguments([owner, (value, residual)], {})
                cls = self.defining_class(holder, name)
                self.call_function(setter.fset, given, cls, name=f"set_{name}", called=holder)
                return
            self.program.stored.add(self.program.owner(holder).ref.path)
            if isinstance(value, (Seq, Mapping)) and not value.items:
                kind = "Dict" if isinstance(value, Mapping) else "List"
                empty = self.program.empty_type(holder, name, kind)
                if is_collection(value) and empty is not None:
                    value = Dyn(empty)
                    spelled = [annotation(empty), residual]
                    residual = ast.Call(torch_name("torch.jit.annotate"), spelled, [])
            if name not in module._buffers and name not in module._parameters:
                if static_type(value) == NUMBER:
                    value, residual = as_held(self, getattr(module, name, None), residual)
                self.program.record_write(holder, name, static_type(value))
            node = ast.Attribute(self.module_node(holder), stored_name(name), ast.Store())
            self.emit(ast.Assign([node], residual))
            self.forget({"self"})
            self.note(ast.Attribute(node.value, name, ast.Load()), static_type(value))
            return
        if is_object(holder):
            self.set_field(holder, base, target.attr, (value, residual))
            return
        if isinstance(holder, Const):
            raise UnsupportedError(
                f"'{ast.unparse(target)}' is assigned, which belongs to a Python object",
                "keep what changes in attributes of the module: numbers, tensors, buffers",
            )
        node = ast.Attribute(self.needed(holder, base), target.attr, ast.Store())
        if target.attr == "requires_grad" and static_type(holder) == TENSOR:
            # An attribute of tensors that TorchScript sets by a method only.
            setter = ast.Attribute(node.value, "requires_grad_", ast.Load())
            self.emit(ast.Expr(ast.Call(setter, [self.needed(value, residual)], [])))
            return
        self.emit(ast.Assign([node], self.needed(value, residual)))

    def store_target(self, node: ast.expr) -> ast.Subscript | ast.Attribute:
        """The residual form of ``x[...]`` or ``x.y`` as an assignment target."""
        if isinstance(node, ast.Subscript):
            _, base = self.present(*self.fold_needed(node.value))
            self.refuse_lost(node.value, base)
            if not isinstance(base, ast.Name):  # TorchScript stores into slices of variables only
                base = self.hold("target", base) or base
            position, index = self.index(node.slice)
            if has_tuple_keys(static_type(self.fold(node.value)[0])):
                index = self.set_key(position, index)
            return ast.Subscript(base, index, ast.Store())
        if isinstance(node, ast.Attribute):
            holder, base_node = self.fold(node.value)
            if isinstance(holder, ModuleRef):
                base_node = self.module_node(holder)
            return ast.Attribute(
                self.needed(holder, base_node), self.mangled(node.attr), ast.Store()
            )
        raise UnsupportedError(
            f"'{ast.unparse(node)}' cannot be assigned to", "assign to plain names"
        )


def opened(value: Mapping) -> Dyn:
    """A dictionary known by its entries, as one of run time."""
    t = static_type(value) if value.items else dict_of(UNKNOWN, UNKNOWN)
    if value.default is None:
        return Dyn(t)
    return Defaulting(t, value.default, issubclass(value.cls, collections.Counter))


def _parts(display: ast.List | ast.Dict) -> list[ast.expr]:
    return display.values if isinstance(display, ast.Dict) else display.elts
