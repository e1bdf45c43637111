"""What is known of a value while code is specialised: everything, its type, or its shape."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from gnnscript.analyze.sources import FunctionSource
from gnnscript.analyze.types import (
    FLOAT,
    INT,
    NONE,
    NUMBER,
    STR,
    TENSOR,
    UNKNOWN,
    Type,
    dict_of,
    join,
    list_of,
    of_value,
    tuple_of,
)
from gnnscript.specialize.literals import written
from gnnscript.specialize.tree import free_name

__all__ = [
    "Choice",
    "Closure",
    "Const",
    "Context",
    "Defaulting",
    "Dyn",
    "Limited",
    "Mapping",
    "Method",
    "ModuleRef",
    "Poison",
    "Seq",
    "Shown",
    "Super",
    "Value",
    "constant_items",
    "entry_names",
    "generalize",
    "has_mapping",
    "has_slice",
    "is_mixed",
    "is_motley",
    "is_object",
    "join_values",
    "key_of",
    "literal",
    "modules_in",
    "packed_type",
    "renewed",
    "script_key",
    "static_type",
]


class Value:
    """Base class; see the subclasses."""


@dataclass(frozen=True, eq=False)
class Const(Value):
    """A Python object known while specialising: configuration, functions, classes, modules."""

    value: Any


@dataclass(frozen=True, eq=False)
class Dyn(Value):
    """A value of known type that exists when the specialised code runs."""

    type: Type


@dataclass(frozen=True, eq=False)
class Shown(Dyn):
    """An argument of the model that example inputs give a value."""

    value: Any


@dataclass(frozen=True, eq=False)
class Defaulting(Dyn):
    """A dictionary of run time that makes the entries that are missing, by ``default``.

    ``counts`` says that it is a ``Counter``, which only shows them.
    """

    default: Value
    counts: bool


@dataclass(frozen=True, eq=False)
class Seq(Value):
    """A tuple or list of known length, each element a value of its own."""

    items: tuple[Value, ...]
    kind: str = "tuple"
    cls: Any = None


@dataclass(frozen=True, eq=False)
class Limited(Seq):
    """A ``deque`` that forgets its elements at one end when more come in at the other."""

    limit: int = 0


@dataclass(frozen=True, eq=False)
class Mapping(Value):
    """A dictionary with known keys, or a data object, by its fields.

    ``default`` makes the entries that are missing; ``cls`` is the class of the object.
    """

    items: dict[Any, Value]
    default: Value | None = None
    cls: type = dict


@dataclass(frozen=True, eq=False)
class ModuleRef(Value):
    """A module of the model, by its path from the root."""

    module: torch.nn.Module
    path: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Method(Value):
    """A Python function bound to its first argument."""

    owner: Value
    function: Any
    name: str


@dataclass(frozen=True, eq=False)
class Super(Value):
    """``super()`` of ``owner``, looking behind ``after`` in its method resolution order."""

    owner: Value
    after: type


@dataclass(frozen=True, eq=False)
class Closure(Value):
    """A function or lambda defined inside the code being specialised."""

    node: ast.FunctionDef | ast.Lambda
    source: FunctionSource
    cls: type | None
    env: dict[str, Any]
    defaults: dict[str, tuple[Value, ast.expr | None]]
    home: Any  # the frame whose variables it uses
    late: bool = True  # whether it uses them as they are when it is called


@dataclass(frozen=True, eq=False)
class Choice(Value):
    """One of two functions, methods or modules, of which the run decides by a test."""

    test: ast.expr
    first: Value
    second: Value


@dataclass(frozen=True, eq=False)
class Context(Value):
    """A context of torch's that is made: it does nothing until a block is entered with it."""

    function: Any
    given: Any  # its arguments


@dataclass(frozen=True, eq=False)
class Poison(Value):
    """A variable that no single type can hold at this point; an error only where it is used.

    ``met`` lists the tests behind which it is like this, each with the function's frame.
    """

    reason: str
    met: list[tuple[Any, str]] = field(default_factory=list)


def script_key(key: Any) -> Any:
    """A key as TorchScript's dictionaries can hold it: an edge type as ``"src__rel__dst"``."""
    if isinstance(key, tuple) and all(isinstance(part, str) for part in key):
        return "__".join(key)
    return key


def entry_names(name: str, keys: Iterable[Any]) -> list[str]:
    """For each part of a value, the name of the variable that it is passed in.

    Two underscores, as ``parts_x = parts["x"]`` is what users name such a part themselves.
    """
    taken: set[str] = set()
    return [free_name(re.sub(r"\W", "_", f"{name}__{script_key(key)}"), taken) for key in keys]


