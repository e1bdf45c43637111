"""Edges that eager calls are given in other forms than pairs of nodes, with what they hold sorted.

PyG's ``EdgeIndex``, sparse tensors of torch, and ``SparseTensor`` of torch_sparse know where the
edges of each node begin. That is handed over to the native ops, which sort no edges then.
"""

from __future__ import annotations

import ast
import contextlib
import types
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gnnscript import _pyg
from gnnscript.analyze.spec import ConvSpec, Hook, analyze
from gnnscript.ops.plans import keep_csr

__all__ = ["taken_apart"]

# What stands for the values of a matrix, in PyG's order: the first that a hook asks for.
_VALUES = ("edge_weight", "edge_attr", "edge_type")


@dataclass(frozen=True)
class _Edges:
    """The edges of a matrix.

    Args:
        pairs: Source and target of each, `[2, E]`.
        parts: The tensors they were made from, each with its version.
    """

    pairs: Tensor
    parts: tuple[Any, ...]


_served: weakref.WeakKeyDictionary[type, dict[str, tuple[ConvSpec, bool]]]
_served = weakref.WeakKeyDictionary()
_kept: dict[int, tuple[weakref.ref[Any], _Edges]] = {}


def taken_apart(
    conv: Any, name: str, edges: Any, given: dict[str, Any]
) -> tuple[Tensor, dict[str, Any]] | None:
    """An edge index and the arguments that go with it, for edges in another form.

    Args:
        conv: The conv.
        name: ``propagate`` or ``edge_updater``.
        edges: What the user passed.
        given: The other arguments.

    Returns:
        None where they are in no form that is known, or PyG does not look at them edge by edge.
    """
    is_index = _pyg.is_edge_index(edges)
    if _fuses(conv, name, edges, is_index) or not _is_served(conv, name):
        return None
    if is_index:
        return _of_edge_index(conv, edges, given)
    if conv.flow != "source_to_target":
        return None
    if type(edges) is Tensor and edges.dim() == 2:
        if edges.layout is torch.sparse_csr:
            parts = (edges.crow_indices(), edges.col_indices())
        elif edges.layout is torch.sparse_coo and edges.is_coalesced():
            parts = tuple(edges.indices())
        else:
            return None
        values = edges.values
    elif _pyg.is_sparse_tensor(type(edges)):
        ptr, col, held = edges.csr()
        parts = (ptr, col)

        def values() -> Any:
            return held

    else:
        return None
    sizes = edges.size(1), edges.size(0)
    pairs = _pairs(edges, parts, sizes[1])
    return pairs, {**given, "size": sizes, **_values(conv, name, given, values)}


def _fuses(conv: Any, name: str, edges: Any, is_index: bool) -> bool:
    """Whether PyG calls ``message_and_aggregate``."""
    if name != "propagate" or not conv.fuse:
        return False
    return not is_index or (conv.SUPPORTS_FUSED_EDGE_INDEX and edges.is_sorted_by_col)


def _hooks(conv: Any, name: str) -> list[Hook]:
    """The hooks that a method runs edge by edge."""
    hooks = analyze(type(conv)).hooks
    wanted = ("message", "aggregate", "update") if name == "propagate" else ("edge_update",)
    return [hooks[hook] for hook in wanted]


def _is_served(conv: Any, name: str) -> bool:
    """Whether the hooks of a conv see no more of its edges than the nodes that they join."""
    spec = analyze(type(conv))
    known = _served.setdefault(type(conv), {}).get(name)
    if known is None or known[0] is not spec:
        known = (spec, all(map(_serves, _hooks(conv, name))))
        _served[type(conv)][name] = known
    return known[1]


def _serves(hook: Hook) -> bool:
    asked = {parameter.name for parameter in hook.parameters}
    if asked & {"adj_t", "edge_index"}:
        return False
    default = _pyg.message_passing().aggregate
    return "ptr" not in asked or hook.source.function is default or _passes_on(hook)


def _passes_on(hook: Hook) -> bool:
    """Whether a hook has no use for ``ptr`` but in PyG's reductions, which do without as well."""
    node = hook.source.node
    passed: set[int] = set()
    for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
        function = None
        if isinstance(call.func, ast.Name):
            with contextlib.suppress(KeyError):
                function = hook.source.resolve(call.func.id)
        if isinstance(function, types.FunctionType) and function in _pyg.op_substitutes():
            passed |= {id(value) for value in [*call.args, *(k.value for k in call.keywords)]}
    reads = [n for n in ast.walk(node) if isinstance(n, ast.Name) and n.id == "ptr"]
    return all(id(read) in passed for read in reads)


def _of_edge_index(
    conv: Any, edges: Any, given: dict[str, Any]
) -> tuple[Tensor, dict[str, Any]] | None:
    pairs = edges.as_tensor()
    sizes = edges.num_rows, edges.num_cols
    if (sizes[0] is None) != (sizes[1] is None):
        return None
    by_column = conv.flow == "source_to_target"
    if edges.is_sorted_by_col if by_column else edges.is_sorted_by_row:
        (ptr, _), perm = edges.get_csc() if by_column else edges.get_csr()
        keep_csr(pairs[1 if by_column else 0], ptr, perm)
    elif edges._T_indptr is not None and edges._T_perm is not None:
        keep_csr(pairs[1 if by_column else 0], edges._T_indptr, edges._T_perm)
    return pairs, {**given, "size": None if sizes[0] is None else sizes}


def _pairs(edges: Any, parts: tuple[Tensor, ...], nodes: int) -> Tensor:
    """The edge index of a matrix, made once while it lives and is not written to."""
    versions = tuple((part.data_ptr(), part._version, part.numel()) for part in parts)
    found = _kept.get(id(edges))
    if found is not None and found[0]() is edges and found[1].parts == versions:
        return found[1].pairs
    first, source = parts
    if isinstance(edges, Tensor) and edges.layout is torch.sparse_coo:
        pairs = torch.stack([source, first])
    else:
        counts = first.diff()
        target = torch.arange(nodes, device=first.device).repeat_interleave(
            counts, output_size=source.numel()
        )
        pairs = torch.stack([source, target.to(source.dtype)])
        keep_csr(pairs[1], first, None)
    key = id(edges)
    _kept[key] = (weakref.ref(edges, lambda _: _kept.pop(key, None)), _Edges(pairs, versions))
    return pairs


def _values(conv: Any, name: str, given: dict[str, Any], values: Any) -> dict[str, Any]:
    """The values of a matrix, under the name by which a hook asks for them."""
    asked = {p.name for hook in _hooks(conv, name) for p in hook.parameters}
    key = next((key for key in _VALUES if key in asked), None)
    if key is None or given.get(key) is not None:
        return {}
    found = values()
    if key == "edge_attr" and found is not None and found.dim() == 1:
        found = None
    return {key: found}
