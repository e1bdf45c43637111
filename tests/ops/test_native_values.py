"""Native reductions equal reductions in float64, for every size of graph and row, and dtype."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from ops_cases import FLOATS, LAYOUTS, REDUCES, by_sorting

# Features: less than a vector, one, several, with and without a remainder.
FEATURES = (1, 3, 16, 37, 130)
# Nodes, edges, skew: a few; enough for many chunks; a hub over many chunks; far more nodes than
# edges; one row.
GRAPHS = ((7, 40, 1), (300, 5000, 1), (900, 9000, 6), (20000, 300, 1), (1, 3000, 1))
TOLERANCES = {
    torch.float64: {"rtol": 1e-9, "atol": 1e-9},
    torch.float32: {"rtol": 2e-5, "atol": 2e-5},
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
    torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2},
}


def make_index(nodes: int, edges: int, skew: int, dtype: torch.dtype = torch.int64) -> Tensor:
    return (torch.rand(edges, dtype=torch.float64) ** skew * nodes).to(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_reductions(graph: tuple[int, int, int], dtype: torch.dtype, native: Any) -> None:
    nodes = graph[0]
    for features, reduce in itertools.product(FEATURES, REDUCES):
        index = make_index(*graph)
        src = torch.randn(index.numel(), features).to(dtype)
        if reduce == "mul":
            src = src.sign() * 0.999 ** src.abs()  # else the products vanish
        ptr, perm = native.csr(index, nodes)
        out = native.segment_reduce(src, ptr, perm, reduce)
        expected = by_sorting(src, index, nodes, reduce).to(dtype)
        assert out.dtype == dtype
        torch.testing.assert_close(out, expected, **TOLERANCES[dtype], msg=f"{features} {reduce}")
        in_order = native.segment_reduce(src[perm], ptr, None, reduce)
        assert torch.equal(in_order, out), (features, reduce)


@pytest.mark.parametrize("index_dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, index_dtype: torch.dtype, native: Any) -> None:
    index = make_index(40, 900, 2, torch.int64)
    strided = torch.stack([index, index], 1).to(index_dtype)[:, 0]
    assert not strided.is_contiguous()
    src = {
        "contiguous": torch.randn(900, 3, 4),
        "transposed": torch.randn(4, 3, 900).permute(2, 1, 0),
        "expanded": torch.randn(900, 1, 4).expand(900, 3, 4),
    }[layout]
    every_other = torch.randn(1800, 3, 4)[::2]  # rows apart, not copied
    one_row = torch.randn(1, 3, 4).expand(900, 3, 4)
    for values, reduce in itertools.product((src, every_other, one_row), REDUCES):
        out = native.scatter(values, strided, 0, 40, reduce)
        dense = values.clone(memory_format=torch.contiguous_format)
        assert torch.equal(out, native.scatter(dense, index, 0, 40, reduce))
    nodes = torch.randn(40, 6)[:, ::2]
    assert torch.equal(native.gather(nodes, strided, 0), nodes[index])


def test_ties_infinities_and_nan(native: Any) -> None:
    inf, nan = torch.inf, torch.nan
    src = torch.tensor([[-inf], [-inf], [inf], [1.0], [nan], [2.0], [nan]])
    ptr = torch.tensor([0, 2, 4, 6, 6, 7])
    values = {
        "min": [-inf, 1.0, nan, 0.0, nan],
        "max": [-inf, inf, nan, 0.0, nan],
        "sum": [-inf, inf, nan, 0.0, nan],
        "logsumexp": [-inf, inf, nan, -inf, nan],
    }
    for reduce, expected in values.items():
        out = native.segment_reduce(src, ptr, None, reduce).view(-1)
        torch.testing.assert_close(out, torch.tensor(expected), equal_nan=True, rtol=0, atol=0)


def test_variance_of_values_far_from_zero(native: Any) -> None:
    src = torch.randn(5000, 3) + 1e4
    out = native.segment_reduce(src, torch.tensor([0, 5000]), None, "var")
    expected = src.double().var(0, correction=0, keepdim=True).float()
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=0)


def test_sums_of_halves_are_kept_in_single_precision(native: Any) -> None:
    src = torch.ones(5000, 1, dtype=torch.bfloat16)
    out = native.segment_reduce(src, torch.tensor([0, 5000]), None, "sum")
    assert out.item() == torch.tensor(5000.0).bfloat16().item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_survives_and_every_float_rounds_as_in_torch(
    dtype: torch.dtype, native: Any
) -> None:
    halves = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    for features in (1, 4, 8, 64):  # one lane, and each width of vectors
        src = halves.view(-1, features)
        out = native.segment_reduce(src, torch.arange(src.size(0) + 1), None, "max")
        torch.testing.assert_close(out, src, rtol=0, atol=0, equal_nan=True)
    pairs = torch.randn(4096, 2, 8).to(dtype)  # their means have to be rounded
    out = native.segment_reduce(pairs.flatten(0, 1), torch.arange(0, 8193, 2), None, "mean")
    assert torch.equal(out, pairs.float().mean(1).to(dtype))


@pytest.mark.parametrize("dtype", FLOATS)
def test_several_reductions_equal_each_alone(dtype: torch.dtype, native: Any) -> None:
    index = make_index(60, 4000, 3)
    ptr, perm = native.csr(index, 60)
    src = torch.randn(4000, 37).to(dtype)
    for reduces in (["mean", "min", "max", "std"], ["sum"], ["var", "mul", "var"], []):
        several = native.segment_reduces(src, ptr, perm, reduces)
        assert len(several) == len(reduces)
        for out, reduce in zip(several, reduces, strict=True):
            assert torch.equal(out, native.segment_reduce(src, ptr, perm, reduce)), reduce


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_edge_softmax(graph: tuple[int, int, int], dtype: torch.dtype, native: Any) -> None:
    nodes, edges, _ = graph
    for features in FEATURES:
        index = make_index(*graph)
        src = 5 * torch.randn(edges, features).to(dtype)
        ptr, perm = native.csr(index, nodes)
        out = native.edge_softmax(src, ptr, perm)
        expected = torch.empty_like(src, dtype=torch.float64)
        for node in index.unique().tolist():
            mine = index == node
            expected[mine] = src[mine].double().softmax(0)
        torch.testing.assert_close(out, expected.to(dtype), **TOLERANCES[dtype])
        assert torch.equal(native.edge_softmax(src[perm], ptr, None), out[perm])


@pytest.mark.parametrize("index_dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("graph", [*GRAPHS, (5, 200_000, 1), (200_000, 70_000, 2)], ids=str)
def test_csr(graph: tuple[int, int, int], index_dtype: torch.dtype, native: Any) -> None:
    nodes = graph[0]
    unsorted = make_index(*graph, index_dtype)
    torch.set_num_threads(2)  # the count of each thread has to find its place
    for index in (unsorted, unsorted.sort().values, unsorted.sort(descending=True).values):
        ptr, perm = torch.ops.gnnscript.csr(index, nodes)
        assert torch.equal(perm, torch.sort(index, stable=True).indices)
        assert torch.equal(ptr.diff(), torch.bincount(index.long(), minlength=nodes))
        assert ptr[0] == 0


def test_nothing_at_all(native: Any) -> None:
    for nodes, edges, features in itertools.product((0, 3), (0,), (0, 2)):
        index = torch.zeros(edges, dtype=torch.int64)
        ptr, perm = native.csr(index, nodes)
        assert ptr.tolist() == [0] * (nodes + 1)
        src = torch.randn(edges, features)
        for reduce in REDUCES:
            fill = {"mul": 1.0, "logsumexp": -torch.inf}.get(reduce, 0.0)
            out = native.segment_reduce(src, ptr, perm, reduce)
            assert torch.equal(out, torch.full((nodes, features), fill))
        assert native.edge_softmax(src, ptr, perm).shape == (edges, features)
        assert native.gather(torch.randn(nodes, features), index, 0).shape == (edges, features)
    ptr, perm = native.csr(torch.zeros(5, dtype=torch.int64), 1)
    assert native.segment_reduce(torch.randn(5, 0), ptr, perm, "max").shape == (1, 0)


def test_edges_outside_of_ptr_are_left_out(native: Any) -> None:
    src = torch.tensor([1.0, 2.0, 4.0, 8.0], requires_grad=True)
    ptr = torch.tensor([1, 2, 3])
    for reduce in REDUCES:
        out = native.segment_reduce(src, ptr, None, reduce)
        (grad,) = torch.autograd.grad(out.sum(), src)
        assert grad[0] == grad[3] == 0, reduce
    assert native.edge_softmax(src, ptr, None).tolist() == [0.0, 1.0, 1.0, 0.0]


def test_gather_copies_any_dtype(native: Any) -> None:
    index = make_index(50, 3000, 2)
    for dtype in (torch.bool, torch.uint8, torch.int16, torch.int64, torch.complex128):
        for features in (1, 2, 3, 16, 100):
            src = torch.randint(0, 100, (50, features)).to(dtype)
            assert torch.equal(native.gather(src, index, 0), src[index])
    assert torch.equal(native.gather(src.t(), index, 1), src.t()[:, index])
