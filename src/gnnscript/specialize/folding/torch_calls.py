"""Calls that stay: torch's functions, our ops, and the methods of values."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import torch

from gnnscript import _pyg
from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import (
    FLOAT,
    INT,
    NONE,
    STR,
    TENSOR,
    UNKNOWN,
    Type,
    has_tuple_keys,
    is_optional,
    is_sparse,
    list_of,
    optional,
    tuple_of,
)
from gnnscript.specialize import inference
from gnnscript.specialize.folding.base import Arguments, Folded, Opened
from gnnscript.specialize.folding.collections import is_collection
from gnnscript.specialize.folding.functions import _declared
from gnnscript.specialize.folding.mutation import CHANGE_IN_PLACE
from gnnscript.specialize.folding.sets import unread_keys
from gnnscript.specialize.folding.sparse_calls import (
    COMPRESSED,
    COMPRESSED_NAMES,
    PRODUCTS,
    SPARSE_FACTORIES,
    TO_SPARSE,
    SparseCalls,
    layout_of,
)
from gnnscript.specialize.folding.torch_arguments import prepared, tensor_type
from gnnscript.specialize.helpers import annotation, interop_reference, op_reference, torch_name
from gnnscript.specialize.substitutes import int_list, int_prod
from gnnscript.specialize.tree import is_simple
from gnnscript.specialize.values import (
    Closure,
    Const,
    Dyn,
    Mapping,
    Method,
    ModuleRef,
    Seq,
    Value,
    is_object,
    literal,
    static_type,
)


class TorchCalls(SparseCalls):
    """The part of a frame that keeps calls, and knows their types."""

    def call_torch(self, function: Any, given: Arguments) -> Folded:
        if function is torch.nonzero and _is_true(given.kwargs.get("as_tuple")):
            pairs = torch_name("torch.ops.aten.nonzero_numpy")
            return Dyn(list_of(TENSOR)), ast.Call(pairs, [self.needed(*given.args[0])], [])
        if "requires_grad" in given.kwargs and function is not torch.tensor:
            return self._requiring_grad(function, given)
        if function in (torch.unique, torch.unique_consecutive):
            return self._unique(function, given)
        given = prepared(self, getattr(function, "__name__", ""), self._present_items(given))
        args, kwargs = given.types()
        if given.constant and getattr(function, "__module__", "") == "math":
            values, named = given.values()
            return Const(self.compute(ast.Constant("math"), function, *values, **named)), None
        if any(t == UNKNOWN for t in [*args, *kwargs.values()]) and any(
            isinstance(v, (ModuleRef, Closure, Method)) for v, _ in given.args
        ):
            raise UnsupportedError(
                f"'{function.__name__}' is given a function or module",
                "call torch functions with tensors and numbers",
            )
        if getattr(function, "__module__", "") == "math":
            found = inference.Signature(_MATH.get(function.__name__, FLOAT))
        else:
            found = inference.function_type(function, args, kwargs)
        given = self.adapted(given, found)
        returns, name = found.returns, getattr(function, "__name__", "")
        if name in COMPRESSED:  # as TorchScript has it, gradients of the values would be lost
            layout = Const(COMPRESSED[name])
            named = {COMPRESSED_NAMES.get(k, k): v for k, v in given.kwargs.items()}
            given = Arguments(given.args, named | {"layout": (layout, literal(layout))})
            function = torch.ops.aten.sparse_compressed_tensor
        if name in PRODUCTS and len(args) > 1 and is_sparse(args[0]):
            returns = args[0] if is_sparse(args[1]) else TENSOR
        if returns in (TENSOR, UNKNOWN) and name in SPARSE_FACTORIES:
            returns = layout_of(given, SPARSE_FACTORIES[name])
        return Dyn(returns), ast.Call(self.needed(Const(function), None), *self.nodes(given))

    def _present_items(self, given: Arguments) -> Arguments:
        """Lists of tensors or sizes, none of which can be ``None``: ``torch.cat([x, attr])``."""

        def present(value: Value, node: ast.expr | None) -> Folded:
            if not isinstance(value, Seq) or not isinstance(node, (ast.List, ast.Tuple)):
                return value, node
            wanted = (optional(TENSOR), optional(INT))
            if not any(static_type(item) in wanted for item in value.items):
                return value, node
            pairs = [self.present(*p) for p in zip(value.items, node.elts, strict=True)]
            nodes: list[ast.expr | None] = [n for _, n in pairs]
            return self.sequence(value.kind, [v for v, _ in pairs], nodes, keep=True)

        kwargs = {k: present(*folded) for k, folded in given.kwargs.items()}
        return Arguments([present(*folded) for folded in given.args], kwargs)

    def _unique(self, function: Any, given: Arguments) -> Folded:
        """``torch.unique``, whose flags decide what it returns."""
        order = ("input", "sorted") if function is torch.unique else ("input",)
        names = (*order, "return_inverse", "return_counts", "dim")
        bound = dict(zip(names, given.args, strict=False)) | given.kwargs
        count = 1 + sum(_is_true(bound.get(flag)) for flag in names[-3:-1])
        returns = TENSOR if count == 1 else tuple_of(*[TENSOR] * count)
        kwargs = [
            ast.keyword(name, self.needed(value, node))
            for name, (value, node) in bound.items()
            if name != "input" and not (isinstance(value, Const) and value.value is None)
        ]
        call = ast.Call(self.needed(Const(function), None), [self.needed(*bound["input"])], kwargs)
        return Dyn(returns), call

    def _requiring_grad(self, function: Any, given: Arguments) -> Folded:
        """``torch.zeros(..., requires_grad=True)``, whose operator has no such argument."""
        kwargs = dict(given.kwargs)
        value, node = kwargs.pop("requires_grad")
        made, call = self.call_torch(function, Arguments(given.args, kwargs))
        if call is None or (isinstance(value, Const) and not value.value):
            return made, call
        flags = [] if isinstance(value, Const) else [self.needed(value, node)]
        return made, ast.Call(ast.Attribute(call, "requires_grad_", ast.Load()), flags, [])

    def adapted(self, given: Arguments, found: inference.Signature) -> Arguments:
        """Arguments in the form that the operator takes."""
        given = self.unwrapped(given, found.unwrap)
        args, kwargs = list(given.args), dict(given.kwargs)
        for key in found.floats:
            value, node = args[key] if isinstance(key, int) else kwargs[key]
            changed: Folded
            if isinstance(value, Const):
                changed = (Const(float(value.value)), None)
            else:
                cast = ast.Call(ast.Name("float", ast.Load()), [self.needed(value, node)], [])
                changed = (Dyn(FLOAT), cast)
            if isinstance(key, int):
                args[key] = (changed[0], changed[1] or literal(changed[0]))
            else:
                kwargs[key] = (changed[0], changed[1] or literal(changed[0]))
        return Arguments(args, kwargs)

    def unwrapped(self, given: Arguments, which: frozenset[int | str]) -> Arguments:
        """Asserts that the arguments an operator cannot take as ``None`` are not."""
        args, kwargs = list(given.args), dict(given.kwargs)
        for key in which:
            value, node = args[key] if isinstance(key, int) else kwargs[key]
            changed = self.unwrap(value, self.needed(value, node))
            if isinstance(key, int):
                args[key] = changed
            else:
                kwargs[key] = changed
        return Arguments(args, kwargs)

    def call_op(self, op: str, original: Any, given: Arguments) -> Folded:
        """Calls our op, which the code names, or PyG's function of the same signature."""
        signature = inspect.signature(original)
        bound = signature.bind(*given.args, **given.kwargs)
        args: list[ast.expr] = []
        kwargs: list[ast.keyword] = []
        positional = True
        for name, parameter in signature.parameters.items():
            if name not in bound.arguments:
                positional = False
                continue
            value, node = bound.arguments[name]
            t = static_type(value)
            if name in ("src", "index") and t.name == "Optional" and parameter.default is not None:
                value, node = self.unwrap(value, self.needed(value, node))
            if (
                isinstance(value, Const)
                and value.value == parameter.default
                and (value.value is None or name in ("reduce", "dim"))
            ):
                positional = False
                continue
            if positional:
                args.append(self.needed(value, node))
            else:
                kwargs.append(ast.keyword(name, self.needed(value, node)))
        return Dyn(_declared(original)), ast.Call(op_reference(op), args, kwargs)

    def call_replaced(self, op: str, given: Arguments) -> Folded:
        """Calls our op in place of the op of ``pyg_lib`` that has its name and signature."""
        found = inference.schema_type(op, _pyg.PYG_LIB_OPS[op][1], *given.types())
        given = self.adapted(given, found)
        return Dyn(found.returns), ast.Call(op_reference(op), *self.nodes(given))

    def call_interop(self, name: str, given: Arguments) -> Folded:
        """Calls our function in place of the one of ``torch_scatter`` that has its name."""
        pair = name.endswith(("_min", "_max"))  # these return positions, too
        returns = tuple_of(TENSOR, TENSOR) if pair else TENSOR
        return Dyn(returns), ast.Call(interop_reference(name), *self.nodes(given))

    def method_of_value(
        self, holder: Value, base: ast.expr | None, name: str, node: ast.Call
    ) -> Folded:
        t = static_type(holder)
        if isinstance(holder, Const) and isinstance(holder.value, str) and name == "format":
            text = self.formatted_text(holder.value, node)
            if text is not None:
                return self.fold(text)
        if isinstance(holder, Const) and not isinstance(holder.value, torch.Tensor):
            given = self.arguments(node)
            done = self.method_of_constant(holder, name, node, given)
            if done is not None:
                return done
            if isinstance(holder.value, str) and name == "format" and ":" in holder.value:
                raise UnsupportedError(
                    "a format specification has no TorchScript form", "format without one"
                )
            if isinstance(holder.value, dict) and given.args:
                table = self.table(holder, base, static_type(given.args[0][0]))
                holder, base = table or (holder, base)
                t = static_type(holder)
        if is_collection(holder) and name in CHANGE_IN_PLACE:
            return self.change(holder, base, name, self.arguments(node))
        if isinstance(holder, Mapping):
            return self._method_of_mapping(holder, base, name, node)
        if name in ("_replace", "_asdict") and hasattr(t.cls, "_fields"):
            return self._method_of_named_tuple(t.cls, base, holder, name, node)
        if isinstance(holder, Seq) and holder.cls is not None and name in holder.cls._fields:
            callee, callee_node = self.attribute(holder, base, name)
            return self.call(callee, self.arguments(node), callee_node)
        if t.name == "Tuple" and t.cls is not None:
            done = self.record_method(holder, base, name, self.arguments(node))
            if done is not None:
                return done
        holder_node = self.needed(holder, base)
        if is_optional(t) and t != NONE:
            holder, holder_node = self.unwrap(holder, holder_node)
            t = static_type(holder)
        mark = len(self.out)
        given = self.arguments(node, spread=t in (TENSOR, UNKNOWN))
        if t.name not in ("List", "Dict", "Set"):  # those are meant where they are held
            held: list[Folded] = [(holder, holder_node)]
            self.settle(held, mark)
            holder_node = self.needed(*held[0])
        if isinstance(holder_node, ast.Constant) and isinstance(holder_node.value, int):
            raise UnsupportedError(f"a number has no method '{name}'", "use a torch function")
        if t == TENSOR:
            name = _ALIASES.get(name, name)
        func = ast.Attribute(holder_node, name, ast.Load())
        if t.name in ("List", "Dict") and isinstance(node.func, ast.Attribute):
            if name in CHANGE_IN_PLACE:
                self.refuse_lost(node.func.value, holder_node)
            self.fill_by(node.func.value, holder, name, given)
        if not t.known:
            self.learn_inner(node, name, given)
        if t in (TENSOR, UNKNOWN):
            if name == "nonzero" and _is_true(given.kwargs.get("as_tuple")):
                pairs = torch_name("torch.ops.aten.nonzero_numpy")
                return Dyn(list_of(TENSOR)), ast.Call(pairs, [holder_node], [])
            if name == "nonzero":
                given.kwargs.pop("as_tuple", None)
            given = prepared(self, name, self._present_items(given), method=True)
            written = self._python_method(holder, holder_node, name, given)
            if written is not None:
                return written
            for keyword, default in _PYTHON_DEFAULTS.get(name, {}).items():
                if not given.args:
                    given.kwargs.setdefault(keyword, (Const(default), literal(Const(default))))
            args, kwargs = given.types()
            found = inference.method_type(name, args, kwargs)
            given = self.adapted(given, found)
            returns = found.returns if t == TENSOR else UNKNOWN
            if name in TO_SPARSE:
                return self.to_sparse(holder_node, name, given)
            return Dyn(returns), ast.Call(func, *self.nodes(given))
        if (
            t.name == "List"
            and name == "sort"
            and ("key" in given.kwargs or t.args[0].name == "Tuple")
        ):
            return self.sort_in_place(holder_node, holder, given)
        if t.name == "Set":
            return self.method_of_set(holder, holder_node, name, given.args)
        call = ast.Call(func, *self.nodes(given))
        if is_sparse(t):
            return self.method_of_sparse(holder_node, t, name, given, call)
        if t.name == "List":
            return self._method_of_list(holder_node, t, name, given, call)
        if t.name == "Dict":
            if has_tuple_keys(t) and name in ("keys", "items", "popitem"):
                raise unread_keys(t)
            call = ast.Call(func, *self.nodes(self._entry(t, name, given)))
            if name == "get" and len(given.args) > 1 and static_type(given.args[1][0]) == t.args[1]:
                return Dyn(t.args[1]), call
            return Dyn(_dict_method(t, name)), call
        if t == STR:
            return Dyn(_STR_METHODS.get(name, STR)), call
        if t.name == "Class" and inspect.isfunction(getattr(t.cls, name, None)):
            return Dyn(_declared(getattr(t.cls, name))), call
        return Dyn(UNKNOWN), call

    def _method_of_named_tuple(
        self, cls: Any, base: ast.expr | None, holder: Value, name: str, node: ast.Call
    ) -> Folded:
        nodes = self.element_nodes(self.needed(holder, base), len(cls._fields)).elts
        t = static_type(holder)
        values = holder.items if isinstance(holder, Seq) else [Dyn(part) for part in t.args]
        fields = dict(zip(cls._fields, zip(values, nodes, strict=True), strict=True))
        if name == "_asdict":
            return self.mapping({k: v for k, (v, _) in fields.items()}, list(nodes))
        return self.call(Const(cls), Arguments([], fields | self.arguments(node).kwargs), None)

    def _python_method(
        self, holder: Value, node: ast.expr, name: str, given: Arguments
    ) -> Folded | None:
        """A method of tensors that only Python has."""
        if name in ("unique", "unique_consecutive"):
            args = Arguments([(holder, node), *given.args], given.kwargs)
            return self.call_torch(getattr(torch, name), args)
        if name == "new_tensor":
            like = node if is_simple(node) else self.hold("like", node) or node
            kept = {
                key: (Dyn(Type(key)), ast.Attribute(like, key, ast.Load()))
                for key in ("dtype", "device")
            }
            given = Arguments(given.args, kept | given.kwargs)
            return self.call(Const(torch.tensor), given, None)
        if name == "tolist":
            return self.call_function(int_list, Arguments([(holder, node)], {}), None)
        if name in _DTYPE_METHODS and not given.args:
            dtype = torch_name(f"torch.{_DTYPE_METHODS[name]}")
            return Dyn(TENSOR), ast.Call(ast.Attribute(node, "to", ast.Load()), [dtype], [])
        kind = given.args[0][0] if name == "type" and given.args else None
        dtype_named = tensor_type(kind.value) if isinstance(kind, Const) else None
        if dtype_named is not None:
            to = ast.Attribute(node, "to", ast.Load())
            return Dyn(TENSOR), ast.Call(to, [self.needed(dtype_named, literal(dtype_named))], [])
        if name == "numpy" and not given.args:
            return holder, node  # NumPy's functions are written with torch's
        return None

    def _method_of_list(
        self,
        node: ast.expr,
        t: Type,
        name: str,
        given: Arguments,
        call: ast.Call,
    ) -> Folded:
        element = t.args[0]
        if name == "popleft":  # of a deque, which is a list in TorchScript
            call = ast.Call(ast.Attribute(node, "pop", ast.Load()), [ast.Constant(0)], [])
            return Dyn(element), call
        if name == "appendleft":
            func = ast.Attribute(node, "insert", ast.Load())
            given = Arguments([(Const(0), None), *given.args], {})
            name, call = "insert", ast.Call(func, *self.nodes(given))
        if name == "numel" and element == INT:  # of a shape, which is a list in TorchScript
            return self.call_function(int_prod, Arguments([(Dyn(t), node)], {}), None)
        if name in ("append", "insert") and given.args and isinstance(node, ast.Name):
            added = static_type(given.args[-1][0])
            opened = self.open_lists.pop(node.id, None)
            if element == UNKNOWN and isinstance(opened, ast.Assign):
                element = added
                if added != TENSOR and added.known:
                    opened.annotation_ = annotation(list_of(added))  # type: ignore[attr-defined]
            if element == UNKNOWN:
                element = added
            for variable, binding in list(self.env.items()):
                if binding.name == node.id:
                    self.env[variable] = type(binding)(Dyn(list_of(element)), binding.name)
        returns = {"pop": element, "copy": t, "index": INT, "count": INT}.get(name, NONE)
        return Dyn(returns), call

    def _entry(self, t: Type, name: str, given: Arguments) -> Arguments:
        """The arguments of a dictionary's method, as its types of key and entry need them."""
        args = list(given.args)
        if has_tuple_keys(t) and name in ("get", "pop", "setdefault"):
            args[0] = Dyn(STR), self.set_key(*args[0])
        if len(args) > 1 and name in ("get", "pop", "setdefault") and t.known:
            args[1] = self.as_typed(*args[1], t.args[1])
        return Arguments(args, given.kwargs)

    def _method_of_mapping(
        self, holder: Mapping, base: ast.expr | None, name: str, node: ast.Call
    ) -> Folded:
        given = self.arguments(node)
        nodes = self.entries(holder, base)
        if name == "get" and given.args and isinstance(given.args[0][0], Const):
            key = given.args[0][0].value
            if key in holder.items:
                item = holder.items[key]
                return item, nodes[list(holder.items).index(key)]
            return given.args[1] if len(given.args) > 1 else (Const(None), None)
        if name == "keys":
            return Const(list(holder.items)), None
        if name == "values":
            return self.sequence("list", list(holder.items.values()), nodes)
        if name == "items":
            pairs: list[Folded] = [
                self.sequence("tuple", [Const(k), v], [literal(Const(k)), n])
                for (k, v), n in zip(holder.items.items(), nodes, strict=True)
            ]
            return self.sequence("list", [v for v, _ in pairs], [n for _, n in pairs])
        if name == "to_dict" and is_object(holder):
            return self.mapping(dict(holder.items), nodes)
        if name in ("copy", "clone"):
            return self.mapping(dict(holder.items), nodes, holder.default, holder.cls)
        if is_object(holder):
            done = self.record_method(holder, base, name, given)
            if done is not None:
                return done
            raise UnsupportedError(
                f"the method '{name}' of a '{holder.cls.__name__}' is called", "use its fields"
            )
        if name == "get":
            raise Opened(
                self,
                self.holding(holder),
                "a dictionary is asked for a key that is known only at run time",
                "give its entries one type",
            )
        raise UnsupportedError(f"'{name}' of a dictionary of known names", "use its items")


