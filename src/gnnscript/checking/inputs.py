"""Calls to check a module with: made up from its signature, or watched while its model runs."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from gnnscript import _pyg
from gnnscript._bare import Call, arguments

__all__ = ["guess", "positional", "watch"]


def positional(module: nn.Module, call: Call) -> tuple[Any, ...] | None:
    """The arguments of a call by position, if they can be given so."""
    args, kwargs = arguments(call)
    if not kwargs:
        return args
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    given = list(bound.arguments)
    bound.apply_defaults()
    if bound.kwargs:
        return None
    return bound.args[: list(bound.arguments).index(given[-1]) + 1]


def guess(module: nn.Module) -> tuple[list[Call], str]:
    """Two calls on random graphs of different size, for modules with the usual arguments.

    Returns:
        The calls, and why there are none.
    """
    calls: list[Call] = []
    # Sizes that no width is likely to have: torch.compile takes equal sizes for the same.
    for nodes, edges in ((7, 19), (13, 37)):
        call = {}
        for parameter in inspect.signature(module.forward).parameters.values():
            if parameter.default is not parameter.empty:
                continue
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.POSITIONAL_ONLY):
                continue
            value = _usual(module, parameter.name, nodes, edges)
            if value is None:
                return [], f"no example inputs, and none can be made up for '{parameter.name}'"
            call[parameter.name] = value
        calls.append(tuple(call.values()))
    try:
        with torch.no_grad():
            for one in calls:
                copy.deepcopy(module)(*one)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return [], f"no example inputs, and on those made up the module raises {reason}"
    return calls, ""


def _usual(module: nn.Module, name: str, nodes: int, edges: int) -> Any:
    random = torch.Generator().manual_seed(nodes)
    if name in ("edge_index", "hyperedge_index"):
        return torch.randint(nodes, (2, edges), generator=random)
    if name == "x":
        width = _width(module)
        if isinstance(width, (tuple, list)):
            return tuple(torch.randn(nodes, w, generator=random) for w in width)
        return None if width is None else torch.randn(nodes, width, generator=random)
    if name == "pos":
        return torch.randn(nodes, 3, generator=random)
    if name == "batch":
        return torch.zeros(nodes, dtype=torch.long)
    if name == "edge_weight":
        return torch.rand(edges, generator=random)
    if name == "edge_attr" and isinstance(getattr(module, "edge_dim", None), int):
        return torch.randn(edges, module.edge_dim, generator=random)  # type: ignore[call-overload]
    if name == "edge_type" and isinstance(getattr(module, "num_relations", None), int):
        return torch.randint(module.num_relations, (edges,), generator=random)  # type: ignore[call-overload]
    return None


def _width(module: nn.Module) -> Any:
    """How many features a node has, as the first module that says so says."""
    for one in module.modules():
        for name in ("in_channels", "in_features"):
            width = getattr(one, name, None)
            if isinstance(width, (tuple, list)) or (isinstance(width, int) and width > 0):
                return width
    return 8


def watch(model: nn.Module, calls: list[Call]) -> dict[str, tuple[nn.Module, list[Call]]]:
    """The convs of a model, each with the first of its calls for each call of the model."""
    convs = {
        path: module
        for path, module in model.named_modules()
        if path and _pyg.is_message_passing(module)
    }
    seen: dict[str, list[Call]] = {path: [] for path in convs}
    reached = 0

    def hook(path: str) -> Any:
        def note(module: nn.Module, args: Any, kwargs: Any) -> None:
            if len(seen[path]) < reached:
                bound = inspect.signature(module.forward).bind(*args, **kwargs)
                seen[path].append(_detached(dict(bound.arguments)))

        return note

    handles = [
        module.register_forward_pre_hook(hook(path), with_kwargs=True)
        for path, module in convs.items()
    ]
    try:
        with torch.no_grad():
            for number, call in enumerate(calls):
                reached = number + 1
                args, kwargs = arguments(call)
                model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return {path: (module, seen[path]) for path, module in convs.items()}


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_detached, value))
    if isinstance(value, (tuple, list)):
        return type(value)(map(_detached, value))
    if isinstance(value, dict):
        return {key: _detached(item) for key, item in value.items()}
    return value
