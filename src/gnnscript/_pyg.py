"""What gnnscript knows of PyTorch Geometric; the only module that imports it.

Every import is inside a function: gnnscript itself loads without PyG, and a process
that never uses it never pays for it.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import torch

__all__ = [
    "MESSAGE_PASSING_MODULE",
    "TEMPLATE_USERS",
    "inspector",
    "is_library_flag",
    "is_message_passing",
    "message_passing",
    "op_substitutes",
    "predicates",
    "template",
]

MESSAGE_PASSING_MODULE = "torch_geometric.nn.conv.message_passing"
# The modules of PyG that hold its function ``module_from_template`` by name.
TEMPLATE_USERS = (
    "torch_geometric.template",
    MESSAGE_PASSING_MODULE,
    "torch_geometric.nn.sequential",
)


def message_passing() -> Any:
    """PyG's ``MessagePassing`` class."""
    from torch_geometric.nn.conv import MessagePassing

    return MessagePassing


def template() -> Any:
    """The module with which PyG renders the code of its classes."""
    from torch_geometric import template

    return template


def inspector() -> Any:
    """The module with which PyG reads signatures."""
    from torch_geometric import inspector

    return inspector


def is_message_passing(module: object) -> bool:
    """Whether ``module`` is an instance of PyG's ``MessagePassing``; imports nothing."""
    loaded = sys.modules.get(MESSAGE_PASSING_MODULE)
    return loaded is not None and isinstance(module, loaded.MessagePassing)


@functools.cache
def op_substitutes() -> dict[Any, str]:
    """PyG's reductions over edges, each with the op of ours that has its signature."""
    from torch_geometric import utils

    return {utils.scatter: "scatter", utils.segment: "segment", utils.softmax: "softmax"}


@functools.cache
def predicates() -> dict[Any, bool]:
    """Functions that ask in which world the code runs, and the answer in a scripted model."""
    import torch_geometric

    return {
        torch.jit.is_scripting: True,  # type: ignore[attr-defined]
        torch.jit.is_tracing: False,  # type: ignore[attr-defined]
        torch.compiler.is_compiling: False,
        torch.onnx.is_in_onnx_export: False,
        torch_geometric.is_compiling: False,
        torch_geometric.is_in_onnx_export: False,
    }


def is_library_flag(owner: object, name: str) -> bool:
    """Whether ``owner.name`` tells that an optional PyG extension library is installed.

    Specialised code must load where none of them is, so these flags read as ``False`` in it.
    """
    return (
        owner is sys.modules.get("torch_geometric.typing")
        and name.startswith("WITH_")
        and not name.startswith(("WITH_PT", "WITH_WINDOWS"))
    )
