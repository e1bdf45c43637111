"""Folding of calls: what is called decides whether it is evaluated, specialised or kept."""

from __future__ import annotations

import ast
import functools
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gnnscript import _pyg
from gnnscript._errors import UnsupportedError
from gnnscript.analyze.calls import refuse_open_keywords
from gnnscript.analyze.sources import FunctionSource, function_source
from gnnscript.analyze.types import (
    FLOAT,
    INT,
    NONE,
    STR,
    TENSOR,
    UNKNOWN,
    Type,
    from_annotation,
    is_optional,
    list_of,
    tuple_of,
)
from gnnscript.specialize import inference
from gnnscript.specialize.builtins import BUILTINS
from gnnscript.specialize.folding import Folded, Folding
from gnnscript.specialize.helpers import annotation, is_ignored, is_torch_function, op_reference
from gnnscript.specialize.tree import clone, is_simple, names_read
from gnnscript.specialize.values import (
    Closure,
    Const,
    Dyn,
    Mapping,
    Method,
    ModuleRef,
    Poison,
    Seq,
    Super,
    Value,
    literal,
    modules_in,
    static_type,
)

__all__ = ["Arguments", "Calls", "NoReturn"]


class NoReturn(Exception):
    """A call never returns: what follows it in the block is not reached."""


@dataclass
class Arguments:
    """The arguments of a call, each a value and the expression that computes it."""

    args: list[Folded]
    kwargs: dict[str, Folded]

    @property
    def constant(self) -> bool:
        """Whether all of them are known."""
        return all(isinstance(v, Const) for v, _ in [*self.args, *self.kwargs.values()])

    def values(self) -> tuple[list[Any], dict[str, Any]]:
        """The Python objects of constant arguments."""
        args = [v.value for v, _ in self.args if isinstance(v, Const)]
        kwargs = {k: v.value for k, (v, _) in self.kwargs.items() if isinstance(v, Const)}
        return args, kwargs

    def types(self) -> tuple[list[Type], dict[str, Type]]:
        """Their static types."""
        args = [static_type(v) for v, _ in self.args]
        return args, {k: static_type(v) for k, (v, _) in self.kwargs.items()}


