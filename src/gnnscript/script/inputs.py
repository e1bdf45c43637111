"""Models that take a data object, as models that take its tensors."""

from __future__ import annotations

import ast
import inspect
import itertools
from typing import Any, NamedTuple

import torch

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.sources import function_source
from gnnscript.analyze.types import of_value
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
        return self.model(Fields({names}))
"""


def tensor_inputs(model: torch.nn.Module, data: object) -> torch.nn.Module:
    """Derives a model that takes tensors from one that takes an object with fields.

    TorchScript knows no ``Data``. The derived model takes each field that ``forward`` reads as an
    argument of its own, in the order in which it is read first, and scripts like any other.

    Args:
        model: A model whose ``forward`` takes one object, such as PyG's ``Data``.
        data: An example of it; its fields say the types.

    Returns:
        A module that holds ``model`` (its parameters are the same) and takes the fields.

    Raises:
        UnsupportedError: ``forward`` takes other arguments, or reads a field that TorchScript
            cannot hold.

    Example:
        >>> derived = gnnscript.tensor_inputs(model, data)
        >>> torch.jit.script(derived)(data.x, data.edge_index)
    """
    source = function_source(inspect.unwrap(type(model).forward))
    parameters = list(inspect.signature(source.function).parameters.values())[1:]
    required = [p for p in parameters if p.default is p.empty]
    if len(required) != 1:
        raise UnsupportedError(
            f"'forward' of '{type(model).__name__}' takes {len(required)} arguments, not one",
            "script the model as it is",
            source.location(),
        )
    holder = required[0].name
    fields: dict[str, str] = {}
    for name, node in _read(source.node, holder, data).items():
        value: Any = getattr(data, name)
        t = of_value(value)
        if callable(value) or not t.known or t.name == "None":
            raise UnsupportedError(
                f"'{holder}.{name}' is no tensor or number of the example given",
                "read tensors and numbers of the object only, and give an example that has them",
                source.location(node),
            )
        fields[name] = str(t)
    types = [(name, _annotation(getattr(data, name))) for name in fields]
    record: Any = NamedTuple("Fields", types)  # type: ignore[misc]
    text = _TEXT.format(
        parameters=", ".join(f"{name}: {t}" for name, t in fields.items()),
        names=", ".join(f"{name}={name}" for name in fields),
    )
    module = load(
        f"gnnscript_inputs.{type(model).__name__}_{next(_count)}", text, {"Fields": record}
    )
    record.__module__ = module.__name__  # TorchScript tells classes apart by their qualified names
    derived: torch.nn.Module = module.TensorInputs(model)
    return derived.train(model.training)


def _read(function: ast.AST, holder: str, data: object) -> dict[str, ast.AST]:
    """The fields that a function reads, in order; all tensors where it passes the object on."""
    found: dict[str, ast.AST] = {}
    attributes = [n for n in ast.walk(function) if isinstance(n, ast.Attribute)]
    bases = {id(n.value) for n in attributes}
    for node in sorted(attributes, key=lambda n: (n.lineno, n.col_offset)):
        of_holder = isinstance(node.value, ast.Name) and node.value.id == holder
        if of_holder and hasattr(data, node.attr):
            found.setdefault(node.attr, node)
    passed = (n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == holder)
    whole = next((n for n in passed if id(n) not in bases), None)
    if whole is not None:
        entries = getattr(data, "to_dict", lambda: vars(data))()
        for name, value in entries.items():
            if isinstance(value, torch.Tensor):
                found.setdefault(name, whole)
    return found


def _annotation(value: Any) -> Any:
    return torch.Tensor if isinstance(value, torch.Tensor) else type(value)
