"""The entry points of a model: ``forward`` and what ``@torch.jit.export`` marks."""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import types
from typing import Any

import torch

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.annotations import parameter_types
from gnnscript.analyze.sources import function_source
from gnnscript.analyze.types import (
    TENSOR,
    Type,
    alternatives,
    has_tuple_keys,
    is_optional,
    optional,
    strip_optional,
)
from gnnscript.specialize.folding.base import Arguments, Binding, Folded
from gnnscript.specialize.helpers import annotation
from gnnscript.specialize.program import Program, Specialized
from gnnscript.specialize.signature import Argument, signature
from gnnscript.specialize.unions import with_all_forms
from gnnscript.specialize.values import (
    Closure,
    Const,
    Dyn,
    Mapping,
    Method,
    ModuleRef,
    Shown,
    Value,
    literal,
    script_key,
    static_type,
)

__all__ = ["entry_points", "specialize_entry"]

_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY


def entry_points(root: torch.nn.Module) -> list[str]:
    """The names of the methods that the scripted model has."""
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


def specialize_entry(
    program: Program,
    name: str,
    given: dict[str, Value],
    known: dict[str, Any],
    *,
    unions: bool = False,
) -> Specialized:
    """Specialises one entry point of the root for the types of its arguments.

    Args:
        program: The model in the making.
        name: The entry point.
        given: What is known of its arguments beyond what its annotations say.
        known: Values of arguments of ``forward`` that are fixed: it takes them still.
        unions: Whether arguments may be of each type that their ``Union`` names, not of one alone.
    """
    root = program.root
    kind = type(root.module)
    defined = name
    calls = kind.__call__ is not torch.nn.Module.__call__
    if name == "forward" and calls and not isinstance(root.module, torch.fx.GraphModule):
        defined = "__call__"  # it calls 'forward', as ``super().__call__(...)``
    function = vars(root.module).get(defined) or inspect.getattr_static(kind, defined)
    replaced = defined in vars(root.module) and not isinstance(root.module, torch.fx.GraphModule)
    bound = isinstance(function, functools.partial) and function.args == (root.module,)
    if bound and not function.keywords:
        function, replaced = function.func, False
    if replaced and isinstance(function, (types.FunctionType, functools.partial)):
        raise UnsupportedError(
            f"'{defined}' of this '{kind.__name__}' was replaced by a function that is no method",
            "define it in a subclass, or script a module that calls this one",
            function_source(function).location() if inspect.isfunction(function) else None,
        )
    source = function_source(inspect.unwrap(function))
    cls = next((c for c in kind.__mro__ if defined in vars(c)), kind)
    if name != "forward":
        given, known = {}, {}
    choices = _by_configuration(root.module, source, cls) if name == "forward" else {}
    described, home = source, cls
    if defined != name and _is_open(source.function):
        described = function_source(inspect.unwrap(inspect.getattr_static(kind, name)))
        home = next(c for c in kind.__mro__ if name in vars(c))
    members: dict[str, list[Type]] = {}

    def choose(argument: str, declared: Type) -> Type:
        found = alternatives(declared)
        if unions and not given:
            members[argument] = [found[0], *map(strip_optional, found[1:])]  # None is of the first
        return choices.get(argument, found[0])

    arguments = signature(root.module, described, home, given, choose)

    def specialize(arguments: list[Argument]) -> Specialized:
        return _with_options(program, name, function, cls, arguments, known)

    try:
        return with_all_forms(program, arguments, members, specialize)
    except UnsupportedError as error:
        # Perhaps an argument is a dictionary of something else than node or edge types.
        plain = [_plain(a) if a.parameter not in given else a for a in arguments]
        if plain == arguments:
            raise
        try:
            return specialize(plain)
        except UnsupportedError:
            raise error from None


def _is_open(function: Any) -> bool:
    """Whether a function takes ``*args`` or ``**kwargs``."""
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    return not kinds.isdisjoint((inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD))


def _plain(argument: Argument) -> Argument:
    if not isinstance(argument.value, Mapping) or argument.parameter != argument.name:
        return argument
    t = static_type(argument.value)
    return Argument(argument.name, Dyn(t), argument.default, argument.parameter)


