"""What ``type`` statements (PEP 695) give names to, and how annotations are put together anew."""

from __future__ import annotations

import types
import typing
from typing import Any

import typing_extensions

__all__ = ["unaliased", "with_args"]

# typing_extensions has a class of its own where Python's is missing or lacks something.
_ALIASES = (
    typing_extensions.TypeAliasType,
    getattr(typing, "TypeAliasType", typing_extensions.TypeAliasType),
)


def unaliased(annotation: Any, within: tuple[Any, ...] = ()) -> Any:
    """The annotation with what each alias in it stands for, and ``Any`` for what names itself."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    alias = annotation if origin is None else origin
    if isinstance(alias, _ALIASES):
        if alias in within:
            return Any
        try:
            value = alias.__value__
        except NameError:  # it is evaluated here, and names something that only type checkers see
            return Any
        value = _filled(value, dict(zip(alias.__type_params__, args, strict=False)))
        return unaliased(value, (*within, alias))
    if origin in (None, typing.Literal):
        return annotation
    found = tuple(unaliased(arg, within) for arg in args)
    return annotation if found == args else with_args(annotation, found)


def _filled(value: Any, given: dict[Any, Any]) -> Any:
    """The value of a generic alias for the types that it is given."""
    if isinstance(value, typing.TypeVar):
        return given.get(value, value)
    parameters = getattr(value, "__parameters__", ())
    return value[tuple(given.get(p, p) for p in parameters)] if parameters and given else value


def with_args(annotation: Any, args: tuple[Any, ...]) -> Any:
    """A compound annotation with other parts."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return typing.Union[args]  # noqa: UP007
    try:
        return annotation.copy_with(args)
    except AttributeError:
        return origin[args] if origin is not None else annotation
