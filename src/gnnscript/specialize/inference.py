"""Return types of what is not specialised: operators, tensor methods, torch's own modules."""

from __future__ import annotations

import ast
import functools
import inspect
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.sources import function_source
from gnnscript.analyze.types import (
    BOOL,
    DEVICE,
    DTYPE,
    FLOAT,
    INT,
    NONE,
    NUMBER,
    TENSOR,
    UNKNOWN,
    Type,
    from_annotation,
    from_schema,
    is_optional,
    list_of,
    strip_optional,
    tuple_of,
)

__all__ = [
    "TENSOR_ATTRIBUTES",
    "Signature",
    "function_type",
    "match",
    "method_type",
    "module_is_unfit",
    "module_type",
    "module_unwraps",
]

TENSOR_ATTRIBUTES: dict[str, Type] = {
    "dtype": DTYPE,
    "device": DEVICE,
    "shape": list_of(INT),
    "ndim": INT,
    "is_cuda": BOOL,
    "is_sparse": BOOL,
    "is_quantized": BOOL,
    "requires_grad": BOOL,
    "is_leaf": BOOL,
    "itemsize": INT,
    "grad": Type("Optional", (TENSOR,)),
}
_TENSOR_METHODS: dict[str, Type] = {
    "size": INT,
    "dim": INT,
    "ndimension": INT,
    "numel": INT,
    "nelement": INT,
    "item": NUMBER,
    "stride": INT,
    "is_floating_point": BOOL,
    "is_complex": BOOL,
    "is_contiguous": BOOL,
    "get_device": INT,
    "element_size": INT,
    "split": list_of(TENSOR),
    "chunk": list_of(TENSOR),
    "unbind": list_of(TENSOR),
    "type": TENSOR,
    "tolist": UNKNOWN,
}


@dataclass(frozen=True)
class Signature:
    """How a call was matched to an operator.

    Args:
        returns: The type of its result.
        unwrap: Positions and keywords of arguments that must not be ``None``.
        floats: Those of integers that are taken as floats.
    """

    returns: Type
    unwrap: frozenset[int | str] = frozenset()
    floats: frozenset[int | str] = frozenset()


@functools.cache
def _schemas(name: str) -> tuple[Any, ...]:
    return tuple(torch._C._jit_get_schemas_for_operator(name))


def _accepts(wanted: Type, given: Type, *, strict: bool) -> bool:
    if UNKNOWN in (given, wanted):
        return True
    if is_optional(wanted):
        return given.name == "None" or _accepts(
            strip_optional(wanted), strip_optional(given), strict=strict
        )
    if given == NONE:
        return False
    if is_optional(given):
        return not strict and _accepts(wanted, strip_optional(given), strict=strict)
    if wanted == given:
        return True
    if wanted == NUMBER:
        return given in (INT, FLOAT, BOOL)
    if wanted == FLOAT:
        return given in (INT, NUMBER)
    if wanted == INT:
        return given in (DTYPE, NUMBER, BOOL)
    if wanted == DTYPE:
        return given == INT
    if wanted.name == "List":
        if given.name in ("List", "Tuple"):
            return all(_accepts(wanted.args[0], arg, strict=strict) for arg in given.args)
        return given == INT and wanted.args[0] == INT
    return False


def _bind(
    schema: Any, args: Sequence[Type], kwargs: dict[str, Type], *, strict: bool
) -> Signature | None:
    arguments = schema.arguments
    positional = [a for a in arguments if not a.kwarg_only]
    names = {a.name: from_schema(a.type) for a in arguments}
    given: dict[str, tuple[int | str, Type]] = {}
    if len(args) > len(positional):
        if not (positional and names[positional[-1].name].name == "List"):
            return None
        # x.view(a, b), x.permute(0, 1): trailing integers stand for one list
        head, tail = args[: len(positional) - 1], args[len(positional) - 1 :]
        if any(t not in (INT, UNKNOWN) for t in tail):
            return None
        args = [*head, list_of(INT)]
    for position, (argument, t) in enumerate(zip(positional, args, strict=False)):
        given[argument.name] = (position, t)
    for name, t in kwargs.items():
        if name not in names or name in given:
            return None
        given[name] = (name, t)
    unwrap: set[int | str] = set()
    floats: set[int | str] = set()
    for argument in arguments:
        if argument.name not in given:
            if not argument.has_default_value():
                return None
            continue
        where, t = given[argument.name]
        if not _accepts(names[argument.name], t, strict=strict):
            return None
        if t.name == "Optional" and not is_optional(names[argument.name]):
            unwrap.add(where)
        if t == INT and strip_optional(names[argument.name]) == FLOAT:
            floats.add(where)
    returns = [from_schema(r.type) for r in schema.returns]
    result = returns[0] if len(returns) == 1 else tuple_of(*returns)
    return Signature(result, frozenset(unwrap), frozenset(floats))


