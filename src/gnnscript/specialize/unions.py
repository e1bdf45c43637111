"""Arguments of a root that are of one type or another: a form of the entry point for each.

A conv that is itself scripted has no call sites that tell a tensor from a pair. It takes the
``Union`` that its annotation names, and asks at each call which of its forms is meant.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
from collections.abc import Callable
from dataclasses import replace

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import (
    BOOL,
    FLOAT,
    INT,
    NONE,
    STR,
    TENSOR,
    Type,
    is_optional,
    optional,
    strip_optional,
)
from gnnscript.specialize.helpers import annotation
from gnnscript.specialize.program import Program, Specialized
from gnnscript.specialize.signature import Argument
from gnnscript.specialize.values import Dyn, static_type

__all__ = ["with_all_forms"]

_TOLD_APART = (TENSOR, INT, FLOAT, BOOL, STR)
_MOST_FORMS = 8


def with_all_forms(
    program: Program,
    arguments: list[Argument],
    members: dict[str, list[Type]],
    specialize: Callable[[list[Argument]], Specialized],
) -> Specialized:
    """An entry point for every combination of the types that its arguments may have.

    Forms that cannot be specialised, that always raise, or return another type than the first, are
    left out.

    Args:
        program: The model in the making.
        arguments: The arguments of its first form.
        members: The types of the arguments that may have several, by name.
        specialize: Specialises the entry point for arguments of one type each.

    Raises:
        UnsupportedError: The first form cannot be specialised.
    """
    first = specialize(arguments)
    taken = dict(first.parameters)
    open_ = {
        name: sorted(types, key=_is_tested_last)
        for name, types in members.items()
        if name in taken and len(types) > 1 and sum(map(_is_tested_last, types)) <= 1
    }
    combinations = list(itertools.product(*open_.values()))
    if not 1 < len(combinations) <= _MOST_FORMS:
        return first
    forms = {tuple(taken[name] for name in open_): first}
    for combination in combinations:
        if combination in forms:
            continue
        chosen = dict(zip(open_, combination, strict=True))
        given = [
            replace(a, value=Dyn(chosen[a.name])) if a.name in chosen else a for a in arguments
        ]
        with contextlib.suppress(UnsupportedError):
            forms[combination] = specialize(given)
    # One that does nothing but raise says nothing of what the others return.
    model = next((f for f in forms.values() if _returns(f)), first)
    forms = {types: form for types, form in forms.items() if _is_like(form, model)}
    name = first.name
    first.name = first.node.name = program.owner(program.root).method_name(name)
    if len(forms) < 2:
        model.name = model.node.name = name
        return model
    occurring = {
        name: [t for t in types if any(found[place] == t for found in forms)]
        for place, (name, types) in enumerate(open_.items())
    }
    return _dispatching(program, name, model, occurring, forms)


def _is_tested_last(t: Type) -> bool:
    """Whether a value has this type is known where it has none of the others."""
    return strip_optional(t) not in _TOLD_APART


def _returns(form: Specialized) -> bool:
    t = static_type(form.value)
    return t.known and t != NONE


def _is_like(form: Specialized, model: Specialized) -> bool:
    """Whether two forms can be called alike and return the same type."""
    returned = static_type(model.value)
    return (
        returned.known
        and static_type(form.value) == returned
        and [n for n, _ in form.parameters] == [n for n, _ in model.parameters]
    )


def _dispatching(
    program: Program,
    name: str,
    model: Specialized,
    open_: dict[str, list[Type]],
    forms: dict[tuple[Type, ...], Specialized],
) -> Specialized:
    """The entry point that calls one of its forms."""
    origin = (model.source.file, model.source.node.lineno)
    parameters = [(n, _union(open_[n]) if n in open_ else t) for n, t in model.parameters]
    body = _tests(open_, forms, {n: ast.Name(n, ast.Load()) for n, _ in parameters})
    for statement in body:
        for child in ast.walk(statement):
            if isinstance(child, ast.stmt):
                child.origin = origin  # type: ignore[attr-defined]
    args = [ast.arg("self"), *(ast.arg(n, annotation(t)) for n, t in parameters)]
    node = ast.FunctionDef(
        name=name,
        args=ast.arguments([], args, None, [], [], None, list(model.node.args.defaults)),
        body=body,
        decorator_list=[],
        returns=model.node.returns,
    )
    done = replace(model, name=name, parameters=parameters, node=node)
    program.owner(program.root).methods.append(done)
    return done


def _union(types: list[Type]) -> Type:
    whole = Type("Union", tuple(map(strip_optional, types)))
    return optional(whole) if any(map(is_optional, types)) else whole


def _tests(
    open_: dict[str, list[Type]],
    forms: dict[tuple[Type, ...], Specialized],
    arguments: dict[str, ast.expr],
) -> list[ast.stmt]:
    """Asks for the type of one argument after the other; the last one needs no question."""
    if not forms:
        text = ast.Constant("the arguments have no types that go together")
        return [ast.Raise(ast.Call(ast.Name("TypeError", ast.Load()), [text], []), None)]
    if not open_:
        (form,) = forms.values()
        called = ast.Attribute(ast.Name("self", ast.Load()), form.name, ast.Load())
        call = ast.Call(called, list(arguments.values()), [])
        call.target_ = form  # type: ignore[attr-defined]
        return [ast.Return(call)]
    name, *others = open_
    rest = {other: open_[other] for other in others}
    read = ast.Name(name, ast.Load())
    body: list[ast.stmt] = []
    for t in open_[name]:
        chosen = {found[1:]: form for found, form in forms.items() if found[0] == t}
        if is_optional(t):
            nothing = {**arguments, name: ast.Constant(None)}
            test: ast.expr = ast.Compare(read, [ast.Is()], [ast.Constant(None)])
            body.append(ast.If(test, _tests(rest, chosen, nothing), []))
        if t != open_[name][-1]:
            kind = annotation(strip_optional(t))
            test = ast.Call(ast.Name("isinstance", ast.Load()), [read, kind], [])
            body.append(ast.If(test, _tests(rest, chosen, arguments), []))
        else:
            body += _tests(rest, chosen, arguments)
    return body
