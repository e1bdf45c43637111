"""What gnnscript knows of PyTorch Geometric; the only module that imports it.

Every import is inside a function: gnnscript itself loads without PyG, and a process
that never uses it never pays for it.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from typing import Any

import torch

__all__ = [
    "CONV_PACKAGE",
    "MARK",
    "MESSAGE_PASSING_MODULE",
    "PYG_LIB_OPS",
    "TEMPLATE_USERS",
    "TORCH_SCATTER",
    "cluster_function",
    "declared_arguments",
    "implied",
    "inspector",
    "is_data_class",
    "is_edge_index",
    "is_invertible",
    "is_message_passing",
    "is_own",
    "is_sparse_tensor",
    "is_spmm",
    "library_flag",
    "message_passing",
    "module_class",
    "object_class",
    "op_substitutes",
    "predicate",
    "predicates",
    "replaced_op",
    "scatter_function",
    "sparse_function",
    "substitutes",
    "template",
    "utils",
    "version",
]

# The class attribute by which the interceptor marks what it handles.
MARK = "__gnnscript__"
CONV_PACKAGE = "torch_geometric.nn.conv"
MESSAGE_PASSING_MODULE = f"{CONV_PACKAGE}.message_passing"
# The modules of PyG that hold its function ``module_from_template`` by name.
TEMPLATE_USERS = (
    "torch_geometric.template",
    MESSAGE_PASSING_MODULE,
    "torch_geometric.nn.sequential",
)
# The ops of pyg_lib that ours of the same name replace: PyG's flag for each, and the schema.
_POINTS = "Tensor x, Tensor y, Tensor? ptr_x, Tensor? ptr_y"
_NODES = "Tensor rowptr, Tensor col, Tensor? weight=None"
_GRID = "Tensor pos, Tensor size, Tensor? start=None, Tensor? end=None"
_LIMITS = "int? max_num_neighbors=None, int num_workers=1, bool ignore_same_index=False"
_SPLINE = "Tensor pseudo, Tensor kernel_size, Tensor is_open_spline, int degree"
PYG_LIB_OPS = {
    "fps": ("WITH_FPS", "(Tensor src, Tensor ptr, float ratio, bool random_start) -> Tensor"),
    "graclus_cluster": ("WITH_GRACLUS", f"({_NODES}) -> Tensor"),
    "grid_cluster": ("WITH_GRID_CLUSTER", f"({_GRID}) -> Tensor"),
    "knn": ("WITH_KNN", f"({_POINTS}, int k, bool cosine=False, int num_workers=1) -> Tensor"),
    "nearest": ("WITH_NEAREST", f"({_POINTS}) -> Tensor"),
    "radius": ("WITH_RADIUS", f"({_POINTS}, float r, {_LIMITS}) -> Tensor"),
    "spline_basis": ("WITH_SPLINE", f"({_SPLINE}) -> (Tensor, Tensor)"),
    "spline_weighting": (
        "WITH_SPLINE",
        "(Tensor x, Tensor weight, Tensor basis, Tensor weight_index) -> Tensor",
    ),
}


# The functions of torch_scatter that ops.interop mirrors, and those of torch_cluster that PyG has
# under the same name and signature.
TORCH_SCATTER = frozenset(
    {
        "gather_coo", "gather_csr", "scatter", "scatter_add", "scatter_log_softmax",
        "scatter_logsumexp", "scatter_max", "scatter_mean", "scatter_min", "scatter_mul",
        "scatter_softmax", "scatter_std", "scatter_sum", "segment_coo", "segment_csr",
    }
)  # fmt: skip
TORCH_CLUSTER = frozenset({"fps", "knn", "knn_graph", "nearest", "radius", "radius_graph"})


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


def is_spmm(function: object) -> bool:
    """Whether a function is PyG's product of a sparse with a dense matrix."""
    return function is utils().spmm


@functools.cache
def substitutes() -> dict[Any, str]:
    """PyG's functions with our substitutes' names.

    The code of these cannot run without Python, or branches where a program could not.
    """
    from torch_geometric.nn.aggr import SortAggregation
    from torch_geometric.utils import map as map_module

    return {
        map_module.map_index: "map_index",
        utils().to_scipy_sparse_matrix: "scipy_matrix",
        inspect.unwrap(SortAggregation.forward): "sort_aggregation",
    }


@functools.cache
def implied() -> dict[Any, tuple[str, str, Any]]:
    """PyG's functions, each with an argument, and what another one is where neither is given."""
    return {utils().to_dense_adj: ("batch", "batch_size", 1)}


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


def is_sparse_tensor(cls: type) -> bool:
    """Whether a class is torch_sparse's ``SparseTensor``, or what PyG has in its place."""
    loaded = sys.modules.get("torch_geometric.typing")
    if loaded is not None and issubclass(cls, loaded.SparseTensor):
        return True
    return cls.__name__ == "SparseTensor" and cls.__module__.split(".")[0] == "torch_sparse"


def is_edge_index(value: object) -> bool:
    """Whether a value is one of PyG's ``EdgeIndex``; imports nothing."""
    loaded = sys.modules.get("torch_geometric.edge_index")
    return loaded is not None and type(value) is loaded.EdgeIndex


