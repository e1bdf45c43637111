"""Reductions of edges in no order equal those of sorted ones, for few values per edge."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.library import opcheck

from ops_cases import FLOATS, INDEX, NUM_NODES

REDUCES = ("sum", "mean", "min", "max", "mul", "any")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
EDGES = len(INDEX)


def scatter_reduce(src: Tensor, index: Tensor, size: int, reduce: str) -> Tensor:
    return torch.ops.gnnscript.scatter_reduce(src, index, size, reduce)


def by_rows(src: Tensor, index: Tensor, size: int, reduce: str) -> Tensor:
    ptr, perm = torch.ops.gnnscript.csr(index, size)
    return torch.ops.gnnscript.segment_reduce(src, ptr, perm, reduce)


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("reduce", REDUCES)
def test_equals_the_reduction_of_sorted_edges(
    reduce: str, dtype: torch.dtype, index_dtype: torch.dtype, native: Any
) -> None:
    # One part and several, hubs, nodes without edges; rows side by side, apart, and of stride 0.
    for edges, size in ((0, 3), (5, 9), (3000, 50), (100_000, 300), (70_000, 40_000)):
        index = (torch.rand(edges) ** 3 * size).to(index_dtype)
        for shape in ((), (1,), (2,), (3, 2)):
            src = (torch.rand(edges, *shape, dtype=torch.float64) + 0.5).to(dtype)
            if reduce == "mul":
                src = src.double().pow(1e-3).to(dtype)
            for given in (src, src.repeat_interleave(2, 0)[::2], src[:1].expand(src.shape)):
                if given.size(0) != edges:
                    continue
                out = scatter_reduce(given, index, size, reduce)
                expected = by_rows(given.double(), index, size, reduce).to(dtype)
                assert out.dtype == dtype
                tolerance = TOLERANCE[dtype]
                torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("reduce", ["min", "max"])
def test_infinities_and_nan_are_kept(reduce: str, native: Any) -> None:
    index = torch.tensor([2, 0, 0, 2, 3])
    src = torch.tensor([float("inf"), 1.0, float("nan"), float("-inf"), float("-inf")])
    out = scatter_reduce(src, index, 5, reduce)
    torch.testing.assert_close(out, by_rows(src, index, 5, reduce), equal_nan=True)
    assert (out[1], out[4]) == (0, 0)


@pytest.mark.parametrize("reduce", [reduce for reduce in REDUCES if reduce != "any"])
def test_gradients(reduce: str, native: Any) -> None:
    index = torch.tensor(INDEX)
    for shape in ((EDGES,), (EDGES, 2)):
        count = torch.Size(shape).numel()
        src = torch.randperm(count).double().view(shape) / count + 0.5

        def op(src: Tensor) -> Tensor:
            return scatter_reduce(src, index, NUM_NODES, reduce)

        assert gradcheck(op, src.requires_grad_())
        assert gradgradcheck(op, src)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduce", REDUCES)
def test_the_gradient_equals_that_of_sorted_edges(
    reduce: str, dtype: torch.dtype, native: Any
) -> None:
    index = (torch.rand(4000) ** 4 * 300).long()
    # Few distinct values: ties, zeros and flat rows.
    limit = 1 if reduce == "mul" else 2
    src = torch.randint(-limit, limit + 1, (4000, 2)).to(dtype).requires_grad_()
    grad = torch.randn(310, 2).to(dtype)
    grads = [
        torch.autograd.grad(op(src, index, 310, reduce), src, grad)[0]
        for op in (scatter_reduce, by_rows)
    ]
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(*grads, rtol=tolerance, atol=tolerance)


def test_opcheck(native: Any) -> None:
    src = torch.randn(EDGES, 2, requires_grad=True)
    for reduce in ("sum", "mean", "max"):
        opcheck(
            torch.ops.gnnscript.scatter_reduce.default,
            (src, torch.tensor(INDEX), NUM_NODES, reduce),
        )


def test_errors_name_the_tensor_the_value_and_the_bound(native: Any) -> None:
    src, index = torch.randn(4), torch.tensor([0, 2, 7, -1])
    with pytest.raises(IndexError, match=r"index\[2\] is 7, expected a value in \[0, 3\)"):
        scatter_reduce(src, index, 3, "sum")
    with pytest.raises(IndexError, match=r"index\[3\] is -1"):
        scatter_reduce(src, index, 8, "max")
    with pytest.raises(IndexError, match=r"\[0, 0\)"):
        scatter_reduce(src, index, 0, "sum")
    for given, message in (
        ((src[:3], index, 8, "sum"), "expected src of 4 edges"),
        ((src, index.view(2, 2), 8, "sum"), "one-dimensional"),
        ((src, index.float(), 8, "sum"), "int64 or int32"),
        ((src.long(), index, 8, "sum"), "expected src of dtype"),
        ((src, index, -1, "sum"), "number of nodes"),
        ((src, index, 8, "median"), "reduce"),
        ((src, index, 8, "std"), "which need no sorted edges"),
    ):
        with pytest.raises(ValueError, match=message):
            scatter_reduce(*given)


@pytest.mark.parametrize("shape", [(), (1,), (2,), (2, 1)])
def test_scatter_sorts_no_edges_of_few_values(shape: tuple[int, ...], native: Any) -> None:
    @torch.jit.script
    def total(src: Tensor, index: Tensor, dim: int) -> Tensor:
        return native.scatter(src, index, dim, 9)

    index = torch.randint(9, (50,))
    src = torch.randn(50, *shape)
    for dim in range(len(shape) + 1):
        moved = src.movedim(0, dim)
        with torch.profiler.profile() as profile:
            out = native.scatter(moved, index, dim, 9)
        called = {event.key for event in profile.key_averages()}
        assert "gnnscript::scatter_reduce" in called
        assert "gnnscript::csr" not in called
        expected = torch.zeros(9, *shape).index_add(0, index, src).movedim(0, dim)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(total(moved, index, dim), expected)
