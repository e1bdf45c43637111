"""How specialised code names what it uses of torch and of other modules."""

from __future__ import annotations

import ast
import builtins
import contextlib
import dataclasses
import functools
import inspect
import math
import sys
import types
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional

from gnnscript.analyze.types import Type
from gnnscript.specialize.tree import base_of

__all__ = [
    "Import",
    "Op",
    "absent",
    "annotation",
    "as_list",
    "has_forward_hooks",
    "import_reference",
    "interop_reference",
    "is_absent",
    "is_context",
    "is_ignored",
    "is_op",
    "is_plain_class",
    "is_record",
    "is_shape",
    "is_stateless",
    "is_torch_function",
    "op_reference",
    "own_interop",
    "own_op",
    "reference",
    "stored_name",
    "torch_name",
    "unwrap_optional",
]


@dataclass(frozen=True)
class Import:
    """A name at the head of the specialised module.

    Args:
        module: The module imported, or imported from.
        name: What is taken from it; empty for the module itself.
        alias: The name wished for.
        value: The object itself, where it cannot be imported.
    """

    module: str
    name: str
    alias: str
    value: Any = None


@dataclass(frozen=True)
class Op:
    """One of our ops, in functions of ours that are specialised.

    Args:
        name: Its name.
        returns: The type of what it returns.
    """

    name: str
    returns: Type

    def __call__(self, *args: Any) -> Any:
        """Calls are specialised."""
        raise NotImplementedError


# Where torch's functions are found, in the order in which they are written.
_NAMESPACES: list[tuple[Any, str, str]] = [
    (torch, "torch", "torch"),
    (torch.nn.functional, "torch.nn.functional", "F"),
    (math, "math", "math"),
    (torch.linalg, "torch", "torch.linalg"),
    (torch.special, "torch", "torch.special"),
    (torch.fft, "torch", "torch.fft"),
    (torch.sparse, "torch", "torch.sparse"),
    (torch.jit, "torch", "torch.jit"),
    (torch.autograd, "torch", "torch.autograd"),
    (torch.cuda, "torch", "torch.cuda"),
    (torch.nn.utils.rnn, "torch.nn.utils.rnn", "rnn"),
]


def import_reference(module: str, name: str, alias: str, value: Any = None) -> ast.Name:
    """A name that stands for an import; the emitter gives it its final spelling."""
    node = ast.Name(alias, ast.Load())
    node.target_ = Import(module, name, alias, value)  # type: ignore[attr-defined]
    return node


_CHOSEN = "gnnscript.ops.chosen"
_INTEROP = "gnnscript.ops.interop"
# The ops of which there are two implementations. `gnnscript.ops` decides between them in each eager
# call; code is specialised to one, and names it.
# Where the portable form of an op is, if not in ops.portable:
_PORTABLE = {
    "as_float": "exportable",
    "bincount": "varying",
    "bound": "exportable",
    "cdist": "varying",
    "ceil_div": "exportable",
    "combinations": "varying",
    "connected_components": "clusters",
    "coo_to_csr": "varying",
    "differentiable": "exportable",
    "edge_softmax": "rows",
    "fill_diagonal_": "varying",
    "floor_div": "exportable",
    "fps": "clusters",
    "graclus_cluster": "clusters",
    "grid_cluster": "clusters",
    "gspmm": "rows",
    "holds": "exportable",
    "knn": "neighbors",
    "length": "exportable",
    "matmul": "entries",
    "nearest": "neighbors",
    "one_hot": "varying",
    "ordinary": "exportable",
    "radius": "neighbors",
    "refused": "exportable",
    "regroup_axes": "axes",
    "repeat_interleave": "varying",
    "sddmm": "rows",
    "segment_reduce": "rows",
    "segment_reduces": "rows",
    "sparse_compressed_tensor": "entries",
    "sparse_coo_tensor": "entries",
    "spline_basis": "splines",
    "spline_weighting": "splines",
    "take_along_dim": "varying",
    "tril_indices": "varying",
    "triu_indices": "varying",
    "warn": "exportable",
}


def op_reference(name: str) -> ast.Name:
    """The name of one of our ops, in its portable form."""
    return import_reference(f"gnnscript.ops.{_PORTABLE.get(name, 'portable')}", name, name)


def interop_reference(name: str) -> ast.Name:
    """The name of our form of a function of ``torch_scatter``."""
    return import_reference(_INTEROP, name, name)


def own_op(function: Any) -> str | None:
    """The name of a function of ``gnnscript.ops`` that chooses between implementations."""
    return function.__name__ if getattr(function, "__module__", None) == _CHOSEN else None


