"""What stands in programs for what they cannot hold computes, called by itself, what torch does."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import make_tensor

from gnnscript.ops import exportable
from gnnscript.ops.portable import differ

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "others"), [(0, 3), (1, 1), (7, 4), (40, 30)])
@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_distances(rows: int, others: int, p: float, dtype: torch.dtype) -> None:
    x = make_tensor((2, rows, 3), dtype=dtype, device="cpu").requires_grad_()
    y = make_tensor((2, others, 3), dtype=dtype, device="cpu")
    found, expected = exportable.cdist(x, y, p), torch.cdist(x, y, p)
    torch.testing.assert_close(found, expected)
    exact = exportable.cdist(x, y, p, "donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(exact, expected, rtol=1e-4, atol=1e-4)
    for grad, other in zip(
        torch.autograd.grad(found.sum(), x), torch.autograd.grad(expected.sum(), x), strict=True
    ):
        torch.testing.assert_close(grad, other)


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_pointers_and_bounds(index: torch.dtype) -> None:
    positions = torch.tensor([0, 0, 2, 3, 3], dtype=index)
    found = exportable.coo_to_csr(positions, 5)
    torch.testing.assert_close(found, torch._convert_indices_from_coo_to_csr(positions, 5))
    assert found.dtype == torch.int64
    assert exportable.coo_to_csr(positions[:0], 2, out_int32=True).tolist() == [0, 0, 0]
    assert exportable.bound(found[3]) == 3
    assert exportable.bound(-2) == -2
    assert exportable.bound(None) is None
    with pytest.raises(RuntimeError, match="at least 0"):
        exportable.bound(torch.tensor(-1))


@pytest.mark.parametrize("dtype", FLOATS)
def test_values_along_a_dimension(dtype: torch.dtype) -> None:
    x = make_tensor((4, 3), dtype=dtype, device="cpu").t()
    order = torch.tensor([[2, 0, 1, 1]])
    for dim in (0, -2):
        torch.testing.assert_close(
            exportable.take_along_dim(x, order, dim), torch.take_along_dim(x, order, dim)
        )
    flat = x.contiguous()
    torch.testing.assert_close(
        exportable.take_along_dim(flat, order), torch.take_along_dim(flat, order)
    )


@pytest.mark.parametrize(("a", "b"), [(7, 2), (8, 2), (-7, 2), (7.5, 2), (0, 3), (9, -4)])
def test_quotients_are_rounded_as_in_python(a: float, b: int) -> None:
    assert exportable.floor_div(a, b) == math.floor(a / b)
    assert exportable.ceil_div(a, b) == math.ceil(a / b)


def test_checks_answer_what_is_known() -> None:
    x = torch.ones(2, 0)
    assert exportable.length(x) == 2
    assert exportable.length("abc") == 3
    assert exportable.ordinary(x, 2) is x
    assert exportable.ordinary([x, 0, None, "a"], 1) == [x, 0, None, "a"]
    assert exportable.holds(True, "not so") is True
    assert exportable.holds(False, "not so") is False
    assert exportable.holds(torch.tensor(True), "not so") is True
    assert exportable.refused(torch.tensor(False), "so") is False
    assert not differ(3, 3)
    assert differ(3, 4)
    with pytest.raises(RuntimeError, match="not so"):
        exportable.holds(torch.tensor(False), "not so")
    with pytest.warns(UserWarning, match="beware"):
        exportable.warn("beware")
