"""Calls of modules, methods and Python functions: specialised to their arguments."""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
from typing import Any

import torch

from gnnscript import _pyg
from gnnscript._errors import UnsupportedError
from gnnscript.analyze.sources import FunctionSource, function_source
from gnnscript.analyze.types import NONE, TENSOR, UNKNOWN, Type
from gnnscript.specialize import inference
from gnnscript.specialize.effects import has_effects, is_settled
from gnnscript.specialize.folding.base import Arguments, Folded, Folding, NoReturn
from gnnscript.specialize.folding.builtins import class_of
from gnnscript.specialize.folding.closures import captured
from gnnscript.specialize.folding.modules import CONTAINER_METHODS, LISTING_METHODS
from gnnscript.specialize.helpers import has_forward_hooks, is_ignored
from gnnscript.specialize.program import is_runtime
from gnnscript.specialize.templates import is_template
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
    Value,
    entry_names,
    has_mapping,
    is_mixed,
    is_object,
    literal,
    modules_in,
    renewed,
    static_type,
)


class Functions(Folding):
    """The part of a frame that calls what is specialised."""

    def call_method(self, method: Method, given: Arguments) -> Folded:
        """Calls a method of a module of the model."""
        ref = method.owner
        assert isinstance(ref, ModuleRef)
        function = method.function
        if isinstance(function, functools.singledispatchmethod):
            function = function.dispatcher.dispatch(class_of(given.args[0][0]))
        if isinstance(function, (staticmethod, classmethod)):
            function = function.__func__
        if function is torch.nn.Module.__call__:
            return self.call_forward(ref, given)
        if function in LISTING_METHODS:
            return self.tensors_of(ref, LISTING_METHODS[function], given)
        if method.name in CONTAINER_METHODS and (
            isinstance(ref.module, torch.nn.ModuleDict)
            or function.__module__.startswith("torch.nn")
        ):
            return self.container_items(ref, method.name)
        if is_ignored(function) and not _pyg.is_own(function):
            node = ast.Attribute(self.module_node(ref), method.name, ast.Load())
            self.program.owner(ref).attributes.setdefault(f"{method.name}()", UNKNOWN)
            return Dyn(_declared(function)), self.unseen(node, given)
        if not self.program.lowers(ref.module):
            node = ast.Attribute(self.module_node(ref), method.name, ast.Load())
            returns = (
                inference.module_type(ref.module)
                if method.name == "forward"
                else _declared(function)
            )
            return Dyn(returns), self.unseen(node, given)
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

    def unseen(self, node: ast.expr, given: Arguments) -> ast.expr:
        """A call of a method of which nothing is known but its name."""
        call = ast.Call(node, *self.nodes(given))
        call.effects_ = True  # type: ignore[attr-defined]
        return call

    def written_out(self, ref: ModuleRef, function: Any, given: Arguments) -> Folded | None:
        """Writes out a method of PyG's ``MessagePassing`` itself, if it is one."""
        from gnnscript.specialize import propagate

        if not _pyg.is_message_passing(ref.module):
            return None
        template = is_template(type(ref.module), function)
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
        if call is not torch.nn.Module.__call__ and not isinstance(module, torch.fx.GraphModule):
            return self.call_method(Method(ref, call, "__call__"), given)
        return self.call_forward(ref, given)

    def _call_opaque(self, ref: ModuleRef, given: Arguments) -> Folded:
        """Calls a module that TorchScript compiles itself."""
        args, kwargs = given.types()
        objects = any(is_object(v) for v, _ in [*given.args, *given.kwargs.values()])
        shared = self.program.is_shared(ref.module)
        if objects or shared or inference.module_is_unfit(ref.module, args, kwargs):
            self.program.refit(ref.module)
        unwrap: frozenset[int | str] = frozenset()
        if any(t.name == "Optional" for t in [*args, *kwargs.values()]):
            unwrap = inference.module_unwraps(ref.module, args, kwargs)
        node = self.module_node(ref)
        call = ast.Call(node, *self.nodes(self.unwrapped(given, unwrap)))
        call.effects_ = _acts(ref.module)  # type: ignore[attr-defined]
        return Dyn(inference.module_type(ref.module)), call

    def call_forward(self, ref: ModuleRef, given: Arguments) -> Folded:
        if not self.program.lowers(ref.module):
            return self._call_opaque(ref, given)
        if type(ref.module).forward is torch.nn.Sequential.forward:
            folded = given.args[0]
            for child in self.module_items(ref):
                folded = self.call(child, Arguments([folded], {}), None)
            return folded
        replaced = vars(ref.module).get("forward")
        if replaced is not None and not isinstance(ref.module, torch.fx.GraphModule):
            return self.call(Const(replaced), given, None)
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
        owner = self.owner_for(list(bound.values()))
        if owner is None and _captures_modules(source.function):
            owner = self.owner
        lent = self.lent(source, bound, nodes)
        done = self.program.specialize(source, bound, owner, cls, name=name, borrowed=lent)
        folded = self.call_specialized(done, nodes, called, bound)
        return self.take_back(folded, {key: bound[key] for key in lent}) if lent else folded

    def owner_for(self, values: list[Value]) -> Any:
        refs = [ref for value in values for ref in modules_in(value)]
        if not refs:
            return None
        first = refs[0]
        leads = values[0].items[0] if isinstance(values[0], Seq) and values[0].items else values[0]
        within = all(ref.path[: len(first.path)] == first.path for ref in refs)
        # A module that TorchScript compiles as it stands takes no methods of ours.
        if isinstance(leads, ModuleRef) and within and self.program.lowers(first.module):
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
        signature = inspect.signature(source.function, follow_wrapped=False)
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
                bound[name], nodes[name] = self.mapping(
                    {k: v for k, (v, _) in extra.items()}, [n for _, n in extra.values()]
                )
            elif name in found.arguments:
                bound[name], nodes[name] = found.arguments[name]
            else:
                bound[name], nodes[name] = self.wrap(parameter.default), None
        missing, implied, value = _pyg.implied().get(source.function, ("", "", None))
        if implied and all(static_type(bound[name]) == NONE for name in (missing, implied)):
            bound[implied], nodes[implied] = Const(value), None
        self.flatten(bound, nodes)
        return bound, nodes

    def flatten(self, bound: dict[str, Value], nodes: dict[str, ast.expr | None]) -> None:
        """Prepares collections for a call: one argument each, or one for each of their elements."""
        for name, value in list(bound.items()):
            node = nodes.get(name)
            if isinstance(value, Mapping) and isinstance(node, ast.Dict):
                names = entry_names(name, value.items)
                nodes |= dict(zip(names, node.values, strict=True))
                self.flatten(dict(zip(names, value.items.values(), strict=True)), nodes)
            elif is_mixed(value) and isinstance(node, (ast.Tuple, ast.List)):
                parts = dict(zip(entry_names(name, range(len(node.elts))), node.elts, strict=True))
                nodes |= parts
                assert isinstance(value, Seq)
                self.flatten(dict(zip(parts, value.items, strict=True)), nodes)
            elif isinstance(value, Closure) and value.home is self:
                keys = captured(value)
                names = entry_names(name, keys)
                read = [value.env[key] for key in keys]
                nodes |= {n: binding.read for n, binding in zip(names, read, strict=True)}
                self.flatten({n: b.value for n, b in zip(names, read, strict=True)}, nodes)

    def call_specialized(
        self,
        done: Any,
        nodes: dict[str, ast.expr | None],
        called: ModuleRef | None = None,
        bound: dict[str, Value] | None = None,
    ) -> Folded:
        """Calls a specialised function, or writes its one expression in place.

        A module that is shared has one set of methods; ``called`` is the path it is called by.
        """
        args: dict[str, ast.expr] = {}
        for name, _ in done.parameters:
            node = nodes.get(name)
            if node is None:
                raise UnsupportedError(
                    f"argument '{name}' of '{done.name}' mixes tensors with Python objects",
                    "pass them as arguments of their own",
                )
            args[name] = node
        value = done.value
        if bound is not None and done.argument is not None:
            value = bound[done.argument]  # the caller's own object
        else:
            value = renewed(value)
        if not isinstance(value, (Dyn, Seq, Mapping, Poison)) and done.is_empty:
            return value, literal(value)
        if isinstance(value, Mapping) and not value.items:
            if not done.is_empty:
                self.emit(ast.Expr(self._call_of(done, args, called)))
            return self.mapping({}, [])
        inlined = self._inline(done, args)
        if inlined is not None:
            return value, inlined
        call = self._call_of(done, args, called)
        if isinstance(value, Poison):
            self.emit(ast.Expr(call))
            raise NoReturn
        if not isinstance(value, (Dyn, Seq, Mapping)):
            self.emit(ast.Expr(call))
            return value, literal(value)
        if has_mapping(value):
            held = self.hold("found", call)
            assert held is not None
            return value, self._unpacked(value, held)
        return value, call

    def _call_of(self, done: Any, args: dict[str, ast.expr], called: ModuleRef | None) -> ast.Call:
        func: ast.expr
        if done.owner is not None:
            same = called is not None and called.module is done.owner.ref.module
            func = self.module_node(called if called is not None and same else done.owner.ref)
            if done.name != "forward":
                func = ast.Attribute(func, done.name, ast.Load())
            elif isinstance(func, ast.Name):
                func = ast.Attribute(func, "forward", ast.Load())
        else:
            func = ast.Name(done.name, ast.Load())
            func.target_ = done  # type: ignore[attr-defined]
        call = ast.Call(func, list(args.values()), [])
        call.target_ = done  # type: ignore[attr-defined]
        if done.owner is not None:
            self.forget({"self"})  # the method may write attributes
        return call

    def _unpacked(self, value: Value, node: ast.expr) -> ast.expr:
        """What a function has packed to return it, as displays of its elements."""
        if not has_mapping(value):
            return node
        assert isinstance(value, (Seq, Mapping))
        items = list(value.items.values() if isinstance(value, Mapping) else value.items)
        nodes: list[ast.expr | None] = [
            self._unpacked(item, ast.Subscript(node, ast.Constant(position), ast.Load()))
            if is_runtime(item)
            else _empty(item)
            for position, item in enumerate(items)
        ]
        if isinstance(value, Mapping):
            unpacked = self.mapping(value.items, nodes)[1]
        else:
            unpacked = self.sequence(value.kind, items, nodes, value.cls, keep=True)[1]
        assert unpacked is not None
        return unpacked

    def _inline(self, done: Any, args: dict[str, ast.expr]) -> ast.expr | None:
        expression = done.inline
        if expression is None or has_mapping(done.value):
            return None
        # Arguments are computed in order, and before what is done with them.
        nodes = [node for node in args.values() if not is_settled(node)]
        if has_effects(nodes) or (nodes and has_effects(expression)):
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