def _with_options(
    program: Program,
    name: str,
    function: Any,
    cls: type,
    arguments: list[Argument],
    known: dict[str, Any],
) -> Specialized:
    fixed = dict(known)
    shown: dict[str, Any] = {}
    while True:
        try:
            done = _specialize(program, name, function, cls, arguments, fixed)
        except UnsupportedError as error:
            # An option that decides what is returned must be known; it is then what the examples
            # show, or its default.
            option = next((a for a in arguments if a.name not in fixed and _is_option(a)), None)
            if "returns values of different types" in error.cause and option is not None:
                if isinstance(option.value, Shown):
                    shown[option.name] = option.value.value
                fixed[option.name] = shown.get(option.name, option.default)
                continue
            alone = _without(program, name, function, cls, arguments, fixed)
            if alone is None:
                raise
            return alone
        else:
            _keep_parameters(done, arguments, known | shown)
            _hold_to(done, shown)
            return done


def _without(
    program: Program,
    name: str,
    function: Any,
    cls: type,
    arguments: list[Argument],
    fixed: dict[str, Any],
) -> Specialized | None:
    """The entry point with one of the arguments left out whose type nothing says.

    ``size=None`` without annotation can be no tensor: such an argument keeps its default.
    """
    typed = {"return", *inspect.unwrap(function).__annotations__, *fixed}
    for argument in arguments:
        if argument.default is not None or argument.name in typed:
            continue
        if static_type(argument.value) != optional(TENSOR):
            continue
        with contextlib.suppress(UnsupportedError):
            return _specialize(
                program, name, function, cls, arguments, {**fixed, argument.name: None}
            )
    return None


def _keep_parameters(done: Specialized, arguments: list[Argument], known: dict[str, Any]) -> None:
    """Writes the parameters that are fixed back into the signature, where they stood."""
    if not known:
        return
    first, *rest = done.node.args.args
    present = {argument.arg: argument for argument in rest}
    kept = [first]
    defaults: list[ast.expr] = []
    for argument in arguments:
        name, default = argument.name, argument.default
        if name not in present and name not in known:
            continue
        t = static_type(argument.value)
        spelled = annotation(optional(t) if default is None else t)
        kept.append(present.get(name) or ast.arg(name, spelled))
        if default is not inspect.Parameter.empty:
            defaults.append(literal(Const(default)) or ast.Constant(None))
        else:
            defaults = []
    done.node.args.args = kept
    done.node.args.defaults = defaults


def _hold_to(done: Specialized, shown: dict[str, Any]) -> None:
    """Refuses calls in which an option has another value than it was scripted for."""
    for name, value in shown.items():
        read, wanted = ast.Name(name, ast.Load()), ast.Constant(value)
        given = ast.Compare(read, [ast.IsNot()], [ast.Constant(None)])
        equal = ast.Compare(read, [ast.Eq()], [wanted])
        message = ast.Constant(f"scripted for {name}={value!r}, as in example_inputs")
        check = ast.Assert(ast.BoolOp(ast.And(), [given, equal]), message)
        check.origin = (done.source.file, done.source.node.lineno)  # type: ignore[attr-defined]
        done.node.body.insert(0, check)


def _is_option(argument: Argument) -> bool:
    if argument.default is inspect.Parameter.empty and not isinstance(argument.value, Shown):
        return False
    t = static_type(argument.value)
    return t.name in ("bool", "str", "int") or (
        t.name == "Optional" and t.args[0].name in ("bool", "str", "int")
    )


def _by_configuration(root: torch.nn.Module, source: Any, cls: type) -> dict[str, Type]:
    """A bipartite conv (``in_channels`` is a pair) takes a pair of node features."""
    if not isinstance(getattr(root, "in_channels", None), (tuple, list)):
        return {}
    for name, declared in list(parameter_types(source, cls).items())[1:]:
        pairs = [t for t in alternatives(declared) if t.name == "Tuple"]
        if declared.name == "Union" and pairs:
            return {name: pairs[0]}
    return {}


