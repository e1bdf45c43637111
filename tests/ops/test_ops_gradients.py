"""The gradients of the ops are the derivatives of their values, once and where stated twice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from gnnscript import ops
from ops_cases import INDEX, INDEX_DTYPES, NUM_NODES, PTR, SEGMENT_REDUCTIONS

pytestmark = pytest.mark.usefixtures("kernels")


def distinct(*shape: int) -> Tensor:
    """Values so far apart that a finite difference changes no minimum or maximum."""
    count = torch.Size(shape).numel()
    values = torch.randperm(count).to(torch.float64).view(shape) / count + 0.5
    return values.requires_grad_()


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES)
@pytest.mark.parametrize("dim", [0, 1])
def test_gather(dim: int, index_dtype: torch.dtype) -> None:
    index = torch.tensor(INDEX, dtype=index_dtype)
    src = distinct(NUM_NODES, 2) if dim == 0 else distinct(2, NUM_NODES)
    assert gradcheck(lambda x: ops.gather(x, index, dim), src)
    assert gradgradcheck(lambda x: ops.gather(x, index, dim), src)


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES)
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("reduce", ["sum", "mean", "mul", "min", "max"])
def test_scatter(reduce: str, dim: int, index_dtype: torch.dtype) -> None:
    index = torch.tensor(INDEX, dtype=index_dtype)
    src = distinct(len(INDEX), 2) if dim == 0 else distinct(2, len(INDEX))
    assert gradcheck(lambda x: ops.scatter(x, index, dim, NUM_NODES, reduce), src)
    assert gradgradcheck(lambda x: ops.scatter(x, index, dim, NUM_NODES, reduce), src)


def test_scatter_any_where_each_node_has_one_edge() -> None:
    # With several, any sends the gradient of a node to all of its edges, as in PyG.
    index = torch.tensor([3, 0, 2])
    assert gradcheck(lambda x: ops.scatter(x, index, 0, 4, "any"), distinct(3, 2))


def test_scatter_mul_of_zeros() -> None:
    # The derivative of a product with one zero is the product of the others, not 0 / 0.
    src = torch.tensor([0.0, 2.0, 3.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    index = torch.tensor([0, 0, 0, 1, 1])
    (grad,) = torch.autograd.grad(ops.scatter(src, index, 0, 2, "mul").sum(), src)
    assert grad.tolist() == [6.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("ptr_dtype", INDEX_DTYPES)
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("reduce", SEGMENT_REDUCTIONS)
def test_segment(reduce: str, dim: int, ptr_dtype: torch.dtype) -> None:
    ptr = torch.tensor(PTR, dtype=ptr_dtype).view([1] * dim + [-1])
    src = distinct(len(INDEX), 2) if dim == 0 else distinct(2, len(INDEX))
    assert gradcheck(lambda x: ops.segment(x, ptr, reduce), src)


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES)
@pytest.mark.parametrize("dim", [0, 1])
def test_softmax(dim: int, index_dtype: torch.dtype) -> None:
    index = torch.tensor(INDEX, dtype=index_dtype)
    ptr = torch.tensor(PTR, dtype=index_dtype)
    src = distinct(len(INDEX), 2) if dim == 0 else distinct(2, len(INDEX))
    assert gradcheck(lambda x: ops.softmax(x, index, None, NUM_NODES, dim), src)
    assert gradgradcheck(lambda x: ops.softmax(x, index, None, NUM_NODES, dim), src)
    assert gradcheck(lambda x: ops.softmax(x, None, ptr, None, dim), src)
