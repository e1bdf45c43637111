"""Runs ``propagate`` and ``edge_updater`` of eager models on the native ops."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnnscript import _config
from gnnscript._errors import GnnscriptError
from gnnscript.ops import library
from gnnscript.passes import optimize
from gnnscript.script.configuration import Read, configuration, read_again
from gnnscript.script.handed import taken_apart
from gnnscript.script.lowered import lowered_class
from gnnscript.script.policy import Policy
from gnnscript.specialize.single import specialize_method

__all__ = ["NOT_RUN", "run"]

NOT_RUN = object()
"""What :func:`run` returns where PyG's own code has to run."""

# Fewer values on edges take PyG less time, on CPU, than finding and calling the code that is faster
# at many; where gradients are wanted, more of them. Native ops asked for by name always run.
_FEWEST_VALUES = {False: 1 << 17, True: 1 << 18}
# How many times as long PyG takes for a value, about, where the code has one of these.
_DEARER = {"linear_part(": 4, "edge_products(": 4, "'max'": 4, "'min'": 4, "softmax(": 8}
_DEAREST = max(_DEARER.values())

_log = logging.getLogger("gnnscript")
_lock = threading.RLock()
# How many configurations of one class are specialised for calls of one form: a class whose
# attributes change from call to call is left to PyG.
_MOST_FORMS = 16
_HOOKS = tuple(
    f"_{name}_forward{when}_hooks"
    for name in ("propagate", "message", "aggregate", "edge_update", "message_and_aggregate")
    for when in ("", "_pre")
)

Run = Callable[..., Any]
_Found = tuple[Run, list[str], int] | None  # the code, its parameters and how dear it is to PyG
Reads = list[tuple[Read, Any]]  # with what each name meant
_runs: weakref.WeakKeyDictionary[type, dict[Any, dict[Any, list[tuple[Reads, _Found]]]]]
_runs = weakref.WeakKeyDictionary()


def run(conv: Any, name: str, edge_index: Any, given: dict[str, Any]) -> Any:
    """Runs one call of ``propagate`` or ``edge_updater``, if the passes have improved on it.

    Args:
        conv: The conv.
        name: ``propagate`` or ``edge_updater``.
        edge_index: What the user passed.
        given: The other arguments by keyword, ``size`` among them.

    Returns:
        What the method returns, or ``NOT_RUN``: for inputs that are not plain dense tensors, where
        something watches the call, or where nothing is gained.
    """
    if not _is_plain_call(conv):
        return NOT_RUN
    if type(edge_index) is not Tensor or edge_index.layout is not torch.strided:
        found_edges = taken_apart(conv, name, edge_index, given)
        if found_edges is None:
            return NOT_RUN
        edge_index, given = found_edges
    if not _is_pair(edge_index):
        return NOT_RUN
    fewest = _fewest_values(edge_index)
    values = _values(conv, edge_index, given) if fewest else 0
    if values * _DEAREST < fewest:
        return NOT_RUN
    form: list[Any] = [name]
    for key, value in given.items():
        kind = _kind(value)
        if kind is None:
            return NOT_RUN
        form.append((key, kind))
    found = _find(conv, name, tuple(form), given)
    if found is None:
        return NOT_RUN
    method, parameters, dear = found
    if values * dear < fewest:
        return NOT_RUN
    try:
        return method(conv, edge_index, *[given[p] for p in parameters[1:]])
    except (RuntimeError, IndexError, ValueError, AssertionError) as error:
        # What the user has to be told, PyG says in its own words.
        _log.debug("'%s.%s' runs as PyG has it: %s", type(conv).__name__, name, error)
        return NOT_RUN


def _find(conv: Any, name: str, form: tuple[Any, ...], given: dict[str, Any]) -> _Found:
    cls = type(conv)
    forms = _runs.get(cls)
    if forms is None:
        forms = _runs.setdefault(cls, {})
    known = forms.setdefault(form, {})
    key = configuration(conv)
    for reads, found in known.get(key, ()):
        if all(read_again(read) == meant for read, meant in reads):
            return found
    with _lock:
        if sum(map(len, known.values())) >= _MOST_FORMS:
            return None
        reads, found = _specialized(conv, name, given)
        known.setdefault(key, []).append((reads, found))
        return found


def _specialized(conv: Any, name: str, given: dict[str, Any]) -> tuple[Reads, _Found]:
    try:
        written = specialize_method(conv, name, given, Policy(conv), optimize)
    except (GnnscriptError, RecursionError) as error:
        _log.debug("'%s.%s' runs as PyG has it: %s", type(conv).__name__, name, error)
        return [], None
    if written is None:
        return [], None
    text, parameters, names = written
    reads = [(read, read_again(read)) for read in names]
    if "gnnscript.ops.fused" not in text.text:
        return reads, None
    method: Run = vars(lowered_class(type(conv), text))[name]
    dear = max((times for part, times in _DEARER.items() if part in text.text), default=1)
    return reads, (method, parameters, dear)


# What a call is told by #######################################################


def _fewest_values(edge_index: Tensor) -> int:
    """How many values on edges it takes for a call to be worth looking at."""
    if edge_index.device.type != "cpu" or _config.options().kernels is not None:
        return 0
    return _FEWEST_VALUES[torch.is_grad_enabled()]


def _values(conv: Any, edge_index: Tensor, given: dict[str, Any]) -> int:
    """How many values there are on all edges, if messages are as wide as what they are made of."""
    width, dim = 1, conv.node_dim
    for value in given.values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Tensor) and item.dim() > 0 and item.numel() > 0:
                rows = item.size(dim if -item.dim() <= dim < item.dim() else 0)
                width = max(width, item.numel() // rows)
    return edge_index.size(1) * width


def _is_pair(edge_index: Tensor) -> bool:
    """Whether edges are pairs of nodes, on a device that has kernels."""
    return (
        edge_index.dim() == 2
        and edge_index.size(0) == 2
        and edge_index.dtype in (torch.int64, torch.int32)
        and library.has_kernels(edge_index.device.type)
    )


def _is_plain_call(conv: Any) -> bool:
    """Whether nothing watches, records or transforms what happens."""
    held = conv.__dict__
    if any(held.get(hooks) for hooks in _HOOKS):
        return False
    module = torch.nn.modules.module
    return (
        library.implementation() == "native"
        and not held.get("_explain")
        and held.get("_decomposed_layers", 1) == 1
        and not module._global_forward_hooks
        and not module._global_forward_pre_hooks
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._len_torch_function_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch.autograd.forward_ad._current_level < 0
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    )


def _kind(value: Any) -> Any:
    """What the specialised code depends on of an argument, ``None`` if it is none it can take."""
    if isinstance(value, Tensor):
        plain = type(value) in (Tensor, torch.nn.Parameter) and value.layout is torch.strided
        return ("floating" if value.is_floating_point() else "other") if plain else None
    if value is None:
        return "none"
    if isinstance(value, tuple) and type(value) is tuple:
        kinds = tuple(_kind(item) for item in value)
        return None if None in kinds else kinds
    return type(value) if type(value) in (int, float, bool) else None
