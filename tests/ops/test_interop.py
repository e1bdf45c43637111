"""The functions named after torch_scatter do what its documentation says, checked by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from gnnscript.ops import interop

pytestmark = pytest.mark.usefixtures("kernels")

INDEX = torch.tensor([3, 0, 0, 5, 3, 3])
SIZE = 7


def by_hand(src: Tensor, index: Tensor, dim: int, reduce: Any, empty: float) -> Tensor:
    """Reduces each feature of each row on its own."""
    rows, keys = src.movedim(dim, 0), index.movedim(dim, 0)
    out = torch.full([SIZE, *rows.shape[1:]], empty, dtype=src.dtype)
    for row in range(SIZE):
        for place in torch.cartesian_prod(*(torch.arange(n) for n in rows.shape[1:])).view(
            -1, rows.dim() - 1
        ):
            at = (slice(None), *place.tolist())
            values = rows[at][keys[at] == row]
            if values.numel():
                out[(row, *place.tolist())] = reduce(values)
    return out.movedim(0, dim)


REDUCTIONS = {
    "sum": (lambda x: x.sum(), 0.0),
    "add": (lambda x: x.sum(), 0.0),
    "mul": (lambda x: x.prod(), 1.0),
    "mean": (lambda x: x.mean(), 0.0),
    "min": (lambda x: x.min(), 0.0),
    "max": (lambda x: x.max(), 0.0),
}


def cases() -> list[tuple[Tensor, Tensor, Tensor, int]]:
    """Values, an index as it is given and as it is meant, and the dimension."""
    vector = torch.randn(6, 2, 3, dtype=torch.float64)
    last = torch.randn(2, 3, 6, dtype=torch.float64)
    own = torch.randint(0, SIZE, (2, 6))  # of the first dimensions: each example its own rows
    examples = torch.randn(2, 6, 3, dtype=torch.float64)
    return [
        (vector, INDEX, INDEX.view(6, 1, 1).expand_as(vector), 0),
        (last, INDEX.int(), INDEX.expand_as(last), -1),
        (examples, own, own.unsqueeze(-1).expand_as(examples), 1),
    ]


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("form", ["eager", "scripted"])
def test_scatter(reduce: str, form: str) -> None:
    scatter = interop.scatter if form == "eager" else torch.jit.script(interop.scatter)
    for src, index, meant, dim in cases():
        function, empty = REDUCTIONS[reduce]
        expected = by_hand(src, meant, dim, function, empty)
        torch.testing.assert_close(scatter(src, index, dim, None, SIZE, reduce), expected)
        if reduce != "add":
            named = getattr(interop, f"scatter_{reduce}")(src, index, dim, None, SIZE)
            named = named[0] if isinstance(named, tuple) else named
            torch.testing.assert_close(named, expected)


def test_out_is_added_to_and_multiplied() -> None:
    src = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    out = torch.ones(SIZE)
    assert interop.scatter_add(src, INDEX, out=out) is out
    assert out.tolist() == [6.0, 1.0, 1.0, 13.0, 1.0, 5.0, 1.0]
    interop.scatter_mul(src, INDEX, out=out)
    assert out.tolist() == [36.0, 1.0, 1.0, 390.0, 1.0, 20.0, 1.0]
    interop.scatter_mean(src, INDEX, out=out)  # what it held is a summand, and is divided, too
    assert out.tolist() == [(36 + 2 + 3) / 2, 1.0, 1.0, (390 + 1 + 5 + 6) / 3, 1.0, 24.0, 1.0]


def test_extrema_win_over_what_out_holds() -> None:
    src = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], requires_grad=True)
    out = torch.tensor([2.5, -1.0, 9.0, 6.0, 0.0, 7.0, 0.0])
    found, place = interop.scatter_max(src, INDEX, out=out)
    assert found is out
    assert out.tolist() == [3.0, -1.0, 9.0, 6.0, 0.0, 7.0, 0.0]
    assert place.tolist() == [2, 6, 6, 6, 6, 6, 6]  # none is larger than an equal one
    out.sum().backward()
    assert src.grad is not None
    assert src.grad.tolist() == [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    low = interop.scatter(src.detach(), INDEX, out=torch.full([SIZE], 4.5), reduce="min")
    assert low.tolist() == [2.0, 4.5, 4.5, 1.0, 4.5, 4.0, 4.5]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_integers_stay_integers(dtype: torch.dtype) -> None:
    src = torch.tensor([-1, 2, 3, 4, -5, 6], dtype=dtype)
    mean = interop.scatter_mean(src, INDEX, 0, None, SIZE)
    assert mean.dtype == dtype
    assert mean.tolist() == [2, 0, 0, 0, 0, 4, 0]
    assert interop.scatter_mean(src[:2], INDEX[:1].repeat(2), 0, None, 4)[3] == 0
    assert interop.scatter_mean(-src[4:], INDEX[4:], 0, None, 4)[3] == -1  # rounded down
    largest = interop.segment_csr(src, torch.tensor([0, 2, 2, 6]), None, "max")
    assert (largest.dtype, largest.tolist()) == (dtype, [2, 0, 6])


def test_rows_of_each_example() -> None:
    src = torch.randn(2, 3, 6, 4, dtype=torch.float64, requires_grad=True)
    ptr = torch.tensor([[0, 2, 2, 6], [1, 1, 4, 5]]).unsqueeze(1)  # the same for three
    out = torch.empty(2, 3, 3, 4, dtype=torch.float64)
    for reduce in ("sum", "mean", "min", "max"):
        expected = torch.stack(
            [interop.segment_csr(src[n], ptr[n], None, reduce) for n in range(2)]
        )
        vector = torch.stack(
            [interop.segment_csr(src[n, 0], ptr[n, 0], None, reduce) for n in range(2)]
        )
        actual = interop.segment_csr(src, ptr, None, reduce)
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(actual[:, 0], vector)
        assert interop.segment_csr(src.detach(), ptr, out, reduce) is out
        torch.testing.assert_close(out, expected.detach())
        assert gradcheck(lambda x, r=reduce: interop.segment_csr(x, ptr, None, r), src)
    assert interop.segment_csr(torch.full([1, 2], torch.inf), ptr[:1, 0, :2], None, "max").isinf()
    rows = torch.randn(2, 3, 3, 4)
    ends = torch.tensor([[0, 2, 2, 6], [0, 1, 4, 6]]).unsqueeze(1)
    nodes = torch.tensor([[0, 0, 2, 2, 2, 2], [0, 1, 1, 1, 2, 2]])
    expected = torch.stack([rows[n].index_select(1, nodes[n]) for n in range(2)])
    assert torch.equal(interop.gather_csr(rows, ends), expected)
    for bad in (-1, 7):
        with pytest.raises(IndexError, match=rf"indptr holds {bad}, expected values in \[0, 7\)"):
            interop.segment_csr(src, torch.where(ptr == 1, bad, ptr))


def test_an_index_out_of_range_is_named() -> None:
    index = torch.tensor([[0, 9], [1, 1]])
    with pytest.raises(IndexError, match=r"index holds 9, expected values in \[0, 4\)"):
        interop.scatter(torch.randn(2, 2, 3), index, 1, dim_size=4)
    with pytest.raises(ValueError, match=r"reduce to be one of .* got 'median'"):
        interop.scatter(torch.randn(2), index[0], reduce="median")


def test_positions_of_extrema() -> None:
    src = torch.tensor([[2.0, 1.0], [7.0, 7.0], [7.0, 0.0], [1.0, 1.0], [2.0, 5.0], [0.0, 5.0]])
    found, place = interop.scatter_max(src, INDEX, 0, None, SIZE)
    assert found[[0, 1, 3, 5]].tolist() == [[7.0, 7.0], [0.0, 0.0], [2.0, 5.0], [1.0, 1.0]]
    assert place[[0, 1, 3, 5]].tolist() == [[1, 1], [6, 6], [0, 4], [3, 3]]
    assert interop.scatter_min(src, INDEX, 0, None, SIZE)[1][[0, 3]].tolist() == [[1, 2], [5, 0]]


def test_deviation_and_exponentials() -> None:
    for src, index, meant, dim in cases():
        for unbiased in (True, False):
            expected = by_hand(
                src, meant, dim,
                lambda x, u=unbiased: x.std(correction=int(u and x.numel() > 1)), 0.0,
            )  # fmt: skip
            actual = interop.scatter_std(src, index, dim, None, SIZE, unbiased)
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
        log_total = by_hand(src, meant, dim, lambda x: x.logsumexp(0), 0.0)
        actual = interop.scatter_logsumexp(src, index, dim, None, SIZE)
        torch.testing.assert_close(actual, log_total)
        weights = interop.scatter_softmax(src, index, dim, SIZE)
        expected = (src - log_total.gather(dim, meant)).exp()
        torch.testing.assert_close(weights, expected)
        logs = interop.scatter_log_softmax(src, index, dim, dim_size=SIZE)
        torch.testing.assert_close(logs, expected.log())
        assert gradcheck(
            lambda x, i=index, d=dim: interop.scatter_logsumexp(x, i, d, None, SIZE),
            src.requires_grad_(),
        )


def test_sorted_forms() -> None:
    index = INDEX.sort().values
    src = torch.randn(6, 2)
    ptr = torch.tensor([0, 2, 2, 2, 5, 5, 6, 6])
    for reduce in ("sum", "mean", "min", "max"):
        expected = interop.scatter(src, index, 0, None, SIZE, reduce)
        torch.testing.assert_close(interop.segment_coo(src, index, None, SIZE, reduce), expected)
        torch.testing.assert_close(interop.segment_csr(src, ptr, None, reduce), expected)
    nodes = torch.randn(SIZE, 2)
    assert torch.equal(interop.gather_csr(nodes, ptr), nodes[index])
    assert torch.equal(interop.gather_coo(nodes, index), nodes[index])
    examples, own = torch.randn(2, SIZE, 3), torch.randint(0, SIZE, (2, 6))
    expected = torch.stack([one[i] for one, i in zip(examples, own, strict=True)])
    assert torch.equal(interop.gather_coo(examples, own), expected)


@pytest.mark.parametrize("name", interop.__all__)
def test_each_function_compiles(name: str) -> None:
    torch.jit.script(getattr(interop, name))
