"""``sorted``, ``min`` and ``max`` by a key: decided here, or written for the run to decide."""

from __future__ import annotations

import ast
from typing import Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import BOOL, FLOAT, INT, NUMBER, STR, list_of
from gnnscript.specialize import substitutes
from gnnscript.specialize.folding.base import Arguments, Binding, Folded, Folding
from gnnscript.specialize.folding.builtin_sequences import parts_of
from gnnscript.specialize.folding.rewritten import parsed_expression
from gnnscript.specialize.values import Const, Value, literal, static_type

_WHOLE = (list_of(INT), list_of(BOOL))
_NUMBERS = (*_WHOLE, list_of(FLOAT))


class Sorting(Folding):
    """The part of a frame that orders by keys."""

    def by_key(self, function: Any, given: Arguments, keys: list[Value] | None = None) -> Folded:
        """``sorted``, ``min`` and ``max`` with a ``key``."""
        frame: Any = self
        (sequence, *more), options = given.args, dict(given.kwargs)
        key: Folded = options.pop("key", (Const(None), None))
        reverse, _ = options.pop("reverse", (Const(False), None))
        parts = [sequence, *more] if more else parts_of(frame, sequence)
        if keys is None:
            with self.nested(dict(self.env)):  # the keys alone are asked for
                keys = [self.call(key[0], Arguments([p], {}), key[1])[0] for p in parts or ()]
        if parts is None or not all(isinstance(k, Const) for k in keys):
            if parts is not None:
                sequence = self.sequence("list", [v for v, _ in parts], [n for _, n in parts])
            return self._at_run_time(function, sequence, key, reverse, options)
        if not isinstance(reverse, Const):
            raise UnsupportedError("'reverse' is known only at run time", "use a constant")
        if not parts:
            return options["default"] if function is not sorted else self.sequence("list", [], [])
        values = [k.value for k in keys if isinstance(k, Const)]
        order: list[int] = self.compute(
            ast.Constant(function.__name__),
            sorted,
            range(len(parts)),
            key=values.__getitem__,
            reverse=bool(reverse.value),
        )
        if function is not sorted:
            best: int = function(range(len(parts)), key=values.__getitem__)
            return parts[best]
        chosen = [parts[position] for position in order]
        return self.sequence("list", [v for v, _ in chosen], [n for _, n in chosen])

    def _at_run_time(
        self, function: Any, sequence: Folded, key: Folded, reverse: Value, options: Any
    ) -> Folded:
        known = static_type(sequence[0])
        if options and isinstance(reverse, Const):
            return self.or_default(function, Arguments([sequence], {"key": key, **options}))
        if options or not isinstance(reverse, Const) or known.name != "List" or not known.known:
            raise UnsupportedError(
                f"'{function.__name__}' is given a key, whose values are known only at run time",
                "sort tensors, by torch.sort or torch.argsort",
            )
        if function is sorted:
            return self._sorted(sequence, key, reverse=bool(reverse.value))
        first = substitutes.least if function is min else substitutes.greatest
        return self.call_function(first, Arguments([key, sequence], {}), None)

    def or_default(self, function: Any, given: Arguments) -> Folded:
        """``min`` or ``max`` of a list of run time that may be empty, with a default for it."""
        names = {wish: self.fresh(wish) for wish in ("least", "values", *given.kwargs)}
        self.env[names["least"]] = Binding(Const(function), None)
        self.bind(names["values"], *given.args[0])
        for wish, (value, node) in given.kwargs.items():
            self.env[names[wish]] = Binding(value, None, node)
        key = f", key={names['key']}" if "key" in names else ""
        found = f"{names['least']}({names['values']}{key})"
        return self.fold(
            self._read(f"{found} if len({names['values']}) > 0 else {names['default']}")
        )

    def _sorted(self, sequence: Folded, key: Folded, *, reverse: bool) -> Folded:
        """``sorted(values, key=...)`` of a list whose length only the run knows."""
        values, by, order = (self.fresh(wish) for wish in ("values", "key", "order"))
        self.bind(values, *sequence)
        named = isinstance(key[0], Const) and key[0].value is None
        if not named:
            self.env[by] = Binding(key[0], None, key[1])
        spelled = "value" if named else f"{by}(value)"
        keys, listed = self.fold(self._read(f"[{spelled} for value in {values}]"))
        t = static_type(keys)
        if t == list_of(NUMBER):
            keys, listed = self.fold(self._read(f"[float({spelled}) for value in {values}]"))
            t = static_type(keys)
        if t.name == "List" and t.args[0].name == "Tuple":
            # By the last part first: what comes later keeps the order of what is equal to it.
            for part in reversed(range(len(t.args[0].args))):
                call = f"sorted({values}, key=lambda value: {spelled}[{part}], reverse={reverse})"
                self.bind(values, *self.fold(self._read(call)))
            return self.fold_Name(ast.Name(values, ast.Load()))
        if t == list_of(STR):
            keys, listed = self.call_function(
                substitutes.ranks, Arguments([(keys, listed)], {}), None
            )
        elif t not in _NUMBERS:
            raise UnsupportedError(
                f"a list is sorted by keys of type '{t.args[0] if t.args else t}', which are "
                "known only at run time",
                "sort by numbers, strings, or tuples of those",
            )
        dtype = Const(substitutes.key_dtype(whole=t in (*_WHOLE, list_of(STR))))
        given: list[Folded] = [(keys, listed), (dtype, literal(dtype)), (Const(reverse), None)]
        self.bind(order, *self.call_function(substitutes.sorted_order, Arguments(given, {}), None))
        return self.fold(self._read(f"[{values}[i] for i in {order}]"))

    def sort_in_place(self, node: ast.expr, value: Value, given: Arguments) -> Folded:
        """``values.sort(key=...)`` of a list of run time, which other variables may hold too."""
        order = self.by_key(sorted, Arguments([(value, node)], given.kwargs))
        self.refill(node, order)
        return Const(None), None

    def _read(self, expression: str) -> ast.expr:
        return parsed_expression(expression, self.current)
