"""Meeting ``torch.jit.script``: which modules are specialised, and how errors are reported."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import threading
from collections.abc import Callable, Sequence
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import alternatives, from_annotation, of_value
from gnnscript.hetero import edge_types, spelled, with_edge_types
from gnnscript.ops import library
from gnnscript.passes import (
    add_in_place,
    make_exportable,
    omit_shortcuts,
    optimize,
    rebind_marked,
    share_plans,
    use_torch_scatter,
    warn_of_gradients,
)
from gnnscript.script.explaining import explained
from gnnscript.script.lowered import build, discard
from gnnscript.script.policy import Policy
from gnnscript.script.stale import forget_stale_operators
from gnnscript.specialize import Program, SpecializedModel, specialize
from gnnscript.specialize.values import Dyn, Mapping, Shown, Value

__all__ = [
    "LoweredCall",
    "lower",
    "lower_for",
    "script",
    "script_refused",
    "source",
]

_log = logging.getLogger("gnnscript")
_lock = threading.RLock()
_T = TypeVar("_T")


def lower(
    root: torch.nn.Module, given: dict[str, Value] | None = None, *, unions: bool = True
) -> torch.nn.Module:
    """The specialised model: a tree of its own that shares parameters with the eager one.

    Args:
        root: The model.
        given: What is known of arguments of its ``forward`` beyond what its annotations say.
        unions: Whether it takes each type that the ``Union`` of an argument names.
    """
    return build(root, _specialized(root, given, unions=unions))


@dataclass(frozen=True)
class LoweredCall:
    """A model, specialised for the calls that are like one call.

    Args:
        module: The specialised model; the model itself where there is nothing to specialise.
        values: The arguments of the call that remain, by name.
        fixed: The arguments that are fixed to a value, by name. ``module`` takes them, and does
            not look at them.
        differentiates: Whether its code calls ``torch.autograd.grad``.
    """

    module: torch.nn.Module
    values: dict[str, Any]
    fixed: dict[str, Any]
    differentiates: bool = False


def lower_for(
    root: torch.nn.Module,
    args: Sequence[Any] = (),
    kwargs: AnyMapping[str, Any] | None = None,
    *,
    everything: bool = False,
    branches: bool = True,
    exportable: bool = False,
    least: AnyMapping[tuple[str, int], int] | None = None,
) -> LoweredCall:
    """Specialises a model for one call.

    Arguments that are ``None``, booleans or strings are fixed to their value, and so are those
    that the call leaves to their default.

    Args:
        root: The model.
        args: Positional arguments of the call; may be empty where ``kwargs`` is, too.
        kwargs: Keyword arguments of the call.
        everything: Whether classes are specialised that the interceptor has not marked.
        branches: Whether the code may branch on values, where it need not.
        exportable: Whether the code is for ``torch.compile`` or ``torch.export``.
        least: For these, lines with the least size that values may decide there.
    """
    signature = inspect.signature(root.forward)
    values: dict[str, Any] = {}
    if args or kwargs:
        values = dict(signature.bind(*args, **(kwargs or {})).arguments)
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    fixed = {
        name: values.get(name, parameter.default)
        for name, parameter in signature.parameters.items()
        if parameter.kind not in kinds
        and (
            parameter.default is not parameter.empty
            if name not in values
            else values[name] is None or isinstance(values[name], (bool, str))
        )
    }
    values = {name: value for name, value in values.items() if name not in fixed}
    policy = Policy(root, everything=everything)
    if not any(policy(module) for module in root.modules()):
        return LoweredCall(root, values, fixed)
    given = _given(signature, values)
    passes: list[Callable[[Program], None]] = []
    if exportable or not branches:
        passes += [omit_shortcuts, rebind_marked]
    if exportable and library.implementation() == "native":
        passes.append(functools.partial(share_plans, exported=True))
    if exportable:
        passes.append(functools.partial(make_exportable, least=least))
    sharing = branches and not exportable  # programs share in a way of their own
    specialized = _with_wider(
        policy,
        root,
        lambda policy: _specialized(
            root, given, fixed, policy, passes, branches=branches, sharing=sharing
        ),
    )
    module = build(root, specialized)
    if exportable:
        _keep_edge_types(module, values)
    if any(parameter.kind in kinds for parameter in signature.parameters.values()):
        own = inspect.signature(module.forward)  # names what is passed on
        bound = own.bind(*args, **(kwargs or {})) if args or kwargs else own.bind_partial()
        bound.apply_defaults()
        given_to = dict(bound.arguments)
        fixed = {n: v for n, v in given_to.items() if v is None or isinstance(v, (bool, str))}
        values = {n: v for n, v in given_to.items() if n not in fixed}
    texts = specialized.texts.values()
    differentiates = any("torch.autograd.grad(" in text.text for text in texts)
    return LoweredCall(module, values, fixed, differentiates)


def _keep_edge_types(module: torch.nn.Module, values: AnyMapping[str, Any]) -> None:
    """Has a specialised model take dictionaries as the eager one does, with tuples as keys."""
    known = {"__".join(key): key for key in edge_types(dict(values))}
    if not known:
        return
    inner = module.forward

    @functools.wraps(inner)
    def forward(*args: Any, **kwargs: Any) -> Any:
        out = inner(*spelled(args), **{name: spelled(value) for name, value in kwargs.items()})
        return with_edge_types(out, known)

    module.forward = forward


def _specialized(
    root: torch.nn.Module,
    given: dict[str, Value] | None = None,
    known: dict[str, Any] | None = None,
    policy: Policy | None = None,
    passes: Sequence[Callable[[Program], None]] = (),
    *,
    branches: bool = True,
    sharing: bool = True,
    unions: bool = False,
) -> SpecializedModel:
    with _lock:
        policy = policy or Policy(root)
        for name, module in root.named_modules():
            if policy(module):
                _refuse_lazy(name, module)
        implementation = library.implementation()
        if implementation == "torch_scatter":
            passes = [use_torch_scatter, *passes]
        if implementation == "native":
            native = functools.partial(optimize, branches=branches)
            passes = [
                native,
                *([share_plans, add_in_place] if sharing else []),
                *passes,
            ]
        return specialize(root, policy, given, known, passes, unions=unions)


def _refuse_lazy(name: str, module: torch.nn.Module) -> None:
    present: list[Any] = [*module._parameters.values(), *module._buffers.values()]
    if any(torch.nn.parameter.is_lazy(tensor) for tensor in present):
        raise UnsupportedError(
            f"'{name or type(module).__name__}' has lazy parameters whose shape is not known yet",
            "run the model once in Python before scripting it",
        )


def script(compile_: Any, root: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Scripts a model with torch's own ``compile_``, after specialising it.

    Raises:
        UnsupportedError: The model cannot be scripted; says where, why and what to do.
    """
    if hasattr(root, "_orig_mod"):
        raise UnsupportedError(
            "the model is one that torch.compile has made, which runs in Python",
            "script the model that it was made of: torch.jit.script(model._orig_mod)",
        )
    given = _from_examples(root, kwargs.pop("example_inputs", None))
    compile_ = functools.partial(_compiled, compile_, root, given, args, kwargs)
    with _lock:  # TorchScript compiles a class once, for all threads
        scripted = _with_wider(Policy(root), root, compile_)
    if library.implementation() == "native":
        _tell_what_files_need()
    return scripted


