"""Modules of the model: how they are reached, and what their attributes are."""

from __future__ import annotations

import ast
import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any

import torch

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import BOOL, TENSOR, Type, of_value
from gnnscript.specialize.folding.base import (
    Arguments,
    Fails,
    Folded,
    Folding,
    MissingAttribute,
    NeedsConstant,
)
from gnnscript.specialize.helpers import stored_name
from gnnscript.specialize.values import (
    Const,
    Dyn,
    Mapping,
    Method,
    ModuleRef,
    Seq,
    Super,
    Value,
    literal,
)

LISTING_METHODS = {
    getattr(torch.nn.Module, f"{named}{what}"): f"{named}{what}"
    for what in ("parameters", "buffers", "modules")
    for named in ("", "named_")
}
CONTAINER_METHODS = ("items", "keys", "values", "children", "named_children")


class Modules(Folding):
    """The part of a frame that knows the model's modules."""

    def module_node(self, ref: ModuleRef) -> ast.expr:
        """The expression that reaches a module from the method being written."""
        if self.owner is None:
            raise UnsupportedError(
                "a function outside of any module uses a module",
                "make it a method, or pass it what it needs of the module",
            )
        prefix = self.owner.ref.path
        if self.program.is_shared(ref.module) and self.program.lowers(ref.module):
            first = self.program.owner(ref).ref
            if first.path[: len(prefix)] == prefix:
                ref = first  # as the attributes that it assigns are there alone
            elif first.path != ref.path:
                self.program.detours.append((ref, self.source.location(self.current)))
        if ref.path[: len(prefix)] != prefix:
            raise UnsupportedError(
                f"module '{'.'.join(ref.path)}' is used from '{'.'.join(prefix)}', "
                "which does not contain it",
                "register the module where it is used",
            )
        self.program.used[ref.path] = ref.module
        if self.program.lowers(ref.module):
            self.program.owner(ref)
        node: ast.expr = ast.Name("self", ast.Load())
        module = self.owner.ref.module
        for name in ref.path[len(prefix) :]:
            if isinstance(module, _CONTAINERS) and (
                _is_coded(module) or module is self.owner.ref.module
            ):
                # It is lowered to a module with methods, which TorchScript does not index.
                node = ast.Call(ast.Name("getattr", ast.Load()), [node, ast.Constant(name)], [])
            elif isinstance(module, (torch.nn.ModuleList, torch.nn.Sequential)) and name.isdigit():
                node = ast.Subscript(node, ast.Constant(int(name)), ast.Load())
            elif isinstance(module, torch.nn.ModuleDict):
                node = ast.Subscript(node, ast.Constant(name), ast.Load())
            else:
                node = ast.Attribute(node, name, ast.Load())
            module = module._modules[name]  # type: ignore[assignment]
        return node

    def parameter(self, node: ast.expr) -> torch.Tensor | None:
        """The parameter that ``self.weight`` names, where its shape is configuration."""
        if not isinstance(node, ast.Attribute) or not self.program.fixed_shapes:
            return None
        if not isinstance(node.value, (ast.Name, ast.Attribute)):
            return None
        holder, _ = self.fold(node.value)
        return holder.module._parameters.get(node.attr) if isinstance(holder, ModuleRef) else None

    def module_attribute(self, ref: ModuleRef, name: str) -> Folded:
        """``module.name``: a parameter, a submodule, a method, or a piece of configuration."""
        module = ref.module
        written = self.program.written.get((self.program.owner(ref).ref.path, name))
        if written is not None:
            self.program.owner(ref).attributes[name] = written
            return self.recall(Dyn(written), self.self_attribute(ref, name))
        if name == "training":
            return Dyn(BOOL), self.self_attribute(ref, name)
        if name in module._parameters or name in module._buffers:
            tensor = module._parameters.get(name, module._buffers.get(name))
            if tensor is None:
                return Const(None), None
            return Dyn(TENSOR), self.self_attribute(ref, name)
        if name in module._modules:
            child = module._modules[name]
            if child is None:
                return Const(None), None
            child_ref = ModuleRef(child, (*ref.path, name))
            if isinstance(child, torch.nn.ParameterList):
                return Seq((Dyn(TENSOR),) * len(child), "list"), self.module_node(child_ref)
            if isinstance(child, torch.nn.ParameterDict):
                node = self.module_node(child_ref)
                items: dict[Any, Value] = {}
                entries: list[ast.expr | None] = []
                for key, tensor in child.items():
                    items[key] = Dyn(TENSOR)
                    inner = next(n for n, p in child._parameters.items() if p is tensor)
                    entries.append(ast.Subscript(node, ast.Constant(inner), ast.Load()))
                display = self.mapping(items, entries)[1]
                return Mapping(items, None, type(child)), display
            return child_ref, None
        if name in ("_parameters", "_buffers"):
            tensors = {key: self.module_attribute(ref, key) for key in vars(module)[name]}
            values = {key: value for key, (value, _) in tensors.items()}
            return self.mapping(values, [node for _, node in tensors.values()])
        static = inspect.getattr_static(module, name, None)
        if name not in vars(module):
            self.program.read(type(module), name)
        if isinstance(static, property):
            return self.call_property(ref, static.fget, self.defining_class(ref, name))
        if isinstance(static, _METHODS) or (static is not None and hasattr(static, "__wrapped__")):
            if name not in vars(module):
                return self.bind_method(ref, static, name), None
        try:
            value = getattr(module, name)
        except AttributeError:
            raise MissingAttribute(
                f"'{type(module).__name__}' has no attribute '{name}' in this configuration",
                "set it in '__init__' on every path",
            ) from None
        t = of_value(value)
        if _holds_tensor(t):
            self.program.owner(ref).attributes[name] = t
            return Dyn(t), self.self_attribute(ref, name)
        if isinstance(value, (list, tuple, dict)) and value is vars(module).get(name, static):
            self.program.homes[id(value)] = (ref, name, value)
        return self.wrap(value), None

    def self_attribute(self, ref: ModuleRef, name: str) -> ast.expr:
        """The expression that reads an attribute of a module at run time."""
        return ast.Attribute(self.module_node(ref), stored_name(name), ast.Load())

    @staticmethod
    def defining_class(ref: ModuleRef, name: str, after: type | None = None) -> type:
        """The class in the method resolution order that defines ``name``."""
        order = type(ref.module).__mro__
        start = order.index(after) + 1 if after is not None else 0
        return next(cls for cls in order[start:] if name in vars(cls))

    def bind_method(self, ref: ModuleRef, static: Any, name: str) -> Value:
        """A method of a module as a value."""
        if isinstance(static, staticmethod):
            return Const(static.__func__)
        if isinstance(static, classmethod):
            return Const(getattr(type(ref.module), name))
        return Method(ref, static, name)

    def super_attribute(self, holder: Super, name: str) -> Value:
        """``super().name``."""
        if not isinstance(holder.owner, ModuleRef):
            raise UnsupportedError("'super()' is used outside of a module", "call the function")
        try:
            cls = self.defining_class(holder.owner, name, holder.after)
        except StopIteration:
            raise UnsupportedError(f"no parent class has '{name}'", "check the spelling") from None
        return Method(holder.owner, vars(cls)[name], f"{cls.__name__}.{name}")

    def module_items(self, ref: ModuleRef) -> Iterator[Value]:
        """Iteration over a container of modules."""
        own = inspect.getattr_static(type(ref.module), "__iter__", None)
        if inspect.isfunction(own) and not own.__module__.startswith("torch."):
            value, _ = self.call_method(Method(ref, own, "__iter__"), Arguments([], {}))
            yield from self.known_items(value)
            return
        if isinstance(ref.module, (torch.nn.ModuleList, torch.nn.Sequential)):
            for name, child in ref.module._modules.items():
                assert child is not None
                yield ModuleRef(child, (*ref.path, name))
        elif isinstance(ref.module, torch.nn.ModuleDict):
            yield from (Const(name) for name in ref.module.keys())  # noqa: SIM118
        else:
            raise UnsupportedError(
                f"a '{type(ref.module).__name__}' is iterated over, which is no container",
                "use torch.nn.ModuleList",
            )

    def container_items(self, ref: ModuleRef, method: str) -> Folded:
        """``items()``, ``keys()``, ``values()`` and the like of a module."""
        children = [
            ModuleRef(child, (*ref.path, name))
            for name, child in ref.module._modules.items()
            if child is not None
        ]
        names: list[Any] = list(ref.module._modules)
        if isinstance(ref.module, torch.nn.ModuleDict):
            names = list(ref.module.keys())  # a subclass may have its own
        if method == "keys":
            return Const(names), None
        if method in ("values", "children"):
            return Seq(tuple(children), "list"), None
        pairs = [Seq((Const(n), c)) for n, c in zip(names, children, strict=True)]
        return Seq(tuple(pairs), "list"), None

    def tensors_of(self, ref: ModuleRef, method: str, given: Arguments) -> Folded:
        """``parameters()``, ``named_buffers()`` and the like, as lists."""
        if not given.constant:
            raise NeedsConstant(f"'{method}' is given values of run time", "give it constants")
        args, kwargs = given.values()
        named = method if method.startswith("named_") else f"named_{method}"
        found: list[tuple[str, Value, ast.expr | None]] = []
        prefix = len(kwargs.get("prefix", args[0] if args and named == method else ""))
        for name, value in getattr(ref.module, named)(*args, **kwargs):
            inner = name[prefix:].lstrip(".") if prefix else name
            path = tuple(inner.split(".")) if inner else ()
            if isinstance(value, torch.nn.Module):
                found.append((name, ModuleRef(value, (*ref.path, *path)), None))
                continue
            holder = ModuleRef(ref.module.get_submodule(".".join(path[:-1])), ref.path + path[:-1])
            if isinstance(holder.module, (torch.nn.ParameterList, torch.nn.ParameterDict)):
                index: Any = path[-1]
                if isinstance(holder.module, torch.nn.ParameterList):
                    index = int(index)
                node: ast.expr = ast.Subscript(
                    self.module_node(holder), ast.Constant(index), ast.Load()
                )
            else:
                node = self.self_attribute(holder, path[-1])
            found.append((name, Dyn(TENSOR), node))
        if named != method:
            return self.sequence("list", [v for _, v, _ in found], [n for _, _, n in found])
        pairs = [
            self.sequence("tuple", [Const(name), value], [ast.Constant(name), node])
            for name, value, node in found
        ]
        return self.sequence("list", [v for v, _ in pairs], [n for _, n in pairs])

    def module_item(self, ref: ModuleRef, position: Const) -> Folded:
        at = position.value
        if isinstance(ref.module, torch.nn.ModuleDict) and at in ref.module:
            found = ref.module[at]  # a subclass may have names of its own
            for name, child in ref.module._modules.items():
                if child is found and child is not None:
                    return ModuleRef(child, (*ref.path, name)), None
        own = getattr(type(ref.module), "__getitem__", None)
        if inspect.isfunction(own) and not own.__module__.startswith("torch.nn"):
            given = Arguments([(position, literal(position))], {})
            return self.call_method(Method(ref, own, "__getitem__"), given)
        if isinstance(ref.module, (torch.nn.ModuleList, torch.nn.Sequential)):
            children = list(self.module_items(ref))
            if isinstance(at, slice):
                return Seq(tuple(children[at]), "list"), None
            if -len(children) <= at < len(children):
                return children[at], None
        names = isinstance(ref.module, torch.nn.ModuleDict)
        raise Fails(
            f"'{type(ref.module).__name__}' at '{'.'.join(ref.path)}' has no item {at!r}",
            "use an index that exists",
            KeyError(at) if names else IndexError(f"index {at} is out of range"),
        )


_METHODS = (types.FunctionType, classmethod, staticmethod, functools.singledispatchmethod)
_CONTAINERS = (torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.Sequential)


def _is_coded(module: torch.nn.Module) -> bool:
    """Whether a container has a `forward` of its own."""
    own = (torch.nn.Module.forward, torch.nn.Sequential.forward)
    return type(module).forward not in own


def _holds_tensor(t: Type) -> bool:
    return t == TENSOR or any(_holds_tensor(arg) for arg in t.args)
