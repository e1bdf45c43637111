"""Python objects, written down in specialised code."""

from __future__ import annotations

import ast
import enum
import math
from typing import Any

import torch

from gnnscript.specialize.helpers import torch_name

__all__ = ["written"]


def written(inner: Any) -> ast.expr | None:
    """The expression that writes a Python object down, ``None`` for what has no literal form."""
    if isinstance(inner, enum.Enum):
        return None
    if isinstance(inner, float) and not math.isfinite(inner):
        return ast.parse(f"float({str(inner)!r})", mode="eval").body
    if isinstance(inner, complex):
        parts = [written(inner.real), written(inner.imag)]
        return ast.Call(ast.Name("complex", ast.Load()), [part for part in parts if part], [])
    if isinstance(inner, (int, float)) and not isinstance(inner, bool) and inner < 0:
        return ast.UnaryOp(ast.USub(), ast.Constant(-inner))
    if inner is None or inner is Ellipsis or type(inner) in (bool, int, float, str):
        return ast.Constant(inner)
    for plain in (str, float, int):
        if isinstance(inner, plain):
            return ast.Constant(plain(inner))
    if isinstance(inner, torch.Tensor):
        return _tensor(inner)
    if isinstance(inner, (torch.dtype, torch.layout, torch.memory_format)):
        return torch_name(str(inner))
    if isinstance(inner, torch.device):
        return ast.Call(torch_name("torch.device"), [ast.Constant(str(inner))], [])
    if type(inner) in (tuple, list, torch.Size):
        items = [written(item) for item in inner]
        if all(item is not None for item in items):
            elements = [item for item in items if item is not None]
            if type(inner) is tuple:
                return ast.Tuple(elements, ast.Load())
            return ast.List(elements, ast.Load())
    return None


# Of a tensor that is written down; what is larger belongs into a buffer.
_MOST_NUMBERS = 4096


def _tensor(tensor: torch.Tensor) -> ast.expr | None:
    """A small tensor that no module holds, such as a global, as the call that makes it."""
    plain = tensor.layout is torch.strided and not isinstance(tensor, torch.nn.Parameter)
    if not plain or tensor.requires_grad or tensor.numel() > _MOST_NUMBERS:
        return None
    if tensor.is_complex():
        parts = [_tensor(part.contiguous()) for part in (tensor.real, tensor.imag)]
        return ast.Call(torch_name("torch.complex"), [p for p in parts if p is not None], [])
    numbers = written(tensor.flatten().tolist())
    options = [ast.keyword("dtype", torch_name(str(tensor.dtype)))]
    if tensor.device.type != "cpu":
        options.append(ast.keyword("device", written(tensor.device) or ast.Constant(None)))
    if numbers is None or not tensor.numel():
        shape = written(list(tensor.shape)) or ast.Constant(None)
        return ast.Call(torch_name("torch.zeros"), [shape], options)
    if tensor.dim() == 0:
        assert isinstance(numbers, ast.List)
        numbers = numbers.elts[0]
    made = ast.Call(torch_name("torch.tensor"), [numbers], options)
    if tensor.dim() < 2:
        return made
    shape = written(list(tensor.shape)) or ast.Constant(None)
    return ast.Call(ast.Attribute(made, "view", ast.Load()), [shape], [])