def _with_wider(policy: Policy, root: torch.nn.Module, attempt: Callable[[Policy], _T]) -> _T:
    """Makes something of a model; where that fails, modules are specialised that need not be.

    It may have failed because of a module that was left to TorchScript.
    """
    try:
        return attempt(policy)
    except Exception as error:
        wider = Policy(root, everything=True, own=True)
        if all(policy(module) == wider(module) for module in root.modules()):
            raise
        try:
            return attempt(wider)
        except UnsupportedError as second:
            first = error if isinstance(error, UnsupportedError) else second
            raise first from second.__cause__


def script_refused(
    error: Exception, compile_: Any, root: torch.nn.Module, *args: Any, **kwargs: Any
) -> Any:
    """Scripts a model without PyG that torch has refused, by specialising all of its modules.

    Raises:
        Exception: What torch has raised, where that does not help.
    """
    given = _from_examples(root, kwargs.pop("example_inputs", None))
    with _lock:
        policy = Policy(root, everything=True, own=True)
        if policy(root):
            with contextlib.suppress(Exception):
                return _compiled(compile_, root, given, args, kwargs, policy)
    raise error


def _compiled(
    compile_: Any,
    root: torch.nn.Module,
    given: dict[str, Value] | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    policy: Policy,
) -> Any:
    for unions in (True, False):
        passes = [warn_of_gradients]
        specialized = _specialized(root, given, policy=policy, passes=passes, unions=unions)
        lowered = build(root, specialized)
        forget_stale_operators(lowered)
        try:
            return _explaining(compile_(lowered, *args, **kwargs))
        except Exception as error:
            discard(lowered)
            if unions and _takes_unions(lowered):
                continue  # it may be but one of the forms that does not compile
            reason = explained(error, root)
            if reason is error:
                raise
            raise reason from error
    raise AssertionError("unreachable")


