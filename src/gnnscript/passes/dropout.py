"""Dropout of attention weights: evaluation leaves it out, and then nothing else needs them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import torch

from gnnscript.passes.attention import has_softmax
from gnnscript.passes.calls import Calls, dropout_test
from gnnscript.passes.state import Abort, Frame, Then
from gnnscript.specialize.helpers import has_forward_hooks
from gnnscript.specialize.tree import is_simple

__all__ = ["Dropout"]


class Dropout(Calls):
    """The part of a tracer that gives training and evaluation paths of their own."""

    if TYPE_CHECKING:

        def split(
            self,
            test: ast.expr,
            body: list[ast.stmt],
            orelse: list[ast.stmt],
            frame: Frame,
            within: Frame,
            then: Then,
        ) -> None:
            """Writes a test, and what follows it on both of its paths."""

    def apart(self, node: ast.expr, frame: Frame, then: Then) -> bool:
        """Goes on with an expression in which weights are dropped, once for either mode."""
        if self.straight or id(node) in self.opaque:
            return False
        for call in ast.walk(node):
            test = self._undecided(call, frame) if isinstance(call, ast.Call) else None
            if test is None:
                continue
            saved = self.save()
            try:
                self.split(test, [ast.Return(node)], [ast.Return(node)], frame, frame, then)
            except Abort:  # too many paths, perhaps: the expression stays as it is
                self.restore(saved)
                self.opaque.add(id(node))
                return False
            return True
        return False

    def _undecided(self, call: ast.Call, frame: Frame) -> ast.expr | None:
        """What decides whether a call drops weights, where that is not known on this path."""
        test = dropout_test(call)
        if test is None and is_simple(call.func) and len(call.args) == 1:
            module = getattr(self.evaluate(call.func, frame), "value", None)
            if type(module) is torch.nn.Dropout and module.p > 0 and not has_forward_hooks(module):
                test = ast.Attribute(call.func, "training", ast.Load())
        if test is None or self.decide(test, frame) is not None:
            return None
        saved = self.save()
        value = self.evaluate(call.args[0], frame)
        weights = has_softmax(value) and id(value) not in self.memo
        self.restore(saved)
        return test if weights else None
