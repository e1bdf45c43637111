"""Edge programs give what ATen calls give, for every kind of shape, dtype and memory layout."""

from __future__ import annotations

import hypothesis
import pytest
import torch
from hypothesis import strategies

import edge_cases
from edge_cases import NUM_EDGES, NUM_NODES, NUM_OTHER, PROGRAMS, SHAPES, error, graph, operands
from gnnscript.ops import evaluate
from gnnscript.ops.program import Expressions, postorder

edge_cases.require_library()
from gnnscript.ops import native  # noqa: E402

REDUCTIONS = ("sum", "mean", "min", "max", "mul")
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 3e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1.2e-2,
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_programs_equal_aten(program: str, dtype: torch.dtype) -> None:
    for index_dtype, shapes in zip([torch.int64, torch.int32] * len(SHAPES), SHAPES, strict=False):
        index, other = graph(index_dtype)
        ptr, perm = native.csr(index, NUM_NODES)
        given = operands(program, shapes, dtype)
        exact = [operand.double() for operand in given]
        for reduce in REDUCTIONS:
            out = native.edge_reduce(program, given, index, other, ptr, perm, reduce)
            expected = evaluate.edge_reduce(program, exact, index, other, NUM_NODES, reduce)
            if expected.abs().max() > 6e4:  # beyond float16
                continue
            assert out.dtype == dtype
            assert error(out, expected) < TOLERANCE[dtype], (shapes, reduce)
        for sum_dims in range(expected.dim()):
            out = native.edge_map(program, given, index, other, sum_dims)
            expected = evaluate.edge_map(program, exact, index, other, sum_dims)
            assert error(out, expected) < TOLERANCE[dtype], (shapes, sum_dims)


@pytest.mark.parametrize("function", ["exp", "log", "tanh", "sigmoid", "erf", "sin", "cos", "elu",
                                      "softplus", "gelu", "silu", "sqrt", "rsqrt"])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_functions_are_accurate_everywhere(function: str, dtype: torch.dtype) -> None:
    values = torch.cat([
        torch.linspace(-120, 120, 4001), torch.linspace(-1, 1, 4001), 10.0 ** torch.arange(-40, 38),
        torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e5, -7e3]),
    ]).to(dtype)  # fmt: skip
    none = torch.zeros(values.numel(), dtype=torch.int64)
    program = "elu(e0, 1.0)" if function == "elu" else f"{function}(e0)"
    out = native.edge_map(program, [values], none, none)
    expected = evaluate.edge_map(program, [values.double()], none, none)
    if function == "softplus":  # ATen's is the identity from 20 on
        expected = torch.logaddexp(values.double(), values.new_zeros([]).double())
    rtol = 1e-6 if dtype == torch.float32 else 1e-14
    atol = rtol if function == "gelu" else rtol * 1e-2  # the tail is a difference from one
    torch.testing.assert_close(out, expected.to(dtype), rtol=rtol, atol=atol, equal_nan=True)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_outer_products_of_any_size(dtype: torch.dtype) -> None:
    index, other = graph()
    ptr, perm = native.csr(index, NUM_NODES)
    for long, short in ((1, 17), (5, 4), (8, 16), (17, 3), (16, 33)):
        e, x = torch.randn(NUM_EDGES, long, 1), torch.randn(NUM_OTHER, 1, short)
        given = [e.to(dtype), x.to(dtype)]
        exact = [operand.double() for operand in given]
        for reduce in REDUCTIONS:
            out = native.edge_reduce("e0 * j1", given, index, other, ptr, perm, reduce)
            expected = evaluate.edge_reduce("e0 * j1", exact, index, other, NUM_NODES, reduce)
            assert error(out, expected) < TOLERANCE[dtype], (long, short, reduce)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_layouts_of_operands(dtype: torch.dtype) -> None:
    index, other = graph()
    ptr, perm = native.csr(index, NUM_NODES)
    wide = torch.randn(NUM_OTHER, 3 * 24).to(dtype)
    layouts = [
        wide.chunk(3, dim=1)[1],  # rows at a distance
        torch.randn(24, NUM_OTHER).to(dtype).t(),
        torch.randn(NUM_OTHER, 1).to(dtype).expand(NUM_OTHER, 24),
        torch.randn(1, 24).to(dtype).expand(NUM_OTHER, 24),
        torch.randn(()).to(dtype).expand(NUM_OTHER, 24),
        torch.randn(NUM_OTHER, 48).to(dtype)[:, ::2],
    ]
    edges = torch.randn(NUM_EDGES, 2).to(dtype)[:, 0]
    for x in layouts:
        for program, given in (("j0", [x]), ("e0 * j1", [edges, x]), ("exp(-abs(j0))", [x])):
            out = native.edge_reduce(program, given, index, other, ptr, perm, "sum")
            expected = evaluate.edge_reduce(
                program, [operand.double() for operand in given], index, other, NUM_NODES
            )
            assert error(out, expected) < TOLERANCE[dtype]
    strided = torch.stack([index, other], dim=1)
    out = native.edge_map("i0 * j1", [layouts[0].new_ones(NUM_NODES), layouts[0][:, 0]],
                          strided[:, 0], strided[:, 1])  # fmt: skip
    assert torch.equal(out, layouts[0][other, 0])


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize(
    ("nodes", "edges", "features"), [(0, 0, 3), (4, 0, 3), (4, 6, 0), (3, 9, 2)]
)
def test_empty(reduce: str, nodes: int, edges: int, features: int) -> None:
    index = torch.arange(edges) % max(nodes - 1, 1)
    ptr, perm = native.csr(index, nodes)
    x = torch.randn(nodes, features)
    out = native.edge_reduce("exp(j0)", [x], index, index, ptr, perm, reduce)
    assert torch.allclose(out, evaluate.edge_reduce("exp(j0)", [x], index, index, nodes, reduce))
    mapped = native.edge_map("i0 - j1", [x, x], index, index, 1)
    assert torch.equal(mapped, torch.zeros(edges))


