"""Annotations of a function as static types, whatever form they were written in."""

from __future__ import annotations

import ast
import inspect
import types
import typing
from typing import Any

import torch
import typing_extensions

from gnnscript.analyze.aliases import unaliased, with_args
from gnnscript.analyze.sources import FunctionSource
from gnnscript.analyze.types import (
    TENSOR,
    UNKNOWN,
    Type,
    from_annotation,
    is_subtype,
    of_value,
    optional,
)

__all__ = ["annotation_type", "evaluate", "parameter_types", "return_type", "spelled_for_pyg"]

# What a string annotation may name without an import in scope at run time
# (``if TYPE_CHECKING:`` imports, ``propagate_type`` comments).
_FALLBACK: dict[str, Any] = {
    **{name: getattr(typing, name) for name in typing.__all__},
    **{
        name: getattr(typing_extensions, name)
        for name in typing_extensions.__all__
        if hasattr(typing_extensions, name)
    },
    "Tensor": torch.Tensor,
    "torch": torch,
    "OptTensor": typing.Optional[torch.Tensor],  # noqa: UP045
    "PairTensor": tuple[torch.Tensor, torch.Tensor],
    "OptPairTensor": tuple[torch.Tensor, typing.Optional[torch.Tensor]],  # noqa: UP045
    "PairOptTensor": tuple[typing.Optional[torch.Tensor], typing.Optional[torch.Tensor]],  # noqa: UP045
    "Adj": torch.Tensor,
    "Size": typing.Optional[tuple[int, int]],  # noqa: UP045
    "NoneType": type(None),
}


class _Scope(dict[str, Any]):
    """Names as the function sees them, then its class, type parameters, the usual typing names."""

    def __init__(self, source: FunctionSource, cls: type | None) -> None:
        super().__init__()
        self._source = source
        self._cls = cls

    def __missing__(self, name: str) -> Any:
        try:
            return self._source.resolve(name)
        except KeyError:
            pass
        if self._cls is not None and hasattr(self._cls, name):
            return getattr(self._cls, name)
        for generic in (self._source.function, *getattr(self._cls, "__mro__", ())):
            for parameter in getattr(generic, "__type_params__", ()):
                if parameter.__name__ == name:
                    return parameter
        return _FALLBACK[name]


def evaluate(text: str, source: FunctionSource, cls: type | None = None) -> Any:
    """Evaluates an annotation given as text; ``Any`` where a name in it cannot be found."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return eval(compile(tree, source.file, "eval", dont_inherit=True), {}, _Scope(source, cls))
    except (NameError, KeyError, AttributeError, TypeError, SyntaxError):
        return Any


def annotation_type(annotation: Any, source: FunctionSource, cls: type | None) -> Type:
    """The type of an annotation as it stands in the code of ``source``, text or object."""
    for _ in range(4):  # a string may evaluate to a string or forward reference
        annotation = unaliased(annotation)
        if isinstance(annotation, typing.ForwardRef):
            annotation = annotation.__forward_arg__
        if not isinstance(annotation, str):
            break
        annotation = evaluate(annotation, source, cls)
    return from_annotation(_deep(annotation, source, cls))


def _deep(annotation: Any, source: FunctionSource, cls: type | None) -> Any:
    """Evaluates forward references inside a compound annotation."""
    args = typing.get_args(annotation)
    if not any(isinstance(arg, (str, typing.ForwardRef)) for arg in args):
        return annotation
    if typing.get_origin(annotation) in (typing.Literal, typing.Annotated):
        return annotation
    evaluated = tuple(
        evaluate(arg.__forward_arg__ if isinstance(arg, typing.ForwardRef) else arg, source, cls)
        if isinstance(arg, (str, typing.ForwardRef))
        else arg
        for arg in args
    )
    return with_args(annotation, evaluated)


def parameter_types(source: FunctionSource, cls: type | None = None) -> dict[str, Type]:
    """The declared type of each parameter.

    An un-annotated parameter takes the type of its default; without one, or with ``None``,
    it is ``Tensor`` or ``Optional[Tensor]``, as TorchScript and its users mean it.
    """
    found = {}
    for name, parameter in inspect.signature(
        source.function, follow_wrapped=False
    ).parameters.items():
        annotation, default = parameter.annotation, parameter.default
        declared = UNKNOWN
        if annotation is not inspect.Parameter.empty:
            declared = annotation_type(annotation, source, cls)
        if declared == UNKNOWN:
            if default is None:
                declared = optional(TENSOR)
            elif default is inspect.Parameter.empty:
                declared = TENSOR if annotation is inspect.Parameter.empty else UNKNOWN
            else:
                declared = of_value(default)
        elif default is None and not is_subtype(of_value(None), declared):
            declared = optional(declared)
        found[name] = declared
    return found


def return_type(source: FunctionSource, cls: type | None = None) -> Type:
    """The declared return type, ``UNKNOWN`` where there is none."""
    annotation = source.function.__annotations__.get("return", Any)
    return annotation_type(annotation, source, cls)


def spelled_for_pyg(annotation: Any) -> Any:
    """``X | Y`` as ``Union[X, Y]``, and aliases and type variables as what they stand for.

    PyG's own inspector cannot read them.
    """
    annotation = unaliased(annotation)
    if isinstance(annotation, typing.TypeVar):
        return spelled_for_pyg(annotation.__bound__ or Any)
    if isinstance(annotation, types.UnionType):
        return with_args(annotation, typing.get_args(annotation))
    return annotation
