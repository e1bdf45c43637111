"""Turns a model and its configuration into explicit tensor code, class by class."""

from __future__ import annotations

import ast
import contextlib
import inspect
import textwrap
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.sources import class_location, function_source
from gnnscript.analyze.types import Type, alternatives, optional
from gnnscript.specialize.emit import ClassText, Method, emit_class
from gnnscript.specialize.folding.base import Arguments
from gnnscript.specialize.helpers import annotation
from gnnscript.specialize.loader import load, unload
from gnnscript.specialize.program import (
    AttributeFound,
    Owner,
    Program,
    Specialized,
    root_arguments,
)
from gnnscript.specialize.values import Const, Dyn, Mapping, Seq, Value, literal

__all__ = ["ClassText", "SpecializedModel", "load", "specialize", "unload"]

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
    given: dict[str, Type] | None = None,
    known: dict[str, Any] | None = None,
    optimize: Callable[[Program], None] | None = None,
) -> SpecializedModel:
    """Specialises a model from its ``forward`` (and ``@torch.jit.export`` methods) on.

    Args:
        root: The model.
        lowers: Says of each module whether it is specialised or left to TorchScript.
        given: Types of arguments of ``forward`` that are known better than its annotations say.
        known: Values of arguments of ``forward`` that are fixed: it takes them still, and does not
            look at them.
        optimize: Rewrites the methods before they are written down.

    Raises:
        UnsupportedError: Something that the code does has no TorchScript form.
    """
    written: dict[tuple[tuple[str, ...], str], Type] = {}
    unfit: set[int] = set()
    for _ in range(_ATTEMPTS):
        program = Program(root, lowers, written, unfit)
        try:
            entries = [
                _entry(program, name, given or {}, known or {}) for name in _entry_points(root)
            ]
        except AttributeFound:
            continue
        if optimize is not None:
            optimize(program)
        return _write(program, entries)
    raise UnsupportedError(
        "the types of the attributes that the model assigns do not settle",
        "declare their types in the class body",
    )


def _entry_points(root: torch.nn.Module) -> list[str]:
    from torch._jit_internal import FunctionModifiers, get_torchscript_modifier

    names = ["forward"]
    for cls in type(root).__mro__:
        for name, value in vars(cls).items():
            if (
                isinstance(value, types.FunctionType)
                and get_torchscript_modifier(value)  # type: ignore[no-untyped-call]
                is FunctionModifiers.EXPORT
                and name not in names
            ):
                names.append(name)
    return names


def _entry(
    program: Program, name: str, given: dict[str, Type], known: dict[str, Any]
) -> Specialized:
    """Specialises one entry point of the root for the types of its arguments."""
    root = program.root
    function = vars(root.module).get(name) or inspect.getattr_static(type(root.module), name)
    source = function_source(inspect.unwrap(function))
    cls = next((c for c in type(root.module).__mro__ if name in vars(c)), type(root.module))
    choices = dict(given)
    fixed: dict[str, Any] = {}
    if name == "forward":
        fixed.update(known)
        choices = _by_configuration(root.module, source, cls) | choices
    arguments = list(root_arguments(source, cls, lambda n, t: _choose(choices.get(n), t)))
    while True:
        try:
            done = _specialize_entry(program, name, function, cls, arguments, fixed)
        except UnsupportedError as error:
            # An option that decides what is returned must be known; it is then its default.
            options = ((n, d) for n, t, d in arguments if n not in fixed and _is_option(t, d))
            option = next(options, None)
            if "returns values of different types" not in error.cause or option is None:
                raise
            fixed[option[0]] = option[1]
        else:
            _keep_parameters(done, arguments, known if name == "forward" else {})
            return done


def _keep_parameters(
    done: Specialized, arguments: list[tuple[str, Type, Any]], known: dict[str, Any]
) -> None:
    """Writes the parameters that are fixed back into the signature, where they stood."""
    if not known:
        return
    first, *rest = done.node.args.args
    present = {argument.arg: argument for argument in rest}
    kept = [first]
    defaults: list[ast.expr] = []
    for name, t, default in arguments:
        if name not in present and name not in known:
            continue
        spelled = annotation(optional(t) if default is None else t)
        kept.append(present.get(name) or ast.arg(name, spelled))
        literal_default = None
        if default is not inspect.Parameter.empty:
            literal_default = literal(Const(default)) or ast.Constant(None)
        if literal_default is not None:
            defaults.append(literal_default)
        elif defaults:
            defaults = []
    done.node.args.args = kept
    done.node.args.defaults = defaults


def _is_option(t: Type, default: Any) -> bool:
    if default is inspect.Parameter.empty:
        return False
    return t.name in ("bool", "str", "int") or (
        t.name == "Optional" and t.args[0].name in ("bool", "str", "int")
    )


def _choose(known: Type | None, declared: Type) -> Type:
    return known if known is not None else alternatives(declared)[0]


def _by_configuration(root: torch.nn.Module, source: Any, cls: type) -> dict[str, Type]:
    """A bipartite conv (``in_channels`` is a pair) takes a pair of node features."""
    from gnnscript.analyze.annotations import parameter_types

    if not isinstance(getattr(root, "in_channels", None), (tuple, list)):
        return {}
    for name, declared in list(parameter_types(source, cls).items())[1:]:
        pairs = [t for t in alternatives(declared) if t.name == "Tuple"]
        if declared.name == "Union" and pairs:
            return {name: pairs[0]}
    return {}


def _specialize_entry(
    program: Program,
    name: str,
    function: Any,
    cls: type,
    arguments: list[tuple[str, Type, Any]],
    fixed: dict[str, Any],
) -> Specialized:
    root = program.root
    source = function_source(inspect.unwrap(function))
    first = next(iter(inspect.signature(source.function).parameters))
    bound: dict[str, Value] = {first: root}
    for argument, t, default in arguments:
        if default is inspect.Parameter.VAR_POSITIONAL:
            bound[argument] = Seq(())
        elif default is inspect.Parameter.VAR_KEYWORD:
            bound[argument] = Mapping({})
        elif argument in fixed:
            bound[argument] = Const(fixed[argument])
        else:
            bound[argument] = Dyn(t)

    def call_decorated(frame: Any) -> None:
        # The arguments are those of the function itself; what runs is its decorator's wrapper.
        given = [frame.fold_Name(ast.Name(argument, ast.Load())) for argument in bound]
        value, node = frame.call_function(function, Arguments(given, {}), cls)
        frame.returns.append(value)
        frame.emit(ast.Return(frame.needed(value, node)))

    decorated = function is not source.function
    body = call_decorated if decorated else None
    done = program.specialize(
        source, bound, program.owner(root), cls, name=name, body=body, key="entry"
    )
    defaults = {argument: default for argument, _, default in arguments}
    spelled: list[ast.expr] = []
    for argument, _ in done.parameters:
        default = defaults[argument]
        node = None if default is inspect.Parameter.empty else literal(Const(default))
        if node is None and spelled:
            spelled = []
        if node is not None:
            spelled.append(node)
    done.node.args.defaults = spelled
    return done


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
                name: annotation(t)
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