class Calls(Folding):
    """The part of a frame that folds calls."""

    def fold_Call(self, node: ast.Call) -> Folded:  # noqa: N802
        refuse_open_keywords_of(node, self.source)
        func = node.func
        if isinstance(func, ast.Name) and func.id == "super" and "super" not in self.env:
            return self._super(node), None
        if isinstance(func, ast.Attribute):
            holder, base = self.fold(func.value)
            if isinstance(holder, (Dyn, Seq, Mapping)) or (
                isinstance(holder, Const) and isinstance(holder.value, (str, list, tuple, dict))
            ):
                return self._method_of_value(holder, base, func.attr, node)
            callee, callee_node = self.attribute(holder, base, func.attr)
        else:
            callee, callee_node = self.fold(func)
        return self.call(callee, self.arguments(node), callee_node)

    def _super(self, node: ast.Call) -> Value:
        if node.args:
            after, _ = self.fold(node.args[0])
            cls = after.value if isinstance(after, Const) else None
        else:
            cls = self.cls
        name = getattr(self.source.node, "args").args[0].arg  # noqa: B009
        owner = self.env[name].value
        if cls is None:
            raise UnsupportedError("'super()' is used outside of a class", "call the function")
        return Super(owner, cls)

    def arguments(self, node: ast.Call) -> Arguments:
        """Folds the arguments of a call, ``*`` and ``**`` expanded."""
        args: list[Folded] = []
        kwargs: dict[str, Folded] = {}
        for arg in node.args:
            if not isinstance(arg, ast.Starred):
                args.append(self.fold(arg))
                continue
            value, residual = self.fold(arg.value)
            items = self.known_items(value)
            if residual is None or isinstance(value, Const):
                args += [(item, literal(item)) for item in items]
            else:
                nodes = self.element_nodes(residual, len(items)).elts
                args += list(zip(items, nodes, strict=True))
        for keyword in node.keywords:
            if keyword.arg is not None:
                kwargs[keyword.arg] = self.fold(keyword.value)
                continue
            value, _ = self.fold(keyword.value)
            if isinstance(value, Const) and isinstance(value.value, dict):
                kwargs |= {k: (self.wrap(v), literal(Const(v))) for k, v in value.value.items()}
            elif isinstance(value, Mapping):
                for name, item in value.items.items():
                    kwargs[name] = (item, self._mapping_node(keyword.value, name, item))
            else:
                raise UnsupportedError(
                    f"'**{ast.unparse(keyword.value)}' holds names known only at run time",
                    "pass each argument by its own name",
                )
        return Arguments(args, kwargs)

    def _mapping_node(self, holder: ast.expr, name: str, item: Value) -> ast.expr | None:
        if isinstance(holder, ast.Name):
            held = self.env.get(holder.id)
            if held is not None and isinstance(held.node, ast.Dict):
                return held.node.values[list(held.value.items).index(name)]
            binding = self.env.get(f"{holder.id}[{name}]")
            if binding is not None and binding.name is not None:
                return ast.Name(binding.name, ast.Load())
        return self.mapping_nodes.get(id(item), literal(item))

    # Dispatch #####################################################################

    def call(self, callee: Value, given: Arguments, callee_node: ast.expr | None) -> Folded:
        """Calls a value."""
        if isinstance(callee, ModuleRef):
            return self.call_module(callee, given)
        if isinstance(callee, Method):
            return self.call_method(callee, given)
        if isinstance(callee, Closure):
            return self._call_closure(callee, given)
        if isinstance(callee, Const):
            return self._call_constant(callee.value, given)
        if isinstance(callee, Dyn):
            node = self.needed(callee, callee_node)
            return Dyn(UNKNOWN), ast.Call(node, *self.nodes(given))
        raise UnsupportedError("this cannot be called", "call a function, a method or a module")

    def nodes(self, given: Arguments) -> tuple[list[ast.expr], list[ast.keyword]]:
        """Arguments as they stand in the specialised code."""
        args = [self.needed(v, n) for v, n in given.args]
        kwargs = [ast.keyword(k, self.needed(v, n)) for k, (v, n) in given.kwargs.items()]
        return args, kwargs

    def _call_constant(self, function: Any, given: Arguments) -> Folded:
        if isinstance(function, functools.partial):
            args = [(self.wrap(a), literal(Const(a))) for a in function.args]
            kwargs = {k: (self.wrap(v), literal(Const(v))) for k, v in function.keywords.items()}
            merged = Arguments([*args, *given.args], kwargs | given.kwargs)
            return self.call(self.wrap(function.func), merged, None)
        try:
            handler = BUILTINS.get(function)
        except TypeError:
            handler = None
        if handler is not None:
            return handler(self, function, given)
        if inspect.isclass(function):
            return self._construct(function, given)
        if _is_hashable(function):
            if function in _pyg.predicates():
                return Const(_pyg.predicates()[function]), None
            if function in _pyg.op_substitutes():
                return self._call_op(_pyg.op_substitutes()[function], function, given)
        if isinstance(function, types.MethodType):
            owner = self.wrap(function.__self__)
            if isinstance(owner, ModuleRef):
                return self.call_method(Method(owner, function.__func__, function.__name__), given)
            if isinstance(function.__self__, torch.Tensor):
                raise UnsupportedError("a constant tensor is used", "register it as a buffer")
            cls = type(function.__self__)
            defining = next((c for c in cls.__mro__ if function.__name__ in vars(c)), cls)
            bound = Arguments([(owner, None), *given.args], given.kwargs)
            return self.call_function(function.__func__, bound, defining)
        if is_torch_function(function):
            return self._call_torch(function, given)
        if is_ignored(function):
            return Dyn(_declared(function)), ast.Call(
                self.needed(Const(function), None), *self.nodes(given)
            )
        if inspect.isfunction(function) or inspect.isfunction(
            getattr(function, "__wrapped__", None)
        ):
            return self.call_function(function, given, None)
        if given.constant and _is_pure_builtin(function):
            args, kw = given.values()
            return self.wrap(self.compute(ast.Constant(str(function)), function, *args, **kw)), None
        if callable(function) and hasattr(type(function), "__call__") and inspect.isfunction(
            type(function).__call__
        ):
            bound = Arguments([(Const(function), None), *given.args], given.kwargs)
            return self.call_function(type(function).__call__, bound, type(function))
        raise UnsupportedError(
            f"'{getattr(function, '__name__', function)}' is called, which has no source that "
            "could be specialised",
            "use torch functions, or a function written in Python",
        )

    def compute(self, node: ast.expr, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Evaluates a call of constants."""
        return super().compute(node, functools.partial(function, **kwargs), *args)

    def _construct(self, cls: type, given: Arguments) -> Folded:
        """A class is called: named tuples are known by their fields, others are TorchScript's."""
        if issubclass(cls, tuple) and hasattr(cls, "_fields"):
            bound = inspect.signature(cls).bind(*given.args, **given.kwargs)
            fields = [bound.arguments.get(f, (Const(None), None)) for f in cls._fields]
            for position, field in enumerate(cls._fields):
                if field not in bound.arguments:
                    default = getattr(cls, "_field_defaults", {})[field]
                    fields[position] = (self.wrap(default), literal(Const(default)))
            node = ast.Call(
                self.needed(Const(cls), None), [self.needed(v, n) for v, n in fields], []
            )
            return Seq(tuple(v for v, _ in fields), "tuple", cls), node
        if issubclass(cls, torch.nn.Module):
            raise UnsupportedError(
                f"a '{cls.__name__}' is made while the model runs",
                "make it in '__init__' and keep it as an attribute",
            )
        if cls in (torch.device, torch.Size, torch.dtype) and given.constant:
            args, kwargs = given.values()
            return Const(self.compute(ast.Constant(cls.__name__), cls, *args, **kwargs)), None
        if cls is torch.device:
            return Dyn(Type("device")), ast.Call(self.needed(Const(cls), None), *self.nodes(given))
        if cls is torch.Size:
            return given.args[0]
        if cls.__module__ == "builtins":
            raise UnsupportedError(
                f"a Python '{cls.__name__}' is made, which TorchScript cannot hold",
                "use tensors, numbers, strings, tuples, lists or dictionaries",
            )
        node = ast.Call(self.needed(Const(cls), None), *self.nodes(given))
        return Dyn(from_annotation(cls)), node

    # torch ########################################################################

    def _call_torch(self, function: Any, given: Arguments) -> Folded:
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
        return Dyn(found.returns), ast.Call(self.needed(Const(function), None), *self.nodes(given))

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

    def _call_op(self, op: str, original: Any, given: Arguments) -> Folded:
        """Calls our op in place of the PyG function that has its signature."""
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
            if isinstance(value, Const) and value.value == parameter.default and (
                value.value is None or name in ("reduce", "dim")
            ):
                positional = False
                continue
            if positional:
                args.append(self.needed(value, node))
            else:
                kwargs.append(ast.keyword(name, self.needed(value, node)))
        return Dyn(TENSOR), ast.Call(op_reference(op), args, kwargs)

    # Methods of values ############################################################

    def _method_of_value(
        self, holder: Value, base: ast.expr | None, name: str, node: ast.Call
    ) -> Folded:
        t = static_type(holder)
        if isinstance(holder, Const) and not isinstance(holder.value, torch.Tensor):
            given = self.arguments(node)
            if given.constant and name in dir(holder.value):
                method = getattr(holder.value, name)
                args, kwargs = given.values()
                result = self.compute(node, method, *args, **kwargs)
                if isinstance(result, (type({}.keys()), type({}.values()), type({}.items()))):
                    result = list(result)
                return self.wrap(result), None
        if isinstance(holder, Mapping):
            return self._method_of_mapping(holder, name, node)
        if isinstance(holder, Seq) and holder.cls is not None and name in holder.cls._fields:
            callee, callee_node = self.attribute(holder, base, name)
            return self.call(callee, self.arguments(node), callee_node)
        holder_node = self.needed(holder, base)
        if is_optional(t) and t != NONE:
            holder, holder_node = self.unwrap(holder, holder_node)
            t = static_type(holder)
        given = self.arguments(node)
        if isinstance(holder_node, ast.Constant) and isinstance(holder_node.value, int):
            raise UnsupportedError(f"a number has no method '{name}'", "use a torch function")
        func = ast.Attribute(holder_node, name, ast.Load())
        if t in (TENSOR, UNKNOWN):
            args, kwargs = given.types()
            found = inference.method_type(name, args, kwargs)
            given = self.adapted(given, found)
            returns = found.returns if t == TENSOR else UNKNOWN
            return Dyn(returns), ast.Call(func, *self.nodes(given))
        call = ast.Call(func, *self.nodes(given))
        if t.name == "List":
            return self._method_of_list(holder, holder_node, t, name, given, call)
        if t.name == "Dict":
            return Dyn(_dict_method(t, name)), call
        if t == STR:
            return Dyn(_STR_METHODS.get(name, STR)), call
        if t.name == "Class" and inspect.isfunction(getattr(t.cls, name, None)):
            return Dyn(_declared(getattr(t.cls, name))), call
        return Dyn(UNKNOWN), call

    def _method_of_list(
        self,
        holder: Value,
        node: ast.expr,
        t: Type,
        name: str,
        given: Arguments,
        call: ast.Call,
    ) -> Folded:
        element = t.args[0]
        if name in ("append", "insert") and given.args and isinstance(node, ast.Name):
            added = static_type(given.args[-1][0])
            opened = self._open_lists.pop(node.id, None)
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

    def _method_of_mapping(self, holder: Mapping, name: str, node: ast.Call) -> Folded:
        given = self.arguments(node)
        if name in ("get", "pop") and given.args and isinstance(given.args[0][0], Const):
            key = given.args[0][0].value
            if key in holder.items:
                item = holder.items[key]
                return item, self._mapping_item_node(node, key, item)
            return given.args[1] if len(given.args) > 1 else (Const(None), None)
        if name == "keys":
            return Const(list(holder.items)), None
        nodes = [self._mapping_item_node(node, k, v) for k, v in holder.items.items()]
        if name == "values":
            return self.sequence("list", list(holder.items.values()), nodes)
        if name == "items":
            pairs: list[Folded] = [
                self.sequence("tuple", [Const(k), v], [ast.Constant(k), n])
                for (k, v), n in zip(holder.items.items(), nodes, strict=True)
            ]
            return self.sequence("list", [v for v, _ in pairs], [n for _, n in pairs])
        raise UnsupportedError(f"'{name}' of a dictionary of known names", "use its items")

    def _mapping_item_node(self, node: ast.Call, key: str, item: Value) -> ast.expr | None:
        assert isinstance(node.func, ast.Attribute)
        return self._mapping_node(node.func.value, key, item)

    # Python functions #############################################################

    def call_method(self, method: Method, given: Arguments) -> Folded:
        """Calls a method of a module of the model."""
        ref = method.owner
        assert isinstance(ref, ModuleRef)
        function = method.function
        if isinstance(function, (staticmethod, classmethod)):
            function = function.__func__
        if function is torch.nn.Module.__call__:
            return self.call_forward(ref, given)
        if is_ignored(function):
            node = ast.Attribute(self.module_node(ref), method.name, ast.Load())
            self.program.owner(ref).attributes.setdefault(f"{method.name}()", UNKNOWN)
            return Dyn(_declared(function)), ast.Call(node, *self.nodes(given))
        if not self.program.lowers(ref.module):
            node = ast.Attribute(self.module_node(ref), method.name, ast.Load())
            returns = (
                inference.module_type(ref.module)
                if method.name == "forward"
                else _declared(function)
            )
            return Dyn(returns), ast.Call(node, *self.nodes(given))
        written_out = self.written_out(ref, function, given)
        if written_out is not None:
            return written_out
        name = method.name.split(".")[-1]
        cls = None
        for parent in type(ref.module).__mro__:
            if vars(parent).get(name) is method.function or (
                getattr(vars(parent).get(name), "__func__", None) is function
            ):
                cls = parent
                break
        bound = Arguments([(self.program.owner(ref).ref, None), *given.args], given.kwargs)
        wish = name if "." not in method.name else f"{method.name.split('.')[0].lower()}_{name}"
        return self.call_function(function, bound, cls, name=wish, called=ref)

    def written_out(self, ref: ModuleRef, function: Any, given: Arguments) -> Folded | None:
        """Writes out a method of PyG's ``MessagePassing`` itself, if it is one."""
        from gnnscript.specialize import propagate

        if not _pyg.is_message_passing(ref.module):
            return None
        template = propagate.is_template(type(ref.module), function)
        if template is not None:
            return propagate.call_template(template, self, ref, given)  # type: ignore[arg-type]
        handler = propagate.handlers().get(inspect.unwrap(function))
        return None if handler is None else handler(self, ref, given)  # type: ignore[arg-type]

    def call_module(self, ref: ModuleRef, given: Arguments) -> Folded:
        """Calls a module of the model."""
        module = ref.module
        if not self.program.lowers(module):
            return self._call_opaque(ref, given)
        call = type(module).__call__
        if call is not torch.nn.Module.__call__:
            return self.call_method(Method(ref, call, "__call__"), given)
        return self.call_forward(ref, given)

    def _call_opaque(self, ref: ModuleRef, given: Arguments) -> Folded:
        """Calls a module that TorchScript compiles itself."""
        args, kwargs = given.types()
        unwrap: frozenset[int | str] = frozenset()
        if any(t.name == "Optional" for t in [*args, *kwargs.values()]):
            unwrap = inference.module_unwraps(ref.module, args, kwargs)
        node = self.module_node(ref)
        call = ast.Call(node, *self.nodes(self.unwrapped(given, unwrap)))
        return Dyn(inference.module_type(ref.module)), call

    def call_forward(self, ref: ModuleRef, given: Arguments) -> Folded:
        if not self.program.lowers(ref.module):
            return self._call_opaque(ref, given)
        if type(ref.module).forward is torch.nn.Sequential.forward:
            folded = given.args[0]
            for child in self.module_items(ref):
                folded = self.call(child, Arguments([folded], {}), None)
            return folded
        forward = vars(ref.module).get("forward")
        if inspect.isfunction(forward):
            return self.call_function(forward, given, None)
        function = inspect.getattr_static(type(ref.module), "forward")
        return self.call_method(Method(ref, function, "forward"), given)

    def call_property(self, ref: ModuleRef, function: Any, cls: type) -> Folded:
        """Reads a property of a module."""
        self_ref = self.program.owner(ref).ref
        return self.call_function(function, Arguments([(self_ref, None)], {}), cls, called=ref)

    def call_function(
        self,
        function: Any,
        given: Arguments,
        cls: type | None,
        *,
        name: str | None = None,
        called: ModuleRef | None = None,
    ) -> Folded:
        """Specialises a Python function to its arguments, and calls what comes out."""
        source = function_source(function)
        bound, nodes = self.bind_call(source, given)
        owner = self._owner_for(list(bound.values()))
        done = self.program.specialize(source, bound, owner, cls, name=name)
        return self.call_specialized(done, nodes, called)

    def _owner_for(self, values: list[Value]) -> Any:
        refs = [ref for value in values for ref in modules_in(value)]
        if not refs:
            return None
        first = refs[0]
        if isinstance(values[0], ModuleRef) and all(
            ref.path[: len(first.path)] == first.path for ref in refs
        ):
            return self.program.owner(first)
        if self.owner is None:
            raise UnsupportedError(
                "a function outside of any module is given a module",
                "make it a method of the module",
            )
        return self.owner

    def bind_call(
        self, source: FunctionSource, given: Arguments
    ) -> tuple[dict[str, Value], dict[str, ast.expr | None]]:
        """Binds arguments to parameters, as Python would."""
        signature = inspect.signature(source.function)
        try:
            found = signature.bind(*given.args, **given.kwargs)
        except TypeError as error:
            raise UnsupportedError(
                f"'{source.function.__qualname__}' is called with other arguments than it takes: "
                f"{error}",
                "it fails in the same way when the model runs in Python; correct the call",
            ) from None
        bound: dict[str, Value] = {}
        nodes: dict[str, ast.expr | None] = {}
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                parts = list(found.arguments.get(name, ()))
                bound[name], nodes[name] = self.sequence(
                    "tuple", [v for v, _ in parts], [n for _, n in parts]
                )
            elif parameter.kind is parameter.VAR_KEYWORD:
                extra = found.arguments.get(name, {})
                bound[name] = Mapping({k: v for k, (v, _) in extra.items()})
                nodes |= {f"{name}[{k}]": n for k, (_, n) in extra.items()}
            elif name in found.arguments:
                value, node = found.arguments[name]
                if isinstance(value, Mapping) and static_type(value).known:
                    value = Dyn(static_type(value))
                bound[name], nodes[name] = value, node
            else:
                bound[name], nodes[name] = self.wrap(parameter.default), None
        return bound, nodes

    def call_specialized(
        self, done: Any, nodes: dict[str, ast.expr | None], called: ModuleRef | None = None
    ) -> Folded:
        """Calls a specialised function, or writes its one expression in place.

        A module that is shared has one set of methods; ``called`` is the path it is called by.
        """
        by_name = {key.split("[")[-1].rstrip("]"): node for key, node in nodes.items()}
        args: dict[str, ast.expr] = {}
        for name, t in done.parameters:
            node = by_name.get(name)
            if node is None:
                raise UnsupportedError(
                    f"argument '{name}' of '{done.name}' mixes tensors with Python objects",
                    "pass them as arguments of their own",
                )
            del t
            args[name] = node
        value = done.value
        if not isinstance(value, (Dyn, Seq, Mapping, Poison)) and done.is_empty:
            return value, literal(value)
        inlined = self._inline(done, args)
        if inlined is not None:
            return value, inlined
        func: ast.expr
        if done.owner is not None:
            func = self.module_node(called or done.owner.ref)
            if done.name != "forward":
                func = ast.Attribute(func, done.name, ast.Load())
            elif isinstance(func, ast.Name):
                func = ast.Attribute(func, "forward", ast.Load())
        else:
            func = ast.Name(done.name, ast.Load())
            func.target_ = done  # type: ignore[attr-defined]
        call = ast.Call(func, list(args.values()), [])
        call.target_ = done  # type: ignore[attr-defined]
        if isinstance(value, Poison):
            self.emit(ast.Expr(call))
            raise NoReturn
        if not isinstance(value, (Dyn, Seq, Mapping)):
            self.emit(ast.Expr(call))
            return value, literal(value)
        return value, call

    def _inline(self, done: Any, args: dict[str, ast.expr]) -> ast.expr | None:
        expression = done.inline
        if expression is None:
            return None
        reads = names_read(expression)
        if "self" in reads and done.owner is not self.owner:
            return None
        if done.owner is not None and has_forward_hooks(done.owner.ref.module):
            return None
        for name, node in args.items():
            if reads.get(name, 0) > 1 and not is_simple(node):
                return None
            if reads.get(name, 0) == 0 and any(isinstance(n, ast.Call) for n in ast.walk(node)):
                return None
        if any(isinstance(n, (ast.ListComp, ast.IfExp)) for n in ast.walk(expression)):
            return None
        result: ast.expr = clone(expression, args)
        return result

    def _call_closure(self, closure: Closure, given: Arguments) -> Folded:
        """Calls a function defined inside the code: its expression is written in place."""
        node = closure.node
        body = node.body if isinstance(node, ast.Lambda) else None
        if isinstance(node, ast.FunctionDef):
            statements = [
                s
                for s in node.body
                if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
            ]
            if len(statements) == 1 and isinstance(statements[0], ast.Return):
                body = statements[0].value
        if body is None:
            raise UnsupportedError(
                "a function defined inside the code has more than a return statement",
                "move it to the module or make it a method",
                closure.source.location(node),
            )
        names = [arg.arg for arg in node.args.args]
        env = dict(closure.env)
        defaults = dict(zip(names[::-1], node.args.defaults[::-1], strict=False))
        for name, (value, residual) in zip(names, given.args, strict=False):
            env[name] = self._argument(name, value, residual)
        for name, (value, residual) in given.kwargs.items():
            env[name] = self._argument(name, value, residual)
        for name in names[len(given.args) :]:
            if name not in given.kwargs:
                env[name] = self._argument(name, *self.fold(defaults[name]))
        saved, self.env = self.env, env
        try:
            return self.fold(body)
        finally:
            self.env = saved

    def _argument(self, name: str, value: Value, residual: ast.expr | None) -> Any:
        from gnnscript.specialize.statements import Binding

        if residual is None or isinstance(value, Const):
            return Binding(value, None)
        if not isinstance(residual, ast.Name):
            held = self.fresh(name)
            self.emit(ast.Assign([ast.Name(held, ast.Store())], residual))
            residual = ast.Name(held, ast.Load())
        return Binding(value, residual.id)


_MATH: dict[str, Type] = {
    "floor": INT,
    "ceil": INT,
    "gcd": INT,
    "factorial": INT,
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
        "copy": t,
    }.get(name, NONE)


def _declared(function: Any) -> Type:
    """The return type a function declares; ``Tensor`` where it declares none."""
    from gnnscript.analyze.annotations import return_type

    try:
        declared = return_type(function_source(function))
    except UnsupportedError:
        declared = UNKNOWN
    return declared if declared != UNKNOWN else TENSOR


def has_forward_hooks(module: torch.nn.Module) -> bool:
    """Whether something watches the calls of a module, so that they must take place."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _is_pure_builtin(function: Any) -> bool:
    module = getattr(function, "__module__", "") or ""
    return module in ("builtins", "math", "operator", "itertools", "_operator", "os.path")


def refuse_open_keywords_of(node: ast.Call, source: FunctionSource) -> None:
    """An open ``**kwargs`` may not reach ``propagate``."""
    if isinstance(node.func, ast.Attribute) and node.func.attr in ("propagate", "edge_updater"):
        refuse_open_keywords(node, source)

