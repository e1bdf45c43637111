"""The signature of a scripted model, derived where Python leaves it open.

TorchScript wants the name and type of every argument. Python's ``*args``, ``**kwargs`` and
dictionaries of whatever keys leave them open; here they are read off the modules of the model:
arguments that are passed on are those of the module that they reach, and the entries of a
dictionary of node or edge types are the types that the model was made for.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from gnnscript import _pyg
from gnnscript._errors import UnsupportedError
from gnnscript.analyze.annotations import parameter_types
from gnnscript.analyze.sources import FunctionSource, function_source
from gnnscript.analyze.types import (
    BOOL,
    FLOAT,
    INT,
    STR,
    TENSOR,
    UNKNOWN,
    Type,
    dict_of,
    from_annotation,
    is_optional,
    list_of,
    of_value,
    optional,
    strip_optional,
    tuple_of,
)
from gnnscript.specialize.values import Const, Dyn, Mapping, Value

__all__ = ["EDGE_TYPE", "Argument", "GraphTypes", "graph_types", "signature"]

EDGE_TYPE = tuple_of(STR, STR, STR)
# PyG's convention for the names of arguments that hold one entry for each node or edge type.
_DICTIONARY = "_dict"


@dataclass(frozen=True)
class Argument:
    """One argument of an entry point.

    Args:
        name: Its name.
        value: What is known of it: a type, or the entries of a dictionary.
        default: Its default, or ``inspect.Parameter.empty``.
        parameter: The parameter of the function that it is passed by; ``*args`` and ``**kwargs``
            take several arguments.
        keyword: Whether it is passed on by its name.
    """

    name: str
    value: Value
    default: Any
    parameter: str
    keyword: bool = False


@dataclass(frozen=True)
class GraphTypes:
    """Node and edge types that a heterogeneous model was made for, each in order."""

    nodes: tuple[str, ...]
    edges: tuple[tuple[str, str, str], ...]


def signature(
    root: torch.nn.Module,
    source: FunctionSource,
    cls: type,
    given: dict[str, Value],
    choose: Callable[[str, Type], Type],
) -> list[Argument]:
    """The arguments of an entry point, each with a name and a concrete type.

    Args:
        root: The model.
        source: The entry point.
        cls: The class that defines it.
        given: What example inputs say of its arguments; for ``*args`` a dictionary by position.
        choose: The concrete type of an argument, by its name and declared type.

    Raises:
        UnsupportedError: An argument cannot be given a type.
    """
    types = parameter_types(source, cls)
    kinds = graph_types(root)
    found: list[Argument] = []
    for name, parameter in list(inspect.signature(source.function).parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            found += _collected(root, source, name, parameter.kind, found, given, kinds, choose)
            continue
        declared = types[name] if parameter.annotation is not parameter.empty else UNKNOWN
        value = given.get(name)
        if value is None and name not in given:
            made = isinstance(root, torch.fx.GraphModule)
            value = _entries(name, declared, kinds, made, parameter.default)
        if value is None and parameter.default is not parameter.empty:
            if inspect.isroutine(parameter.default) or "Callable" in str(parameter.annotation):
                value = Const(parameter.default)  # a function is configuration
        if value is None:
            declared = types[name] if types[name] != UNKNOWN else _by_default(parameter.default)
            t = _settled(_concrete(name, declared, source, choose))
            # 'x: Tensor = None' means what it says only in Python
            value = Dyn(optional(t) if parameter.default is None and not is_optional(t) else t)
        found.append(Argument(name, value, parameter.default, name))
    return found


def _settled(t: Type) -> Type:
    """A bare ``list`` or ``dict`` holds tensors, as far as anyone can tell."""
    if is_optional(t) and t.args:
        return optional(_settled(strip_optional(t)))
    if t == list_of(UNKNOWN):
        return list_of(TENSOR)
    return dict_of(STR, TENSOR) if t == dict_of(UNKNOWN, UNKNOWN) else t


def _by_default(default: Any) -> Type:
    """The type of an argument without annotation: its default's, or a tensor."""
    if default is None:
        return optional(TENSOR)
    t = of_value(default)
    return t if t in (BOOL, INT, FLOAT, STR) else TENSOR


def _concrete(
    name: str, declared: Type, source: FunctionSource, choose: Callable[[str, Type], Type]
) -> Type:
    chosen = choose(name, declared if declared != UNKNOWN else TENSOR)
    if chosen.name == "Class":
        raise UnsupportedError(
            f"argument '{name}' is declared as '{chosen}', which TorchScript cannot hold",
            "pass tensors (for a Data object: its fields) instead",
            source.location(),
        )
    return chosen


