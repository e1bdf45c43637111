"""Parameters: what is known of an argument decides in which form the function is given it."""

from __future__ import annotations

import ast
import dataclasses

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.annotations import parameter_types
from gnnscript.analyze.sources import collecting_names
from gnnscript.analyze.types import TENSOR, UNKNOWN, Type, alternatives
from gnnscript.specialize.folding.base import Binding, Folding
from gnnscript.specialize.folding.closures import captured
from gnnscript.specialize.helpers import annotation
from gnnscript.specialize.program import is_runtime
from gnnscript.specialize.values import (
    Closure,
    Dyn,
    Mapping,
    Poison,
    Seq,
    Value,
    entry_names,
    is_mixed,
    literal,
    static_type,
)


class Parameters(Folding):
    """The part of a frame that binds parameters."""

    def bind_parameters(self, bound: dict[str, Value]) -> list[tuple[str, Type]]:
        """Binds each parameter to what is known of it; returns those that remain."""
        self._check_self()
        remain: list[tuple[str, Type]] = []
        try:
            declared = parameter_types(self.source, self.cls)
        except (TypeError, ValueError):
            declared = {}
        for name, value in bound.items():
            self._bind_parameter(name, value, declared.get(name, UNKNOWN), remain)
        changeable = (*collecting_names(self.source.function), *self.borrowed)
        own = [self.env[name].value for name in changeable if name in self.env]
        self.frozen.append(
            [held for held in self.reachable() if not any(held is value for value in own)]
        )
        self.borrow()
        return remain

    def _check_self(self) -> None:
        """In what is emitted, ``self`` is the module, whatever the user calls it."""
        node = self.source.node
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if self.owner is None or isinstance(node, ast.Lambda) or not given:
            return
        first, *others = given
        if first.arg == "self":
            return
        named = [other for other in others if other.arg == "self"]
        stored = [
            n
            for n in ast.walk(node)
            if isinstance(n, ast.Name) and n.id == "self" and isinstance(n.ctx, ast.Store)
        ]
        if named or stored:
            raise UnsupportedError(
                f"'{node.name}' calls the module '{first.arg}', and something else 'self'",
                "call the module 'self', and the other thing by another name",
                self.source.location((named or stored)[0]),
            )

    def _bind_parameter(
        self, name: str, value: Value, declared: Type, remain: list[tuple[str, Type]]
    ) -> None:
        """Binds one; adds to ``remain`` what of it is passed when the code runs."""
        if isinstance(value, Mapping):
            nodes: list[ast.expr | None] = []
            names = entry_names(name, value.items)
            received = dict(value.items)
            for entry, (key, item) in zip(names, value.items.items(), strict=True):
                received[key] = self._received(entry, item, remain)
                if is_runtime(item):
                    remain.append(self._parameter(entry, item, UNKNOWN))
                    nodes.append(ast.Name(entry, ast.Load()))
                else:
                    nodes.append(literal(item))
            display, known = self.mapping(received, nodes)[1], value
            if any(received[key] is not item for key, item in value.items.items()):
                known = Mapping(received, value.default, value.cls)
            self.env[name] = Binding(known, None, display)
        elif isinstance(value, Seq) and (is_mixed(value) or name in self.borrowed):
            parts: list[ast.expr | None] = []
            items = list(value.items)
            names = entry_names(name, range(len(items)))
            for position, (entry, item) in enumerate(zip(names, value.items, strict=True)):
                items[position] = self._received(entry, item, remain)
                if is_runtime(item):
                    remain.append(self._parameter(entry, item, UNKNOWN))
                    parts.append(ast.Name(entry, ast.Load()))
                else:
                    parts.append(None)
            display = self.sequence(value.kind, items, parts)[1]
            self.env[name] = Binding(Seq(tuple(items), value.kind, value.cls), None, display)
        elif isinstance(value, Closure):
            self.env[name] = Binding(self._received(name, value, remain), None)
        elif is_runtime(value):
            remain.append(self._parameter(name, value, declared))
        else:
            self.env[name] = Binding(value, None)

    def _received(self, name: str, value: Value, remain: list[tuple[str, Type]]) -> Value:
        """An argument; with a function of the caller's, the variables that it uses are passed."""
        if not isinstance(value, Closure) or value.home is self or not captured(value):
            return value
        env = dict(value.env)
        keys = captured(value)
        for entry, key in zip(entry_names(name, keys), keys, strict=True):
            self._bind_parameter(entry, env[key].value, UNKNOWN, remain)
            env[key] = self.env.pop(entry)
        return dataclasses.replace(value, env=env, home=self, late=False)

    def _parameter(self, name: str, value: Value, declared: Type) -> tuple[str, Type]:
        t = static_type(value)
        if not t.known:
            t = alternatives(declared)[0] if declared.known else TENSOR
            if isinstance(value, Dyn):
                value = Dyn(t)
        if isinstance(value, Seq) and value.kind == "list" and name in self.mutated:
            value = Dyn(t)
        if isinstance(value, Poison):
            raise UnsupportedError(
                f"'{name}' cannot be passed on: {value.reason}",
                "give it one type on every path",
            )
        self.taken.add(name)
        self.variants[name] = [(t, name)]
        self.parameters.append(ast.arg(name, annotation(t)))
        self.env[name] = Binding(value, name)
        return name, t
