"""Models that take a data object, as models that take its tensors."""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
from typing import Any

import torch

from gnnscript import _pyg
from gnnscript._errors import UnsupportedError
from gnnscript.analyze.annotations import annotation_type
from gnnscript.analyze.sources import FunctionSource, function_source
from gnnscript.analyze.types import TENSOR, UNKNOWN, Type, of_value, optional, strip_optional
from gnnscript.specialize.loader import load

__all__ = ["tensor_inputs"]

_count = itertools.count()

_TEXT = """
import torch
from typing import Dict, List, Optional, Tuple
from torch import Tensor


class TensorInputs(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, {parameters}):
        return self.model({arguments})
"""


def tensor_inputs(model: torch.nn.Module, data: object) -> torch.nn.Module:
    """Derives a model that takes tensors from one that takes an object with fields.

    TorchScript knows no ``Data``. The derived model takes each field that ``forward`` reads as an
    argument of its own, in the order in which it is read first, and scripts like any other. The
    model may assign and add fields, and pass the object on to modules that return it. A field that
    is ``None`` in the example is ``None`` always.

    Further arguments of ``forward`` follow, those that may be left out if they are tensors; other
    ones keep their default.

    Args:
        model: A model whose ``forward`` takes an object, such as PyG's ``Data``, before all else.
        data: An example of it; its fields say the types.

    Returns:
        A module that holds ``model`` (its parameters are the same) and takes the fields.

    Raises:
        UnsupportedError: ``forward`` takes no object, or reads a field that TorchScript cannot
            hold.

    Example:
        >>> derived = gnnscript.tensor_inputs(model, data)
        >>> torch.jit.script(derived)(data.x, data.edge_index)
    """
    source = function_source(inspect.unwrap(type(model).forward))
    parameters = list(inspect.signature(source.function).parameters.values())[1:]
    first = parameters[0] if parameters else None
    if first is None or _declared(first, source, type(model), UNKNOWN).known:
        raise UnsupportedError(
            f"'forward' of '{type(model).__name__}' takes no object with fields",
            "script the model as it is",
            source.location(),
        )
    holder = first.name
    fields: dict[str, str] = {}
    absent: list[str] = []
    for name, node in _read(model, source.node, holder, data).items():
        value: Any = getattr(data, name)
        if value is None:
            absent.append(name)
            continue
        t = of_value(value)
        if callable(value) or not t.known:
            raise UnsupportedError(
                f"'{holder}.{name}' is no tensor or number of the example given",
                "read tensors and numbers of the object only, and give an example that has them",
                source.location(node),
            )
        fields[name] = str(t)
    made = ", ".join([f"{n}={n}" for n in fields] + [f"{n}=None" for n in absent])
    others = _others(parameters[1:], source, type(model))
    text = _TEXT.format(
        parameters=", ".join([*(f"{name}: {t}" for name, t in fields.items()), *others.values()]),
        arguments=", ".join([f"Object({made})", *(f"{name}={name}" for name in others)]),
    )
    captured = {"Object": _pyg.object_class(type(data))}
    module = load(f"gnnscript_inputs.{type(model).__name__}_{next(_count)}", text, captured)
    derived: torch.nn.Module = module.TensorInputs(model)
    return derived.train(model.training)


def _declared(
    parameter: inspect.Parameter, source: FunctionSource, cls: type, otherwise: Type
) -> Type:
    bare = parameter.annotation is parameter.empty
    return otherwise if bare else annotation_type(parameter.annotation, source, cls)


def _others(
    parameters: list[inspect.Parameter], source: FunctionSource, cls: type
) -> dict[str, str]:
    """The further arguments that the derived model takes: those required, and optional tensors."""
    required: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        t = _declared(parameter, source, cls, TENSOR)
        if parameter.default is parameter.empty:
            required[parameter.name] = f"{parameter.name}: {t if t.known else TENSOR}"
        elif parameter.default is None and strip_optional(t) == TENSOR:
            left_out[parameter.name] = f"{parameter.name}: {optional(TENSOR)} = None"
    return required | left_out


def _read(
    model: torch.nn.Module, function: ast.AST, holder: str, data: object
) -> dict[str, ast.AST]:
    """The fields that a function reads, in order; all tensors where it passes the object on."""
    found: dict[str, ast.AST] = {}
    attributes = [n for n in ast.walk(function) if isinstance(n, ast.Attribute)]
    bases = {id(n.value) for n in attributes}
    for node in sorted(attributes, key=lambda n: (n.lineno, n.col_offset)):
        of_holder = isinstance(node.value, ast.Name) and node.value.id == holder
        if of_holder and inspect.ismethod(getattr(data, node.attr, None)):
            bases.discard(id(node.value))  # it may read any field
        elif of_holder and hasattr(data, node.attr):
            found.setdefault(node.attr, node)
    passed = (n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == holder)
    whole = next((n for n in passed if id(n) not in bases), None)
    if whole is not None:
        entries = getattr(data, "to_dict", lambda: vars(data))()
        for name, value in entries.items():
            if isinstance(value, torch.Tensor):
                found.setdefault(name, whole)
        for name in sorted(_read_elsewhere(model)):
            if type(getattr(data, name, None)) in (bool, int, float):
                found.setdefault(name, whole)
    return found


def _read_elsewhere(model: torch.nn.Module) -> set[str]:
    """The attributes that any method of a model reads of its arguments."""
    classes = {parent for module in model.modules() for parent in type(module).__mro__}
    found: set[str] = set()
    for cls in classes:
        if cls.__module__.split(".")[0] in ("torch", "torch_geometric", "builtins"):
            continue
        for function in vars(cls).values():
            if not inspect.isfunction(function):
                continue
            with contextlib.suppress(UnsupportedError):
                node = function_source(function).node
                names = {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)} - {"self"}
                found |= {
                    n.attr
                    for n in ast.walk(node)
                    if isinstance(n, ast.Attribute)
                    and isinstance(n.value, ast.Name)
                    and n.value.id in names
                }
    return found
