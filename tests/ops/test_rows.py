"""Ops over rows of edges and over ends of edges: the portable and the native ones agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gnnscript
from gnnscript import ops
from ops_cases import FLOATS, INDEX, INDEX_DTYPES, NUM_NODES, REDUCES, by_sorting

Ops = dict[str, Callable[..., Any]]

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 4e-2}
OTHER = [1, 3, 3, 0, 2, 2, 4, 1, 0, 3, 4, 4, 1]
NUM_OTHER = 5


def edges(dtype: torch.dtype = torch.int64) -> tuple[Tensor, Tensor]:
    return torch.tensor(INDEX, dtype=dtype), torch.tensor(OTHER, dtype=dtype)


def close(out: Tensor, expected: Tensor) -> None:
    tolerance = TOLERANCE[out.dtype]
    torch.testing.assert_close(out, expected.to(out.dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("reduce", REDUCES)
def test_segment_reduce(reduce: str, dtype: torch.dtype, each_form: Ops) -> None:
    index, _ = edges()
    ptr, perm = ops.csr(index, NUM_NODES)
    for values in (torch.randn(3, 13, 2).transpose(0, 1), torch.randn(1, 4).expand(13, 4)):
        src = values.to(dtype)
        expected = by_sorting(src, index, NUM_NODES, reduce)
        close(each_form["segment_reduce"](src, ptr, perm, reduce), expected)
        close(each_form["segment_reduce"](src[perm], ptr, None, reduce), expected)
        both = each_form["segment_reduces"](src, ptr, perm, [reduce, "sum"])
        close(both[0], expected)
        close(both[1], by_sorting(src, index, NUM_NODES, "sum"))
        close(each_form["scatter"](src, index, 0, NUM_NODES, reduce), expected)


def test_edges_of_no_row(each_form: Ops) -> None:
    src = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    ptr, perm = torch.tensor([1, 1, 3]), torch.tensor([3, 0, 2, 1])
    for order, total in ((perm, [[0.0], [5.0]]), (None, [[0.0], [6.0]])):
        assert each_form["segment_reduce"](src, ptr, order, "sum").tolist() == total
        weight = each_form["edge_softmax"](src, ptr, order)
        inside = [0, 2] if order is not None else [1, 2]
        torch.testing.assert_close(weight[inside].sum(), torch.tensor(1.0))
        assert weight.count_nonzero() == 2


@pytest.mark.parametrize("dtype", FLOATS)
def test_edge_softmax(dtype: torch.dtype, each_form: Ops) -> None:
    index, _ = edges()
    ptr, perm = ops.csr(index, NUM_NODES)
    src = torch.randn(len(INDEX), 3).to(dtype)
    expected = torch.zeros(len(INDEX), 3, dtype=torch.float64)
    for node in index.unique():
        expected[index == node] = src[index == node].double().softmax(0)
    close(each_form["edge_softmax"](src, ptr, perm), expected)
    close(each_form["edge_softmax"](src[perm], ptr, None), expected[perm])


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_gspmm(dtype: torch.dtype, index_dtype: torch.dtype, each_form: Ops) -> None:
    gspmm = each_form["gspmm"]
    index, other = edges(index_dtype)
    x, y = torch.randn(NUM_OTHER, 4).to(dtype), torch.randn(NUM_OTHER, 2, 3).to(dtype)
    weight, heads = torch.rand(13).to(dtype) + 1, torch.rand(13, 2).to(dtype) + 1
    for reduce in ("sum", "mean", "min", "max", "mul"):
        expected = by_sorting(x.double()[other], index, NUM_NODES, reduce)
        close(gspmm(index, other, x, NUM_NODES, reduce=reduce), expected)
    for op, function in (("mul", torch.mul), ("add", torch.add), ("sub", torch.sub)):
        messages = function(x.double()[other], weight.double()[:, None])
        expected = by_sorting(messages, index, NUM_NODES, "sum")
        close(gspmm(index, other, x, NUM_NODES, weight, op), expected)
    expected = by_sorting(y.double()[other] / heads.double()[..., None], index, NUM_NODES, "max")
    close(gspmm(index, other, y, NUM_NODES, heads, "div", "max"), expected)
    wide = gspmm(index, other, x[:, 0], NUM_NODES, heads)  # features of the weight alone
    close(wide, by_sorting(x[:, :1].double()[other] * heads.double(), index, NUM_NODES, "sum"))


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_sddmm(dtype: torch.dtype, index_dtype: torch.dtype, each_form: Ops) -> None:
    sddmm = each_form["sddmm"]
    index, other = edges(index_dtype)
    a, b = torch.randn(NUM_NODES, 2, 3).to(dtype), torch.randn(NUM_OTHER, 2, 3).to(dtype)
    left, right = a.double()[index], b.double()[other]
    close(sddmm(index, other, a, b), (left * right).sum(-1))
    for op, function in (("mul", torch.mul), ("add", torch.add), ("sub", torch.sub)):
        close(sddmm(index, other, a, b, op), function(left, right))
    flat = sddmm(index, other, a[:, 0], b, "add")  # features broadcast from the right
    close(flat, a.double()[:, :1][index] + right)


# That of `any` goes to all edges of a node, as in PyG, whichever edge is kept.
@pytest.mark.parametrize("reduce", [reduce for reduce in REDUCES if reduce != "any"])
def test_gradients_of_portable_rows(reduce: str, portable_kernels: None) -> None:
    index, other = edges()
    ptr, perm = ops.csr(index, NUM_NODES)
    src = torch.randn(13, 2, dtype=torch.float64, requires_grad=True)
    shape = [NUM_NODES, 2]

    def finite(src: Tensor) -> Tensor:
        out = ops.segment_reduce(src, ptr, perm, reduce)
        return out.where(out.isfinite(), 0).view(shape)

    assert torch.autograd.gradcheck(finite, src)
    assert torch.autograd.gradgradcheck(lambda s: ops.edge_softmax(s, ptr, perm), src)
    x = torch.randn(NUM_OTHER, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(13, dtype=torch.float64, requires_grad=True)
    if reduce in ("sum", "mean"):
        product = lambda x, w: ops.gspmm(index, other, x, NUM_NODES, w, "mul", reduce)  # noqa: E731
        assert torch.autograd.gradgradcheck(product, (x, weight))
        assert torch.autograd.gradgradcheck(lambda x: ops.sddmm(index, other, src[:7], x), x)


@pytest.mark.parametrize("reduce", REDUCES)
def test_gradients_agree(reduce: str, native: Any) -> None:
    index, _ = edges()
    ptr, perm = ops.csr(index, NUM_NODES)
    values = torch.randn(13, 2, dtype=torch.float64)
    values[index == 3] = 1.0  # ties; a standard deviation of zero
    found = []
    for kernels in ("portable", "native"):
        src = values.clone().requires_grad_()
        with gnnscript.kernels(kernels):
            out = ops.segment_reduce(src, ptr, perm, reduce)
        finite = out.where(out.isfinite(), 0)
        found.append(torch.autograd.grad((finite * torch.arange(14).view(7, 2)).sum(), src)[0])
    torch.testing.assert_close(*found)


def test_empty(each_form: Ops) -> None:
    none, perm = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    for nodes in (0, 3):
        ptr = torch.zeros(nodes + 1, dtype=torch.int64)
        for reduce in REDUCES:
            out = each_form["segment_reduce"](torch.empty(0, 2), ptr, perm, reduce)
            without = {"mul": 1.0, "logsumexp": -torch.inf}.get(reduce, 0.0)
            assert torch.equal(out, torch.full([nodes, 2], without))
        assert each_form["edge_softmax"](torch.empty(0, 2), ptr, perm).shape == (0, 2)
        out = each_form["gspmm"](none, none, torch.empty(nodes, 2), nodes)
        assert torch.equal(out, torch.zeros(nodes, 2))
        assert each_form["sddmm"](none, none, torch.empty(nodes, 2), torch.empty(1, 2)).shape == (
            0,
        )


def test_errors(eager: Ops) -> None:
    src, x = torch.randn(4, 2), torch.randn(3, 2)
    index = torch.tensor([0, 1, 2, 0])
    perm = torch.arange(4)
    with pytest.raises(ValueError, match="ptr"):
        eager["segment_reduce"](src, torch.tensor([[0, 4]]), perm, "sum")
    with pytest.raises(ValueError, match="ptr"):
        eager["segment_reduce"](src, torch.tensor([0, 5]), perm, "sum")
    with pytest.raises(ValueError, match="got 'median'"):
        eager["segment_reduce"](src, torch.tensor([0, 4]), perm, "median")
    with pytest.raises(IndexError):
        eager["segment_reduce"](src, torch.tensor([0, 4]), perm + 1, "sum")
    with pytest.raises(ValueError, match="ptr"):
        eager["edge_softmax"](src, torch.tensor([3, 1]), perm)
    with pytest.raises(ValueError, match="expected op to be one of mul, add, sub and div"):
        eager["gspmm"](index, index, x, 3, torch.rand(4), "dot")
    with pytest.raises(ValueError, match="expected op to be one of mul, add, sub and div"):
        eager["sddmm"](index, index, x, x, "max")
    with pytest.raises(IndexError):
        eager["sddmm"](index + 1, index, x, x)


class Net(torch.nn.Module):
    """Calls ops outside of any conv."""

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        index, other = edge_index[1], edge_index[0]
        y = ops.gspmm(index, other, x, x.size(0), reduce="mean")
        ptr, perm = ops.csr(index, x.size(0))
        weight = ops.edge_softmax(ops.sddmm(index, other, x, y), ptr, perm)
        low, high = ops.segment_reduces(weight[:, None] * x[other], ptr, perm, ["min", "max"])
        return low + high, ops.scatter(weight, index, 0, x.size(0))


def test_a_model_that_calls_ops_gets_those_that_are_chosen(
    native: Any, run_python: Callable[..., Any]
) -> None:
    here = Path(__file__).parent
    code = """
import torch
import gnnscript.auto
from test_rows import Net

x, edge_index = torch.randn(9, 4), torch.randint(9, (2, 30))
for kernels in ("portable", "native"):
    with gnnscript.kernels(kernels):
        scripted = torch.jit.script(Net())
        assert ("gnnscript::" in str(scripted.inlined_graph)) == (kernels == "native")
        torch.testing.assert_close(scripted(x, edge_index), Net()(x, edge_index))
"""
    run_python(code, cwd=here, env={"PYTHONPATH": str(here.parent)})