def match(name: str, args: Sequence[Type], kwargs: dict[str, Type]) -> Signature | None:
    """Matches a call to the schemas of ``aten::name`` as TorchScript would."""
    for strict in (True, False):
        fitting = [
            found
            for schema in _schemas(f"aten::{name}")
            if (found := _bind(schema, args, kwargs, strict=strict)) is not None
        ]
        if fitting:  # one that takes integers as they are, rather than one for floats
            return min(fitting, key=lambda found: len(found.floats))
    return None


def method_type(name: str, args: Sequence[Type], kwargs: dict[str, Type]) -> Signature:
    """The result of ``tensor.name(*args, **kwargs)``."""
    if name in ("size", "stride") and not args and not kwargs:
        return Signature(list_of(INT))
    if name in _TENSOR_METHODS:
        return Signature(_TENSOR_METHODS[name])
    found = match(name, [TENSOR, *args], kwargs)
    if found is None:
        return Signature(TENSOR)
    unwrap, floats = (
        frozenset(w - 1 if isinstance(w, int) else w for w in which)
        for which in (found.unwrap, found.floats)
    )
    return Signature(found.returns, unwrap, floats)


def function_type(function: Any, args: Sequence[Type], kwargs: dict[str, Type]) -> Signature:
    """The result of a torch function that TorchScript compiles or knows itself."""
    if isinstance(function, torch.jit.ScriptFunction):
        schema: Any = function.schema
        return Signature(from_schema(schema.returns[0].type))
    if isinstance(function, torch._ops.OpOverloadPacket):
        for overload in function.overloads():  # type: ignore[no-untyped-call]
            bound = _bind(getattr(function, overload)._schema, args, kwargs, strict=False)
            if bound is not None:
                return bound
    name = getattr(function, "__name__", "")
    if inspect.isfunction(function):
        declared = _python_signature(function, args, kwargs)
        if declared is not None:
            return declared
    found = match(name, args, kwargs)
    if found is None:
        hint = _return_hint(function)
        return Signature(_only_result(name) if hint == UNKNOWN else hint)
    return found


def schema_type(name: str, schema: str, args: Sequence[Type], kwargs: dict[str, Type]) -> Signature:
    """The result of an operator that is known by its schema."""
    bound = _bind(torch._C.parse_schema(name + schema), args, kwargs, strict=False)
    if bound is None:
        raise UnsupportedError(
            f"the arguments do not fit '{name}{schema}'", "pass arguments of these types"
        )
    return bound


def _python_signature(
    function: Any, args: Sequence[Type], kwargs: dict[str, Type]
) -> Signature | None:
    """How TorchScript, which compiles it from source, sees a Python function of torch's."""
    try:
        hints = typing.get_type_hints(function)
        bound = inspect.signature(function).bind(*range(len(args)), **{k: k for k in kwargs})
    except (NameError, TypeError, ValueError):
        return None
    if "return" not in hints:
        return None
    given: dict[int | str, Type] = dict(enumerate(args))
    given.update(kwargs)
    unwrap: set[int | str] = set()
    floats: set[int | str] = set()
    for name, where in bound.arguments.items():
        if name not in hints or not isinstance(where, (int, str)):
            continue
        wanted, t = from_annotation(hints[name]), given[where]
        if t.name == "Optional" and not is_optional(wanted) and wanted != UNKNOWN:
            unwrap.add(where)
        if t == INT and strip_optional(wanted) == FLOAT:
            floats.add(where)
    return Signature(from_annotation(hints["return"]), frozenset(unwrap), frozenset(floats))


