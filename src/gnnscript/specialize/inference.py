"""Return types of what is not specialised: operators, tensor methods, torch's own modules."""

from __future__ import annotations

import functools
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gnnscript.analyze.types import (
    BOOL,
    DEVICE,
    DTYPE,
    FLOAT,
    INT,
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

__all__ = ["TENSOR_ATTRIBUTES", "Signature", "function_type", "match", "method_type", "module_type"]

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
    """

    returns: Type
    unwrap: frozenset[int | str] = frozenset()


@functools.cache
def _schemas(name: str) -> tuple[Any, ...]:
    return tuple(torch._C._jit_get_schemas_for_operator(name))


def _accepts(wanted: Type, given: Type, *, strict: bool) -> bool:
    if given == UNKNOWN or wanted == UNKNOWN:
        return True
    if is_optional(wanted):
        return given.name == "None" or _accepts(
            strip_optional(wanted), strip_optional(given), strict=strict
        )
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
) -> frozenset[int | str] | None:
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
    return frozenset(unwrap)


def match(name: str, args: Sequence[Type], kwargs: dict[str, Type]) -> Signature | None:
    """Matches a call to the schemas of ``aten::name`` as TorchScript would."""
    for strict in (True, False):
        for schema in _schemas(f"aten::{name}"):
            unwrap = _bind(schema, args, kwargs, strict=strict)
            if unwrap is not None:
                returns = [from_schema(r.type) for r in schema.returns]
                result = returns[0] if len(returns) == 1 else tuple_of(*returns)
                return Signature(result, unwrap)
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
    shifted = {w - 1 if isinstance(w, int) else w for w in found.unwrap}
    return Signature(found.returns, frozenset(shifted))


def function_type(function: Any, args: Sequence[Type], kwargs: dict[str, Type]) -> Signature:
    """The result of a torch function that TorchScript compiles or knows itself."""
    if isinstance(function, torch.jit.ScriptFunction):
        return Signature(from_schema(function.schema.returns[0].type))
    if isinstance(function, torch._ops.OpOverloadPacket):
        schemas = [getattr(function, name)._schema for name in function.overloads()]
        for schema in schemas:
            if _bind(schema, args, kwargs, strict=False) is not None:
                returns = [from_schema(r.type) for r in schema.returns]
                return Signature(returns[0] if len(returns) == 1 else tuple_of(*returns))
    name = getattr(function, "__name__", "")
    found = match(name, args, kwargs)
    if found is None or found.returns == UNKNOWN:
        hint = _return_hint(function)
        return Signature(hint if hint != UNKNOWN or found is None else found.returns)
    if name in ("zeros", "ones", "full", "empty", "arange", "tensor"):
        return Signature(TENSOR, found.unwrap)
    return found


def _return_hint(function: Any) -> Type:
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return UNKNOWN
    return from_annotation(hints["return"]) if "return" in hints else UNKNOWN


def module_type(module: torch.nn.Module) -> Type:
    """The result of calling a module that is left to TorchScript."""
    if isinstance(module, torch.jit.ScriptModule):
        schema = getattr(module, "forward").schema  # noqa: B009
        return from_schema(schema.returns[0].type)
    if isinstance(module, torch.nn.Sequential) and len(module) > 0:
        return module_type(module[-1])
    return _return_hint(type(module).forward)
