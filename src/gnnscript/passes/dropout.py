"""Dropout of attention weights: evaluation leaves it out, and then nothing else needs them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import torch

from gnnscript.passes.attention import has_softmax
from gnnscript.passes.calls import Calls, torch_function
from gnnscript.passes.state import Abort, Frame, Then
from gnnscript.specialize.tree import is_simple

__all__ = ["Dropout"]


class Dropout(Calls):
    """The part of a tracer that gives training and evaluation paths of their own."""

    if TYPE_CHECKING:

        def decide(self, node: ast.expr, frame: Frame) -> bool | None:
            """What is known of a condition on this path."""

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

    def without_dropout(self, node: ast.Call, frame: Frame, then: Then) -> bool:
        """Goes on from a call that drops some of the weights, where it may not; else false."""
        test = self._dropout_test(node, frame)
        if test is None or self.straight or id(node) in self.opaque:
            return False
        chosen = self.decide(test, frame)
        if chosen is False:
            then(self.evaluate(node.args[0], frame))
            return True
        if chosen is True:
            return False
        saved = self.save()
        dropped: list[ast.stmt] = [ast.Return(node)]
        kept: list[ast.stmt] = [ast.Return(node.args[0])]
        try:
            self.split(test, dropped, kept, frame, frame, then)
        except Abort:  # too many paths: the call stays as it is
            self.restore(saved)
            self.opaque.add(id(node))
            return False
        return True

    def _dropout_test(self, node: ast.Call, frame: Frame) -> ast.expr | None:
        """What decides whether a call drops some of the weights of a softmax, if it is one."""
        test: ast.expr | None = None
        if torch_function(node.func) == "dropout":
            given = dict(zip(("input", "p", "training", "inplace"), node.args, strict=False))
            given |= {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
            test = given.get("training") if node.args and "inplace" not in given else None
        elif is_simple(node.func) and len(node.args) == 1 and not node.keywords:
            module = getattr(self.evaluate(node.func, frame), "value", None)
            if type(module) is torch.nn.Dropout and module.p > 0 and not module.inplace:
                if not module._forward_hooks and not module._forward_pre_hooks:
                    test = ast.Attribute(node.func, "training", ast.Load())
        if test is None or isinstance(test, ast.Constant):
            return None
        saved = self.save()
        value = self.evaluate(node.args[0], frame)
        weights = has_softmax(value) and id(value) not in self.memo
        self.restore(saved)
        return test if weights else None