@functools.cache
def _only_result(name: str) -> Type:
    """What all operators of a name return; ``torch.norm``, say, has defaults that they have not."""
    schemas = torch._C._jit_get_schemas_for_operator(f"aten::{name}")
    found = {tuple(str(returned.type) for returned in schema.returns) for schema in schemas}
    return TENSOR if found == {("Tensor",)} else UNKNOWN


def _return_hint(function: Any) -> Type:
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return UNKNOWN
    return from_annotation(hints["return"]) if "return" in hints else UNKNOWN


def module_unwraps(
    module: torch.nn.Module, args: Sequence[Type], kwargs: dict[str, Type]
) -> frozenset[int | str]:
    """Which arguments of a module that is left to TorchScript must not be ``None``."""
    while isinstance(module, torch.nn.Sequential) and len(module) > 0:
        module = module[0]
    if isinstance(module, torch.jit.ScriptModule):
        arguments = getattr(module, "forward").schema.arguments[1:]  # noqa: B009
        wanted = [from_schema(a.type) for a in arguments]
        names = [a.name for a in arguments]
    else:
        parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
        try:
            hints = typing.get_type_hints(type(module).forward)
        except (NameError, TypeError):
            hints = {}
        names = [p.name for p in parameters]
        wanted = [
            TENSOR if p.name not in hints else from_annotation(hints[p.name]) for p in parameters
        ]
    found: set[int | str] = set()
    for position, t in enumerate(args):
        if t.name == "Optional" and position < len(wanted) and not is_optional(wanted[position]):
            found.add(position)
    for name, t in kwargs.items():
        if t.name == "Optional" and name in names and not is_optional(wanted[names.index(name)]):
            found.add(name)
    return frozenset(found)


def module_is_unfit(module: torch.nn.Module, args: Sequence[Type], kwargs: dict[str, Type]) -> bool:
    """Whether TorchScript would not compile a user's module for a call as its author wrote it.

    It takes arguments without annotation for tensors, and knows no variable arguments.
    """
    if isinstance(module, torch.nn.Sequential) and len(module) > 0:
        return module_is_unfit(module[0], args, kwargs) or any(
            _returns_display(child) for child in module
        )
    forward = type(module).forward
    if isinstance(module, torch.jit.ScriptModule) or _is_torchs(module):
        return False
    parameters = inspect.signature(forward).parameters
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()):
        return True
    unannotated = [p.annotation is p.empty for p in list(parameters.values())[1:]]
    named = {
        p.name: free for p, free in zip(list(parameters.values())[1:], unannotated, strict=True)
    }
    given = [
        *zip(unannotated, args, strict=False),
        *((named.get(k, False), t) for k, t in kwargs.items()),
    ]
    return any(free and t not in (TENSOR, UNKNOWN) for free, t in given) or _returns_display(module)


def _is_torchs(module: torch.nn.Module) -> bool:
    return type(module).__module__.split(".")[0] == "torch"


def _returns_display(module: torch.nn.Module) -> bool:
    """Whether a user's module returns a tuple, list or dictionary, and does not say of what."""
    forward = type(module).forward
    if _is_torchs(module) or isinstance(module, torch.jit.ScriptModule):
        return False
    if not inspect.isfunction(forward) or "return" in forward.__annotations__:
        return False
    try:
        node = function_source(forward).node
    except UnsupportedError:
        return False
    displays = (ast.Tuple, ast.List, ast.Dict)
    returns = [n.value for n in ast.walk(node) if isinstance(n, ast.Return)]
    return any(isinstance(value, displays) for value in returns)


def module_type(module: torch.nn.Module) -> Type:
    """The result of calling a module that is left to TorchScript."""
    if isinstance(module, torch.jit.ScriptModule):
        schema = getattr(module, "forward").schema  # noqa: B009
        return from_schema(schema.returns[0].type)
    if isinstance(module, torch.nn.Sequential) and len(module) > 0:
        return module_type(module[-1])
    if isinstance(module, torch.nn.RNNBase) and _is_torchs(module):
        state = tuple_of(TENSOR, TENSOR) if isinstance(module, torch.nn.LSTM) else TENSOR
        return tuple_of(TENSOR, state)
    return _return_hint(type(module).forward)
