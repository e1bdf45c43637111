"""Edge programs to test, and operands for them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gnnscript.ops import library
from gnnscript.ops.program import sides

PROGRAMS = (
    "j0",
    "e0 * j1",
    "j1 * e0",
    "i0 + j1",
    "relu(j0 + e1)",
    "sigmoid(i0 + j1) * j2",
    "leaky_relu(i0 + j1, 0.2) * s2",
    "s0 * exp(-square(i1 - j2))",
    "gelu(e0) * tanh(j1)",
    "elu(i0 - j1, 1.5)",
    "softplus(j0) - gelu_tanh(e1)",
    "silu(j0) / (1 + exp(e1))",
    "sqrt(abs(j0) + 1) * rsqrt(1 + abs(i1))",
    "sin(j0) * cos(3.0 * i1)",
    "pow(j0, 3) + pow(1 + abs(i1), 0.5)",
    "log(1 + square(j0)) - reciprocal(2.0 + abs(e1))",
    "maximum(i0, j1) + minimum(i0, e2)",
    "where(j0 > 0.1, e1, i2)",
    "clamp_max(clamp_min(j0, -0.5), 0.5)",
    "t0 = i0 - j1; t1 = t0 * t0; erf(t1) + t0",
    "(i0 <= j1) * e2 + (i0 != j1)",
    "-s0",
)
# Feature shapes, handed to the operands in turn.
SHAPES = (
    ((),),
    ((5,),),
    ((), (3,)),
    ((64,), (1,)),
    ((4, 32), (4, 1)),
    ((2, 3), (3,), (2, 1)),
    ((1, 3, 1), (2, 3, 4), (4,)),
    ((1500,), (1,)),
)
NUM_NODES, NUM_OTHER, NUM_EDGES = 7, 5, 40
ROWS = {"i": [NUM_NODES], "j": [NUM_OTHER], "e": [NUM_EDGES], "s": []}


def require_library() -> None:
    """Skip where the native library has not been built."""
    if not library.paths():
        pytest.skip("the native library is not built: make native", allow_module_level=True)


def graph(dtype: torch.dtype = torch.int64) -> tuple[Tensor, Tensor]:
    """Two nodes for each edge; the last node of the first side has no edge."""
    generator = torch.Generator(torch.get_default_device()).manual_seed(3)
    index = torch.randint(NUM_NODES - 1, (NUM_EDGES,), generator=generator, dtype=dtype)
    other = torch.randint(NUM_OTHER, (NUM_EDGES,), generator=generator, dtype=dtype)
    return index, other


def operands(
    program: str, shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Random operands of a program, of the given feature shapes in turn."""
    torch.manual_seed(7)
    return [
        torch.randn([*ROWS[side], *shapes[number % len(shapes)]], dtype=torch.float64).to(dtype)
        for number, side in enumerate(sides(program))
    ]


def error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value expected where that is above one."""
    assert actual.shape == expected.shape
    if actual.numel() == 0:
        return 0.0
    scale = max(1.0, float(expected.abs().max()))
    return float((actual.double() - expected.double()).abs().max()) / scale
