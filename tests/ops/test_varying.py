"""Functions that leave sizes dynamic compute, called by themselves, what torch's own do."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import make_tensor

from gnnscript.ops import varying

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "others"), [(0, 3), (1, 1), (7, 4), (40, 30)])
@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_distances(rows: int, others: int, p: float, dtype: torch.dtype) -> None:
    x = make_tensor((2, rows, 3), dtype=dtype, device="cpu").requires_grad_()
    y = make_tensor((2, others, 3), dtype=dtype, device="cpu")
    found, expected = varying.cdist(x, y, p), torch.cdist(x, y, p)
    torch.testing.assert_close(found, expected)
    exact = varying.cdist(x, y, p, "donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(exact, expected, rtol=1e-4, atol=1e-4)
    for grad, other in zip(
        torch.autograd.grad(found.sum(), x), torch.autograd.grad(expected.sum(), x), strict=True
    ):
        torch.testing.assert_close(grad, other)


@pytest.mark.parametrize("dtype", FLOATS)
def test_values_along_a_dimension(dtype: torch.dtype) -> None:
    x = make_tensor((4, 3), dtype=dtype, device="cpu").t()
    order = torch.tensor([[2, 0, 1, 1]])
    for dim in (0, -2):
        torch.testing.assert_close(
            varying.take_along_dim(x, order, dim), torch.take_along_dim(x, order, dim)
        )
    flat = x.contiguous()
    torch.testing.assert_close(
        varying.take_along_dim(flat, order), torch.take_along_dim(flat, order)
    )


@pytest.mark.parametrize("dtype", [*FLOATS, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 0, 3), (4, 3)])
def test_repeated_elements(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = make_tensor(shape, dtype=dtype, device="cpu")
    for repeats in (0, 1, 3):
        found = varying.repeat_interleave(x, repeats, output_size=repeats * x.numel())
        torch.testing.assert_close(found, torch.repeat_interleave(x, repeats))
        for dim in range(-x.dim(), x.dim()):
            found = varying.repeat_interleave(x, repeats, dim)
            torch.testing.assert_close(found, torch.repeat_interleave(x, repeats, dim))
    counts = torch.arange(x.numel())
    found = varying.repeat_interleave(x, counts)
    torch.testing.assert_close(found, torch.repeat_interleave(x, counts))
    torch.testing.assert_close(varying.repeat_interleave(counts), torch.repeat_interleave(counts))


@pytest.mark.parametrize("offset", [-3, -1, 0, 1, 2])
@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (1, 1), (5, 5), (3, 6), (6, 2)])
def test_triangles(rows: int, columns: int, offset: int) -> None:
    for ours, own in (
        (varying.tril_indices, torch.tril_indices),
        (varying.triu_indices, torch.triu_indices),
    ):
        found = ours(rows, columns, offset, dtype=torch.int32)
        torch.testing.assert_close(found, own(rows, columns, offset, dtype=torch.int32))
        assert ours(rows, columns, offset).dtype == torch.int64


@pytest.mark.parametrize("size", [0, 1, 2, 5])
def test_combinations(size: int) -> None:
    x = torch.randn(size)
    for arguments in ((2,), (2, True), (3,)):
        expected = torch.combinations(x, *arguments)
        torch.testing.assert_close(varying.combinations(x, *arguments), expected)


def test_counts() -> None:
    values = torch.tensor([0, 3, 3, 1])
    for given in ((), (None, 6), (torch.rand(4),), (torch.rand(4).half(), 6)):
        torch.testing.assert_close(varying.bincount(values, *given), torch.bincount(values, *given))


class Counts(torch.nn.Module):
    """Functions that fix sizes, in a module that nobody specialises."""

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, ...]:
        n = x.size(0)
        degree = torch.bincount(edge_index[1], minlength=n)
        weighed = edge_index[0].bincount(x[edge_index[1], 0], n)
        halves = torch.bincount(edge_index[0], x[edge_index[1], 1].half(), minlength=n)
        labels = F.one_hot(edge_index[0], n)
        nearest = torch.take_along_dim(x, x.argsort(0), 0)
        return degree, x * weighed.unsqueeze(-1), halves, labels, nearest, torch.cdist(x, x)


def test_counts_of_graphs_of_any_size() -> None:
    example = torch.randn(5, 2), torch.randint(5, (2, 7))
    sizes = {0: torch.export.Dim.DYNAMIC}, {1: torch.export.Dim.DYNAMIC}
    with varying.LeavesSizesOpen():
        program = torch.export.export(Counts(), example, dynamic_shapes=sizes).module()
    for nodes, edges in ((9, 20), (1, 3), (1, 0), (4, 0)):
        call = torch.randn(nodes, 2), torch.randint(nodes, (2, edges))
        for found, expected in zip(program(*call), Counts()(*call), strict=True):
            # torch's own has int64 for no values, whatever their weights.
            torch.testing.assert_close(found, expected, check_dtype=edges > 0)
    with pytest.raises(RuntimeError, match="not below minlength"):
        program(torch.randn(3, 2), torch.full((2, 4), 3))


def test_classes() -> None:
    classes = torch.tensor([[0, 3], [2, 2]])
    for given in ((), (4,), (6,)):
        expected = F.one_hot(classes, *given)
        torch.testing.assert_close(varying.one_hot(classes, *given), expected)
    assert varying.one_hot(classes[:0], 3).shape == (0, 2, 3)
    for wrong in (classes - 1, classes + 1):
        with pytest.raises(RuntimeError, match="not below num_classes"):
            varying.one_hot(wrong, 4)


@pytest.mark.parametrize("shape", [(3, 3), (5, 2), (2, 4), (2, 2, 2)])
@pytest.mark.parametrize("wrap", [False, True])
def test_diagonals(shape: tuple[int, ...], wrap: bool) -> None:
    matrix = torch.randn(shape)
    expected = matrix.clone().fill_diagonal_(7.0, wrap)
    assert varying.fill_diagonal_(matrix, 7.0, wrap) is matrix
    torch.testing.assert_close(matrix, expected)