def own_interop(function: Any) -> str | None:
    """The name of a function of ``gnnscript.ops.interop``."""
    return function.__name__ if getattr(function, "__module__", None) == _INTEROP else None


def is_op(target: Import) -> bool:
    """Whether an import is of one of our ops, which those named after ``torch_scatter`` are not."""
    return target.module.startswith("gnnscript.ops") and target.module != _INTEROP


def torch_name(dotted: str) -> ast.expr:
    """``torch.a.b`` as an expression."""
    node: ast.expr = import_reference("torch", "", "torch")
    for part in dotted.split(".")[1:]:
        node = ast.Attribute(node, part, ast.Load())
    return node


def reference(value: Any) -> ast.expr | None:
    """An expression that means a Python object in specialised code, if there is one."""
    if isinstance(value, types.ModuleType):
        return import_reference(value.__name__, "", value.__name__.split(".")[-1], value)
    if isinstance(value, torch._ops.OpOverloadPacket):
        return torch_name(f"torch.ops.{value._qualified_op_name.replace('::', '.')}")
    if isinstance(value, torch._ops.OpOverload):
        return reference(value.overloadpacket)
    name = getattr(value, "__name__", None)
    if not isinstance(name, str) or not name.isidentifier():
        return None
    for place in _NAMESPACES:
        if getattr(place[0], name, None) is value:
            return _spelled(place, name)
    found_as = _by_identity().get(id(value))
    if found_as is not None and getattr(found_as[0][0], found_as[1], None) is value:
        return _spelled(*found_as)
    if getattr(builtins, name, None) is value:
        return ast.Name(name, ast.Load())
    if _is_covered(value):
        return torch_name(f"torch.ops.aten.{name}")
    if inspect.isclass(value) or isinstance(value, torch.jit.ScriptFunction):
        module = getattr(value, "__module__", "") or ""
        found = getattr(sys.modules.get(module), name, None)
        return import_reference(module if found is value else "", name, name, value)
    if inspect.isfunction(value):
        return import_reference("", name, name, value)
    return None


def _spelled(place: tuple[Any, str, str], name: str) -> ast.expr:
    """A function in one of the namespaces."""
    _, module, spelled = place
    if spelled.startswith("torch"):
        return torch_name(f"{spelled}.{name}")
    return ast.Attribute(import_reference(module, "", spelled), name, ast.Load())


@functools.cache
def _by_identity() -> dict[int, tuple[tuple[Any, str, str], str]]:
    """Functions whose own name is not the one they are found by: ``torch.linalg.norm``."""
    return {
        id(value): (place, name)
        for place in _NAMESPACES
        if place[2].startswith(("torch.", "F"))
        for name, value in vars(place[0]).items()
        if callable(value) and not inspect.isclass(value) and not name.startswith("_")
    }


def _is_covered(value: Any) -> bool:
    """Whether a function is torch's own, but its name in ``torch`` was given to another.

    PyG's ``HashTensor`` replaces ``torch.index_select``, for example.
    """
    name = getattr(value, "__name__", "")
    original = getattr(torch._C._VariableFunctions, name, None)
    return isinstance(value, types.BuiltinFunctionType) and original == value


def is_torch_function(value: Any) -> bool:
    """Whether TorchScript itself knows or compiles a function of torch's or of ``math``."""
    if isinstance(
        value, (torch._ops.OpOverloadPacket, torch._ops.OpOverload, torch.jit.ScriptFunction)
    ):
        return True
    if inspect.isclass(value):
        return False
    name = getattr(value, "__name__", None)
    if not isinstance(name, str):
        return False
    if any(getattr(namespace, name, None) is value for namespace, _, _ in _NAMESPACES):
        return True
    if id(value) in _by_identity() or _is_covered(value):
        return True
    module = getattr(value, "__module__", None) or ""
    return callable(value) and module.split(".")[0] == "torch"


def is_stateless(module: torch.nn.Module) -> bool:
    """Whether a module is no more than a function and its options."""
    state = (module._parameters, module._buffers, module._modules)
    return not any(v is not None for part in state for v in part.values())


def is_ignored(function: Any) -> bool:
    """Whether a function is marked ``@torch.jit.ignore`` or ``@torch.jit.unused``."""
    from torch._jit_internal import FunctionModifiers, get_torchscript_modifier

    modifier = get_torchscript_modifier(function)  # type: ignore[no-untyped-call]
    return modifier in (FunctionModifiers.IGNORE, FunctionModifiers.UNUSED)


