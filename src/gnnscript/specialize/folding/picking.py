"""One of several modules or attributes, picked by an index or a name that only the run knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

import torch

from gnnscript._errors import UnsupportedError
from gnnscript.specialize.folding.base import Folded, Folding, NeedsConstant
from gnnscript.specialize.folding.conditions import is_called
from gnnscript.specialize.values import (
    Choice,
    Const,
    ModuleRef,
    Poison,
    Value,
    join_values,
    literal,
)

_INDEXED = (torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.Sequential)
_Case = tuple[ast.expr, Folded]


class Picking(Folding):
    """The part of a frame that picks at run time what TorchScript must know beforehand."""

    def pick_module(self, ref: ModuleRef, position: Value, index: ast.expr) -> Folded:
        """``modules[position]`` with a position or key of run time: a choice between all."""
        possible = isinstance(ref.module, _INDEXED) and not _has_own_items(ref.module)
        if not possible or self.program.trials:
            raise NeedsConstant(
                "a module is picked by an index that is known only at run time",
                "loop over the container, or use a constant index",
            )
        place = self._deciding("position", position, index)
        count = len(ref.module._modules)
        cases: list[_Case] = []
        for number, (name, child) in enumerate(ref.module._modules.items()):
            named = isinstance(ref.module, torch.nn.ModuleDict)
            keys: list[Any] = [name] if named else [number, number - count]
            tests = [ast.Compare(place, [ast.Eq()], [ast.Constant(key)]) for key in keys]
            test = tests[0] if named else ast.BoolOp(ast.Or(), list(tests))
            if child is not None:
                cases.append((test, (ModuleRef(child, (*ref.path, name)), None)))
        return self._one_of_cases(cases, f"'{'.'.join(ref.path)}' has no such item")

    def pick_attribute(self, holder: Value, name: Value, spelled: ast.expr) -> Folded:
        """``getattr(module, name)`` with a name of run time.

        It is one of the submodules and parameters whose name the text may become.
        """
        pattern = re.compile(_pattern(spelled))
        cases: list[_Case] = []
        place = self._deciding("name", name, spelled)
        if isinstance(holder, ModuleRef) and not self.program.trials:
            module = holder.module
            for found in (*module._modules, *module._parameters, *module._buffers):
                if pattern.fullmatch(found) and getattr(module, found) is not None:
                    test = ast.Compare(place, [ast.Eq()], [ast.Constant(found)])
                    cases.append((test, self.module_attribute(holder, found)))
        if not cases:
            raise NeedsConstant(
                "an attribute is looked up by a name that is known only at run time",
                "use a constant name, or a loop over constants",
            )
        return self._one_of_cases(cases, "there is no such attribute")

    def of_choice(self, choice: Choice, fold: Callable[[Value], Folded]) -> Folded:
        """What ``fold`` makes of the one of two modules that a test has chosen."""
        return self._either(choice.test, fold(choice.first), fold(choice.second))

    def _deciding(self, wish: str, value: Value, node: ast.expr) -> ast.expr:
        """The variable that holds what decides, which is asked several times."""
        name = self.fresh(wish)
        self.bind(name, value, node)
        return self.needed(*self.fold_Name(ast.Name(name, ast.Load())))

    def _one_of_cases(self, cases: list[_Case], missing: str) -> Folded:
        """The value of the first case that holds; it is checked that one does."""
        tests = [test for test, _ in cases]
        any_holds = tests[0] if len(tests) == 1 else ast.BoolOp(ast.Or(), tests)
        self.emit(ast.Assert(any_holds, ast.Constant(missing)))
        *others, (_, found) = cases
        for test, other in reversed(others):
            found = self._either(test, other, found)
        return found

    @staticmethod
    def _either(test: ast.expr, first: Folded, second: Folded) -> Folded:
        (value, node), (other, read) = first, second
        if is_called(value) and is_called(other):
            return Choice(test, value, other), None
        joined = join_values(value, other)
        if isinstance(joined, Const):
            return joined, None
        node, read = node or literal(value), read or literal(other)
        if isinstance(joined, Poison) or node is None or read is None:
            raise UnsupportedError(
                "what is picked at run time is of several types",
                "use a constant index or name, or a loop over them",
            )
        return joined, ast.IfExp(test, node, read)


def _has_own_items(module: torch.nn.Module) -> bool:
    own = type(module).__getitem__  # type: ignore[index]
    return not own.__module__.startswith("torch.nn")


def _pattern(node: ast.expr) -> str:
    """A regular expression for the texts that an expression of specialised code may be."""
    if isinstance(node, ast.Constant):
        return re.escape(str(node.value))
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_pattern, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _pattern(node.left) + _pattern(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        text = getattr(node.left, "value", None)
        return re.sub(r"%[a-z]", ".*", re.escape(text)) if isinstance(text, str) else ".*"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        text = getattr(node.func.value, "value", None)
        if node.func.attr == "format" and isinstance(text, str):
            return re.sub(r"\\\{[^{}]*\\\}", ".*", re.escape(text))
    return ".*"
