"""Every op equals PyG's function of the same meaning, bit by bit, in value and gradient."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.utils as pyg
from torch_geometric.index import index2ptr
from torch_geometric.nn import MessagePassing

from gnnscript import ops
from ops_cases import (
    FLOATS,
    INDEX,
    INDEX_DTYPES,
    LAYOUTS,
    NUM_NODES,
    PTR,
    REDUCTIONS,
    SEGMENT_REDUCTIONS,
    SORTED_INDEX,
    assert_identical,
    leaf,
    shape_with,
    values_and_gradient,
)

pytestmark = pytest.mark.usefixtures("portable_kernels")


class Reference(MessagePassing):
    """A subclass, since PyG writes on the class of the first instance."""


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_gather(dim: int, dtype: torch.dtype, index_dtype: torch.dtype) -> None:
    index = torch.tensor(INDEX, dtype=index_dtype)
    reference = Reference(node_dim=dim)
    for layout in LAYOUTS:
        base, src = leaf(shape_with(NUM_NODES, dim), dim, dtype, layout)
        expected = reference._lift(src, torch.stack([index, index]), 0)
        actual = ops.gather(src, index, dim)
        for one, other in zip(
            values_and_gradient(actual, base), values_and_gradient(expected, base), strict=True
        ):
            assert_identical(one, other)


# The reference gets int64 always: with int32, PyG's gradients are wrong (see the test after it).
@pytest.mark.parametrize("index_dtype", INDEX_DTYPES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_scatter(reduce: str, dim: int, dtype: torch.dtype, index_dtype: torch.dtype) -> None:
    index = torch.tensor(INDEX)
    for layout in LAYOUTS:
        for dim_size in (None, NUM_NODES, NUM_NODES + 2):
            base, src = leaf(shape_with(len(INDEX), dim), dim, dtype, layout)
            expected = pyg.scatter(src, index, dim, dim_size, reduce)
            actual = ops.scatter(src, index.to(index_dtype), dim, dim_size, reduce)
            for one, other in zip(
                values_and_gradient(actual, base), values_and_gradient(expected, base), strict=True
            ):
                assert_identical(one, other)


def test_scatter_of_many_edges_with_an_int32_index() -> None:
    # At this size ATen takes a faster path, which does not know int32.
    index = torch.randint(0, 1000, (5000,))
    src = torch.randn(5000, 17, requires_grad=True)
    expected = values_and_gradient(pyg.scatter(src, index, 0, 1000), src)
    actual = values_and_gradient(ops.scatter(src, index.int(), 0, 1000), src)
    assert_identical(actual[0], expected[0])
    assert_identical(actual[1], expected[1])


def test_scatter_of_a_strided_index() -> None:
    edge_index = torch.tensor([INDEX, SORTED_INDEX]).t().contiguous().t()
    src = torch.randn(len(INDEX), 3)
    assert not edge_index[1].is_contiguous()
    for reduce in REDUCTIONS:
        assert_identical(
            ops.scatter(src, edge_index[1], 0, NUM_NODES, reduce),
            pyg.scatter(src, edge_index[1], 0, NUM_NODES, reduce),
        )


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_scatter_of_integers_and_booleans(reduce: str) -> None:
    index = torch.tensor(INDEX)
    for dtype in (torch.int64, torch.int32, torch.bool):
        src = torch.randint(0, 5, (len(INDEX), 2)).to(dtype)
        assert_identical(
            ops.scatter(src, index, 0, NUM_NODES, reduce),
            pyg.scatter(src, index, 0, NUM_NODES, reduce),
        )


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_scatter_without_edges_or_features(reduce: str) -> None:
    for shape in ([0], [0, 3], [0, 0], [4, 0]):
        index = torch.arange(shape[0])
        for dim_size in (None, 0, 5) if shape[0] == 0 else (None, 5):
            src = torch.randn(shape, requires_grad=True)
            expected = pyg.scatter(src, index, 0, dim_size, reduce)
            actual = ops.scatter(src, index, 0, dim_size, reduce)
            assert_identical(actual, expected)
            assert_identical(*(values_and_gradient(out, src)[1] for out in (actual, expected)))


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_scatter_of_ties_and_non_finite_values(reduce: str) -> None:
    index = torch.tensor([0, 0, 0, 1, 1, 2, 3])
    inf, nan = float("inf"), float("nan")
    src = torch.tensor([2.0, 2.0, 1.0, -inf, -inf, inf, nan], requires_grad=True)
    expected = values_and_gradient(pyg.scatter(src, index, 0, 5, reduce), src)
    actual = values_and_gradient(ops.scatter(src, index, 0, 5, reduce), src)
    assert_identical(actual[0], expected[0])
    assert_identical(actual[1], expected[1])


@pytest.mark.parametrize("ptr_dtype", INDEX_DTYPES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("reduce", SEGMENT_REDUCTIONS)
def test_segment(reduce: str, dtype: torch.dtype, ptr_dtype: torch.dtype) -> None:
    ptr = torch.tensor(PTR, dtype=ptr_dtype)
    for layout in LAYOUTS:
        base, src = leaf(shape_with(len(INDEX), 0), 0, dtype, layout)
        expected = values_and_gradient(pyg.segment(src, ptr, reduce), base)
        actual = values_and_gradient(ops.segment(src, ptr, reduce), base)
        assert_identical(actual[0], expected[0])
        assert_identical(actual[1], expected[1])


def test_segment_takes_add_for_sum() -> None:
    src, ptr = torch.randn(len(INDEX), 2), torch.tensor(PTR)
    assert_identical(ops.segment(src, ptr, "add"), pyg.segment(src, ptr, "sum"))


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("reduce", SEGMENT_REDUCTIONS)
def test_segment_with_leading_ones_reduces_a_later_dimension(reduce: str, dim: int) -> None:
    # PyG asks torch_scatter for this; the same values stand in its result for dimension 0.
    ptr = torch.tensor(PTR)
    base, src = leaf(shape_with(len(INDEX), dim), dim, torch.float32, "contiguous")
    expected = pyg.segment(src.transpose(0, dim), ptr, reduce).transpose(0, dim)
    actual = ops.segment(src, ptr.view([1] * dim + [-1]), reduce)
    for one, other in zip(
        values_and_gradient(actual, base), values_and_gradient(expected, base), strict=True
    ):
        assert_identical(one, other)


@pytest.mark.parametrize("reduce", SEGMENT_REDUCTIONS)
def test_segment_without_edges_features_or_nodes(reduce: str) -> None:
    for shape, bounds in (([0, 3], [0, 0, 0]), ([0, 3], [0]), ([4, 0], [0, 4]), ([0], [0, 0])):
        src, ptr = torch.randn(shape), torch.tensor(bounds)
        assert_identical(ops.segment(src, ptr, reduce), pyg.segment(src, ptr, reduce))


@pytest.mark.parametrize("reduce", SEGMENT_REDUCTIONS)
def test_segment_of_infinite_values(reduce: str) -> None:
    inf = float("inf")
    src, ptr = torch.tensor([inf, 1.0, -inf, -inf, 2.0]), torch.tensor([0, 2, 4, 5, 5])
    assert_identical(ops.segment(src, ptr, reduce), pyg.segment(src, ptr, reduce))


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmax_over_an_index(dim: int, dtype: torch.dtype, index_dtype: torch.dtype) -> None:
    index = torch.tensor(INDEX)
    for layout in LAYOUTS:
        for num_nodes in (None, NUM_NODES):
            base, src = leaf(shape_with(len(INDEX), dim), dim, dtype, layout)
            expected = pyg.softmax(src, index, None, num_nodes, dim)
            actual = ops.softmax(src, index.to(index_dtype), None, num_nodes, dim)
            for one, other in zip(
                values_and_gradient(actual, base), values_and_gradient(expected, base), strict=True
            ):
                assert_identical(one, other)


@pytest.mark.parametrize("ptr_dtype", INDEX_DTYPES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax_over_a_ptr(dtype: torch.dtype, ptr_dtype: torch.dtype) -> None:
    ptr = torch.tensor(PTR, dtype=ptr_dtype)
    index = torch.tensor(SORTED_INDEX)
    for layout in LAYOUTS:
        base, src = leaf(shape_with(len(INDEX), 0), 0, dtype, layout)
        expected = values_and_gradient(pyg.softmax(src, None, ptr), base)
        for actual in (ops.softmax(src, None, ptr), ops.softmax(src, index, ptr)):
            value, grad = values_and_gradient(actual, base)
            assert_identical(value, expected[0])
            assert_identical(grad, expected[1])


@pytest.mark.parametrize("dim", [1, 2, -1])
def test_softmax_over_a_ptr_along_a_later_dimension(dim: int) -> None:
    # PyG asks torch_scatter for this; the same values stand in its result for dimension 0.
    ptr = torch.tensor(PTR)
    src = torch.randn(shape_with(len(INDEX), dim))
    expected = pyg.softmax(src.transpose(0, dim), None, ptr).transpose(0, dim)
    assert_identical(ops.softmax(src, None, ptr, None, dim), expected)


def test_softmax_of_two_dimensional_ptr_falls_back_on_the_index() -> None:
    src, index = torch.randn(len(INDEX), 2), torch.tensor(INDEX)
    ptr = torch.tensor(PTR).view(1, -1)
    assert_identical(ops.softmax(src, index, ptr), pyg.softmax(src, index, ptr))


def test_softmax_without_edges() -> None:
    index, ptr = torch.empty(0, dtype=torch.int64), torch.tensor([0, 0, 0])
    for shape in ([0], [0, 3]):
        src = torch.randn(shape)
        assert_identical(ops.softmax(src, index), pyg.softmax(src, index))
        assert_identical(ops.softmax(src, index, None, 2), pyg.softmax(src, index, None, 2))
        assert_identical(ops.softmax(src, None, ptr), pyg.softmax(src, None, ptr))


def test_softmax_of_masked_and_large_values() -> None:
    inf = float("inf")
    index, ptr = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 2, 4, 5])
    src = torch.tensor([1000.0, 999.0, -inf, 3.0, -inf])
    assert_identical(ops.softmax(src, index), pyg.softmax(src, index))
    assert_identical(ops.softmax(src, None, ptr), pyg.softmax(src, None, ptr))


@pytest.mark.parametrize("dtype", INDEX_DTYPES)
def test_csr(dtype: torch.dtype) -> None:
    index = torch.tensor(INDEX, dtype=dtype)
    ptr, perm = ops.csr(index, NUM_NODES)
    assert ptr.tolist() == PTR
    in_order, stable = torch.sort(index, stable=True)
    assert_identical(perm, stable)
    assert_identical(ptr, index2ptr(in_order.long(), NUM_NODES))


def test_csr_without_edges_or_nodes() -> None:
    index = torch.empty(0, dtype=torch.int64)
    for size in (0, 3):
        ptr, perm = ops.csr(index, size)
        assert_identical(ptr, torch.zeros(size + 1, dtype=torch.int64))
        assert_identical(perm, index)


EDGE_INDICES = [
    *(torch.zeros(2, 3, dtype=dtype) for dtype in (torch.uint8, torch.int8, torch.int16)),
    *(torch.zeros(2, 3, dtype=dtype) for dtype in (*INDEX_DTYPES, *FLOATS, torch.bool)),
    torch.zeros(2, 3, dtype=torch.complex64),
    torch.zeros(2, 0, dtype=torch.int64),
    torch.zeros(3, 2, dtype=torch.int64),
    torch.zeros(0, 2, dtype=torch.int64),
    torch.zeros(2, dtype=torch.int64),
    torch.zeros(2, 3, 1, dtype=torch.int64),
    torch.zeros([], dtype=torch.int64),
]


@pytest.mark.parametrize(
    "edge_index", EDGE_INDICES, ids=lambda tensor: f"{tensor.dtype}-{tuple(tensor.shape)}"
)
def test_check_edge_index_refuses_what_pyg_refuses(edge_index: torch.Tensor) -> None:
    try:
        Reference()._check_input(edge_index, None)
    except ValueError:
        with pytest.raises(ValueError, match=r"expected edge_index to .* \[2, E\].*, got"):
            ops.check_edge_index(edge_index)
    else:
        ops.check_edge_index(edge_index)
