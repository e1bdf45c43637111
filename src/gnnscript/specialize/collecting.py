"""The steps of PyG's generic ``propagate``, for classes that write one of their own with them.

Such a class checks the input, collects what the hooks ask for, and calls them itself::

    size = self._check_input(edge_index, size)
    collected = self._collect(self._user_args, edge_index, size, kwargs)
    out = self.message(**self.inspector.collect_param_data("message", collected))
"""

from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING, Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.spec import analyze
from gnnscript.analyze.types import TENSOR
from gnnscript.specialize.folding.base import Arguments
from gnnscript.specialize.propagate import Handler, Writer
from gnnscript.specialize.values import Const, Mapping, ModuleRef, constant_items, static_type

if TYPE_CHECKING:
    from gnnscript.specialize.folding.base import Folded
    from gnnscript.specialize.folding.statements import Frame

__all__ = ["handlers"]


def handlers(base: Any) -> dict[Any, Handler]:
    """The methods of PyG's ``MessagePassing`` that are written out here."""
    found: dict[Any, Handler] = {}
    for name, handler in (("_check_input", _check_input), ("_collect", _collect)):
        if hasattr(base, name):
            found[inspect.unwrap(getattr(base, name))] = handler
    return found


def _check_input(frame: Frame, ref: ModuleRef, given: Arguments) -> Folded:  # noqa: ARG001
    """The sizes that are given, as a list: the input is checked where it is collected."""
    bound = _bound(("edge_index", "size"), given)
    value, node = bound.get("size", (Const(None), None))
    if isinstance(value, Const) and value.value is None:
        return Const([None, None]), None
    items = constant_items(value)
    if items is None:
        return value, node
    nodes = frame.element_nodes(frame.needed(value, node), len(items)).elts
    return frame.sequence("list", items, list(nodes))


def _collect(frame: Frame, ref: ModuleRef, given: Arguments) -> Folded:
    """What the hooks may ask for, by name."""
    bound = _bound(("args", "edge_index", "size", "kwargs"), given)
    kwargs, display = bound["kwargs"]
    if isinstance(kwargs, Const) and kwargs.value == {}:
        kwargs, display = frame.mapping({}, [])
    edge_index = bound["edge_index"]
    if not isinstance(kwargs, Mapping) or static_type(edge_index[0]) != TENSOR:
        raise UnsupportedError(
            "'_collect' is given other than an edge index and arguments by their names",
            "call it as PyG's 'propagate' does",
        )
    names, spec = bound["args"][0], analyze(type(ref.module))
    edges = isinstance(names, Const) and names.value == ref.module._edge_user_args
    hooks = ["edge_update"] if edges else ["message", "aggregate", "update"]
    writer = Writer(frame, ref, [spec.hooks[hook] for hook in hooks], [], by_flow=True)
    entries = zip(kwargs.items.values(), frame.entries(kwargs, display), strict=True)
    writer.given = dict(zip(kwargs.items, entries, strict=True))
    held = frame.hold("edge_index", frame.needed(*edge_index), set())
    writer.edge_index = held if held is not None else ast.Name("edge_index", ast.Load())
    writer.prepare(*bound["size"])
    collected = {**writer.given, **writer.values}
    return frame.mapping(
        {name: value for name, (value, _) in collected.items()},
        [node for _, node in collected.values()],
    )


def _bound(names: tuple[str, ...], given: Arguments) -> dict[str, Folded]:
    return dict(zip(names, given.args, strict=False)) | given.kwargs
