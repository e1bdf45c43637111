"""The arguments and results of a model as flat lists of named tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

import torch
from torch import Tensor

from gnnscript.deploy.manifest import Argument, DeployError
from gnnscript.hetero import to_script

__all__ = [
    "Call",
    "arguments_of",
    "bind",
    "calls_of",
    "check_names",
    "described",
    "fits",
    "flat_outputs",
    "invoke",
    "named_tensors",
    "numbers_in",
    "part_name",
    "refilled",
]

Call: TypeAlias = "tuple[Any, ...] | dict[str, Any]"
"""The arguments of one call: a tuple of positional ones or a dict of keyword ones."""


def calls_of(example_inputs: Any) -> list[Call]:
    """The calls that a user gave: one, or a list of several.

    Raises:
        TypeError: It is neither a tuple, nor a dict, nor a list of these.
    """
    calls = example_inputs if isinstance(example_inputs, list) else [example_inputs]
    for call in calls:
        if not isinstance(call, (tuple, dict)):
            raise TypeError(
                "expected example_inputs to be a tuple of positional arguments, a dict of keyword "
                f"arguments, or a list of these, got {type(call).__name__}; write (x,) for a "
                "single argument"
            )
    if not calls:
        raise TypeError("expected example_inputs to hold at least one call, got an empty list")
    return calls


def arguments_of(scripted: torch.jit.ScriptModule) -> list[Any]:
    """The arguments of ``forward`` as TorchScript has them, without ``self``."""
    schema: Any = scripted.forward.schema  # type: ignore[attr-defined]
    return list(schema.arguments[1:])


def described(scripted: torch.jit.ScriptModule) -> tuple[Argument, ...]:
    """The arguments of ``forward`` for the manifest."""
    return tuple(
        Argument(argument.name, str(argument.type), not argument.has_default_value())
        for argument in arguments_of(scripted)
    )


def bind(scripted: torch.jit.ScriptModule, call: Call) -> dict[str, Any]:
    """The arguments of a call by name, in the order of ``forward``.

    Raises:
        DeployError: The call does not fit the model's ``forward``.
    """
    arguments = arguments_of(scripted)
    names = [argument.name for argument in arguments]
    if isinstance(call, tuple):
        if len(call) > len(names):
            raise DeployError(
                f"the model takes {len(names)} arguments ({', '.join(names)}), and the example "
                f"inputs have {len(call)}"
            )
        given = dict(zip(names, call, strict=False))
    else:
        given = dict(call)
    unknown = sorted(set(given) - set(names))
    missing = [a.name for a in arguments if a.name not in given and not a.has_default_value()]
    if unknown or missing:
        which = [f"unknown: {', '.join(unknown)}"] if unknown else []
        which += [f"missing: {', '.join(missing)}"] if missing else []
        raise DeployError(
            f"the example inputs do not fit forward({', '.join(names)}); {'; '.join(which)}"
        )
    return {name: given[name] for name in names if name in given}


def fits(scripted: torch.jit.ScriptModule, call: Call) -> bool:
    """Whether the arguments of a call are of the types that a scripted model takes."""
    bound = bind(scripted, call)
    types = {argument.name: argument.type for argument in arguments_of(scripted)}
    return all(_is_of(types[name], value) for name, value in bound.items())


def _is_of(type_: Any, value: Any) -> bool:
    kind = type_.kind()
    if kind == "OptionalType":
        return value is None or _is_of(type_.getElementType(), value)
    if kind == "TensorType":
        return isinstance(value, Tensor)
    if kind == "TupleType":
        elements = type_.elements()
        return (
            isinstance(value, tuple)
            and len(value) == len(elements)
            and all(_is_of(element, item) for element, item in zip(elements, value, strict=True))
        )
    if kind == "DictType":
        return isinstance(value, Mapping) and all(
            _is_of(type_.getValueType(), item) for item in value.values()
        )
    return not isinstance(value, (Tensor, Mapping))


def invoke(module: Any, call: Mapping[str, Any]) -> Any:
    """Calls a model; a scripted one gets edge types as it takes them, ``"src__rel__dst"``.

    Args:
        module: An eager or a scripted model.
        call: Its arguments by name, in the form that the eager model takes.
    """
    if isinstance(module, torch.jit.ScriptModule):
        call = {name: _spelled(value) for name, value in call.items()}
    return module(**call)


def _spelled(value: Any) -> Any:
    if isinstance(value, Mapping):
        return to_script({key: _spelled(item) for key, item in value.items()})
    return value


def _is_edge_type(key: object) -> TypeGuard[tuple[str, ...]]:
    return isinstance(key, tuple) and all(isinstance(part, str) for part in key)


def part_name(name: str, part: object) -> str:
    """The name of one part of a tuple, list or dictionary: an identifier."""
    text = "__".join(part) if _is_edge_type(part) else str(part)
    clean = re.sub(r"[^0-9a-zA-Z]", "_", text)
    return f"{name}_{clean}" if name else clean


def check_names(names: Sequence[str], what: str) -> None:
    """Raises DeployError where two tensors would have the same name.

    Args:
        names: What :func:`named_tensors` calls them.
        what: ``inputs`` or ``results``, for the message.
    """
    for name in names:
        if names.count(name) > 1:
            raise DeployError(
                f"two {what} would be named '{name}'; rename one of the arguments, fields or keys "
                "that they come from"
            )


def parts_of(value: Any) -> Iterator[tuple[object, Any]] | None:
    """The parts of a collection with their keys, fields or positions; None for other values."""
    if isinstance(value, Mapping):
        return iter(value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return zip(value._fields, value, strict=True)
    if isinstance(value, (tuple, list)):
        return enumerate(value)
    return None


def named_tensors(name: str, value: Any, *, numbers: bool = False) -> Iterator[tuple[str, Tensor]]:
    """The tensors in a value, each with the name that it gets; in the order they stand.

    Args:
        name: What the names start with.
        value: A tensor, or a tuple, list or dictionary with tensors in it.
        numbers: Whether numbers, and tensors without dimensions, are tensors of one element.
    """
    if isinstance(value, Tensor):
        yield name, value.reshape(1) if numbers and value.dim() == 0 else value
    elif numbers and isinstance(value, (bool, int, float)):
        yield name, torch.tensor([value])
    elif numbers and isinstance(value, torch.SymInt):  # a size, in a graph for any
        fill: Any = value
        yield name, torch.full((1,), fill, dtype=torch.int64)
    for key, item in parts_of(value) or ():
        yield from named_tensors(part_name(name, key), item, numbers=numbers)


def numbers_in(name: str, value: Any) -> Iterator[str]:
    """The names that :func:`named_tensors` gives to the numbers in a value."""
    if isinstance(value, (bool, int, float)):
        yield name
    for key, item in parts_of(value) or ():
        yield from numbers_in(part_name(name, key), item)


def flat_outputs(output: Any, *, numbers: bool = False) -> list[tuple[str, Tensor]]:
    """The tensors of a result: ``output``, ``output_0``, or named by their keys or fields."""
    named = isinstance(output, Mapping) or hasattr(output, "_fields")
    return list(named_tensors("" if named else "output", output, numbers=numbers))


def refilled(name: str, value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The same value with other tensors, found by the names of :func:`named_tensors`.

    Where a tensor has the name of a number, the number is read from it.
    """
    if isinstance(value, (bool, int, float)) and name in tensors:
        return type(value)(tensors[name].item())
    if isinstance(value, Tensor):
        tensor = tensors[name]
        return tensor.reshape(()) if value.dim() == 0 and tensor.numel() == 1 else tensor
    parts = parts_of(value)
    if parts is None:
        return value
    filled = [(key, refilled(part_name(name, key), item, tensors)) for key, item in parts]
    if isinstance(value, Mapping):
        return dict(filled)
    items = [item for _, item in filled]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
