"""CUDA kernels give what ATen gives: hubs over many chunks, empty rows, every width and layout."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.library import opcheck

import gnnscript
from gnnscript.ops import evaluate, portable
from ops_cases import FLOATS, INDEX_DTYPES, LAYOUTS, REDUCES, by_sorting

# Nodes, edges, skew: one row of hundreds of chunks; a hub among others; far more nodes than edges;
# no edges; one edge.
GRAPHS = ((1, 20000, 1), (300, 9000, 6), (5000, 300, 1), (7, 0, 1), (3, 1, 1))
# Lanes: one; no multiple of a pack; packs of every dtype.
FEATURES = (1, 3, 64)
TOLERANCES = {
    torch.float64: {"rtol": 1e-9, "atol": 1e-9},
    torch.float32: {"rtol": 3e-5, "atol": 3e-5},
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
    torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2},
}


def make_index(nodes: int, edges: int, skew: int, device: torch.device) -> Tensor:
    return (torch.rand(edges, dtype=torch.float64, device=device) ** skew * nodes).long()


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES)
@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_csr(
    graph: tuple[int, int, int], index_dtype: torch.dtype, native: Any, device: torch.device
) -> None:
    index = make_index(*graph, device).to(index_dtype)
    for given in (index, index.sort().values, torch.stack([index, index], 1)[:, 1]):
        ptr, perm = torch.ops.gnnscript.csr(given, graph[0])
        assert torch.equal(perm, torch.sort(given, stable=True).indices)
        counts = torch.bincount(given.long(), minlength=graph[0])
        assert torch.equal(ptr, torch.cat([counts.new_zeros(1), counts.cumsum(0)]))
        assert ptr.dtype == perm.dtype == torch.int64


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_segment_reduce(
    graph: tuple[int, int, int], dtype: torch.dtype, native: Any, device: torch.device
) -> None:
    index = make_index(*graph, device)
    ptr, perm = native.csr(index, graph[0])
    for features, reduce in itertools.product(FEATURES, REDUCES):
        src = torch.randn(index.numel(), features, device=device).to(dtype)
        if reduce == "mul":
            src = src.sign() * 0.999 ** src.abs()  # else the products vanish
        out = native.segment_reduce(src, ptr, perm, reduce)
        expected = by_sorting(src, index, graph[0], reduce).to(dtype)
        torch.testing.assert_close(out, expected, **TOLERANCES[dtype], msg=f"{features} {reduce}")
        assert torch.equal(native.segment_reduce(src[perm], ptr, None, reduce), out)
        assert torch.equal(native.segment_reduce(src, ptr, perm, reduce), out), "other bits again"
    several = native.segment_reduces(src, ptr, perm, list(REDUCES))
    for reduce, out in zip(REDUCES, several, strict=True):
        expected = by_sorting(src, index, graph[0], reduce).to(dtype)
        torch.testing.assert_close(out, expected, **TOLERANCES[dtype], msg=reduce)


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, index_dtype: torch.dtype, native: Any, device: torch.device) -> None:
    index = make_index(40, 900, 2, device)
    strided = torch.stack([index, index], 1).to(index_dtype)[:, 0]
    src = {
        "contiguous": torch.randn(900, 3, 4, device=device),
        "transposed": torch.randn(4, 3, 900, device=device).permute(2, 1, 0),
        "expanded": torch.randn(900, 1, 4, device=device).expand(900, 3, 4),
    }[layout]
    misaligned = torch.randn(900 * 12 + 1, device=device)[1:].view(900, 3, 4)
    for values, reduce in itertools.product((src, src[::2], misaligned), ("sum", "max", "var")):
        used = strided[: values.size(0)]
        out = native.scatter(values, used, 0, 40, reduce)
        dense = values.clone(memory_format=torch.contiguous_format)
        assert torch.equal(out, native.scatter(dense, used.long(), 0, 40, reduce))
    for nodes in (src[:40], misaligned[:40], src[:40].long(), src[:40].half()):
        assert torch.equal(native.gather(nodes, strided, 0), nodes[index])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_edge_softmax(
    graph: tuple[int, int, int], dtype: torch.dtype, native: Any, device: torch.device
) -> None:
    index = make_index(*graph, device)
    ptr, perm = native.csr(index, graph[0])
    for features in FEATURES:
        src = torch.randn(index.numel(), features, device=device).to(dtype).requires_grad_()
        exact = src.detach().double().requires_grad_()
        upstream = torch.randn(src.shape, device=device, dtype=torch.float64)
        out = native.edge_softmax(src, ptr, perm)
        expected = portable.softmax(exact, index, None, graph[0])
        tolerance = TOLERANCES[dtype]
        torch.testing.assert_close(out, expected.to(dtype), **tolerance)
        (grad,) = torch.autograd.grad(out, src, upstream.to(dtype))
        (exact_grad,) = torch.autograd.grad(expected, exact, upstream.to(dtype).double())
        torch.testing.assert_close(grad, exact_grad.to(dtype), **tolerance)


def test_edges_of_no_row_are_zero(native: Any, device: torch.device) -> None:
    ptr = torch.tensor([2, 5, 5, 7], device=device)
    src = torch.randn(9, 3, device=device)
    weights = native.edge_softmax(src, ptr, None)
    assert weights[[0, 1, 7, 8]].eq(0).all()
    torch.testing.assert_close(weights[2:5].sum(0), torch.ones(3, device=device))
    expanded = torch.ops.gnnscript.segment_expand(src[:3], ptr, None, 9)
    assert torch.equal(expanded[2:5], src[:1].expand(3, 3))
    assert expanded[[0, 1, 7, 8]].eq(0).all()
    out = native.segment_reduce(src, ptr, None, "max")
    grad = torch.ops.gnnscript.segment_reduce_backward(out, src, out, ptr, None, "max")
    assert grad[[0, 1, 7, 8]].eq(0).all()
    torch.testing.assert_close(grad[2:5].sum(0), out[0])


PROGRAMS = (
    ("j0", [(300, 64)]),
    ("j0", [(300, 3)]),
    ("e0 * j1", [(9000, 1), (300, 64)]),
    ("j1 * e0", [(9000, 64), (300, 64)]),
    ("e0 * j1", [(9000, 4, 1), (300, 4, 16)]),
    ("e0 * j1", [(9000, 1, 16), (300, 4, 16)]),
    ("e0 * j1", [(9000, 3, 1), (300, 3, 5)]),
    ("relu(j0 + e1)", [(300, 24), (9000, 24)]),
    ("leaky_relu(i0 + j1, 0.2) * s2", [(300, 4, 8), (300, 4, 8), (4, 8)]),
    ("sigmoid(i0 - j1) * e2 + s3", [(300, 1, 3), (300, 4, 3), (9000, 4, 1), (3,)]),
)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("program", "shapes"), PROGRAMS)
def test_edge_programs(
    program: str,
    shapes: list[tuple[int, ...]],
    dtype: torch.dtype,
    native: Any,
    device: torch.device,
) -> None:
    index, other = (make_index(300, 9000, 6, device), make_index(300, 9000, 1, device).int())
    ptr, perm = native.csr(index, 300)
    given = [torch.randn(shape, device=device).to(dtype) for shape in shapes]
    exact = [operand.double() for operand in given]
    scale = TOLERANCES[dtype]["rtol"]
    for reduce in ("sum", "mean", "min", "max"):
        out = native.edge_reduce(program, given, index, other, ptr, perm, reduce)
        expected = evaluate.edge_reduce(program, exact, index, other, 300, reduce)
        bound = scale * (1 + expected.abs().max().item())
        torch.testing.assert_close(out.double(), expected, rtol=scale, atol=bound)
        again = native.edge_reduce(program, given, index, other, ptr, perm, reduce)
        assert torch.equal(out, again), "other bits again"
    for sum_dims in range(expected.dim()):
        out = native.edge_map(program, given, index, other, sum_dims)
        expected = evaluate.edge_map(program, exact, index, other, sum_dims)
        bound = scale * (1 + expected.abs().max().item())
        torch.testing.assert_close(out.double(), expected, rtol=scale, atol=bound)


ATTENTION = (
    ("leaky_relu(j0 + i1, 0.2)", [(300, 4), (300, 4)], 0, "j0", [(300, 4, 16)]),
    ("leaky_relu(i0 + j1, 0.2) * s2", [(300, 1, 8), (300, 4, 8), (4, 8)], 1, "j0", [(300, 4, 8)]),
    ("i0 * (j1 + e2)", [(300, 1, 5), (300, 1, 5), (9000, 1, 5)], 1, "j0", [(300, 1, 5)]),
    ("e0", [(9000, 2)], 0, "t0 = tanh(j0); t0 * e1", [(300, 2, 3), (9000, 2, 1)]),
    ("e0 * 0.5", [(9000, 24)], 0, "j0", [(300, 24)]),
    ("e0", [(9000,)], 0, "j0 - i1", [(300, 24), (300, 24)]),
    # Weights that are dropped, per head; heads of more lanes than threads work together on.
    ("leaky_relu(j0 + i1, 0.2)", [(300, 4), (300, 4)], 0, "e0 * j1", [(9000, 4, 1), (300, 4, 16)]),
    ("i0 * j1 * 0.05", [(300, 1, 200), (300, 1, 200)], 1, "j0", [(300, 1, 200)]),
    ("i0 * j1 * 0.1", [(300, 2, 70), (300, 2, 70)], 1, "e0 * j1", [(9000, 2, 3), (300, 2, 3)]),
)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("score", "scored", "sum_dims", "message", "sent"), ATTENTION)
def test_attention(
    score: str,
    scored: list[tuple[int, ...]],
    sum_dims: int,
    message: str,
    sent: list[tuple[int, ...]],
    dtype: torch.dtype,
    native: Any,
    device: torch.device,
) -> None:
    index, other = (make_index(300, 9000, 6, device), make_index(300, 9000, 1, device).int())
    ptr, perm = native.csr(index, 300)
    given = [torch.randn(s, device=device).to(dtype).requires_grad_() for s in (*scored, *sent)]
    exact = [operand.detach().double().requires_grad_() for operand in given]
    count = len(scored)

    def run() -> Tensor:
        return torch.ops.gnnscript.edge_attention(  # type: ignore[no-any-return]
            score, given[:count], sum_dims, message, given[count:], index, other, ptr, perm
        )[0]

    out = run()
    expected, _ = evaluate.edge_attention(
        score, exact[:count], sum_dims, message, exact[count:], index, other, 300
    )
    scale = TOLERANCES[dtype]["rtol"]
    bound = scale * (1 + expected.abs().max().item())
    torch.testing.assert_close(out.double(), expected, rtol=scale, atol=bound)
    assert torch.equal(out, run()), "other bits again"
    found = torch.autograd.grad(out.square().sum(), given)
    wanted = torch.autograd.grad(expected.square().sum(), exact)
    for grad, want in zip(found, wanted, strict=True):
        bound = 10 * scale * (1 + want.abs().max().item())
        torch.testing.assert_close(grad.double(), want, rtol=10 * scale, atol=bound)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("heads", [1, 3])
def test_attention_over_any_scores(
    heads: int, dtype: torch.dtype, native: Any, device: torch.device
) -> None:
    """Rows are softmaxes whatever their scores are, and wherever chunks cut them."""
    lengths = [1, 0, 5000, 700, 40, 3, 9, 0, 300]
    index = torch.arange(9, device=device).repeat_interleave(torch.tensor(lengths, device=device))
    edges = index.numel()
    score = torch.randn(edges, heads, device=device).to(dtype)
    ptr, perm = native.csr(index, 9)
    hub = slice(int(ptr[2]), int(ptr[3]))
    score[hub] = torch.linspace(-3e4, 3e4, 5000, device=device).to(dtype)[:, None]  # grows
    falls = slice(int(ptr[3]), int(ptr[4]))
    score[falls] = torch.linspace(3e4, -3e4, 700, device=device).to(dtype)[:, None]
    inf = float("inf")
    score[hub][:300] = -inf  # whole chunks
    score[int(ptr[4]) : int(ptr[5])][::2] = -inf
    score[int(ptr[5]) : int(ptr[6])] = -inf
    score[int(ptr[6])] = inf
    score[int(ptr[8]) + 100, 0] = float("nan")
    x = torch.randn(edges, heads, 8, device=device).to(dtype)
    given = ("e0", [score], 0, "e0", [x], index, index, ptr, perm)
    out, high, total = torch.ops.gnnscript.edge_attention(*given)
    for row, (begin, length) in enumerate(zip(ptr.tolist(), lengths, strict=False)):
        own, sent = (values[begin : begin + length].double() for values in (score, x))
        weight = own.softmax(0)
        tolerance = {"rtol": TOLERANCES[dtype]["rtol"], "atol": TOLERANCES[dtype]["atol"]}
        expected = (weight[..., None] * sent).sum(0)
        torch.testing.assert_close(out[row].double(), expected, equal_nan=True, **tolerance)
        if length == 0:
            assert high[row].eq(0).all()
            assert total[row].eq(1).all()
        elif expected.isfinite().all():
            assert torch.equal(high[row], own.amax(0).to(high.dtype))
            mass = (own - own.amax(0)).exp().sum(0)
            torch.testing.assert_close(total[row].double(), mass, rtol=1e-4, atol=0)
    grad = torch.ones_like(out)
    weight, _ = torch.ops.gnnscript.edge_attention_backward(*given, grad, high, total, high)
    torch.testing.assert_close(
        weight[hub].double(), score[hub].double().softmax(0), **TOLERANCES[dtype]
    )


def test_attention_over_empty_rows_and_edges_of_no_row(native: Any, device: torch.device) -> None:
    """Rows without edges hold 0; edges of no row have neither weight nor gradient."""
    ops = torch.ops.gnnscript
    index = torch.tensor([0, 0, 0, 0, 0, 2, 2, 2, 2], device=device)
    ptr = torch.tensor([2, 5, 5, 7], device=device)
    perm = torch.arange(9, device=device)
    score = torch.randn(9, 2, device=device, dtype=torch.float64, requires_grad=True)
    x = torch.randn(9, 2, 3, device=device, dtype=torch.float64, requires_grad=True)
    out = ops.edge_attention("e0", [score], 0, "e0", [x], index, index, ptr, perm)[0]
    weight = score[2:5].softmax(0)
    torch.testing.assert_close(out[0], (weight[..., None] * x[2:5]).sum(0))
    assert out[1].eq(0).all()
    first, second = torch.autograd.grad(out.square().sum(), [score, x])
    assert first[[0, 1, 7, 8]].eq(0).all()
    assert second[[0, 1, 7, 8]].eq(0).all()
    assert not first[2:7].eq(0).any()
    none = index[:0]
    ptr, perm = native.csr(none, 3)
    empty = ops.edge_attention("e0", [score[:0]], 0, "e0", [x[:0]], none, none, ptr, perm)[0]
    assert torch.equal(empty, torch.zeros_like(empty))
    assert empty.shape == (3, 2, 3)


def test_gradients(native: Any, device: torch.device) -> None:
    index = torch.tensor([5, 0, 3, 3, 1, 5, 0, 4, 5, 1, 3, 5, 0], device=device)
    ptr, perm = native.csr(index, 7)
    count = 13 * 2
    src = torch.randperm(count, device=device).double().view(13, 2) / count + 0.5
    src.requires_grad_()
    for reduce in ("sum", "mean", "min", "max", "mul", "var", "std"):
        assert gradcheck(lambda x, r=reduce: native.segment_reduce(x, ptr, perm, r), src)
        assert gradgradcheck(lambda x, r=reduce: native.segment_reduce(x, ptr, perm, r), src)
    assert gradgradcheck(lambda x: native.edge_softmax(x, ptr, perm), src)
    nodes = src[:7].detach().clone().requires_grad_()
    assert gradgradcheck(lambda x: native.gather(x, index, 0), nodes)

    def program(x: Tensor, w: Tensor) -> Tensor:
        operands = [x, x.square(), w]
        return native.edge_reduce(
            "tanh(i0 - j1) * e2", operands, index, index.flip(0), ptr, perm, "sum"
        )

    assert gradcheck(program, (nodes, src))
    assert gradgradcheck(program, (nodes, src))

    def attention(x: Tensor, w: Tensor) -> Tensor:
        edges = (index, index.flip(0), ptr, perm)
        given = ([x, x.square(), w], 1, "tanh(j0)", [x])
        return torch.ops.gnnscript.edge_attention("i0 * j1 + e2", *given, *edges)[0]  # type: ignore[no-any-return]

    assert gradcheck(attention, (nodes, src))
    assert gradgradcheck(attention, (nodes, src))


def test_opcheck(native: Any, device: torch.device) -> None:
    index = make_index(7, 30, 1, device)
    ptr, perm = native.csr(index, 7)
    src = torch.randn(30, 4, device=device, requires_grad=True)
    nodes = torch.randn(7, 4, device=device, requires_grad=True)
    ops = torch.ops.gnnscript
    opcheck(ops.csr, (index, 7))
    opcheck(ops.gather, (src, index))
    opcheck(ops.segment_reduce, (src, ptr, perm, "max"))
    opcheck(ops.segment_reduces, (src, ptr, perm, ["mean", "std"]))
    opcheck(ops.edge_softmax, (src, ptr, perm))
    opcheck(ops.edge_reduce, ("e0 * j1", [src, nodes], index, index, ptr, perm, "sum"))
    opcheck(ops.edge_map, ("i0 + j1", [nodes, nodes], index, index, 1))
    call = ("i0 + e1", [nodes, src], 1, "j0", [nodes], index, index, ptr, perm)
    opcheck(ops.edge_attention, call)


# -- neighbours ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 3, 40, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neighbours(dims: int, dtype: torch.dtype, native: Any, device: torch.device) -> None:
    x = torch.randint(0, 5, (700, dims), device=device).to(dtype)  # many at one distance
    y = torch.randint(0, 5, (300, dims), device=device).to(dtype)
    of_x = torch.tensor([0, 1, 1, 260, 700], device=device)
    of_y = torch.tensor([0, 100, 130, 130, 300], device=device)
    r = (2.5 * dims) ** 0.5
    from gnnscript.ops import neighbors

    for bounds in ((of_x, of_y), (None, None)):
        for k in (1, 7, 100):
            found = native.knn(x, y, *bounds, k)
            assert torch.equal(found, neighbors.knn(x, y, *bounds, k))
        for most in (None, 3, 100):
            found = native.radius(x, y, *bounds, r, most)
            assert torch.equal(found, neighbors.radius(x, y, *bounds, r, most))
    own = native.radius(x, x, of_x, of_x, r, None, 1, True)
    assert torch.equal(own, neighbors.radius(x, x, of_x, of_x, r, None, 1, True))


def test_farthest_points(native: Any, device: torch.device) -> None:
    from gnnscript.ops import clusters

    points = torch.randint(0, 9, (900, 3), device=device).float()
    ptr = torch.tensor([0, 500, 500, 501, 900], device=device)
    for ratio in (0.01, 0.3, 1.0):
        sampled = native.fps(points, ptr, ratio, random_start=False)
        assert torch.equal(sampled, clusters.fps(points, ptr, ratio, random_start=False))


# -- indices out of range --------------------------------------------------------------------------


def test_checks_name_the_tensor_the_value_and_the_bound(native: Any, device: torch.device) -> None:
    index = torch.tensor([0, 2, 7, -1], device=device)
    nodes, src = torch.randn(3, 2, device=device), torch.randn(4, 2, device=device)
    ptr, perm = torch.tensor([0, 2, 4], device=device), torch.tensor([0, 1, 4, 3], device=device)
    good = torch.tensor([0, 1, 1, 0], device=device)
    ops = torch.ops.gnnscript
    with gnnscript.checks(True):
        with pytest.raises(IndexError, match=r"index\[2\] is 7.*\[0, 3\)"):
            ops.csr(index, 3)
        with pytest.raises(IndexError, match=r"index\[2\] is 7.*\[0, 3\).*rows of src"):
            ops.gather(nodes, index.int())
        with pytest.raises(IndexError, match=r"perm\[2\] is 4.*\[0, 4\).*edges"):
            ops.segment_reduce(src, ptr, perm, "sum")
        with pytest.raises(IndexError, match=r"perm\[2\] is 4"):
            ops.edge_softmax(src, ptr, perm)
        with pytest.raises(ValueError, match=r"ptr\[2\] = 9"):
            ops.segment_reduce(src, torch.tensor([0, 2, 9], device=device), None, "sum")
        with pytest.raises(IndexError, match=r"other\[2\] is 7.*\[0, 3\)"):
            ops.edge_map("i0 + j1", [nodes, nodes], good, index, 0)
        rows, order = ops.csr(good, 3)
        with pytest.raises(IndexError, match=r"index\[2\] is 7.*\[0, 3\)"):
            ops.edge_reduce("i0 + j1", [nodes, nodes], index, good, rows, order, "sum")


def test_unchecked_indices_never_write_elsewhere(native: Any, device: torch.device) -> None:
    bad = torch.tensor([0, 2, 2**40, -1, 1], device=device)
    src = torch.randn(5, 3, device=device)
    ops = torch.ops.gnnscript
    with gnnscript.checks(False):
        ptr, perm = ops.csr(bad, 3)
        assert ptr.tolist() == [0, 1, 2, 3]
        assert sorted(perm.tolist()) == [0, 1, 2, 3, 4]  # those out of range stand last
        out = ops.segment_reduce(src, ptr, perm, "sum")
        assert torch.equal(out, src[[0, 4, 1]])
        rows = ops.gather(src[:3], bad)
        assert torch.equal(rows[[0, 1, 4]], src[[0, 2, 1]])
        assert rows[[2, 3]].eq(0).all()
        order = torch.tensor([0, 1, 2**40, -5, 4], device=device)
        expanded = ops.segment_expand(src[:3], torch.tensor([0, 2, 4, 5], device=device), order, 5)
        assert torch.equal(expanded[[0, 1, 4]], src[[0, 0, 2]])
        ops.edge_map("i0 + j1", [src[:3], src[:3]], bad, bad, 0)
