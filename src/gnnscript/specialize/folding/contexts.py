"""``with``: the contexts that TorchScript has, and those that can be written out."""

from __future__ import annotations

import ast
import warnings

import torch

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import BOOL
from gnnscript.specialize.folding.base import Folded, Folding, store
from gnnscript.specialize.helpers import torch_name
from gnnscript.specialize.values import Const, Context, Dyn, Value, literal


class Contexts(Folding):
    """The part of a frame that folds ``with``."""

    def _stmt_With(self, node: ast.With) -> None:
        if self.managed(node):
            return
        items = []
        modes: list[ast.stmt] = []
        for item in node.items:
            context = item.context_expr
            if item.optional_vars is not None and self._reads(item.optional_vars):
                raise UnsupportedError(
                    "'with ... as' has no TorchScript form", "use the context without 'as'"
                )
            callee = self.fold(context.func)[0] if isinstance(context, ast.Call) else None
            if isinstance(callee, Const) and callee.value in _WITHOUT_EFFECT:
                continue
            mode = self._chosen_mode(callee, context)
            value, residual = (
                self.fold(context)
                if mode is None and (callee is None or _is_torchs(callee))
                else (Const(None), None)
            )
            if isinstance(value, Context):
                mode = self._grad_mode(value, node.body)
                residual = ast.Call(
                    self.needed(Const(value.function), None), *self.nodes(value.given)
                )
            if mode is not None:
                modes += self._enter_grad_mode(node, mode)
                continue
            if residual is None:
                raise UnsupportedError(
                    f"'with {ast.unparse(context)}' has no TorchScript form",
                    "move it out of what runs in the scripted model",
                )
            items.append(ast.withitem(residual))
        self.restore += modes
        try:
            if items:
                if _returns_early(node.body):
                    raise UnsupportedError(
                        "the function is left from inside of a context, which TorchScript cannot",
                        "return behind the context",
                    )
                with self.nested(dict(self.env), always=True) as body:
                    self.block(node.body)
                    env, terminated = self.env, self.terminated
                self.env, self.terminated = env, terminated
                self.emit(ast.With(items, body or [ast.Pass()]))
            else:
                self.block(node.body)
        finally:
            del self.restore[len(self.restore) - len(modes) :]
        if not self.terminated:
            for statement in modes[::-1]:
                self.emit(statement)

    def _reads(self, target: ast.expr) -> bool:
        """Whether the function reads what a context gives it."""
        names = {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
        nodes = (n for n in ast.walk(self.source.node) if isinstance(n, ast.Name))
        return any(isinstance(n.ctx, ast.Load) and n.id in names for n in nodes)

    def _chosen_mode(self, callee: Value | None, context: ast.expr) -> Folded | None:
        """The mode that ``torch.set_grad_enabled`` sets, at once: its call is no context only."""
        if isinstance(callee, Const) and callee.value is torch.set_grad_enabled:
            assert isinstance(context, ast.Call)
            given = self.arguments(context)
            return self.truth(*[*given.args, *given.kwargs.values()][0])
        return None

    def _grad_mode(self, context: Context, body: list[ast.stmt]) -> Folded | None:
        """The mode that a context sets for gradients; ``None`` for what TorchScript has itself."""
        if context.function is torch.no_grad and _returns_early(body):
            return Const(False), ast.Constant(False)  # TorchScript's own cannot be left so
        if context.function is torch.enable_grad:
            return Const(True), ast.Constant(True)
        if context.function is torch.inference_mode:
            options = [*context.given.args, *context.given.kwargs.values()]
            chosen = options[0][0] if options else Const(True)
            if isinstance(chosen, Const):
                off: Folded = (Const(False), ast.Constant(False))
                on = ast.Call(torch_name("torch.is_grad_enabled"), [], [])
                return off if chosen.value else (Dyn(BOOL), on)
        return None

    def _enter_grad_mode(self, node: ast.With, mode: Folded) -> list[ast.stmt]:
        """Sets the mode; returns the statement that puts the old one back."""
        if _leaves_loop(node.body):
            raise UnsupportedError(
                "a loop is left from inside of a context that sets the mode for gradients",
                "put the loop into the context, or leave it afterwards",
                self.source.location(node),
            )
        before = self.fresh("grad_enabled")
        self.emit(store(before, ast.Call(torch_name("torch.is_grad_enabled"), [], [])))
        setter = torch_name("torch.set_grad_enabled")
        value, residual = mode
        self.emit(ast.Expr(ast.Call(setter, [self.needed(value, residual or literal(value))], [])))
        return [ast.Expr(ast.Call(setter, [ast.Name(before, ast.Load())], []))]


# Contexts that change nothing of what is computed.
_WITHOUT_EFFECT = (torch.autograd.set_detect_anomaly, warnings.catch_warnings)


def _is_torchs(callee: Value) -> bool:
    """Whether a context is one of torch's, of which TorchScript knows some."""
    module = getattr(getattr(callee, "value", None), "__module__", None) or ""
    return bool(module.split(".")[0] == "torch")


def _leaves_loop(body: list[ast.stmt]) -> bool:
    for statement in body:
        if isinstance(statement, (ast.Break, ast.Continue)):
            return True
        if isinstance(statement, (ast.If, ast.With)):
            if _leaves_loop(statement.body) or _leaves_loop(getattr(statement, "orelse", [])):
                return True
    return False


def _returns_early(body: list[ast.stmt]) -> bool:
    """Whether a function may be left from a block elsewhere than at its end."""
    inner = body[:-1] if isinstance(body[-1], ast.Return) else body
    return any(isinstance(node, ast.Return) for s in inner for node in ast.walk(s))