def _entries(
    name: str, declared: Type, kinds: GraphTypes, made: bool, default: Any = inspect.Parameter.empty
) -> Value | None:
    """A dictionary over node or edge types, by its annotation or by PyG's name for it."""
    declared = strip_optional(declared)
    element = TENSOR
    named = made or name.endswith(_DICTIONARY)
    edges = named and ("edge" in name or "adj" in name)
    if declared.name == "Dict":
        key, element = declared.args
        if key not in (STR, EDGE_TYPE, UNKNOWN):
            return None
        edges = edges or key == EDGE_TYPE  # by its name, where 'Dict[str, Tensor]' is annotated
    elif not (declared == UNKNOWN and named):
        return None
    wanted: tuple[Any, ...] = kinds.edges if edges else kinds.nodes
    if not wanted:
        return None
    if default is None:
        return Const(None)  # which of its keys are there must be shown by an example
    return Mapping({key: Dyn(element if element.known else TENSOR) for key in wanted})


# ``*args`` and ``**kwargs`` ########################################################


def _collected(
    root: torch.nn.Module,
    source: FunctionSource,
    name: str,
    kind: Any,
    before: list[Argument],
    given: dict[str, Value],
    kinds: GraphTypes,
    choose: Callable[[str, Type], Type],
) -> list[Argument]:
    """The arguments that ``*args`` or ``**kwargs`` take: those of the module they are passed to."""
    keyword = kind is inspect.Parameter.VAR_KEYWORD
    taken = {argument.name for argument in before}
    empty = inspect.Parameter.empty
    if keyword and any(argument.parameter != argument.name for argument in before):
        return []  # each of them is passed by position already
    wrapped = _passed_on(root, source, name, len(before))
    shown = given.get(name)
    if isinstance(shown, Mapping):
        names = [argument.name for argument in wrapped]
        if name.endswith(_DICTIONARY):
            names = [f"{argument.name}{_DICTIONARY}" for argument in _first_conv(root)]
        names += [f"{name}_{i}" for i in range(len(names), len(shown.items))]
        return [
            Argument(key if keyword else names[i], value, empty, name, keyword)
            for i, (key, value) in enumerate(shown.items.items())
        ]
    if name.endswith(_DICTIONARY):
        if keyword or not kinds.edges:
            return []
        return [
            Argument(f"{argument.name}{_DICTIONARY}", value, empty, name)
            for argument in _first_conv(root)
            if argument.default is empty
            and (value := _entries(f"{argument.name}{_DICTIONARY}", UNKNOWN, kinds, False))
        ]
    if not wrapped and not keyword:
        declared = _pyg.declared_arguments(root)
        wrapped = [Argument(n, Dyn(from_annotation(t)), empty, n) for n, t in declared.items()]
    return [
        Argument(a.name, Dyn(_type_of(a, source, choose)), a.default, name, keyword)
        for a in wrapped
        if a.name not in taken
    ]


def _type_of(
    argument: Argument, source: FunctionSource, choose: Callable[[str, Type], Type]
) -> Type:
    assert isinstance(argument.value, Dyn)
    return _concrete(argument.name, argument.value.type, source, choose)


def _passed_on(
    root: torch.nn.Module, source: FunctionSource, name: str, skipped: int
) -> list[Argument]:
    """The arguments of the module that ``*name`` reaches, without those named before it."""
    for function, module in _receivers(root, source, name):
        wanted = function_source(inspect.unwrap(function))
        parameters = list(inspect.signature(wanted.function).parameters.values())
        parameters = parameters[1:] if module is not None else parameters
        types = parameter_types(wanted, type(module) if module is not None else None)
        found: list[Argument] = []
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                if module is not None:
                    found += _passed_on(module, wanted, parameter.name, len(found))
                continue
            declared = types[parameter.name]
            found.append(Argument(parameter.name, Dyn(declared), parameter.default, parameter.name))
        names = [argument.name for argument in found]
        distinct = [a for i, a in enumerate(found) if a.name not in names[:i]]
        return distinct[skipped:]
    return []


def _receivers(
    root: torch.nn.Module, source: FunctionSource, name: str
) -> Iterator[tuple[Any, torch.nn.Module | None]]:
    """Functions that ``*name`` or ``**name`` is passed to, and the modules they are methods of."""
    for node in ast.walk(source.node):
        if not isinstance(node, ast.Call):
            continue
        if any(isinstance(a, ast.Name) and a.id == name for a in node.args):
            # Passed on as a whole beside a method: to be called with them.
            for beside in (_attribute(root, a) for a in node.args):
                if inspect.ismethod(beside) and isinstance(beside.__self__, torch.nn.Module):
                    yield beside.__func__, beside.__self__
        starred = [a.value for a in node.args if isinstance(a, ast.Starred)]
        starred += [k.value for k in node.keywords if k.arg is None]
        if not any(isinstance(n, ast.Name) and n.id == name for n in starred):
            continue
        callee = _attribute(root, node.func)
        if isinstance(callee, torch.nn.Module):
            yield inspect.getattr_static(type(callee), "forward"), callee
        elif inspect.ismethod(callee) and isinstance(callee.__self__, torch.nn.Module):
            yield callee.__func__, callee.__self__
        elif inspect.isfunction(callee):
            yield callee, None