def _is_true(folded: Folded | None) -> bool:
    return folded is not None and isinstance(folded[0], Const) and bool(folded[0].value)


# Conversions that TorchScript has no method for.
_DTYPE_METHODS = {"bool": "bool", "bfloat16": "bfloat16"}

# Names of methods that only Python has.
_ALIASES = {"nelement": "numel", "ndimension": "dim"}

# Defaults that tensor methods have in Python, and their operators lack.
_PYTHON_DEFAULTS: dict[str, dict[str, Any]] = {"norm": {"p": 2}}

_MATH: dict[str, Type] = {
    "floor": INT,
    "ceil": INT,
    "gcd": INT,
    "factorial": INT,
    "frexp": tuple_of(FLOAT, INT),
    "modf": tuple_of(FLOAT, FLOAT),
    "isnan": Type("bool"),
    "isinf": Type("bool"),
    "isfinite": Type("bool"),
}


_STR_METHODS: dict[str, Type] = {
    "startswith": Type("bool"),
    "endswith": Type("bool"),
    "isdigit": Type("bool"),
    "find": INT,
    "count": INT,
    "split": list_of(STR),
}


def _dict_method(t: Type, name: str) -> Type:
    key, value = t.args
    return {
        "keys": list_of(key),
        "values": list_of(value),
        "items": list_of(tuple_of(key, value)),
        "get": Type("Optional", (value,)),
        "pop": value,
        "setdefault": value,
        "copy": t,
    }.get(name, NONE)
