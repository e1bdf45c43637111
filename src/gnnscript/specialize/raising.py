"""Which errors specialised code may raise, for ``try``: TorchScript itself catches none."""

from __future__ import annotations

import ast
import builtins
from typing import Any

import torch

from gnnscript.specialize.tree import base_of

__all__ = ["always_raised", "may_catch", "raised_by"]

_Errors = tuple[type[BaseException], ...]

# What torch's functions raise for values and shapes; elementwise ones index nothing.
_TORCH: _Errors = (RuntimeError, IndexError)
_ELEMENTWISE = frozenset(
    {
        "abs", "add", "celu", "clamp", "clone", "contiguous", "cos", "detach", "div", "double",
        "dropout", "elu", "eq", "erf", "exp", "float", "full_like", "ge", "gelu", "gt", "hardtanh",
        "le", "leaky_relu", "linear", "log", "log1p", "logsigmoid", "lt", "masked_fill", "maximum",
        "minimum", "mish", "mul", "ne", "neg", "new_ones", "new_zeros", "ones", "ones_like", "pow",
        "rand_like", "randn_like", "reciprocal", "relu", "relu6", "reshape", "rsqrt", "selu",
        "sigmoid", "sign", "silu", "sin", "softplus", "sqrt", "square", "sub", "tanh", "to", "view",
        "where", "zeros", "zeros_like",
    }
)  # fmt: skip
_NEVER = frozenset(
    {
        "append", "bool", "copy", "dict", "dim", "enumerate", "extend", "get", "hash", "insert",
        "is_grad_enabled", "isinstance", "items", "keys", "len", "list", "ndimension", "numel",
        "print", "range", "set_grad_enabled", "setdefault", "str", "update", "values", "zip",
    }
)  # fmt: skip
_BY_NAME: dict[str, _Errors] = {
    "_unwrap_optional": (AttributeError, TypeError),
    "float": (RuntimeError, ValueError),
    "int": (RuntimeError, ValueError),
    "index": (ValueError,),
    "pop": (KeyError, IndexError),
    "remove": (ValueError,),
    **dict.fromkeys(("max", "min", "sum"), (*_TORCH, ValueError)),
}


def may_catch(classes: _Errors, error: type[BaseException]) -> bool:
    """Whether ``except classes`` may catch an ``error`` or one of its subclasses."""
    return any(issubclass(error, cls) or issubclass(cls, error) for cls in classes)


def always_raised(written: list[ast.stmt]) -> tuple[Any, list[ast.stmt]] | None:
    """What a block that ends by raising raises.

    Returns:
        The error, or its class where its text exists at run time only, and what is done before;
        ``None`` if that depends on the run.
    """
    last = written[-1] if written else None
    if not isinstance(last, ast.Raise):
        return None
    classes = getattr(last, "raises_", None)
    if classes == ():  # behind a call that raises
        call = getattr(written[-2], "value", None)
        done = getattr(call, "target_", None)
        inner = always_raised(done.node.body) if done is not None else None
        return None if inner is None else (inner[0], written[:-2] + inner[1])
    if classes is None or last.exc is None:
        return None
    (cls,) = classes
    args = last.exc.args if isinstance(last.exc, ast.Call) else []
    if cls.__module__ == "builtins" and all(isinstance(arg, ast.Constant) for arg in args):
        texts = [arg.value for arg in args if isinstance(arg, ast.Constant) and arg.value]
        return cls(*texts), written[:-1]
    return cls, written[:-1]


def raised_by(
    tree: Any, module: torch.nn.Module | None, seen: set[int] | None = None
) -> dict[type[BaseException], str]:
    """The errors that specialised code may raise, each with an expression that raises it.

    Args:
        tree: The code.
        module: The module of whose methods it is.
        seen: Functions that are looked at already.
    """
    seen = set() if seen is None else seen
    found: dict[type[BaseException], str] = {}
    for statement in tree:
        for node in ast.walk(statement):
            done = getattr(node, "target_", None) if isinstance(node, ast.Call) else None
            if done is not None:
                if id(done) not in seen:
                    seen.add(id(done))
                    owner = done.owner.ref.module if done.owner is not None else None
                    found = raised_by(done.node.body, owner, seen) | found
                continue
            for error in _errors(node, module):
                found.setdefault(error, ast.unparse(node))
    return found


def _errors(node: ast.AST, module: torch.nn.Module | None) -> _Errors:
    known = getattr(node, "raises_", None)
    if known is not None:
        return tuple(known)
    if isinstance(node, ast.Raise):
        name = getattr(getattr(node.exc, "func", None), "id", "")
        return (getattr(builtins, name, BaseException),)
    if isinstance(node, ast.Assert):
        return (AssertionError, AttributeError, TypeError)  # a value that must not be None
    if isinstance(node, ast.Subscript):
        if isinstance(node.ctx, ast.Del):
            return (KeyError, IndexError)
        whole = isinstance(node.slice, ast.Slice) or _module_at(node, module) is not None
        return () if whole else (IndexError,)
    if isinstance(node, ast.BinOp):
        safe = isinstance(node.right, ast.Constant) and bool(node.right.value)
        if isinstance(node.op, (ast.Div, ast.FloorDiv, ast.Mod)) and not safe:
            return (RuntimeError, ZeroDivisionError)
        power = isinstance(node.op, ast.Pow)
        return (RuntimeError, ZeroDivisionError, OverflowError) if power else (RuntimeError,)
    if isinstance(node, ast.Compare):
        return () if isinstance(node.ops[0], (ast.Is, ast.IsNot)) else (RuntimeError,)
    return _errors_of_call(node, module) if isinstance(node, ast.Call) else ()


def _errors_of_call(node: ast.Call, module: torch.nn.Module | None) -> _Errors:
    called = _module_at(node.func, module)
    if called is not None:
        return _errors_of_module(called)
    func = node.func
    path = func.id if isinstance(func, ast.Name) else ast.unparse(func)
    name = path.rpartition(".")[2]
    if path.startswith("math."):
        return (ValueError, OverflowError, ZeroDivisionError)
    if isinstance(func, ast.Attribute) and name in ("float", "int"):
        return (RuntimeError,)  # of a tensor
    if name in _NEVER or (name == "size" and not node.args):
        return ()
    if name in _BY_NAME:
        return _BY_NAME[name]
    return (RuntimeError,) if name in _ELEMENTWISE else _TORCH


def _module_at(func: ast.expr, module: torch.nn.Module | None) -> torch.nn.Module | None:
    """The module that ``self.layers[0]`` is."""
    base = base_of(func)
    if not isinstance(base, ast.Name) or base.id != "self" or func is base:
        return None
    names: list[str] = []
    while isinstance(func, (ast.Attribute, ast.Subscript)):
        step = func.attr if isinstance(func, ast.Attribute) else getattr(func.slice, "value", None)
        names.insert(0, str(step))
        func = func.value
    for name in names:
        module = module._modules.get(name) if module is not None else None
    return module


def _errors_of_module(called: torch.nn.Module) -> _Errors:
    errors: set[type[BaseException]] = {RuntimeError}
    for part in called.modules():
        home = type(part).__module__
        if not home.startswith("torch.nn."):
            return (BaseException,)
        if "batchnorm" in home or "instancenorm" in home:
            errors.add(ValueError)
        elif not home.endswith(
            (".linear", ".container", ".dropout", ".activation", ".normalization")
        ):
            errors |= {IndexError, ValueError}
    return tuple(errors)
