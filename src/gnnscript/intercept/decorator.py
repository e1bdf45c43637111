"""``@gnnscript.scriptable``: one class, without the global hook."""

from __future__ import annotations

import inspect
from typing import TypeVar

import torch

from gnnscript import _pyg
from gnnscript.intercept.hook import mark

__all__ = ["scriptable"]

C = TypeVar("C", bound=type[torch.nn.Module])


def scriptable(cls: C) -> C:
    """Makes one ``MessagePassing`` class, and the classes derived from it, scriptable.

    Use it as a decorator, or call it on a class that exists: ``scriptable(GCNConv)``.

    Args:
        cls: The class.

    Returns:
        The class itself.

    Raises:
        TypeError: It is not a ``MessagePassing`` class.
        UnsupportedError: Something in its source cannot be specialised.
    """
    given: object = cls
    if not (inspect.isclass(given) and issubclass(given, _pyg.message_passing())):
        raise TypeError(
            f"'scriptable' expects a class derived from torch_geometric.nn.MessagePassing, got "
            f"{cls!r}; decorate the conv class, not an instance or the model that holds it"
        )
    from gnnscript.analyze import analyze
    from gnnscript.analyze.annotations import spelled_for_pyg

    for hook in analyze(cls).hooks.values():
        annotations = hook.source.function.__annotations__
        for name, annotation in annotations.items():
            annotations[name] = spelled_for_pyg(annotation)
    mark(cls)
    return cls
