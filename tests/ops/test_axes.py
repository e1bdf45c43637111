"""``regroup_axes`` does what einops does with the pattern that the numbers stand for."""

from __future__ import annotations

import einops
import pytest
import torch
from torch import Tensor
from torch.testing import make_tensor

from gnnscript.ops.axes import regroup_axes

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
scripted = torch.jit.script(regroup_axes)

# The pattern and its sizes, and the same by number.
CASES = {
    "split": ("n (h d) -> h n d", {"h": 2}, [[0], [1, 2]], [[1], [0], [2]], [-1, 2, -1]),
    "join": ("n a b -> (n b) a", {}, [[0], [1], [2]], [[0, 2], [1]], [-1, -1, -1]),
    "ellipsis": ("... d -> d ...", {}, [[-1], [0]], [[0], [-1]], [-1]),
    "join ellipsis": ("n ... -> (... n)", {}, [[0], [-1]], [[-2, 0]], [-1]),
    "flatten": ("... d -> (...) d", {}, [[-1], [0]], [[-2], [0]], [-1]),
    "repeat": ("n d -> n (r d) 3", {"r": 2}, [[0], [1]], [[0], [2, 1], [3]], [-1, -1, 2, 3]),
}


def example(pattern: str, dtype: torch.dtype = torch.float64) -> Tensor:
    shape = {"n a b -> (n b) a": (3, 2, 4)}.get(pattern, (3, 4))
    return make_tensor(shape, dtype=dtype, device="cpu")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_like_einops(name: str, dtype: torch.dtype) -> None:
    pattern, sizes, left, right, lengths = CASES[name]
    x = example(pattern, dtype)
    function = einops.repeat if name == "repeat" else einops.rearrange
    expected = function(x, pattern, **sizes)
    for run in (regroup_axes, scripted):
        torch.testing.assert_close(run(x, left, right, lengths), expected)
        other = x.flip(0).transpose(0, 1).contiguous().transpose(0, 1)
        torch.testing.assert_close(
            run(other, left, right, lengths), function(other, pattern, **sizes)
        )
        torch.testing.assert_close(
            run(x[:0], left, right, lengths), function(x[:0], pattern, **sizes)
        )


@pytest.mark.parametrize("reduction", ["sum", "mean", "min", "max", "prod"])
def test_reductions(reduction: str) -> None:
    x = make_tensor((3, 4, 2), dtype=torch.float64, device="cpu", requires_grad=True)
    expected = einops.reduce(x, "n (h d) b -> h n", reduction, h=2)
    for run in (regroup_axes, scripted):
        call = [[0], [1, 2], [3]], [[1], [0]], [-1, 2, -1, -1], reduction
        torch.testing.assert_close(run(x, *call), expected)
    assert torch.autograd.gradcheck(lambda x: regroup_axes(x, *call), (x,))
    assert torch.autograd.gradgradcheck(lambda x: regroup_axes(x, *call), (x,))


@pytest.mark.parametrize("reduction", ["any", "all"])
def test_reductions_of_truths(reduction: str) -> None:
    x = torch.tensor([[True, False], [True, True], [False, False]])
    expected = einops.reduce(x, "n d -> n", reduction)
    found = regroup_axes(x, [[0], [1]], [[0]], [-1, -1], reduction)
    assert torch.equal(found, expected)


def test_what_does_not_fit_is_refused() -> None:
    x = torch.zeros(3, 4)
    for run, error in ((regroup_axes, ValueError), (scripted, torch.jit.Error)):
        with pytest.raises(error, match="expected 3 dimensions, got 2"):
            run(x, [[0], [1], [2]], [[0], [1], [2]], [-1, -1, -1])
        with pytest.raises(error, match="dimension 1 is of size 4"):
            run(x, [[0], [1, 2]], [[0], [1], [2]], [-1, 3, -1])
        with pytest.raises(error, match="unknown reduction 'median'"):
            run(x, [[0], [1]], [[0]], [-1, -1], "median")