def test_nan_and_infinity_reach_the_extremum() -> None:
    index = torch.tensor([0, 0, 1, 1, 2, 3])
    values = torch.tensor([1.0, float("nan"), -float("inf"), -float("inf"), float("inf"), 2.0])
    ptr, perm = native.csr(index, 5)
    for reduce in ("min", "max"):
        out = native.edge_reduce("e0", [values], index, index, ptr, perm, reduce)
        expected = evaluate.edge_reduce("e0", [values], index, index, 5, reduce)
        torch.testing.assert_close(out, expected, equal_nan=True)


def test_hubs_and_many_rows_equal_aten() -> None:
    """Rows of thousands of edges, split over chunks, beside rows without any."""
    torch.manual_seed(0)
    index = torch.cat([torch.full((30_000,), 7), torch.randint(20_000, (5_000,))])
    index = index[torch.randperm(index.numel())]
    other = torch.randint(50, index.shape)
    ptr, perm = native.csr(index, 20_000)
    for shape in ([], [3], [16], [33]):
        x, w = torch.randn([50, *shape]).double(), torch.rand(index.numel()).double()
        w = w.view([-1, *([1] * len(shape))])
        for program, given in (("j0", [x]), ("j0 * e1", [x, w]), ("abs(j0) * e1", [x, w])):
            for reduce in ("sum", "mean", "max"):
                out = native.edge_reduce(program, given, index, other, ptr, perm, reduce)
                expected = evaluate.edge_reduce(program, given, index, other, 20_000, reduce)
                torch.testing.assert_close(out, expected)


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    index = torch.cat([torch.zeros(9_000, dtype=torch.int64), torch.randint(300, (9_000,))])
    other = torch.randint(300, index.shape)
    ptr, perm = native.csr(index, 300)
    x, e = torch.randn(300, 24), torch.randn(index.numel(), 24)
    results = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        results.append([
            native.edge_reduce("relu(j0 + e1)", [x, e], index, other, ptr, perm, "sum"),
            native.edge_reduce("j0", [x], index, other, ptr, perm, "mean"),
            native.edge_map("tanh(i0) * j1", [x, x], index, other, 1),
        ])  # fmt: skip
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


UNARY = ("relu", "abs", "square", "tanh", "sigmoid", "silu", "sin", "softplus")
LEAVES = strategies.sampled_from(["i0", "j1", "e2", "s3", "0.5", "-1.25", "2"])
EXPRESSIONS = strategies.recursive(
    LEAVES,
    lambda inner: strategies.one_of(
        strategies.tuples(inner, strategies.sampled_from("+-*"), inner).map(
            lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
        ),
        strategies.tuples(strategies.sampled_from(UNARY), inner).map(
            lambda parts: f"{parts[0]}({parts[1]})"
        ),
        strategies.tuples(inner, inner, inner).map(
            lambda parts: f"where({parts[0]} > {parts[1]}, {parts[2]}, leaky_relu({parts[0]}, 0.1))"
        ),
    ),
    max_leaves=12,
)


@hypothesis.given(EXPRESSIONS)
@hypothesis.settings(deadline=None, max_examples=60)
def test_random_expressions(expression: str) -> None:
    """Read, written again and evaluated, an expression has the value that ATen gives it."""
    program = f"({expression}) + 0.01 * (i0 + j1 + e2 + s3)"
    index, other = graph()
    ptr, perm = native.csr(index, NUM_NODES)
    given = operands("i0 + j1 + e2 + s3", ((2, 3), (3,), (), (2, 1)))
    expected = evaluate.edge_reduce(program, given, index, other, NUM_NODES)
    out = native.edge_reduce(program, given, index, other, ptr, perm, "sum")
    torch.testing.assert_close(out, expected)
    expressions = Expressions()
    root = expressions.parse(program)
    text = expressions.write(root, {n.leaf: n.leaf for n in postorder(root) if n.leaf is not None})
    again = native.edge_reduce(text, given, index, other, ptr, perm, "sum")
    assert torch.equal(again, out)
