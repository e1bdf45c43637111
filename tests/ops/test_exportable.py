"""What stands in programs for what they cannot hold computes, called by itself, what torch does."""

from __future__ import annotations

import math

import pytest
import torch

from gnnscript.ops import exportable, varying
from gnnscript.ops.portable import differ

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_pointers_and_bounds(index: torch.dtype) -> None:
    positions = torch.tensor([0, 0, 2, 3, 3], dtype=index)
    found = varying.coo_to_csr(positions, 5)
    torch.testing.assert_close(found, torch._convert_indices_from_coo_to_csr(positions, 5))
    assert found.dtype == torch.int64
    assert varying.coo_to_csr(positions[:0], 2, out_int32=True).tolist() == [0, 0, 0]
    assert exportable.bound(found[3]) == 3
    assert exportable.bound(-2) == -2
    assert exportable.bound(None) is None
    with pytest.raises(RuntimeError, match="at least 0"):
        exportable.bound(torch.tensor(-1))


@pytest.mark.parametrize(("a", "b"), [(7, 2), (8, 2), (-7, 2), (7.5, 2), (0, 3), (9, -4)])
def test_quotients_are_rounded_as_in_python(a: float, b: int) -> None:
    assert exportable.floor_div(a, b) == math.floor(a / b)
    assert exportable.ceil_div(a, b) == math.ceil(a / b)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int32, torch.int64, torch.bool])
def test_numbers_are_those_of_tensors(dtype: torch.dtype) -> None:
    for value in (torch.ones((), dtype=dtype), torch.zeros(1, 1, dtype=dtype)):
        found = exportable.as_float(value)
        assert (type(found), found) == (float, float(value))
    assert exportable.as_float("inf") == math.inf
    assert exportable.as_float(3) == 3.0
    with pytest.raises(RuntimeError, match="Scalar"):
        exportable.as_float(torch.ones(2, dtype=dtype))


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
