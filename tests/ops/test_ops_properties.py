"""Laws that hold on every graph, tried on random ones: no edges, isolated nodes, duplicates."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gnnscript import ops

pytestmark = pytest.mark.usefixtures("kernels")


@dataclass(frozen=True)
class Edges:
    """The target node of each edge, how many nodes there are, and a value per edge."""

    index: Tensor
    num_nodes: int
    src: Tensor

    @property
    def degree(self) -> Tensor:
        return torch.bincount(self.index.long(), minlength=self.num_nodes)


@st.composite
def edges(draw: st.DrawFn) -> Edges:
    num_nodes = draw(st.integers(0, 8))
    nodes = st.lists(st.integers(0, max(num_nodes - 1, 0)), max_size=30 if num_nodes else 0)
    dtype = draw(st.sampled_from([torch.int64, torch.int32]))
    index = torch.tensor(draw(nodes), dtype=dtype)
    features = draw(st.integers(0, 3))
    # Few distinct values, so that ties are common; sums of them are exact in float64.
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    src = torch.randint(-4, 5, (index.numel(), features), generator=rng).to(torch.float64) / 2
    return Edges(index, num_nodes, src)


def by_hand(given: Edges, node: int, reduce: str) -> Tensor:
    """Reduce the values of one node with the reductions of dense tensors."""
    values = given.src[given.index == node]
    if reduce == "mul":
        return values.prod(0)
    if values.size(0) == 0:
        return values.sum(0)
    dense = {"sum": values.sum(0), "mean": values.mean(0)}
    if reduce in dense:
        return dense[reduce]
    return values.amin(0) if reduce == "min" else values.amax(0)


@pytest.mark.parametrize("reduce", ["sum", "mean", "mul", "min", "max"])
@given(given_edges=edges())
def test_scatter_is_the_dense_reduction_of_each_node(reduce: str, given_edges: Edges) -> None:
    out = ops.scatter(given_edges.src, given_edges.index, 0, given_edges.num_nodes, reduce)
    assert out.shape == (given_edges.num_nodes, given_edges.src.size(1))
    for node in range(given_edges.num_nodes):
        torch.testing.assert_close(out[node], by_hand(given_edges, node, reduce))


@pytest.mark.parametrize("reduce", ["sum", "mean", "mul", "min", "max"])
@given(given_edges=edges(), seed=st.integers(0, 2**16))
def test_the_order_of_edges_is_of_no_account(reduce: str, given_edges: Edges, seed: int) -> None:
    src, index = given_edges.src, given_edges.index
    shuffle = torch.randperm(index.numel(), generator=torch.Generator().manual_seed(seed))
    out = ops.scatter(src, index, 0, given_edges.num_nodes, reduce)
    shuffled = ops.scatter(src[shuffle], index[shuffle], 0, given_edges.num_nodes, reduce)
    torch.testing.assert_close(shuffled, out)


@given(given_edges=edges())
def test_any_keeps_one_value_of_each_node(given_edges: Edges) -> None:
    out = ops.scatter(given_edges.src, given_edges.index, 0, given_edges.num_nodes, "any")
    for node in range(given_edges.num_nodes):
        values = given_edges.src[given_edges.index == node]
        if values.size(0) == 0:
            assert not out[node].any()
        else:
            assert (values == out[node]).any(0).all()


@given(given_edges=edges())
def test_csr_sorts_the_edges_and_keeps_those_of_a_node_in_order(given_edges: Edges) -> None:
    index = given_edges.index
    ptr, perm = ops.csr(index, given_edges.num_nodes)
    assert ptr.dtype == perm.dtype == torch.int64
    assert ptr[0] == 0
    assert torch.equal(ptr.diff(), given_edges.degree)
    assert torch.equal(perm.sort().values, torch.arange(index.numel()))
    for node in range(given_edges.num_nodes):
        expected = (index == node).nonzero().view(-1)
        assert torch.equal(perm[ptr[node] : ptr[node + 1]], expected)


@given(given_edges=edges())
def test_csr_undone_gives_the_index_back(given_edges: Edges) -> None:
    ptr, perm = ops.csr(given_edges.index, given_edges.num_nodes)
    restored = torch.empty_like(perm)
    restored[perm] = torch.arange(given_edges.num_nodes).repeat_interleave(ptr.diff())
    assert torch.equal(restored, given_edges.index.long())


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
@given(given_edges=edges())
def test_segment_of_sorted_edges_is_scatter(reduce: str, given_edges: Edges) -> None:
    src, index, num_nodes = given_edges.src, given_edges.index, given_edges.num_nodes
    ptr, perm = ops.csr(index, num_nodes)
    out = ops.segment(ops.gather(src, perm, 0), ptr, reduce)
    torch.testing.assert_close(out, ops.scatter(src, index, 0, num_nodes, reduce))


@given(given_edges=edges())
def test_gather_and_scatter_are_adjoint(given_edges: Edges) -> None:
    index, num_nodes = given_edges.index, given_edges.num_nodes
    nodes = torch.linspace(-1, 1, num_nodes * given_edges.src.size(1), dtype=torch.float64)
    nodes = (
        nodes.view(num_nodes, -1)
        if nodes.numel()
        else given_edges.src.new_zeros(num_nodes, given_edges.src.size(1))
    )
    over_edges = (ops.gather(nodes, index, 0) * given_edges.src).sum()
    over_nodes = (nodes * ops.scatter(given_edges.src, index, 0, num_nodes)).sum()
    torch.testing.assert_close(over_edges, over_nodes)


@given(given_edges=edges(), shift=st.floats(-500, 500))
def test_softmax_sums_to_one_over_each_node_and_ignores_a_shift(
    given_edges: Edges, shift: float
) -> None:
    src, index, num_nodes = given_edges.src, given_edges.index, given_edges.num_nodes
    weights = ops.softmax(src, index, None, num_nodes)
    assert ((weights > 0) & (weights <= 1)).all()
    total = ops.scatter(weights, index, 0, num_nodes)
    has_edges = (given_edges.degree > 0).to(src.dtype).view(-1, 1).expand_as(total)
    torch.testing.assert_close(total, has_edges)
    torch.testing.assert_close(ops.softmax(src + shift, index, None, num_nodes), weights)


@given(given_edges=edges())
def test_softmax_over_ptr_is_softmax_over_index(given_edges: Edges) -> None:
    src, index, num_nodes = given_edges.src, given_edges.index, given_edges.num_nodes
    ptr, perm = ops.csr(index, num_nodes)
    in_order = ops.softmax(src[perm], None, ptr)
    torch.testing.assert_close(in_order, ops.softmax(src, index, None, num_nodes)[perm])


@pytest.mark.parametrize("op", ["gather", "scatter", "softmax"])
def test_results_are_contiguous_whatever_the_dimension(op: str) -> None:
    """As ATen's are: who calls ``view`` on them must not meet another layout."""
    index = torch.tensor([0, 2, 2, 1, 0])
    src = torch.randn(3, 5, 4)
    arguments = (src, index) if op == "softmax" else (src, index, 1)
    out = getattr(ops, op)(*arguments, **({"dim": 1} if op == "softmax" else {}))
    assert out.is_contiguous()
    assert ops.segment(src, torch.tensor([[0, 2, 5]]), "sum").is_contiguous()