def _takes_unions(lowered: torch.nn.Module) -> bool:
    """Whether an argument of a specialised model may be of several types."""
    parameters = inspect.signature(lowered.forward).parameters.values()
    return any(len(alternatives(from_annotation(p.annotation))) > 1 for p in parameters)


@functools.cache
def _tell_what_files_need() -> None:
    """Says once that saved models need the library."""
    _log.info(
        "scripted on native ops: a saved model loads where %s has been loaded "
        "(torch.ops.load_library); gnnscript.kernels('portable') scripts without it",
        ", ".join(path.name for path in library.paths()),
    )


def _explaining(scripted: Any) -> Any:
    """Has a scripted model that takes dictionaries refuse tuples as keys, saying what to do."""
    forward = getattr(scripted, "forward", None)
    arguments = getattr(getattr(forward, "schema", None), "arguments", ())
    if any(argument.type.kind() == "DictType" for argument in arguments):
        # A ScriptModule runs Python hooks, but refuses to register them.
        scripted._forward_pre_hooks[0] = _refuse_tuple_keys
        scripted._forward_pre_hooks_with_kwargs[0] = True
    return scripted


def _refuse_tuple_keys(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for value in (*args, *kwargs.values()):
        if isinstance(value, dict) and any(isinstance(key, tuple) for key in value):
            key = next(key for key in value if isinstance(key, tuple))
            raise TypeError(
                f"a scripted model takes dictionaries with strings as keys, got {key!r}: pass "
                f"gnnscript.hetero.to_script(...) of the dictionary, which spells it "
                f"{'__'.join(map(str, key))!r}"
            )


def _from_examples(root: torch.nn.Module, examples: Any) -> dict[str, Value]:
    """What ``example_inputs`` of ``torch.jit.script`` say of the arguments of ``forward``."""
    if isinstance(examples, dict):
        examples = examples.get(root)
    if not examples:
        return {}
    signature = inspect.signature(type(root).forward)
    bound = signature.bind(root, *examples[0])
    given = {n: v for n, v in list(bound.arguments.items())[1:] if v is not None}
    return _given(signature, given)


def _given(signature: inspect.Signature, arguments: dict[str, Any]) -> dict[str, Value]:
    """What the arguments of one call say of all that are like it."""
    several = inspect.Parameter.VAR_POSITIONAL
    return {
        name: _shown(
            dict(enumerate(value)) if signature.parameters[name].kind is several else value
        )
        for name, value in arguments.items()
    }


def _shown(value: Any) -> Value:
    """An example as what is known of all arguments like it: of a dictionary, its keys."""
    if isinstance(value, dict):
        return Mapping({key: _shown(item) for key, item in value.items()})
    t = of_value(value)
    return Shown(t, value) if isinstance(value, (bool, int, str)) else Dyn(t)


def source(module: torch.nn.Module) -> str:
    """The explicit code that a module is specialised to.

    Args:
        module: A PyG module, or a model that contains some. It does not have to be scripted.

    Returns:
        The text of each class, the module's own first; classes with equal text once.

    Raises:
        TypeError: It is not a module.
        UnsupportedError: The module cannot be specialised.
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"'source' expects a module (an instance), got {module!r}; pass the model or one of "
            "its convs"
        )
    specialized = _specialized(module, unions=True)
    texts = []
    for child in module.modules():
        text = specialized.texts.get(id(child))
        if text is not None and (not text.empty or child is module):
            texts.append(text.text)
    return "\n\n".join(dict.fromkeys(texts))
