"""The calls of ``self.propagate`` and ``self.edge_updater`` in a class, with declared types."""

from __future__ import annotations

import ast
import inspect
import io
import tokenize
import types
from dataclasses import dataclass
from typing import Any

from gnnscript._errors import Location, UnsupportedError
from gnnscript.analyze.annotations import evaluate
from gnnscript.analyze.sources import FunctionSource, function_source
from gnnscript.analyze.types import Type, from_annotation

__all__ = ["CALLS", "CallSite", "call_sites", "declared_types"]

CALLS = ("propagate", "edge_updater")


@dataclass(frozen=True)
class CallSite:
    """One call of ``self.propagate(...)`` or ``self.edge_updater(...)``.

    Args:
        name: ``propagate`` or ``edge_updater``.
        method: Name of the method that the call stands in.
        keywords: Names of the keywords passed, in order.
        location: Where the call stands.
    """

    name: str
    method: str
    keywords: tuple[str, ...]
    location: Location


def call_sites(cls: type, base: type) -> tuple[CallSite, ...]:
    """All calls in the methods that ``cls`` itself resolves to, ``base``'s own excepted.

    Raises:
        UnsupportedError: A call passes on the ``**kwargs`` of its own method, so that what it
            passes is known only at run time.
    """
    sites = []
    for name, function in _methods(cls, base).items():
        source = function_source(function)
        for node in ast.walk(source.node):
            if not (isinstance(node, ast.Call) and _self_call(node) in CALLS):
                continue
            refuse_open_keywords(node, source)
            keywords = tuple(k.arg for k in node.keywords if k.arg is not None)
            sites.append(CallSite(str(_self_call(node)), name, keywords, source.location(node)))
    return tuple(sites)


def refuse_open_keywords(node: ast.Call, source: FunctionSource) -> None:
    """Raises if the call passes on the ``**kwargs`` of ``forward``.

    What a helper is given is known from its calls.
    """
    if getattr(source.node, "name", "") != "forward":
        return
    own = getattr(source.node.args, "kwarg", None)
    for keyword in node.keywords:
        if (
            keyword.arg is None
            and own is not None
            and isinstance(keyword.value, ast.Name)
            and keyword.value.id == own.arg
        ):
            raise UnsupportedError(
                f"'**{own.arg}' is passed through '{_self_call(node)}': which arguments reach "
                "the message function is known only at run time",
                f"name them in the signature instead of '**{own.arg}', and pass each as "
                "keyword=value",
                source.location(node),
            )


def _self_call(node: ast.Call) -> str | None:
    func = node.func
    if isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name):
        return func.attr if func.value.id == "self" else None
    return None


def _methods(cls: type, base: type) -> dict[str, types.FunctionType]:
    methods: dict[str, types.FunctionType] = {}
    for parent in cls.__mro__:
        if parent is base:
            break
        for name, attribute in vars(parent).items():
            value = inspect.unwrap(attribute) if callable(attribute) else attribute
            if isinstance(value, types.FunctionType) and name not in methods:
                calls = {"propagate", "edge_updater"} & set(value.__code__.co_names)
                # PyG puts functions from its own templates on a class; they are not the user's.
                if calls and name not in ("propagate", "edge_updater"):
                    methods[name] = value
    return methods


def declared_types(call: str, source: FunctionSource, cls: type) -> dict[str, Type]:
    """Types that the user declared for a call's keywords.

    Read from the class attribute ``propagate_type`` (``edge_updater_type``), a dictionary, or
    from a ``# propagate_type: (x: Tensor, ...)`` comment in the method the call stands in.
    """
    attribute = getattr(cls, f"{call}_type", None)
    if isinstance(attribute, dict):
        return {name: _as_type(value, source, cls) for name, value in attribute.items()}
    for line, text in _comments(source):
        name, colon, signature = text.partition(":")
        if name.strip() != f"{call}_type" or not colon:
            continue
        signature = signature.strip()
        try:
            function = ast.parse(f"def declared{signature[: signature.rfind(')') + 1]}: ...").body[
                0
            ]
        except SyntaxError:
            raise UnsupportedError(
                f"the '{call}_type' comment cannot be read",
                f"write it as '# {call}_type: (x: Tensor, edge_weight: OptTensor)', or remove it",
                Location(source.file, line, source.lines[line - 1].strip()),
            ) from None
        assert isinstance(function, ast.FunctionDef)
        return {
            arg.arg: _as_type(ast.unparse(arg.annotation), source, cls)
            for arg in function.args.args
            if arg.annotation is not None
        }
    return {}


def _as_type(value: Any, source: FunctionSource, cls: type) -> Type:
    return from_annotation(evaluate(value, source, cls) if isinstance(value, str) else value)


def _comments(source: FunctionSource) -> list[tuple[int, str]]:
    """Comments of the function; adjoining comment lines are one."""
    first, last = source.node.lineno, source.node.end_lineno or source.node.lineno
    text = "".join(source.lines[first - 1 : last])
    found: list[tuple[int, str]] = []
    previous = -1
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type != tokenize.COMMENT:
                continue
            line = first + token.start[0] - 1
            comment = token.string.lstrip("#").strip()
            if found and line == previous + 1:
                found[-1] = (found[-1][0], f"{found[-1][1]} {comment}")
            else:
                found.append((line, comment))
            previous = line
    except (tokenize.TokenError, IndentationError):
        pass  # an indented method ends in a dedent that tokenize may not see
    return found
