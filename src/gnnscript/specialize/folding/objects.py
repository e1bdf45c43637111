"""Data objects: known by their fields, which the code reads, assigns and adds."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import types

import torch

from gnnscript._errors import UnsupportedError
from gnnscript.specialize.folding.base import Arguments, Binding, Folded, Folding
from gnnscript.specialize.helpers import is_record
from gnnscript.specialize.values import Const, Mapping, Value, is_object


class Objects(Folding):
    """The part of a frame that makes and reads data objects."""

    def make_object(self, cls: type, given: Arguments) -> Folded:
        """``Data(x=x, edge_index=edge_index)``."""
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        try:
            bound = signature.bind(None, *given.args, **given.kwargs).arguments
        except TypeError as error:
            raise UnsupportedError(
                f"a '{cls.__name__}' is made of other arguments than it takes: {error}",
                "it fails in the same way when the model runs in Python; correct the call",
            ) from None
        fields: dict[str, Folded] = {}
        for name, value in list(bound.items())[1:]:
            collects = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
            fields |= value if collects else {name: value}
        if _drops_none(cls):
            fields = {name: field for name, field in fields.items() if not _is_none(field[0])}
        if dataclasses.is_dataclass(cls):
            fields = self._with_defaults(cls, fields)
        nodes = [self.hold(name, node) for name, (_, node) in fields.items()]
        made = self.mapping({name: v for name, (v, _) in fields.items()}, nodes, None, cls)
        if hasattr(cls, "__post_init__"):
            return self._initialised(made, "__post_init__", Arguments([], {}))
        return made

    def make_record(self, cls: type, given: Arguments) -> Folded:
        """An object whose class sets its fields itself."""
        return self._initialised(self.mapping({}, [], None, cls), "__init__", given)

    def _initialised(self, made: Folded, method: str, given: Arguments) -> Folded:
        name = self.fresh("made")
        self.env[name] = Binding(made[0], None, made[1])
        self.mutated.add(name)
        self.record_method(*made, method, given)
        changed = self.env.pop(name)
        return changed.value, changed.node

    def _with_defaults(self, cls: type, fields: dict[str, Folded]) -> dict[str, Folded]:
        """The fields of a dataclass in their order, with those that are not given."""
        found: dict[str, Folded] = {}
        for field in dataclasses.fields(cls):
            if field.name in fields:
                found[field.name] = fields[field.name]
            elif field.default_factory is not dataclasses.MISSING:
                found[field.name] = self.call(
                    self.wrap(field.default_factory), Arguments([], {}), None
                )
            elif field.default is not dataclasses.MISSING:
                found[field.name] = self.wrap(field.default), None
        return found

    def field(self, holder: Value, base: ast.expr | None, name: str) -> Folded | None:
        """``holder.name``; ``None`` if ``holder`` is no data object or has no such field."""
        if not isinstance(holder, Mapping) or issubclass(holder.cls, (dict, torch.nn.ModuleDict)):
            return None
        if name in holder.items:
            position = list(holder.items).index(name)
            return holder.items[name], self.entries(holder, base)[position]
        default = inspect.getattr_static(holder.cls, name, None)
        if is_record(holder.cls):
            return self.record_attribute(holder, base, name)
        if is_object(holder) and isinstance(default, property):
            if getattr(holder.cls(), name) is None:
                return Const(None), None
        return None

    def set_field(self, holder: Value, base: ast.expr | None, name: str, folded: Folded) -> None:
        """``holder.name = value``."""
        assert isinstance(holder, Mapping)
        if not (_drops_none(holder.cls) and _is_none(folded[0])):
            self.set_item(holder, base, Const(name), *folded)
        elif name in holder.items:
            self.delete_item(holder, base, Const(name))


def _drops_none(cls: type) -> bool:
    """Whether a field that is ``None`` is not there, as in PyG's ``Data``."""
    return cls is not types.SimpleNamespace and not is_record(cls)


def _is_none(value: Value) -> bool:
    return isinstance(value, Const) and value.value is None
