"""The values that a trace computes with: nodes of the graph that know an example of themselves."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.fx.proxy import Attribute as FxAttribute
from torch.fx.proxy import Proxy as FxProxy

if TYPE_CHECKING:
    from gnnscript.fx.tracer import Tracer

__all__ = ["Attribute", "Mode", "Proxy"]


class _Exemplified:
    """What a node answers where Python asks for a value: what its example says.

    The graph then asserts that the answer is the same when it runs.
    """

    tracer: Tracer

    def __bool__(self) -> bool:
        return bool(self.tracer.concrete(self, bool))

    def __index__(self) -> int:
        return int(self.tracer.concrete(self, int))

    __int__ = __index__

    def __float__(self) -> float:
        return float(self.tracer.concrete(self, float))

    def __len__(self) -> int:
        return len(self.tracer.elements(self))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tracer.elements(self))

    def __contains__(self, item: object) -> bool:
        return any(item is own or bool(item == own) for own in self.tracer.elements(self))

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.set_item(self, index, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        known = self.tracer.example(self)
        if isinstance(known, dict) and name in ("keys", "items", "values"):
            entries = {key: self[key] for key in known}  # type: ignore[index]
            return getattr(entries, name)
        return Attribute(self, name)  # type: ignore[arg-type]

    def keys(self) -> Any:
        """The keys of the example, a dictionary; used by ``**`` too."""
        return self.__getattr__("keys")()

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.in_place(operator.iadd, self, other)

    def __isub__(self, other: Any) -> Any:
        return self.tracer.in_place(operator.isub, self, other)

    def __imul__(self, other: Any) -> Any:
        return self.tracer.in_place(operator.imul, self, other)

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.in_place(operator.itruediv, self, other)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, (list, tuple)):
            return other * int(self)
        return self.tracer.create_proxy("call_function", operator.mul, (self, other), {})

    def __rmul__(self, other: Any) -> Any:
        if isinstance(other, (list, tuple)):
            return other * int(self)
        return self.tracer.create_proxy("call_function", operator.mul, (other, self), {})

    __hash__ = object.__hash__


class Proxy(_Exemplified, FxProxy):  # type: ignore[misc]
    """A node of the graph, seen by the code that is traced."""


class Attribute(_Exemplified, FxAttribute):  # type: ignore[misc]
    """An attribute of a node, which becomes a node unless it turns out to be a method called."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The call of a method."""
        return self.tracer.create_proxy("call_method", self.attr, (self.root, *args), kwargs)


@dataclass(frozen=True)
class Mode:
    """The mode for gradients: as it is while tracing, and the node that finds it in the graph."""

    value: bool
    found: Proxy

    def __bool__(self) -> bool:
        return self.value
