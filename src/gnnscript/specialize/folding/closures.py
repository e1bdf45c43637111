"""Functions defined inside of the code: written in place, or specialised with what they capture."""

from __future__ import annotations

import ast
import dataclasses
import types
from typing import Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.sources import FunctionSource
from gnnscript.specialize.folding.base import Arguments, Binding, Folded, Folding
from gnnscript.specialize.folding.rewritten import handing_back
from gnnscript.specialize.program import is_runtime
from gnnscript.specialize.values import Closure, Const, Value, literal


class Closures(Folding):
    """The part of a frame that makes and calls inner functions."""

    def closure(self, node: ast.FunctionDef | ast.Lambda) -> Closure:
        """A function defined inside the code; its defaults are evaluated here."""
        arguments = node.args.args
        optional = arguments[len(arguments) - len(node.args.defaults) :]
        given = list(zip(optional, node.args.defaults, strict=True))
        given += [
            (argument, default)
            for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            if default is not None
        ]
        defaults = {argument.arg: self.fold(default) for argument, default in given}
        held = {name: (v, self.hold(name, n)) for name, (v, n) in defaults.items()}
        return Closure(node, self.source, self.cls, self.env, held, self)

    def with_present(self, closure: Closure) -> Closure:
        """An inner function with what the variables around it hold now."""
        env = self.env if self.scope is None else self.scope
        return closure if env is closure.env else dataclasses.replace(closure, env=env)

    def call_closure(self, closure: Closure, given: Arguments) -> Folded:
        """Calls an inner function: its expression is written in place where it is one."""
        filled = self._filled(closure, given)
        body = _expression(closure.node)
        if body is None or (closure.home is not self and captured(closure)):
            return self._call_lifted(closure, filled)
        env = dict(closure.env)
        for name, folded in filled.items():
            env[name] = self._argument(name, *folded)
        saved, self.env = (self.env, self.scope), env
        self.scope = saved[0] if self.scope is None else self.scope
        try:
            return self.fold(body)
        finally:
            self.env, self.scope = saved

    def _filled(self, closure: Closure, given: Arguments) -> dict[str, Folded]:
        """The arguments of an inner function by name."""
        spec = closure.node.args
        names = [arg.arg for arg in [*spec.posonlyargs, *spec.args]]
        filled = closure.defaults | dict(zip(names, given.args, strict=False)) | given.kwargs
        more = given.args[len(names) :]
        names += [arg.arg for arg in spec.kwonlyargs]
        other = {key: folded for key, folded in given.kwargs.items() if key not in names}
        if (more and spec.vararg is None) or (other and spec.kwarg is None):
            raise UnsupportedError(
                "a function defined inside the code is called with more arguments than it takes",
                "it fails in the same way when the model runs in Python; correct the call",
            )
        if spec.vararg is not None:
            names.append(spec.vararg.arg)
            filled[names[-1]] = self.sequence("tuple", [v for v, _ in more], [n for _, n in more])
        if spec.kwarg is not None:
            names.append(spec.kwarg.arg)
            items = {key: value for key, (value, _) in other.items()}
            filled[names[-1]] = self.mapping(items, [node for _, node in other.values()])
        for name in names:
            if name not in filled:
                raise UnsupportedError(
                    f"'{name}' is not given to a function defined inside the code",
                    "pass it, or give it a default",
                )
        return {name: filled[name] for name in names}

    def _call_lifted(self, closure: Closure, filled: dict[str, Folded]) -> Folded:
        """Specialises an inner function as one of its own that is given what it captures."""
        node = closure.node
        if closure.home is not self and captured(closure):
            raise UnsupportedError(
                f"a function that uses the variables {captured(closure)} of the one around "
                "it is called elsewhere",
                "pass them to it as arguments",
                closure.source.location(node),
            )
        written = _written_outside(node)
        if isinstance(node, ast.Lambda) or node.decorator_list or written is None:
            raise UnsupportedError(
                "a function defined inside the code is decorated, or assigns a global",
                "move it to the module or make it a method",
                closure.source.location(node),
            )
        direct = closure.home is self and closure.late
        if written and (not direct or self.scope is not None or self.conditional):
            raise UnsupportedError(
                f"a function that assigns {written} of the one around it is called elsewhere, or "
                "inside of a condition or comprehension",
                "call it in a statement of the function that it is defined in",
            )
        function = _compiled(closure)
        shown = handing_back(node, written) if written else node
        source = FunctionSource(function, shown, closure.source.file, closure.source.lines)
        bound: dict[str, Value] = {name: value for name, (value, _) in filled.items()}
        nodes = {name: residual for name, (_, residual) in filled.items()}
        for name in function.__code__.co_freevars:
            binding = closure.env.get(name)
            if binding is None or name in bound:
                continue
            if isinstance(binding.value, Closure) and binding.value.node is node:
                bound[name], nodes[name] = closure, None
                continue
            bound[name] = binding.value
            nodes[name] = literal(binding.value)
            if nodes[name] is None:
                held = binding.name
                nodes[name] = binding.node if held is None else ast.Name(held, ast.Load())
        self.flatten(bound, nodes)
        owner = self.owner_for(list(bound.values()))
        lent = self.lent(source, bound, nodes)
        done = self.program.specialize(
            source, bound, owner, closure.cls, key="inner", borrowed=lent
        )
        folded = self.call_specialized(done, nodes, bound=bound)
        if lent:
            folded = self.take_back(folded, {key: bound[key] for key in lent})
        return self._assigned_by(folded, written) if written else folded

    def _assigned_by(self, folded: Folded, names: list[str]) -> Folded:
        """Assigns what an inner function hands back of the variables around it."""
        value, node = folded
        items = self.known_items(value)
        nodes: list[ast.expr | None] = [literal(item) for item in items]
        if node is not None and not isinstance(value, Const):
            held = self.hold("changed", node) or node
            nodes = list(self.element_nodes(held, len(items)).elts)
        for name, item, made in zip(names, items[1:], nodes[1:], strict=True):
            self.assign(
                ast.Name(name, ast.Store()), item, made if is_runtime(item) else literal(item)
            )
        return items[0], nodes[0] if is_runtime(items[0]) else literal(items[0])

    def _argument(self, name: str, value: Value, residual: ast.expr | None) -> Any:
        if residual is None or isinstance(value, Const):
            return Binding(value, None)
        if not isinstance(residual, ast.Name):
            held = self.fresh(name)
            self.emit(ast.Assign([ast.Name(held, ast.Store())], residual))
            residual = ast.Name(held, ast.Load())
        return Binding(value, residual.id)


