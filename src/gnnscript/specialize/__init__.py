"""Turns a model and its configuration into explicit tensor code, class by class."""

from __future__ import annotations

import ast
import contextlib
import inspect
import textwrap
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.sources import class_location, function_source
from gnnscript.analyze.types import Type
from gnnscript.specialize.emit import ClassText, Method, emit_class
from gnnscript.specialize.entry import entry_points, specialize_entry
from gnnscript.specialize.helpers import annotation, stored_name
from gnnscript.specialize.loader import load, unload
from gnnscript.specialize.program import (
    AttributeFound,
    Owner,
    Program,
    Specialized,
)
from gnnscript.specialize.values import Value

__all__ = ["ClassText", "Program", "SpecializedModel", "load", "specialize", "unload"]

_ATTEMPTS = 64


@dataclass
class SpecializedModel:
    """A model, specialised.

    Args:
        texts: The text of each lowered class, by the ``id`` of its module.
        owners: What each lowered class is made from, likewise.
        used: Paths of the modules that the specialised code calls or reads.
    """

    texts: dict[int, ClassText]
    owners: dict[int, Owner]
    used: dict[tuple[str, ...], torch.nn.Module]


def specialize(
    root: torch.nn.Module,
    lowers: Callable[[torch.nn.Module], bool],
    given: dict[str, Value] | None = None,
    known: dict[str, Any] | None = None,
    passes: Sequence[Callable[[Program], None]] = (),
    *,
    unions: bool = False,
) -> SpecializedModel:
    """Specialises a model from its ``forward`` (and ``@torch.jit.export`` methods) on.

    Args:
        root: The model.
        lowers: Says of each module whether it is specialised or left to TorchScript.
        given: What is known of arguments of ``forward`` beyond what its annotations say.
        known: Values of arguments of ``forward`` that are fixed: it takes them still, and does not
            look at them.
        passes: Rewrite the methods, one after the other, before they are written down.
        unions: Whether an entry point takes each type that the ``Union`` of an argument names.

    Raises:
        UnsupportedError: Something that the code does has no TorchScript form.
    """
    written: dict[tuple[tuple[str, ...], str], Type] = {}
    unfit: set[int] = set()
    changed: dict[Any, set[str]] = {}
    for _ in range(_ATTEMPTS):
        program = Program(root, lowers, written, unfit, changed)
        try:
            entries = [
                specialize_entry(program, name, given or {}, known or {}, unions=unions)
                for name in entry_points(root)
            ]
        except AttributeFound:
            continue
        program.check_shared()
        for rewrite in passes:
            rewrite(program)
        return _write(program, entries)
    raise UnsupportedError(
        "the types of the attributes that the model assigns do not settle",
        "declare their types in the class body",
    )


def _write(program: Program, entries: list[Specialized]) -> SpecializedModel:
    """Writes the classes that the entry points reach."""
    reached: dict[int, Specialized] = {}
    for entry in entries:
        _reach(entry, reached)
    texts = {}
    for key, owner in program.owners.items():
        if not program.lowers(owner.ref.module):
            continue
        methods = [m for m in owner.methods if id(m) in reached]
        helpers: dict[int, Specialized] = {}
        for method in methods:
            _helpers(method, helpers)
        texts[key] = emit_class(
            _class_name(owner.ref.module),
            _docstring(owner),
            [_method(m, exported=m in entries and m.name != "forward") for m in methods],
            [(h, _method(h)) for h in helpers.values()],
            {
                stored_name(name): annotation(t)
                for name, t in owner.attributes.items()
                if name.isidentifier() and t.known
            },
        )
    return SpecializedModel(texts, program.owners, program.used)


def _method(done: Specialized, *, exported: bool = False) -> Method:
    return Method(done.node, (done.source.file, done.source.node.lineno), exported)


def _called(done: Specialized) -> list[Specialized]:
    calls = [getattr(n, "target_", None) for n in ast.walk(done.node) if isinstance(n, ast.Call)]
    return [target for target in calls if isinstance(target, Specialized)]


def _reach(done: Specialized, reached: dict[int, Specialized]) -> None:
    if id(done) not in reached:
        reached[id(done)] = done
        for target in _called(done):
            _reach(target, reached)


def _helpers(done: Specialized, found: dict[int, Specialized]) -> None:
    """Helper functions in the order in which they must be defined: callees first."""
    for target in _called(done):
        if target.owner is None and id(target) not in found:
            _helpers(target, found)
            found[id(target)] = target


def _class_name(module: torch.nn.Module) -> str:
    name = type(module).__name__
    return name if name.isidentifier() else "Module"


def _docstring(owner: Owner) -> str:
    """Names the class, where it stands, and the configuration that the text holds for."""
    module = owner.ref.module
    cls = type(module)
    lines = [f"{cls.__name__}, specialised by gnnscript.", ""]
    lines.append(f"class:         {cls.__module__}.{cls.__qualname__}")
    forward = inspect.getattr_static(cls, "forward", None)
    if isinstance(forward, types.FunctionType):
        with contextlib.suppress(UnsupportedError):
            lines.append(f"origin:        {class_location(function_source(forward))}")
    options = [
        f"{name}={value!r}"
        for name, value in vars(module).items()
        if not name.startswith("_")
        and name not in ("training", *owner.attributes)
        and (value is None or isinstance(value, (bool, int, float, str, tuple)))
    ]
    if options:
        text = textwrap.fill(
            ", ".join(options),
            99,
            initial_indent="configuration: ",
            subsequent_indent=" " * 15,
            break_long_words=False,
        )
        lines.append(text)
    return "\n".join(lines).replace("\\", "\\\\").replace('"""', "'''")