def _captures_modules(function: Any) -> bool:
    """Whether a function uses modules of the one around it, as a wrapper of a method does."""
    used = [function.__globals__.get(name) for name in function.__code__.co_names]
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # of a function that is not made yet
            used.append(cell.cell_contents)
    return any(held is not function and _leads_to_module(held) for held in used)


def _leads_to_module(held: Any) -> bool:
    if isinstance(held, functools.partial):
        return _leads_to_module(held.func)
    if inspect.isfunction(held):
        return bool(held.__closure__) and _captures_modules(held)
    return isinstance(getattr(held, "__self__", held), torch.nn.Module)


def _acts(module: torch.nn.Module) -> bool:
    """Whether a module that is compiled as it stands may do more than compute its result."""
    return any(
        not type(part).__module__.startswith("torch.nn.") or "dropout" in type(part).__module__
        for part in module.modules()
    )


def _empty(value: Value) -> ast.expr | None:
    """An empty list as what it is, which may be filled."""
    empty = isinstance(value, Seq) and value.kind == "list" and not value.items
    return ast.List([], ast.Load()) if empty else None


def _declared(function: Any) -> Type:
    """The return type a function declares; ``Tensor`` where it declares none."""
    from gnnscript.analyze.annotations import return_type

    try:
        declared = return_type(function_source(function))
    except UnsupportedError:
        declared = UNKNOWN
    return declared if declared != UNKNOWN else TENSOR