def is_data_class(cls: type) -> bool:
    """Whether a class is one of objects with any fields: PyG's ``Data``, or a plain namespace."""
    loaded = sys.modules.get("torch_geometric.data")
    if cls is types.SimpleNamespace or loaded is None:
        return cls is types.SimpleNamespace
    return bool(issubclass(cls, loaded.Data) or cls is loaded.Batch)


def object_class(cls: type) -> type:
    """The class that stands for a class of objects with fields: PyG's ``Data``, or a namespace."""
    if cls is types.SimpleNamespace or not is_data_class(cls):
        return types.SimpleNamespace
    from torch_geometric.data import Data

    return Data  # type: ignore[no-any-return]


def declared_arguments(module: torch.nn.Module) -> dict[str, Any]:
    """The types of the arguments that a module declares in a signature of PyG's, by name."""
    found = getattr(module, "signature", None)
    loaded = sys.modules.get("torch_geometric.inspector")
    if loaded is None or not isinstance(found, loaded.Signature):
        return {}
    return {name: parameter.type for name, parameter in found.param_dict.items()}


def is_invertible(function: Any) -> bool:
    """Whether a function runs one of PyG's invertible layers, whose backward pass saves memory."""
    loaded = sys.modules.get("torch_geometric.nn.models.rev_gnn")
    return loaded is not None and getattr(function, "__self__", None) is loaded.InvertibleFunction


def is_own(function: Any) -> bool:
    """Whether a function is PyG's."""
    module = getattr(inspect.unwrap(function), "__module__", None) or ""
    return module.split(".")[0] == "torch_geometric"


def predicate(function: Any, asked_by: Any) -> bool:
    """What a function of :func:`predicates` answers in the code of another function.

    PyG's code and torch's own leave things out where they are scripted, which specialised code has
    no need of: it is as in eager mode.
    """
    if function is torch.jit.is_scripting:  # type: ignore[attr-defined]
        torchs = (getattr(asked_by, "__module__", None) or "").split(".")[0] == "torch"
        return not torchs and not is_own(asked_by)
    return predicates()[function]


def library_flag(owner: object, name: str) -> bool | None:
    """What a flag of PyG's that tells of an optional library reads as in specialised code.

    Specialised code must load where none of them is, so only what our ops replace is there.
    """
    if owner is not sys.modules.get("torch_geometric.typing") or not name.startswith("WITH_"):
        return None
    if name.startswith(("WITH_PT", "WITH_WINDOWS")):
        return None
    return any(name == flag for flag, _ in PYG_LIB_OPS.values())


def replaced_op(function: object) -> str | None:
    """The op of ours with the signature of an op of ``pyg_lib``, given that one or its wrapper."""
    if isinstance(function, torch._ops.OpOverload):
        function = function.overloadpacket
    if isinstance(function, torch._ops.OpOverloadPacket):
        namespace, _, name = function._qualified_op_name.partition("::")
        return name if namespace == "pyg" and name in PYG_LIB_OPS else None
    module, name = getattr(function, "__module__", None), getattr(function, "__name__", "")
    return name if module == "pyg_lib.ops" and name in PYG_LIB_OPS else None


def scatter_function(function: object) -> str | None:
    """The function of ours that stands for one of ``torch_scatter``, or of a stub of its name."""
    module, name = getattr(function, "__module__", None), getattr(function, "__name__", None)
    if not isinstance(module, str) or module.split(".")[0] != "torch_scatter":
        return None
    return name if name in TORCH_SCATTER else None


def cluster_function(function: object) -> Any:
    """PyG's function that stands for one of ``torch_cluster``, or of a stub of its name."""
    module, name = getattr(function, "__module__", None), getattr(function, "__name__", None)
    if not isinstance(module, str) or module.split(".")[0] != "torch_cluster":
        return None
    if name not in TORCH_CLUSTER:
        return None
    from torch_geometric.nn import pool

    return getattr(pool, name)


def sparse_function(function: object) -> str | None:
    """The name of a function of ``torch_sparse``, of a stub, or of what PyG has in its place.

    Functions of graphs that SciPy has are found as well: PyG gives them sparse matrices.
    """
    if isinstance(function, torch.jit.ScriptFunction):
        dotted = str(function.qualified_name).removeprefix("__torch__.")
        return dotted.split(".")[-1] if dotted.startswith("torch_sparse.") else None
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    if module.split(".")[0] == "torch_sparse" or module.startswith("scipy.sparse.csgraph"):
        return str(getattr(function, "__name__", name))
    if module == "torch_geometric.typing" and name.startswith("torch_sparse."):
        return name.partition(".")[2]
    return None


def utils() -> Any:
    """PyG's package of functions; specialised code reads it, so it is imported in here."""
    import torch_geometric.utils

    return torch_geometric.utils


def module_class(name: str) -> Any:
    """The class of this name in ``torch_geometric.nn``."""
    import torch_geometric.nn

    return getattr(torch_geometric.nn, name)


def version() -> str:
    """The version of PyG that is installed."""
    import torch_geometric

    return str(torch_geometric.__version__)