def _specialize(
    program: Program,
    name: str,
    function: Any,
    cls: type,
    arguments: list[Argument],
    fixed: dict[str, Any],
) -> Specialized:
    root = program.root
    source = function_source(inspect.unwrap(function))
    parameters = inspect.signature(source.function).parameters
    first = next(iter(parameters))
    bound: dict[str, Value] = {first: root}
    for argument in arguments:
        held = argument.value
        if argument.name in fixed:
            held = Const(fixed[argument.name])
        elif not isinstance(held, Const):
            held = Dyn(static_type(held))
        bound[argument.name] = held

    def given(frame: Any, argument: Argument) -> Folded:
        """An argument as the function sees it: a dictionary by its entries."""
        value, node = frame.fold_Name(ast.Name(argument.name, ast.Load()))
        if not isinstance(argument.value, Mapping):
            return value, node
        entries: list[ast.expr | None] = [
            ast.Subscript(node, ast.Constant(script_key(key)), ast.Load())
            for key in argument.value.items
        ]
        folded: Folded = frame.mapping(argument.value.items, entries)
        return folded

    def body(frame: Any) -> None:
        frame.packs = False  # the caller is no specialised code
        frame.frozen[:] = [[]]
        args: list[Folded] = [(root, None)]
        keywords: dict[str, Folded] = {}
        for argument in arguments:
            own = parameters.get(argument.parameter)  # none of one behind '*args'
            named = argument.keyword or (own is not None and own.kind is _KEYWORD_ONLY)
            if named:
                keywords[argument.name] = given(frame, argument)
            else:
                args.append(given(frame, argument))
        if function is not source.function:
            # The arguments are those of the function itself; what runs is its decorator's wrapper.
            value, node = frame.call_function(function, Arguments(args, keywords), cls)
            frame.returns.append(value)
            frame.emit(ast.Return(frame.needed(value, node)))
            return
        found = inspect.signature(source.function).bind(*args, **keywords).arguments
        for parameter, described in list(parameters.items())[1:]:
            folded: Folded = found.get(parameter, (Const(None), None))
            if described.kind is described.VAR_POSITIONAL:
                parts = found.get(parameter, ())
                folded = frame.sequence("tuple", [v for v, _ in parts], [n for _, n in parts])
            elif described.kind is described.VAR_KEYWORD:
                entries = found.get(parameter, {})
                folded = frame.mapping(
                    {key: v for key, (v, _) in entries.items()}, [n for _, n in entries.values()]
                )
            elif not isinstance(folded[1], ast.Dict):
                continue
            frame.env[parameter] = Binding(folded[0], None, frame.hold(parameter, folded[1]))
        frame.run()

    done = program.specialize(
        source, bound, program.owner(root), cls, name=name, body=body, key="entry"
    )
    if isinstance(done.value, (Closure, Method, ModuleRef)):
        raise UnsupportedError(
            f"'{name}' returns a function or module, which TorchScript cannot hold",
            "return tensors, numbers and strings, or tuples, lists and dictionaries of them",
            source.location(),
        )
    types = [
        ("returns", static_type(done.value)),
        *((f"takes as '{n}'", t) for n, t in done.parameters),
    ]
    for how, t in types:
        if _only_in_python(t):
            raise UnsupportedError(
                f"'{name}' {how} a set, or a dictionary whose keys are tuples of integers",
                "pass lists or tensors: TorchScript has neither",
                source.location(),
            )
    defaults = {argument.name: argument.default for argument in arguments}
    spelled: list[ast.expr] = []
    for parameter, t in done.parameters:
        default = defaults[parameter]
        # TorchScript takes None for a tensor's default, and then cannot save it.
        none = default is inspect.Parameter.empty or (default is None and not is_optional(t))
        node = None if none else literal(Const(default))
        if node is None and spelled:
            spelled = []
        if node is not None:
            spelled.append(node)
    done.node.args.defaults = spelled
    return done


def _only_in_python(t: Type) -> bool:
    """Whether a value has another form in specialised code than in Python."""
    return t.name == "Set" or has_tuple_keys(t) or any(map(_only_in_python, t.args))