def _attribute(root: torch.nn.Module, node: ast.expr) -> Any:
    """The object that ``self.a.b`` names; ``None`` for other expressions."""
    if isinstance(node, ast.Name):
        return root if node.id == "self" else None
    if isinstance(node, ast.Attribute):
        return getattr(_attribute(root, node.value), node.attr, None)
    return None


def _first_conv(root: torch.nn.Module) -> list[Argument]:
    """The arguments of the first module that takes edges: what a heterogeneous wrapper passes."""
    for module in list(root.modules())[1:]:
        forward = inspect.getattr_static(type(module), "forward", None)
        if not inspect.isfunction(forward):
            continue
        parameters = list(inspect.signature(forward).parameters.values())[1:]
        if any(parameter.name == "edge_index" for parameter in parameters):
            return [Argument(p.name, Dyn(TENSOR), p.default, p.name) for p in parameters]
    return []


# Node and edge types ##############################################################


def graph_types(root: torch.nn.Module) -> GraphTypes:
    """The node and edge types in the configuration of a model.

    An edge type is a tuple of three strings: a key of a dictionary or container of modules (there
    also ``"src__rel__dst"``), or an element of a list, as in PyG's ``metadata``. Where there are
    none, they are the constants that the code asks ``x_dict`` and the like for.
    """
    nodes: dict[str, None] = {}
    edges: dict[tuple[str, str, str], None] = {}
    fallback: dict[str, None] = {}
    for module in root.modules():
        for value in vars(module).values():
            _add_types(value, nodes, edges)
        if isinstance(module, (torch.nn.ModuleDict, torch.nn.ParameterDict)):
            keys = [_as_edge_type(key) for key in module.keys()]  # noqa: SIM118
            _add_types(dict.fromkeys(keys), nodes, edges)
            fallback |= dict.fromkeys(key for key in keys if isinstance(key, str))
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                _add_types([node.args, node.kwargs], nodes, edges)
    if not edges and not nodes:
        for key in _keys_in_code(root):
            (edges if isinstance(key, tuple) else nodes)[key] = None
    for source, _, target in edges:
        nodes |= {source: None, target: None}
    return GraphTypes(tuple(nodes or fallback), tuple(edges))


def _keys_in_code(root: torch.nn.Module) -> Iterator[Any]:
    """Node and edge types that the user's methods ask dictionaries of such types for."""
    for cls in dict.fromkeys(c for m in root.modules() for c in type(m).__mro__):
        if cls.__module__.split(".")[0] in ("torch", "torch_geometric", "builtins"):
            continue
        for function in filter(inspect.isfunction, vars(cls).values()):
            try:
                source = function_source(function)
            except UnsupportedError:
                continue
            for node in ast.walk(source.node):
                if isinstance(node, ast.Subscript) and _is_typed(node.value):
                    key = _constant(node.slice, source)
                    if isinstance(key, str) or _is_edge_type(key):
                        yield key


def _is_typed(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id.endswith(_DICTIONARY)


def _constant(node: ast.expr, source: FunctionSource) -> Any:
    """The constant that an expression is, or that a global variable holds."""
    try:
        return source.resolve(node.id) if isinstance(node, ast.Name) else ast.literal_eval(node)
    except (KeyError, ValueError):
        return None


def _as_edge_type(key: Any) -> Any:
    parts = key.split("__") if isinstance(key, str) else ()
    return tuple(parts) if len(parts) == 3 and all(parts) else key


def _is_edge_type(value: Any) -> bool:
    return type(value) is tuple and len(value) == 3 and all(type(v) is str for v in value)


def _add_types(value: Any, nodes: dict[str, None], edges: dict[tuple[str, str, str], None]) -> None:
    if type(value) not in (tuple, list) and not isinstance(value, dict):
        return
    if _is_edge_type(value):
        return  # three strings on their own are as likely the names of aggregations
    parts = list(value) + (list(value.values()) if isinstance(value, dict) else [])
    edges |= dict.fromkeys(filter(_is_edge_type, parts))
    if (
        type(value) is tuple
        and len(value) == 2
        and isinstance(value[0], (list, tuple))
        and isinstance(value[1], (list, tuple))
        and value[1]
        and all(map(_is_edge_type, value[1]))
    ):
        nodes |= dict.fromkeys(name for name in value[0] if isinstance(name, str))
    for part in parts:
        _add_types(part, nodes, edges)