_ABSENT = object()


def absent() -> ast.expr:
    """Stands for an element of a sequence that has no form at run time (a module, a function)."""
    node = ast.Name("absent", ast.Load())
    node.target_ = _ABSENT  # type: ignore[attr-defined]
    return node


def is_absent(node: ast.AST) -> bool:
    """Whether an expression contains something that has no form at run time."""
    return any(getattr(child, "target_", None) is _ABSENT for child in ast.walk(node))


def as_list(node: ast.expr) -> ast.expr:
    """A shape as a list: Python's is a tuple, TorchScript's a list."""
    return node if _is_list(node) else ast.Call(ast.Name("list", ast.Load()), [node], [])


def filled_range(node: ast.expr) -> ast.expr:
    """``range(n)`` as a list, where TorchScript takes no range: anywhere but in loops."""
    is_range = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "range"
    return ast.Call(ast.Name("list", ast.Load()), [node], []) if is_range else node


def has_forward_hooks(module: torch.nn.Module) -> bool:
    """Whether something watches the calls of a module, so that they must take place."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def is_display(node: ast.expr) -> bool:
    """Whether an expression is a part of a list or dictionary that is made on the spot."""
    return isinstance(base_of(node), (ast.List, ast.Tuple, ast.Dict))


def _is_list(node: ast.expr) -> bool:
    """Whether an expression is evidently a list in Python, too."""
    if isinstance(node, ast.BinOp):
        return _is_list(node.left) or (isinstance(node.op, ast.Add) and _is_list(node.right))
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "list"
    return isinstance(node, ast.List)


def is_shape(node: ast.expr) -> bool:
    """Whether an expression is evidently a shape, or a part of one."""
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Slice) and is_shape(node.value)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add) and is_shape(node.left) and is_shape(node.right)
    if isinstance(node, ast.Call):
        named = isinstance(node.func, ast.Attribute) and node.func.attr == "size"
        return named and not node.args and not node.keywords
    return isinstance(node, ast.Attribute) and node.attr == "shape"


def unwrap_optional(node: ast.expr) -> ast.expr:
    """``node``, asserted not to be ``None``, inside an expression."""
    return ast.Call(torch_name("torch.jit._unwrap_optional"), [node], [])


def stored_name(name: str) -> str:
    """The name of a module's attribute in the specialised class: TorchScript drops ``__x__``."""
    return f"stored{name}" if name.startswith("__") and name.endswith("__") else name


def annotation(t: Type) -> ast.expr:
    """A type as an annotation."""
    node = ast.parse(str(t), mode="eval").body
    classes = {cls.__name__: cls for cls in _classes(t)}
    for child in ast.walk(node):
        if isinstance(child, ast.Name) and child.id in classes:
            found = reference(classes[child.id])
            if found is not None and hasattr(found, "target_"):
                child.target_ = found.target_  # type: ignore[attr-defined]
        elif isinstance(child, ast.Name) and child.id == "torch":
            child.target_ = Import("torch", "", "torch")  # type: ignore[attr-defined]
    return node


def _classes(t: Type) -> list[Any]:
    own = [] if t.cls is None or isinstance(t.cls, str) else [t.cls]
    return own + [c for arg in t.args for c in _classes(arg)]


def is_record(cls: type) -> bool:
    """Whether objects of a class are known by their fields, and its methods read and set those."""
    return dataclasses.is_dataclass(cls) or is_context(cls) or is_plain_class(cls)


def is_plain_class(cls: type) -> bool:
    """Whether a class of the user's is written in Python, with no parent of Python's or torch's."""
    if hasattr(cls, "__torch_script_class__") or not inspect.isfunction(cls.__init__):  # type: ignore[misc]
        return False
    parents = cls.__mro__[:-1]
    libraries = ("torch", "torch_geometric", "typing", "builtins", "enum", "collections", "numpy")
    return (
        type(cls) is type
        and "__new__" not in {name for parent in parents for name in vars(parent)}
        and not any(parent.__module__.split(".")[0] in libraries for parent in parents)
    )


def is_context(cls: type) -> bool:
    """Whether a class is a context manager that is written in Python, and not one of torch's."""
    methods = (getattr(cls, name, None) for name in ("__enter__", "__exit__"))
    if not all(map(inspect.isfunction, methods)) or issubclass(cls, torch.nn.Module):
        return False
    home = cls.__module__.split(".")[0]
    return cls is contextlib.nullcontext or home not in ("contextlib", "torch", "warnings")
