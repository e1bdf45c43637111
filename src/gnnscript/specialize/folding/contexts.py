"""``with`` and ``try``: the contexts that TorchScript has, and those that can be written out."""

from __future__ import annotations

import ast
import warnings
from typing import Any

import torch

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import BOOL, TENSOR
from gnnscript.specialize.folding.base import Folded, Folding, MissingAttribute, store
from gnnscript.specialize.folding.leaving import may_raise_only, with_exits
from gnnscript.specialize.folding.rewritten import located
from gnnscript.specialize.helpers import torch_name
from gnnscript.specialize.values import Const, Context, Dyn, Value, literal, static_type


class Contexts(Folding):
    """The part of a frame that folds ``with`` and ``try``."""

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

    def _stmt_Try(self, node: ast.Try) -> None:
        if all(map(may_raise_only, node.handlers)):
            # The handlers only change the message of the error, and with it nothing is returned.
            body = node.body + node.orelse
            self.block(with_exits(body, node.finalbody, self.fresh) if node.finalbody else body)
            return
        outcome = self._decided(node)
        if outcome is not None:
            for statements in outcome:
                self.block(statements)
            return
        tested = self._dimensions_tested(node)
        if tested is not None:
            self.block([tested])
            return
        raise UnsupportedError(
            "'try' has no TorchScript form: exceptions cannot be caught in a scripted model",
            "test the condition before, instead of catching the error afterwards",
        )

    def _dimensions_tested(self, node: ast.Try) -> ast.If | None:
        """``try: ... x.size(dim) ... except IndexError:`` as a test of the dimension.

        Only where nothing else in the body can raise one, and the size is what it asks for first.
        """
        handler = node.handlers[0]
        if len(node.handlers) > 1 or handler.name is not None or node.finalbody:
            return None
        if not self._catches(handler, IndexError()) or self._catches(handler, RuntimeError()):
            return None
        first = getattr(node.body[0], "test", None) or getattr(node.body[0], "value", None)
        asked = [n for n in ast.walk(first or ast.Pass()) if isinstance(n, ast.Call)]
        inside = [n for statement in node.body for n in ast.walk(statement)]
        if not asked or any(
            isinstance(n, (ast.Subscript, ast.Raise, ast.BoolOp, ast.IfExp))
            or (isinstance(n, ast.Call) and n not in asked)
            for n in inside
        ):
            return None
        tests: list[ast.expr] = []
        for call in asked:
            func, held = call.func, getattr(call.func, "value", None)
            if not isinstance(func, ast.Attribute) or func.attr != "size" or len(call.args) != 1:
                return None
            if not isinstance(held, ast.Name) or static_type(self.fold(held)[0]) != TENSOR:
                return None
            count = f"{held.id}.dim()"
            known = f"-{count} <= {ast.unparse(call.args[0])} < {count}"
            tests.append(ast.parse(known, mode="eval").body)
        for test in tests:
            for part in ast.walk(test):
                ast.copy_location(part, node)
        exists = tests[0] if len(tests) == 1 else ast.BoolOp(ast.And(), tests)
        return located(ast.If(exists, node.body + node.orelse, handler.body), node)

    def _decided(self, node: ast.Try) -> list[list[ast.stmt]] | None:
        """The blocks that run, where configuration decides whether the body raises."""
        try:
            decided = [self._known(statement) for statement in node.body]
        except Exception as error:
            handler = next((h for h in node.handlers if self._catches(h, error)), None)
            if handler is None:
                return None
            if handler.name is not None and handler.name in {
                n.id for s in handler.body for n in ast.walk(s) if isinstance(n, ast.Name)
            }:
                return None
            return [handler.body, node.finalbody]
        if all(decided):
            return [node.body, node.orelse, node.finalbody]
        return None

    def _known(self, statement: ast.stmt) -> bool:
        """Whether a statement only reads configuration; raises what it raises in Python."""
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            env = dict(self.env)
            try:
                getattr(self, f"_stmt_{type(statement).__name__}")(statement)
            except UnsupportedError as error:
                raise error.__cause__ or error from None
            finally:
                self.env = env
            return True
        if isinstance(statement, (ast.Assign, ast.Expr, ast.Return)) and statement.value:
            if any(isinstance(n, (ast.Call, ast.NamedExpr)) for n in ast.walk(statement.value)):
                return False
            try:
                value, _ = self.fold(statement.value)
            except MissingAttribute as error:
                raise AttributeError(str(error)) from None
            except UnsupportedError as error:
                if isinstance(error.__cause__, Exception):
                    raise error.__cause__ from None
                raise
            return not isinstance(value, Dyn) or _is_path(statement.value)
        return isinstance(statement, ast.Pass)

    def _catches(self, handler: ast.ExceptHandler, error: Exception) -> bool:
        if isinstance(error, UnsupportedError):
            return False
        if handler.type is None:
            return True
        classes, _ = self.fold(handler.type)
        found: Any = classes.value if isinstance(classes, Const) else ()
        return isinstance(error, found)


# Contexts that change nothing of what is computed.
_WITHOUT_EFFECT = (torch.autograd.set_detect_anomaly, warnings.catch_warnings)


def _is_torchs(callee: Value) -> bool:
    """Whether a context is one of torch's, of which TorchScript knows some."""
    module = getattr(getattr(callee, "value", None), "__module__", None) or ""
    return bool(module.split(".")[0] == "torch")


def _is_path(node: ast.expr) -> bool:
    """``a.b.c``: reading it cannot fail where it is known to exist."""
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_path(node.value))


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