def captured(closure: Closure) -> list[str]:
    """The variables of its home that an inner function reads when it runs."""
    own = {arg.arg for arg in ast.walk(closure.node) if isinstance(arg, ast.arg)}
    read = [n.id for n in ast.walk(closure.node) if isinstance(n, ast.Name)]
    found = [name for name in dict.fromkeys(read) if name not in own]
    return [n for n in found if n in closure.env and is_runtime(closure.env[n].value)]


def _expression(node: ast.FunctionDef | ast.Lambda) -> ast.expr | None:
    """What a function returns that does nothing else."""
    if isinstance(node, ast.Lambda):
        return node.body
    statements = [
        s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
    ]
    if len(statements) == 1 and isinstance(statements[0], ast.Return):
        return statements[0].value
    return None


def _written_outside(node: ast.FunctionDef | ast.Lambda) -> list[str] | None:
    """The variables of its home that an inner function assigns; ``None`` for globals."""
    nodes = list(ast.walk(node))
    if any(isinstance(n, ast.Global) for n in nodes):
        return None
    names = [name for n in nodes if isinstance(n, ast.Nonlocal) for name in n.names]
    return list(dict.fromkeys(names))


def _compiled(closure: Closure) -> types.FunctionType:
    """A function object of the inner function's code, with the cells that are filled already."""
    outer = closure.source.function
    code = next(
        code
        for code in _codes(outer.__code__)
        if code.co_name == closure.node.name  # type: ignore[union-attr]
        and code.co_firstlineno == closure.node.lineno
    )
    filled = dict(zip(outer.__code__.co_freevars, outer.__closure__ or (), strict=True))
    cells = tuple(filled.get(name) or types.CellType() for name in code.co_freevars)
    return types.FunctionType(code, outer.__globals__, code.co_name, None, cells)


def _codes(code: types.CodeType) -> list[types.CodeType]:
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return [*inner, *(deeper for one in inner for deeper in _codes(one))]