def packed_type(value: Value) -> Type:
    """The type in which a function hands back ``value``: dictionaries as tuples of entries."""
    if isinstance(value, Mapping):
        return tuple_of(*(packed_type(item) for item in value.items.values()))
    if isinstance(value, Seq) and has_mapping(value):
        return tuple_of(*(packed_type(item) for item in value.items))
    return static_type(value)


def has_mapping(value: Value) -> bool:
    """Whether a value is a dictionary known by its entries, or has one inside."""
    return isinstance(value, Mapping) or (
        isinstance(value, Seq) and any(has_mapping(item) for item in value.items)
    )


def has_slice(value: Value) -> bool:
    """Whether an index is a slice object, or a tuple with one."""
    if isinstance(value, Seq):
        return value.cls is slice or any(map(has_slice, value.items))
    if isinstance(value, Const) and type(value.value) is tuple:
        return any(isinstance(part, slice) for part in value.value)
    return isinstance(value, Const) and isinstance(value.value, slice)


def is_motley(value: Value) -> bool:
    """Whether a value is a list of elements of several types, which a list of TorchScript's loses.

    It holds no numbers beside tensors, say, and of ``[x, None]`` it does not know which is which.
    """
    if not isinstance(value, Seq) or value.kind != "list":
        return False
    types = {static_type(item) for item in value.items}
    if not all(t.known for t in types):
        return False
    return len(types) > 1 if NONE in types else not static_type(value).known


def is_object(value: Value) -> bool:
    """Whether a value is a data object, known by its fields."""
    return isinstance(value, Mapping) and not issubclass(value.cls, _CONTAINERS)


_CONTAINERS = (dict, torch.nn.Module)


def renewed(value: Value, seen: dict[int, Value] | None = None) -> Value:
    """What a call returns, as objects of its own: another call returns others of the same kind."""
    seen = {} if seen is None else seen
    if id(value) not in seen:
        if isinstance(value, Seq):
            items = tuple(renewed(item, seen) for item in value.items)
            seen[id(value)] = replace(value, items=items)
        elif isinstance(value, Mapping):
            entries = {key: renewed(item, seen) for key, item in value.items.items()}
            seen[id(value)] = replace(value, items=entries)
        else:
            return value
    return seen[id(value)]


def static_type(value: Value) -> Type:
    """The type that a variable holding ``value`` has in specialised code."""
    if isinstance(value, Dyn):
        return value.type
    if isinstance(value, Const):
        return of_value(value.value)
    if isinstance(value, Seq):
        types_ = [static_type(item) for item in value.items]
        if value.kind == "tuple":
            return tuple_of(*types_, cls=value.cls)
        element: Type | None = types_[0] if types_ else TENSOR
        for other in types_[1:]:
            element = join(element, other) if element is not None else None
        return list_of(element or UNKNOWN)
    if isinstance(value, Mapping):
        if not value.items:
            return dict_of(STR, TENSOR)
        keys = {of_value(script_key(key)) for key in value.items}
        entries = list(value.items.values())
        held: Type | None = static_type(entries[0])
        for entry in entries[1:]:
            held = join(held, static_type(entry)) if held is not None else None
        if held is None or len(keys) > 1 or not keys <= {STR, INT}:
            return UNKNOWN
        return dict_of(keys.pop(), held)
    return UNKNOWN


def generalize(value: Value) -> Value:
    """Forgets constants, keeps types: what is known of a loop variable between iterations."""
    if isinstance(value, Seq) and value.kind == "tuple":
        return Seq(tuple(generalize(item) for item in value.items), value.kind, value.cls)
    if isinstance(value, Const) and not isinstance(value.value, (int, float, bool, str)):
        return value if literal(value) is None or value.value is None else Dyn(static_type(value))
    if isinstance(value, (Const, Seq)):
        return Dyn(static_type(value))
    return value


def join_values(a: Value, b: Value, *, numbers: bool = False) -> Value:
    """What is known where two control paths meet.

    Args:
        a: The value on one path.
        b: The value on the other.
        numbers: Whether an integer and a float may become TorchScript's number that is either.
    """
    if a is b or key_of(a) == key_of(b):
        return a
    if isinstance(a, Poison) or isinstance(b, Poison):
        return a if isinstance(a, Poison) else b
    if isinstance(a, Seq) and isinstance(b, Seq):
        if len(a.items) == len(b.items) and (a.kind, a.cls) == (b.kind, b.cls):
            items = tuple(map(join_values, a.items, b.items))
            if not any(isinstance(item, Poison) for item in items):
                return Seq(items, a.kind, a.cls)
    if isinstance(a, Mapping) and isinstance(b, Mapping) and list(a.items) == list(b.items):
        entries = {name: join_values(item, b.items[name]) for name, item in a.items.items()}
        if not any(isinstance(item, Poison) for item in entries.values()):
            return Mapping(entries, a.default, a.cls)
    if not _runtime(a) or not _runtime(b):
        return Poison("it is a different function or module on each path")
    joined = join(static_type(a), static_type(b))
    if joined is None and numbers and {static_type(a), static_type(b)} == {INT, FLOAT}:
        joined = NUMBER
    if joined is None:
        return Poison(f"it is '{static_type(a)}' on one path and '{static_type(b)}' on another")
    return Dyn(joined)


