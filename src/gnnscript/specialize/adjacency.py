"""Message passing along a sparse matrix that the code makes: taken apart into its entries."""

from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.spec import Hook, analyze
from gnnscript.analyze.types import (
    NONE,
    SPARSE,
    TENSOR,
    UNKNOWN,
    is_optional,
    is_sparse,
    optional,
    strip_optional,
)
from gnnscript.specialize import sparse
from gnnscript.specialize.folding.base import Arguments
from gnnscript.specialize.helpers import torch_name
from gnnscript.specialize.values import Const, Dyn, ModuleRef, Value, literal, static_type
from gnnscript.specialize.watching import refuse_hooks

if TYPE_CHECKING:
    from gnnscript.specialize.folding.base import Folded
    from gnnscript.specialize.folding.statements import Frame

__all__ = ["call_fused", "is_matrix", "take_apart"]

# What stands for the matrix's values, in PyG's order: the first that a hook asks for.
_VALUES = ("edge_weight", "edge_attr", "edge_type")


def is_matrix(value: Value) -> bool:
    """Whether a value is a sparse matrix that the code has made."""
    t = static_type(value)
    return is_sparse(t) or (isinstance(t.cls, type) and issubclass(t.cls, sparse.Entries))


def take_apart(
    frame: Frame, ref: ModuleRef, name: str, adj: Folded, kwargs: dict[str, Folded]
) -> tuple[Folded, Folded]:
    """The edge index and size of a sparse matrix `adj_t`, of shape [targets, sources].

    Args:
        frame: Where ``propagate`` or ``edge_updater`` is called.
        ref: The conv.
        name: The method.
        adj: The matrix.
        kwargs: What the method is given; the values of the matrix are added under the name by
            which a hook asks for them.
    """
    _refuse_reversed(ref)
    hooks = analyze(type(ref.module)).hooks
    wanted = ["message", "aggregate", "update"] if name == "propagate" else ["edge_update"]
    asked = {p.name for hook in wanted for p in hooks[hook].parameters}
    if asked & {"edge_index", "adj_t"}:
        raise UnsupportedError(
            "the hooks of a conv ask for 'edge_index' or 'adj_t', and it is given a sparse matrix",
            "let them ask for 'edge_index_i' and 'edge_index_j'",
        )
    matrix = frame.hold("adj_t", frame.needed(*adj))
    assert matrix is not None
    row, col, value = _entries(frame, (adj[0], matrix))
    pair = ast.List([frame.needed(*col), frame.needed(*row)], ast.Load())
    edge_index = frame.hold("edge_index", ast.Call(torch_name("torch.stack"), [pair], []))
    for key in _VALUES:
        if key in asked:
            kwargs[key] = _value(frame, key, kwargs.get(key), value)
            break
    sides = [
        frame.call_function(sparse.size, Arguments([(adj[0], matrix), dim], {}), None)
        for dim in ((Const(1), ast.Constant(1)), (Const(0), ast.Constant(0)))
    ]
    size = frame.sequence("tuple", [v for v, _ in sides], [n for _, n in sides])
    return (Dyn(TENSOR), edge_index), size


def call_fused(
    frame: Frame, ref: ModuleRef, adj: Folded, kwargs: dict[str, Folded], name: str
) -> Folded | None:
    """Calls ``message_and_aggregate`` and ``update`` where PyG does, for a conv that fuses."""
    if name != "propagate" or not getattr(ref.module, "fuse", False):
        return None
    _refuse_reversed(ref)
    refuse_hooks(ref.module)
    hooks = analyze(type(ref.module)).hooks
    out = _call(frame, ref, hooks["message_and_aggregate"], adj, kwargs)
    held = frame.hold("out", frame.needed(*out))
    return _call(frame, ref, hooks["update"], (out[0], held), kwargs)


def _entries(frame: Frame, adj: Folded) -> list[Folded]:
    """Row, column and value of each entry of a sparse tensor."""
    if static_type(adj[0]) == SPARSE:
        raise UnsupportedError(
            "a conv is given a sparse tensor whose layout is not known when the model is scripted",
            "convert it where it is made: 'to_sparse_coo()' or 'to_sparse_csr()'",
        )
    found, node = frame.call_function(sparse.entries, Arguments([adj], {}), None)
    node = frame.hold("entries", frame.needed(found, node))
    assert node is not None
    nodes = frame.element_nodes(node, 3).elts
    return list(zip(frame.known_items(found), nodes, strict=True))


def _value(frame: Frame, key: str, given: Folded | None, value: Folded) -> Folded:
    """The values of the matrix, where the caller gives none."""
    kept = frame.needed(*value)
    if key == "edge_attr" and static_type(value[0]) == TENSOR:
        flat = ast.Compare(ast.Call(_method(kept, "dim"), [], []), [ast.Eq()], [ast.Constant(1)])
        value = (Dyn(optional(TENSOR)), ast.IfExp(flat, ast.Constant(None), kept))
    if given is None or static_type(given[0]) == NONE:
        return value
    if not is_optional(static_type(given[0])):
        return given
    node = frame.needed(*given)
    missing = ast.Compare(node, [ast.Is()], [ast.Constant(None)])
    t = static_type(value[0])
    t = t if t != TENSOR else strip_optional(static_type(given[0]))
    return Dyn(t), ast.IfExp(missing, frame.needed(*value), node)


def _call(
    frame: Frame, ref: ModuleRef, hook: Hook, first: Folded, given: dict[str, Folded]
) -> Folded:
    kwargs: dict[str, Folded] = {}
    for parameter in hook.parameters:
        if parameter.name in given:
            value, node = given[parameter.name]
            if static_type(value) == UNKNOWN and parameter.type.known:
                value = Dyn(parameter.type)
            kwargs[parameter.name] = (value, node)
        elif parameter.default is not inspect.Parameter.empty:
            default = frame.wrap(parameter.default)
            kwargs[parameter.name] = (default, literal(default))
        else:
            raise UnsupportedError(
                f"'{parameter.name}' is not passed to 'propagate', but '{hook.name}' asks for it",
                f"pass '{parameter.name}=...' to 'propagate', or give it a default",
                hook.source.location(),
            )
    static = inspect.getattr_static(type(ref.module), hook.name)
    method = frame.bind_method(ref, static, hook.name)
    return frame.call(method, Arguments([first], kwargs), None)


def _refuse_reversed(ref: ModuleRef) -> None:
    if ref.module.flow == "target_to_source":
        raise UnsupportedError(
            "a conv with flow='target_to_source' is given a sparse matrix, which PyG refuses",
            "give it the transposed matrix, and leave 'flow' as it is",
        )


def _method(node: ast.expr, name: str) -> ast.expr:
    return ast.Attribute(node, name, ast.Load())
