"""``try``: what its block raises is known beforehand, or cannot happen; errors are not caught."""

from __future__ import annotations

import ast
from typing import Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import TENSOR
from gnnscript.specialize.effects import has_effects
from gnnscript.specialize.folding.base import Binding, Fails, Folding
from gnnscript.specialize.folding.leaving import Leave, may_raise_only, with_exits
from gnnscript.specialize.folding.rewritten import located
from gnnscript.specialize.raising import always_raised, may_catch, raised_by
from gnnscript.specialize.values import Const, static_type


class Catching(Folding):
    """The part of a frame that folds ``try``, ``raise`` and ``assert``."""

    def _stmt_Try(self, node: ast.Try) -> None:
        body = self._remaining(node)
        self.block(with_exits(body, node.finalbody, self.fresh) if node.finalbody else body)

    def _remaining(self, node: ast.Try) -> list[ast.stmt]:
        """What of the block and its handlers runs, but for ``finally``.

        Raises:
            UnsupportedError: The run decides.
        """
        if all(map(may_raise_only, node.handlers)):
            # The handlers only change the message of the error, and with it nothing is returned.
            return node.body + node.orelse
        tested = self._dimensions_tested(node)
        if tested is not None:
            return [tested]
        before = self._snapshot()
        written: list[ast.stmt] = []
        try:
            for position, statement in enumerate(node.body):
                raised, done = self._tried(statement)
                written += done
                self._refuse_caught(node, written)
                handler = None if raised is None else self._handler(node, raised)
                if handler is not None:
                    if has_effects(done):
                        raise self._undecided(node, "it does more before it raises")
                    return [*node.body[:position], *self._handled(handler, raised)]
                if self.terminated:
                    break
        finally:
            self._return_to(before)
        return node.body + node.orelse

    def _tried(self, statement: ast.stmt) -> tuple[Any, list[ast.stmt]]:
        """Folds a statement of the block.

        Returns:
            The error that it raises in every run, or its class, if it does; what is done before.
        """
        out, self.out = self.out, []
        try:
            self._statement(statement)
        except Fails as error:
            if not error.always:
                raise
            return error.error, self.out
        else:
            known = always_raised(self.out) if self.terminated else None
            return known or (None, self.out)
        finally:
            self.out = out

    def _handler(self, node: ast.Try, raised: Any) -> ast.ExceptHandler | None:
        cls = raised if isinstance(raised, type) else type(raised)
        return next((h for h in node.handlers if issubclass(cls, self._classes(h))), None)

    def _classes(self, handler: ast.ExceptHandler) -> Any:
        if handler.type is None:
            return (BaseException,)
        found, _ = self.fold(handler.type)
        if isinstance(found, Const) and found.value:
            return found.value if isinstance(found.value, tuple) else (found.value,)
        raise UnsupportedError(
            f"'except {ast.unparse(handler.type)}' names no classes that are known beforehand",
            "name the classes themselves",
        )

    def _handled(self, handler: ast.ExceptHandler, raised: Any) -> list[ast.stmt]:
        """The block of a handler, with its name for the error."""
        name = handler.name
        causes = [n.cause for s in handler.body for n in ast.walk(s) if isinstance(n, ast.Raise)]
        if name is None or not any(
            isinstance(n, ast.Name) and n.id == name and n not in causes
            for s in handler.body
            for n in ast.walk(s)
        ):
            return handler.body
        if isinstance(raised, type):
            raise self._undecided(handler, f"'{name}' is read, which is made at run time")

        def bind() -> None:
            self.env[name] = Binding(Const(raised), None)

        return [located(Leave(bind), handler), *handler.body]

    def _refuse_caught(self, node: ast.Try, written: list[ast.stmt]) -> None:
        """Refuses what may raise, as the run decides, what a handler catches."""
        possible = raised_by(written, self.owner.ref.module if self.owner is not None else None)
        for handler in node.handlers:
            for error, place in possible.items():
                if may_catch(self._classes(handler), error):
                    raise self._undecided(
                        node, f"the run decides whether '{place}' raises {error.__name__}"
                    )

    @staticmethod
    def _undecided(node: ast.AST, cause: str) -> UnsupportedError:
        return UnsupportedError(
            f"'try' has no TorchScript form, which catches no errors: {cause}",
            "test the condition before, instead of catching the error afterwards",
        )

    def raised_class(self, node: ast.expr | None) -> type:
        """The class of what ``raise`` raises."""
        if node is None:
            return BaseException
        found, _ = self.fold(node.func if isinstance(node, ast.Call) else node)
        cls = found.value if isinstance(found, Const) else None
        if isinstance(cls, BaseException):
            return type(cls)
        return cls if isinstance(cls, type) else BaseException

    def _stmt_Raise(self, node: ast.Raise) -> None:
        error = self.message(node.exc) if node.exc else None
        self.emit_raise(error, self.raised_class(node.exc))

    def _stmt_Assert(self, node: ast.Assert) -> None:
        value, residual = self.condition(node.test)
        if isinstance(value, Const):
            if not value.value:
                text = f"assertion fails: {ast.unparse(node.test)}"
                if isinstance(node.msg, ast.Constant):
                    text = str(node.msg.value)
                error_class = ast.Name("AssertionError", ast.Load())
                made = ast.Call(error_class, [ast.Constant(text)], [])
                self.emit_raise(made, AssertionError)
            return
        assert residual is not None
        message = self.message_text(node.msg) if node.msg is not None else None
        self.emit(ast.Assert(residual, message))
        self.refine(node.test, True)

    def never_returns(self) -> None:
        """Says that what comes next is not reached: TorchScript does not know it of a call."""
        text = ast.Constant("the call before raises")
        self.emit_raise(ast.Call(ast.Name("RuntimeError", ast.Load()), [text], []))

    def emit_raise(self, error: ast.expr | None, *classes: type) -> None:
        """Leaves the function by an error.

        Args:
            error: What makes it.
            classes: Its class; none where a call before raises it already.
        """
        raised = ast.Raise(error, None)
        raised.raises_ = classes  # type: ignore[attr-defined]
        self.emit(raised)
        self.terminated = True

    def _dimensions_tested(self, node: ast.Try) -> ast.If | None:
        """``try: ... x.size(dim) ... except IndexError:`` as a test of the dimension.

        Only where nothing else in the body can raise one, and the size is what it asks for first.
        """
        handler = node.handlers[0]
        if len(node.handlers) > 1 or handler.name is not None or node.finalbody:
            return None
        if not issubclass(IndexError, self._classes(handler)) or issubclass(
            RuntimeError, self._classes(handler)
        ):
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
