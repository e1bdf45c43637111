"""Empty collections inside of others: of the type that is declared, or that is put in later."""

from __future__ import annotations

import ast

from gnnscript.analyze.types import UNKNOWN, Type, dict_of, list_of, set_of
from gnnscript.specialize.folding.base import Arguments, Folded, Folding, Learned
from gnnscript.specialize.folding.sets import is_set
from gnnscript.specialize.helpers import annotation, torch_name
from gnnscript.specialize.values import Const, Dyn, Value, static_type

_FILLS = ("append", "extend", "add")


class Empties(Folding):
    """The part of a frame that gives empty collections their types."""

    def as_typed(self, value: Value, node: ast.expr | None, t: Type) -> Folded:
        """What is put where a type is declared: an empty collection is of that type."""
        if isinstance(value, Const) and is_set(value.value) and t.name == "Set":
            value, node = self.runtime_set(value, t)
        empty = isinstance(node, ast.List) and not node.elts
        if (empty or (isinstance(node, ast.Dict) and not node.keys)) and t.known:
            if node is not None and t.name in ("List", "Dict", "Set"):
                made = ast.Call(torch_name("torch.jit.annotate"), [annotation(t), node], [])
                return Dyn(t), made
        if isinstance(node, (ast.ListComp, ast.DictComp)) and t.name == static_type(value).name:
            slot = "elt" if isinstance(node, ast.ListComp) else "value"
            part = getattr(node, slot)
            typed = self.as_typed(Dyn(UNKNOWN), part, t.args[-1])[1]
            if typed is not part:
                setattr(node, slot, typed)
                return Dyn(t), node
        return value, node

    def learn_inner(self, node: ast.Call, method: str, given: Arguments) -> None:
        """``held[key].append(value)`` says what is in the collections that ``held`` holds.

        Raises:
            Learned: This was not known so far.
        """
        place = getattr(node.func, "value", None)
        if method == "setdefault" and isinstance(place, ast.Name) and len(given.args) > 1:
            self.learn_as(place.id, dict_of(*(static_type(value) for value, _ in given.args[:2])))
        if method == "extend" and isinstance(place, ast.Name) and given.args:
            self.learn_as(place.id, static_type(given.args[0][0]))
        if method not in _FILLS or not isinstance(place, ast.Subscript) or len(given.args) != 1:
            return
        name = place.value.id if isinstance(place.value, ast.Name) else ""
        added = static_type(given.args[0][0])
        held = {"append": list_of(added), "add": set_of(added)}.get(method, added)
        if name in self.env and static_type(self.env[name].value).name == "List":
            self.learn_as(name, list_of(held))
        self.learn_as(name, dict_of(static_type(self.index(place.slice)[0]), held))

    def learn_as(self, name: str, t: Type) -> None:
        """Has a variable that holds an empty collection so far hold one of a type.

        Raises:
            Learned: This was not known so far.
        """
        binding = self.env.get(name)
        parameters = {arg.arg for arg in self.parameters}
        if binding is None or name in self.learned or binding.name in parameters:
            return
        held = static_type(binding.value)
        if t.known and held.name == t.name and not held.known:
            raise Learned(self, name, t)
