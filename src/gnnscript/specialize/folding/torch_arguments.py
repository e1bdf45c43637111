"""Arguments of torch's functions and methods that TorchScript does not take as Python does."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

import torch

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import BOOL, INT, TENSOR
from gnnscript.specialize.folding.base import Arguments, Folded
from gnnscript.specialize.helpers import op_reference, torch_name
from gnnscript.specialize.values import Const, Dyn, Seq, Value, literal, static_type

if TYPE_CHECKING:
    from gnnscript.specialize.folding.base import Folding

__all__ = ["boolean_tensor", "prepared", "tensor_type"]

_DTYPES: dict[Any, torch.dtype] = {
    int: torch.int64,
    float: torch.float64,
    bool: torch.bool,
    complex: torch.complex128,
}


def prepared(frame: Folding, name: str, given: Arguments, *, method: bool = False) -> Arguments:
    """The arguments of a function or method of torch's, in the form that TorchScript takes.

    Types of Python's are dtypes; a bool is one, where TorchScript makes an integer of it.
    """
    args = [_as_dtype(folded) for folded in given.args]
    kwargs = {key: _as_dtype(folded) for key, folded in given.kwargs.items()}
    if name in _SIZED or name in _SHAPED or name in _FILLED:
        alone = name in _SIZED or (method and name in _SHAPED)
        args = [_as_size(frame, folded, alone=alone) for folded in args]
        kwargs = {
            key: _as_size(frame, folded, alone=False) if key in ("size", "shape") else folded
            for key, folded in kwargs.items()
        }
    if name == "where":
        args = [boolean_tensor(frame, folded) for folded in args]
    if name == "full" and "dtype" not in kwargs:
        filled = args[1] if len(args) > 1 else kwargs.get("fill_value", (Const(None), None))
        if static_type(filled[0]) == BOOL:
            kwargs["dtype"] = (Const(torch.bool), literal(Const(torch.bool)))
    return Arguments(args, kwargs)


def _as_dtype(folded: Folded) -> Folded:
    value, _ = folded
    if isinstance(value, Const) and isinstance(value.value, type) and value.value in _DTYPES:
        dtype = Const(_DTYPES[value.value])
        return dtype, literal(dtype)
    return folded


# What takes sizes alone, sizes beside a tensor where it is no method, and a value or bounds too.
_SIZED = frozenset(
    {"zeros", "ones", "empty", "rand", "randn", "new_zeros", "new_ones", "new_empty"}
)
_SHAPED = frozenset({"view", "reshape", "expand", "repeat"})
_FILLED = frozenset({"full", "new_full", "randint", "broadcast_to", "tile"})


def _as_size(frame: Folding, folded: Folded, *, alone: bool) -> Folded:
    """A tensor that is a size, by itself (``alone``) or in a list: the number that it holds."""
    value, node = folded
    if alone and static_type(value) == TENSOR:
        return Dyn(INT), ast.Call(op_reference("as_int"), [frame.needed(value, node)], [])
    if not isinstance(value, Seq) or not any(static_type(v) == TENSOR for v in value.items):
        return folded
    elements = frame.element_nodes(frame.needed(value, node), len(value.items)).elts
    parts = zip(value.items, elements, strict=True)
    sizes = [_as_size(frame, part, alone=True) for part in parts]
    return frame.sequence("list", [v for v, _ in sizes], [n for _, n in sizes])


def boolean_tensor(frame: Folding, folded: Folded) -> tuple[Value, ast.expr]:
    """A bool that meets a tensor: without dimensions, it decides no more than a bool does."""
    value, node = folded[0], frame.needed(*folded)
    if static_type(value) != BOOL:
        return value, node
    dtype = ast.keyword("dtype", torch_name("torch.bool"))  # of torch.tensor, optimisers lose it
    return Dyn(TENSOR), ast.Call(
        torch_name("torch.full"), [ast.List([], ast.Load()), node], [dtype]
    )


_LETTERS = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}


def tensor_type(value: Any) -> Const | None:
    """The dtype that ``x.type(torch.FloatTensor)`` or its name stands for, if it is one of those.

    Raises:
        UnsupportedError: It names a device as well.
    """
    name = value if isinstance(value, str) else getattr(value, "__name__", "")
    letters, found = (
        name.rsplit(".", maxsplit=1)[-1].removesuffix("Tensor"),
        name.endswith("Tensor"),
    )
    if not found or letters not in _LETTERS:
        return None
    if "cuda" in name or "cuda" in str(getattr(value, "__module__", "")):
        raise UnsupportedError(
            f"'{name}' names a device that the process which loads the model may not have",
            "use x.to(dtype); the model moves with the device of its inputs",
        )
    return Const(_LETTERS[letters])
