"""Which functions, methods and modules are elementwise operations of the edge program."""

from __future__ import annotations

import ast
from typing import Any

import torch

from gnnscript.passes.expressions import Expression, Map

__all__ = [
    "BINARY",
    "COMPARISONS",
    "FUNCTIONS",
    "MONOTONE",
    "is_truth",
    "module_operation",
    "operation",
]

BINARY: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "pow",
}
COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_UNARY = (
    "relu exp log sqrt rsqrt abs sign square reciprocal sigmoid tanh sin cos silu gelu "
    "softplus leaky_relu elu"
)
# The name in torch, and the operation and parameters (with defaults) that it stands for.
FUNCTIONS: dict[str, tuple[str, tuple[tuple[str, Any], ...]]] = {
    name: (name, ()) for name in _UNARY.split()
} | {
    "neg": ("neg", ()),
    "negative": ("neg", ()),
    "absolute": ("abs", ()),
    "leaky_relu": ("leaky_relu", (("negative_slope", 0.01),)),
    "elu": ("elu", (("alpha", 1.0),)),
    "softplus": ("softplus", (("beta", 1.0), ("threshold", 20.0))),
    "gelu": ("gelu", (("approximate", "none"),)),
    "add": ("+", ()),
    "sub": ("-", ()),
    "subtract": ("-", ()),
    "mul": ("*", ()),
    "multiply": ("*", ()),
    "div": ("/", ()),
    "divide": ("/", ()),
    "true_divide": ("/", ()),
    "pow": ("pow", ()),
    "maximum": ("maximum", ()),
    "minimum": ("minimum", ()),
    "clamp_min": ("clamp_min", ()),
    "clamp_max": ("clamp_max", ()),
    "where": ("where", ()),
}
_OPERANDS = {"+": 2, "-": 2, "*": 2, "/": 2, "pow": 2, "maximum": 2, "minimum": 2}
_OPERANDS |= {"clamp_min": 2, "clamp_max": 2, "where": 3}
# Never falling, and 0 at 0: max and min over edges may be taken before them.
MONOTONE = frozenset({"relu", "tanh", "elu"})


def operation(name: str, count: int, options: dict[Any, Any]) -> tuple[str, list[float]] | None:
    """The operation that a call of torch's function ``name`` stands for.

    Args:
        name: The function.
        count: The number of tensors and numbers it is given.
        options: Its other arguments, by name or (as integers) by position behind the first.

    Returns:
        The operation and the numbers it takes behind its operands, ``None`` if it is none.
    """
    if name not in FUNCTIONS:
        return None
    operator, parameters = FUNCTIONS[name]
    if count != _OPERANDS.get(operator, 1):
        return None
    options = {k: v for k, v in options.items() if not (k == "inplace" and v is False)}
    values = []
    for position, (parameter, default) in enumerate(parameters):
        values.append(options.pop(parameter, options.pop(position, default)))
    if options or any(isinstance(v, bool) for v in values):
        return None
    return _settled(operator, values)


def _settled(operator: str, values: list[Any]) -> tuple[str, list[float]] | None:
    """Checks the numbers: some operations have one fixed form in the edge program."""
    if operator == "gelu":
        if values == ["tanh"]:
            return "gelu_tanh", []
        return ("gelu", []) if values == ["none"] else None
    if not all(isinstance(v, (int, float)) for v in values):
        return None
    if operator == "softplus":
        return ("softplus", []) if values == [1.0, 20.0] else None
    return operator, [float(v) for v in values]


def is_truth(expression: Expression) -> bool:
    """Whether a value is a comparison: the edge program has 0 and 1, where torch has ``bool``."""
    return isinstance(expression, Map) and expression.operator in COMPARISONS.values()


def module_operation(module: torch.nn.Module) -> tuple[str, list[float]] | None:
    """The operation that one of torch's activation modules stands for."""
    nn = torch.nn
    kind = type(module)
    plain = {nn.ReLU: "relu", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh", nn.SiLU: "silu"}
    if kind in plain:
        return plain[kind], []
    held = vars(module)
    if kind is nn.LeakyReLU:
        return "leaky_relu", [float(held["negative_slope"])]
    if kind is nn.ELU:
        return "elu", [float(held["alpha"])]
    if kind is nn.GELU:
        return _settled("gelu", [held["approximate"]])
    if kind is nn.Softplus:
        return _settled("softplus", [held["beta"], held["threshold"]])
    return None
