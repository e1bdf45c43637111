"""Runs a written-out ``propagate`` symbolically, up to the values that something needs."""

from __future__ import annotations

import ast
from typing import Any

from gnnscript.passes.dropout import Dropout
from gnnscript.passes.expressions import TENSORS, Code, Const, Expression, hole
from gnnscript.passes.state import Abort, Frame, Then
from gnnscript.passes.tidy import tidied
from gnnscript.specialize.helpers import Import, is_op
from gnnscript.specialize.program import Specialized
from gnnscript.specialize.tree import clone

__all__ = ["trace", "trace_attention"]

_MAX_PATHS = 8


def trace(method: Specialized) -> list[ast.stmt] | None:
    """The optimised body of a method; ``None`` where there is nothing to gain."""
    tracer = _Tracer(method)
    try:
        tracer.run()
    except Abort:
        return None
    return tidied(tracer.out) if tracer.gains else None


def trace_attention(method: Specialized) -> list[ast.stmt] | None:
    """The optimised body of a method, if it has messages that a softmax weights in one pass."""
    tracer = _Tracer(method)
    try:
        tracer.run()
    except Abort:
        return None
    return tidied(tracer.out) if tracer.attentions else None


class _Tracer(Dropout):
    """Follows every path through a method; a value is computed where a path needs it."""

    latest: Expression | None = None

    def run(self) -> None:
        """Writes the optimised body."""
        frame = Frame({}, self.method)
        self.open(frame)
        self.execute(self.method.node.body, frame, self.leave)

    def open(self, frame: Frame) -> None:
        """Binds the parameters of the method that is optimised."""
        for arg in self.method.node.args.args:
            name = ast.Name(arg.arg, ast.Load())
            self.taken.add(arg.arg)
            if arg.arg == "self" and self.method.owner is not None:
                module = self.method.owner.ref.module
                frame.names["self"] = Code(code=name, tensor=False, value=module)
                continue
            spelled = ast.unparse(arg.annotation) if arg.annotation is not None else "Tensor"
            tensor = spelled in TENSORS
            if "[" in spelled.removeprefix("Optional[Tensor]") and "Optional" in spelled:
                self.maybe.add(arg.arg)
            frame.names[arg.arg] = self.atom(name, tensor=tensor, declared=arg.annotation)

    def leave(self, value: Expression) -> None:
        """The end of a path through the whole method."""
        statement = ast.Return(self.value(value))
        self.emit(statement)

    # Statements ###################################################################

    def execute(self, statements: list[ast.stmt], frame: Frame, then: Then) -> None:
        """Runs statements; hands what they return to ``then``, once for each path."""
        for number, statement in enumerate(statements):
            rest = statements[number + 1 :]
            self.origin = getattr(statement, "origin", self.origin)
            if isinstance(statement, ast.Return):
                self.result(statement.value, frame, then)
                return
            if isinstance(statement, ast.If):
                if self.branch(statement, rest, frame, then):
                    continue
                return
            if isinstance(statement, ast.Raise):
                self.emit(self.rebuilt(statement, frame))
                return
            name, value = _assigned(statement)
            if name is not None and value is not None:
                if self.assign(name, value, rest, frame, then):
                    return
                continue
            self.simple(statement, frame)
        then(Const(code=ast.Constant(None), value=None))

    def result(self, node: ast.expr | None, frame: Frame, then: Then) -> None:
        """``return node``."""
        if node is None:
            then(Const(code=ast.Constant(None), value=None))
        elif not self.follow(node, frame, then):
            then(self.evaluate(node, frame))

    def assign(
        self, name: str, node: ast.expr, rest: list[ast.stmt], frame: Frame, then: Then
    ) -> bool:
        """``name = node``; true if the rest of the block was run with it."""

        def go_on(value: Expression) -> None:
            inner = frame.copy()
            self.bind(name, value, inner)
            self.execute(rest, inner, then)

        if self.follow(node, frame, go_on):
            return True
        self.bind(name, self.evaluate(node, frame), frame)
        return False

    def follow(self, node: ast.expr, frame: Frame, then: Then) -> bool:
        """Goes into a call or a choice that has paths of its own."""
        if isinstance(node, ast.IfExp):
            chosen = self.decide(node.test, frame)
            if chosen is not None:
                picked = node.body if chosen else node.orelse
                self.result(picked, frame, then)
                return True
            sides = (node.body, node.orelse)
            if not any(self.peek(side, frame) for side in sides):
                return False
            blocks = [[ast.Return(side)] for side in sides]
            self.split(node.test, blocks[0], blocks[1], frame, frame, then)  # type: ignore[arg-type]
            return True
        if self.apart(node, frame, then):
            return True
        if not isinstance(node, ast.Call) or self.inlined(node) is None:
            return False
        done, inner = self.enter(node, frame)
        saved = self.save()
        try:
            self.execute(done.node.body, inner, then)
        except Abort as abort:
            if self.straight:
                raise
            self.restore(saved)
            self.check_writes(abort, node, frame)
            self.opaque.add(id(done))
            then(self.evaluate(node, frame))
        return True

    def branch(self, node: ast.If, rest: list[ast.stmt], frame: Frame, then: Then) -> bool:
        """An ``if``; true if the statements behind it are still to be run."""
        chosen = self.decide(node.test, frame)
        if chosen is not None:
            self.execute((node.body if chosen else node.orelse) + rest, frame, then)
            return False
        if not node.orelse and all(isinstance(s, ast.Raise) for s in node.body):
            kept = ast.If(self.test(node.test, frame), [], [])
            kept.body = [self.rebuilt(s, frame) for s in node.body]
            self.emit(kept)
            return True
        self.split(node.test, node.body + rest, node.orelse + rest, frame, frame, then)
        return False

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
        self.paths += 1
        if self.straight or self.paths > _MAX_PATHS:
            raise Abort("too many paths")
        kept = ast.If(self.test(test, frame), [], [])
        key = ast.unparse(kept.test)
        self.emit(kept)
        for truth, block in ((True, body), (False, orelse)):
            with self.nested() as out:
                self.facts[key] = truth
                self.execute(block, within.copy(), then)
            (kept.body if truth else kept.orelse).extend(out or [ast.Pass()])

    def simple(self, statement: ast.stmt, frame: Frame) -> None:
        """A statement that is kept as it is, with its values computed before."""
        if isinstance(statement, ast.Pass):
            return
        if isinstance(statement, ast.Expr):
            self.expression(statement.value, frame)
        elif isinstance(statement, ast.Assert):
            self.emit(self.rebuilt(statement, frame))
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Tuple):
            self.unpack(statement.targets[0], statement.value, frame)
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Attribute):
            value = self.value(self.evaluate(statement.value, frame))
            self.emit(ast.Assign([self.target(statement.targets[0], frame)], value))
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Subscript):
            self.store_item(statement.targets[0], statement.value, frame)
        else:
            raise Abort(type(statement).__name__, writes=isinstance(statement, ast.AugAssign))

    def expression(self, node: ast.expr, frame: Frame) -> None:
        """A call for its effect; appending to a list of known length is known."""
        if isinstance(node, ast.Constant):
            return
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            held = node.func.value
            known = frame.names.get(held.id) if isinstance(held, ast.Name) else None
            if known is not None and isinstance(known.code, ast.List):
                if node.func.attr != "append" or not isinstance(held, ast.Name):
                    raise Abort("a list is changed")
                item = hole(self.evaluate(node.args[0], frame))
                grown = ast.List([*known.code.elts, item], ast.Load())
                frame.names[held.id] = Code(code=grown, tensor=False)
                return
        value = self.evaluate(node, frame)
        if isinstance(value.code, ast.Call):
            self.emit(ast.Expr(self.spelled(value)))

    def store_item(self, target: ast.Subscript, node: ast.expr, frame: Frame) -> None:
        """``list[constant] = node`` for a list of known length."""
        name = target.value.id if isinstance(target.value, ast.Name) else ""
        known = frame.names.get(name)
        if known is not None and known is self.latest and _is_repeated_list(known.code):
            # Such as the sizes of a view: all ones, then one of them -1.
            held = self.name(name, self.spelled(known))
            store = ast.Subscript(held, self.test(target.slice, frame), ast.Store())
            self.emit(ast.Assign([store], self.test(node, frame)))
            frame.names[name] = Code(code=held, tensor=False)
            return
        if known is None or not isinstance(known.code, ast.List):
            raise Abort("a tensor is changed in place", writes=True)
        at = target.slice.value if isinstance(target.slice, ast.Constant) else None
        if not isinstance(at, int):
            raise Abort("a list is changed at an unknown position")
        items = list(known.code.elts)
        items[at] = hole(self.evaluate(node, frame))
        frame.names[name] = Code(code=ast.List(items, ast.Load()), tensor=False)

    def unpack(self, target: ast.Tuple, node: ast.expr, frame: Frame) -> None:
        """``a, b = node``."""
        if not all(isinstance(t, ast.Name) for t in target.elts):
            raise Abort("nested unpacking")
        value = self.evaluate(node, frame)
        for number, name in enumerate(target.elts):
            assert isinstance(name, ast.Name)
            item = self.item(value, ast.Constant(number), len(target.elts))
            self.bind(name.id, item, frame)

    def bind(self, name: str, value: Expression, frame: Frame) -> None:
        """Gives a value a name of the user's."""
        if isinstance(value.code, ast.List) and any(v is value for v in frame.names.values()):
            raise Abort("a list has two names")
        root = value.code
        while isinstance(root, ast.Subscript):
            root = root.value
        if root is not value.code and isinstance(root, ast.Name) and root.id in self.maybe:
            # TorchScript learns from a test about names, not about elements.
            value = self.atom(self.name(name, self.spelled(value)))
        if not value.hint:
            value.hint = name
        frame.names[name] = self.latest = value

    def target(self, node: ast.Attribute, frame: Frame) -> ast.expr:
        """``self.a.b``, to be assigned."""
        owner = self.evaluate(node.value, frame)
        if ast.unparse(node) in self.atoms:
            raise Abort(f"'{node.attr}' is read before it is written")
        self.stored.add(ast.unparse(node))
        return ast.Attribute(clone(owner.code), node.attr, ast.Store())

    def rebuilt(self, statement: Any, frame: Frame) -> Any:
        """A statement with its expressions computed before it."""
        fields: dict[str, Any] = {}
        for name, value in ast.iter_fields(statement):
            fields[name] = value
            if isinstance(value, ast.expr):
                fields[name] = self.test(value, frame)
        return type(statement)(**fields)

    def test(self, node: ast.expr, frame: Frame) -> ast.expr:
        """A condition, to be written where it stands."""
        return self.spelled(self.evaluate(node, frame))

    def peek(self, node: ast.expr, frame: Frame) -> bool:
        """Whether an expression has values per edge that are not computed yet."""
        for child in ast.walk(node):
            target = getattr(getattr(child, "func", None), "target_", None)
            if isinstance(target, Import) and is_op(target) and target.name == "gather":
                return True
            if isinstance(child, ast.Name) and child.id in frame.names:
                value = frame.names[child.id]
                if value.per_edge and id(value) not in self.memo:
                    return True
        return False


def _assigned(statement: ast.stmt) -> tuple[str | None, ast.expr | None]:
    """The name that a statement assigns to, and its value; a type it declares is left out."""
    target: ast.expr | None = None
    if isinstance(statement, ast.Assign):
        target = statement.targets[0]
    elif isinstance(statement, ast.AnnAssign):
        target = statement.target
    if not isinstance(statement, (ast.Assign, ast.AnnAssign)) or not isinstance(target, ast.Name):
        return None, None
    return target.id, statement.value


def _is_repeated_list(code: ast.expr) -> bool:
    return (
        isinstance(code, ast.BinOp)
        and isinstance(code.op, ast.Mult)
        and any(
            isinstance(getattr(getattr(side, "hole_", side), "code", side), ast.List)
            for side in (code.left, code.right)
        )
    )
