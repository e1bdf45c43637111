"""What a ``MessagePassing`` class says of itself: its hooks, their arguments, its calls."""

from __future__ import annotations

import inspect
import threading
import weakref
from dataclasses import dataclass
from typing import Any

from gnnscript import _pyg
from gnnscript._errors import UnsupportedError
from gnnscript.analyze.annotations import parameter_types, return_type
from gnnscript.analyze.calls import CallSite, call_sites
from gnnscript.analyze.sources import FunctionSource, function_source
from gnnscript.analyze.types import Type

__all__ = ["ConvSpec", "Hook", "HookParameter", "analyze"]

HOOKS = ("message", "aggregate", "update", "edge_update", "message_and_aggregate")
SPECIAL = frozenset(
    {
        "edge_index",
        "adj_t",
        "edge_index_i",
        "edge_index_j",
        "size",
        "size_i",
        "size_j",
        "ptr",
        "index",
        "dim_size",
    }
)


@dataclass(frozen=True)
class HookParameter:
    """One argument of a hook.

    Args:
        name: As written in the hook's signature.
        type: Its declared type.
        default: Its default, or ``inspect.Parameter.empty``.
        lifted: ``"i"`` or ``"j"`` for an argument gathered to the edges, else ``None``.
        special: Whether the base class provides it (``index``, ``dim_size``, ...).
    """

    name: str
    type: Type
    default: Any
    lifted: str | None
    special: bool

    @property
    def keyword(self) -> str:
        """The keyword of ``propagate`` that the argument comes from."""
        return self.name[:-2] if self.lifted else self.name


@dataclass(frozen=True)
class Hook:
    """A method that message passing calls: ``message``, ``aggregate``, ``update``, ...

    Args:
        name: The method's name.
        source: Its definition.
        parameters: Its arguments, without ``self`` and without what message passing itself
            hands over first (the messages, the aggregate, the adjacency).
        returns: Its declared return type.
    """

    name: str
    source: FunctionSource
    parameters: tuple[HookParameter, ...]
    returns: Type


@dataclass(frozen=True)
class ConvSpec:
    """A ``MessagePassing`` class, analysed.

    Args:
        cls: The class object.
        hooks: The hooks in effect, by name.
        calls: The calls of ``propagate`` and ``edge_updater`` in its methods.
    """

    cls: type
    hooks: dict[str, Hook]
    calls: tuple[CallSite, ...]


_lock = threading.RLock()
_specs: weakref.WeakKeyDictionary[type, ConvSpec] = weakref.WeakKeyDictionary()


def analyze(cls: type) -> ConvSpec:
    """Reads a ``MessagePassing`` class; the result is kept per class object.

    Raises:
        UnsupportedError: Something visible in the class's source cannot be specialised.
    """
    with _lock:
        spec = _specs.get(cls)
        if spec is None:
            base = _pyg.message_passing()
            hooks = {name: _hook(cls, name) for name in HOOKS}
            spec = ConvSpec(cls, hooks, call_sites(cls, base))
            _specs[cls] = spec
        return spec


def _hook(cls: type, name: str) -> Hook:
    function = inspect.unwrap(inspect.getattr_static(cls, name))
    function = getattr(function, "__func__", function)
    source = function_source(function)
    types = parameter_types(source, cls)
    signature = list(inspect.signature(source.function, follow_wrapped=False).parameters.values())
    static = isinstance(inspect.getattr_static(cls, name), staticmethod)
    given = 0 if static else 1
    if name in ("aggregate", "update", "message_and_aggregate"):
        given += 1
    parameters = []
    for parameter in signature[given:]:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            raise UnsupportedError(
                f"'{cls.__name__}.{name}' takes '{parameter}': which arguments it asks for "
                "cannot be read from its signature",
                "name each argument that it uses in its signature",
                source.location(),
            )
        special = parameter.name in SPECIAL
        suffix = parameter.name[-2:]
        parameters.append(
            HookParameter(
                parameter.name,
                types[parameter.name],
                parameter.default,
                suffix[1] if suffix in ("_i", "_j") and not special else None,
                special,
            )
        )
    return Hook(name, source, tuple(parameters), return_type(source, cls))
