"""Dictionaries of heterogeneous graphs, in the form that scripted models take and return.

PyG names an edge type by a tuple, ``("author", "writes", "paper")``. TorchScript's dictionaries
have no tuples as keys, so a scripted model takes and returns ``Dict[str, Tensor]`` with the edge
type as PyG itself writes it in one string, ``"author__writes__paper"``. Node types are strings in
both::

    scripted = torch.jit.script(model)
    out = scripted(x_dict, gnnscript.hetero.to_script(edge_index_dict))

Which keys a scripted model reads is fixed when it is scripted: the node and edge types that the
model was made for or, if given, those in ``example_inputs`` of ``torch.jit.script``. A call must
hold all of them (edge types without edges as a tensor of shape ``[2, 0]``); others are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

__all__ = ["from_script", "to_script"]

EdgeType = tuple[str, str, str]
_Value = TypeVar("_Value")


def to_script(entries: Mapping[str | EdgeType, _Value]) -> dict[str, _Value]:
    """Spells the keys of a dictionary as a scripted model takes them.

    Args:
        entries: A dictionary over node types or edge types.

    Returns:
        The same entries; an edge type ``(src, rel, dst)`` is ``"src__rel__dst"``.

    Raises:
        ValueError: Two keys are spelled alike.
    """
    spelled = {"__".join(key) if isinstance(key, tuple) else key: v for key, v in entries.items()}
    if len(spelled) < len(entries):
        raise ValueError(
            f"expected keys that stay apart once joined by '__', got {list(entries)}: rename the "
            "types that contain '__'"
        )
    return spelled


def from_script(
    entries: Mapping[str, _Value], edge_types: Iterable[EdgeType] | None = None
) -> dict[str | EdgeType, _Value]:
    """Spells the keys of a dictionary as PyG does.

    Args:
        entries: A dictionary from a scripted model.
        edge_types: The edge types there are, ``metadata[1]``. Needed only where the name of a
            type contains ``"__"``; by default each key that has three parts is an edge type.

    Returns:
        The same entries; ``"src__rel__dst"`` is the edge type ``(src, rel, dst)``.
    """
    known = None if edge_types is None else {"__".join(key): key for key in edge_types}
    return {
        _edge_type(key) if known is None else known.get(key, key): v for key, v in entries.items()
    }


def _edge_type(key: str) -> str | EdgeType:
    parts = key.split("__")
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 and all(parts) else key


def spelled(value: Any) -> Any:
    """A value with all dictionaries in it spelled as scripted models take and return them."""
    if isinstance(value, Mapping):
        return to_script({key: spelled(item) for key, item in value.items()})
    if type(value) in (tuple, list):
        return type(value)(spelled(item) for item in value)
    return value


def edge_types(value: Any) -> set[EdgeType]:
    """The edge types that are keys of dictionaries in a value."""
    if isinstance(value, Mapping):
        inner = set().union(*map(edge_types, value.values()))
        return inner | {key for key in value if isinstance(key, tuple)}
    if type(value) in (tuple, list):
        return set().union(*map(edge_types, value))
    return set()


def with_edge_types(value: Any, known: Mapping[str, EdgeType]) -> Any:
    """A value with the edge types in it as PyG has them, of those that are known."""
    if isinstance(value, dict):
        return {known.get(key, key): with_edge_types(v, known) for key, v in value.items()}
    if type(value) in (tuple, list):
        return type(value)([with_edge_types(item, known) for item in value])
    return value
