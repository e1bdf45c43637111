"""``torch.export.export`` of a model with PyG modules."""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import Any

import torch

from gnnscript import _config
from gnnscript._errors import UnsupportedError
from gnnscript.script import (
    explained,
    lower_for,
    name_lines,
    needs_lowering,
    with_least,
    withheld,
)

__all__ = ["REMEDY", "export"]

REMEDY = (
    "compute on all values and choose with torch.where instead of branching on them; "
    "torch.jit.script keeps branches"
)


def export(wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
    """Stands in for torch's ``_export``: exports the specialised model.

    What torch exports by itself it still exports: where a model cannot be specialised, it is
    exported as it is, and an error of gnnscript's is raised only if that fails as well.

    Raises:
        UnsupportedError: The model cannot be exported; says where and why.
    """

    def names(
        mod: Any, args: Any = (), kwargs: Any = None, dynamic_shapes: Any = None, **options: Any
    ) -> tuple[Any, Any, Any, dict[str, Any]]:
        return mod, args, kwargs, {"dynamic_shapes": dynamic_shapes, **options}

    mod, call_args, call_kwargs, options = names(*args, **kwargs)
    if (
        not isinstance(mod, torch.nn.Module)
        or isinstance(mod, torch.jit.ScriptModule)
        or not isinstance(call_args, tuple)
        or not needs_lowering(mod, auto=True)
    ):
        return wrapped(*args, **kwargs)

    def export_specialized(least: dict[tuple[str, int], int]) -> Any:
        call = lower_for(mod, call_args, call_kwargs, exportable=True, least=least)
        given = {**options, "dynamic_shapes": _spread(options["dynamic_shapes"], mod, call.module)}
        if call.differentiates:  # which only a trace below autograd can follow
            given["pre_dispatch"] = False
            _detach(call.module)
        return name_lines(wrapped(call.module, call_args, call_kwargs, **given), least)

    # What ONNX has no operators for.
    portable = torch.onnx.is_in_onnx_export()
    try:
        with _config.kernels("portable") if portable else contextlib.nullcontext():
            return with_least(export_specialized)
    except Exception as error:
        try:
            with withheld():
                return wrapped(*args, **kwargs)
        except Exception as plain:
            reason = error
            if not isinstance(error, UnsupportedError):
                reason = explained(error, mod, "torch.export", REMEDY)
            raise reason from plain


def _detach(module: torch.nn.Module) -> None:
    """Has a model return no gradients: below autograd, a trace would become one of training."""
    inner, enabled = module.forward, torch.is_grad_enabled()

    @functools.wraps(inner)
    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(enabled):  # torch.export disables it
            out = inner(*args, **kwargs)
        return torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, out)

    module.forward = forward


def _spread(shapes: Any, eager: torch.nn.Module, specialized: torch.nn.Module) -> Any:
    """Dynamic shapes by name, where ``*args`` of the eager model are named in the specialised."""
    if not isinstance(shapes, dict):
        return shapes
    named: list[Any] = []
    for parameter in inspect.signature(eager.forward).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL and parameter.name in shapes:
            named += shapes[parameter.name]
        elif parameter.name in shapes:
            return shapes
    names = list(inspect.signature(specialized.forward).parameters)
    return dict(zip(names, named, strict=False)) if named else shapes
