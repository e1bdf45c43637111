"""``symbolic_trace``: from a model to a graph module, by way of the specialised modules."""

from __future__ import annotations

import contextlib
import inspect
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from gnnscript._errors import UnsupportedError
from gnnscript.fx.tracer import KeptState, Tracer
from gnnscript.hetero import spelled
from gnnscript.script import Lowered, LoweredCall, explained, lower_for

__all__ = ["symbolic_trace"]

_REMEDY = "leave this to a module that is not specialised, or script the model"


def symbolic_trace(
    model: nn.Module, example_inputs: Sequence[Any] | Mapping[str, Any] | None = None
) -> torch.fx.GraphModule:
    """Traces a model to a graph in which no ``MessagePassing`` module is left.

    Nodes of the graph are gnnscript's ops (``gather``, ``scatter``, ``softmax``, ...), the torch
    functions that messages and updates are made of, and the modules that are not specialised, such
    as ``torch.nn.Linear``. The graph runs on graphs of other sizes, is compiled by
    ``torch.jit.script`` and can be saved. It shares its parameters with the model.

    A graph keeps nothing from call to call but buffers. What a first call keeps for those after it
    (``cached=True``) is what that call with the example leaves.

    A graph has no branches. Where the specialised code still has some (``if x.dim() == 1``), the
    examples decide, and a ``torch._assert`` in the graph makes sure that other inputs are decided
    alike. ``self.training`` is read when the graph runs, so ``train()`` and ``eval()`` work.

    Args:
        model: The model, with PyG modules or without; it does not have to be marked or installed
            for more than ``torch.jit.script`` needs.
        example_inputs: One call of the model, positional arguments as a sequence or keyword
            arguments as a mapping. Arguments that are ``None``, booleans or strings are fixed to
            their value. Without examples, every argument that has a default is fixed to it. Fixed
            arguments are not arguments of the graph.

    Returns:
        The graph module; its ``forward`` takes the remaining arguments under their names, and
        dictionaries of heterogeneous graphs as scripted models do (``gnnscript.hetero``).

    Raises:
        UnsupportedError: The model branches on values of tensors, writes attributes in each call,
            or needs example inputs to decide; says where.

    Source: ``torch.fx.symbolic_trace``.
    """
    if isinstance(example_inputs, Mapping):
        call = lower_for(model, kwargs=example_inputs, everything=True, branches=False)
    else:
        call = lower_for(model, tuple(example_inputs or ()), everything=True, branches=False)
    with _unchanged(model), torch.random.fork_rng(devices=[]):
        try:
            graph = _graph(call)
        except UnsupportedError:
            raise
        except Exception as error:
            raise explained(error, model, "torch.fx", _REMEDY) from error
        _annotate(graph, call.module)
        graph.lint()
    name = type(model).__name__
    module = torch.fx.GraphModule(call.module, graph, name if name.isidentifier() else "Traced")
    module.train(model.training)
    return module


def _graph(call: LoweredCall) -> torch.fx.Graph:
    """The graph of a call: of a first one or, where that leaves something behind, of a later one.

    A cache is filled by the first call, and only read from then on.
    """
    examples = _copied(spelled(call.values))
    try:
        return Tracer(examples, call.fixed).trace(call.module)
    except KeptState:
        if not examples:
            raise
    with torch.no_grad():
        call.module(**_copied(examples), **call.fixed)
    return Tracer(_copied(examples), call.fixed).trace(call.module)


def _copied(value: Any) -> Any:
    """The value with its tensors copied: what the trace computes must not change the examples."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_copied, value))
    if isinstance(value, (tuple, list)):
        return type(value)(map(_copied, value))
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return value


@contextlib.contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Puts back the buffers that running the example changes, batch statistics for one."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def _annotate(graph: torch.fx.Graph, root: nn.Module) -> None:
    """Gives arguments their types, which TorchScript asks for, and takes defaults away.

    Arguments that may be left out are fixed, and those that remain have types without ``None``.
    """
    if not isinstance(root, Lowered):
        return
    function = type(root).forward
    try:
        hints = typing.get_type_hints(inspect.unwrap(function))
    except (NameError, TypeError) as error:
        raise UnsupportedError(
            f"the types of the arguments of '{type(root).__name__}' cannot be read: {error}",
            "annotate the arguments of the model's forward with types of its module",
        ) from error
    for node in graph.find_nodes(op="placeholder"):
        node.args = ()
        node.type = hints.get(str(node.target))