def _runtime(value: Value) -> bool:
    if isinstance(value, Const):
        return literal(value) is not None
    return isinstance(value, (Dyn, Seq, Mapping))


def _used(closure: Closure) -> list[Hashable]:
    """What an inner function finds under the names in it, but for functions like itself."""
    names = {n.id for n in ast.walk(closure.node) if isinstance(n, ast.Name)}
    held = {name: closure.env[name].value for name in sorted(names & closure.env.keys())}
    found = [(k, key_of(v)) for k, v in held.items() if not isinstance(v, Closure)]
    return [*found, *((k, key_of(v)) for k, (v, _) in closure.defaults.items())]


_PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.layout, torch.device)


def key_of(value: Value) -> Hashable:
    """A key that is equal for values that specialise alike."""
    if isinstance(value, Const):
        inner = value.value
        if isinstance(
            inner, (int, float, bool, str, type(None), torch.dtype, torch.layout, torch.device)
        ):
            return ("const", type(inner).__name__, repr(inner))
        if isinstance(inner, (tuple, list)):
            return ("const", type(inner).__name__, tuple(key_of(Const(item)) for item in inner))
        return ("object", id(inner))
    if isinstance(value, Defaulting):
        return ("defaulting", value.type, value.counts, key_of(value.default))
    if isinstance(value, Dyn):
        return ("dyn", value.type)
    if isinstance(value, Seq):
        return ("seq", value.kind, value.cls, tuple(key_of(item) for item in value.items))
    if isinstance(value, Mapping):
        entries = tuple((name, key_of(item)) for name, item in value.items.items())
        return ("map", value.cls, entries)
    if isinstance(value, ModuleRef):
        return ("module", value.path)
    if isinstance(value, Method):
        return ("method", key_of(value.owner), id(value.function))
    if isinstance(value, Super):
        return ("super", key_of(value.owner), value.after)
    if isinstance(value, Closure):
        return ("closure", id(value.node), id(value.home), *_used(value))
    return ("identity", id(value))


def literal(value: Value) -> ast.expr | None:
    """The expression that writes a constant down, ``None`` for what has no literal form."""
    return written(value.value) if isinstance(value, Const) else None


def constant_items(value: Value) -> list[Value] | None:
    """The elements of a sequence that is known while specialising, or ``None``."""
    if isinstance(value, Seq):
        return list(value.items)
    if isinstance(value, Const) and _is_collection(value.value):
        return [Const(item) for item in value.value]
    if isinstance(value, Mapping):
        return [Const(name) for name in value.items]
    return None


def _is_collection(value: Any) -> bool:
    """Whether a Python object has elements that can be listed, as the class of an enum has."""
    if isinstance(value, (torch.Tensor, torch.nn.Module)):
        return False
    return isinstance(value, Collection) and getattr(value, "shape", None) != ()


def is_mixed(value: Value) -> bool:
    """Whether a sequence has elements that exist only in Python beside those of run time."""
    return isinstance(value, Seq) and not all(
        is_mixed(item) is False if isinstance(item, Seq) else _runtime(item) for item in value.items
    )


def modules_in(value: Value) -> list[ModuleRef]:
    """All modules that a value refers to."""
    if isinstance(value, ModuleRef):
        return [value]
    if isinstance(value, Seq):
        return [ref for item in value.items for ref in modules_in(item)]
    if isinstance(value, Mapping):
        return [ref for item in value.items.values() for ref in modules_in(item)]
    if isinstance(value, (Method, Super)):
        return modules_in(value.owner)
    if isinstance(value, Choice):
        return modules_in(value.first) + modules_in(value.second)
    if isinstance(value, Closure):
        held = (getattr(binding, "value", binding) for binding in value.env.values())
        # A function sees itself, and its siblings see it.
        return [
            ref for inner in held if not isinstance(inner, Closure) for ref in modules_in(inner)
        ]
    return []
