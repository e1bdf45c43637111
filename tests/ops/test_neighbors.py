"""Neighbour search, sampling, clustering and splines against definitions written out by hand."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import BSpline
from scipy.spatial import cKDTree
from torch import Tensor

from gnnscript import ops
from gnnscript.ops import library
from ops_cases import FLOATS

SEARCH = ("knn", "radius", "nearest", "fps")
NATIVE = pytest.param(
    "native", marks=pytest.mark.skipif(not library.paths(), reason="no native library")
)


@pytest.fixture(scope="module", params=["portable", NATIVE])
def search(request: pytest.FixtureRequest):
    """The ops that have two implementations."""
    if request.param == "portable":
        return ops
    from gnnscript.ops import native_neighbors

    return native_neighbors


Points = tuple[Tensor, Tensor, Tensor, Tensor]


def bounds(sizes: list[int]) -> Tensor:
    return torch.tensor([0, *itertools.accumulate(sizes)])


@st.composite
def examples(draw: st.DrawFn) -> Points:
    """Points on a coarse grid, so that many distances are equal, in up to four examples."""
    sizes = st.lists(st.integers(0, 9), min_size=1, max_size=4)
    of_x = draw(sizes)
    of_y = draw(st.lists(st.integers(0, 9), min_size=len(of_x), max_size=len(of_x)))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    x = torch.randint(0, 3, (sum(of_x), 2), generator=rng).to(torch.float64)
    y = torch.randint(0, 3, (sum(of_y), 2), generator=rng).to(torch.float64)
    return x, y, bounds(of_x), bounds(of_y)


def pairs(given_points: Points) -> list[tuple[int, float, int]]:
    """Position in y, distance, position in x: all pairs within an example, in this order."""
    x, y, ptr_x, ptr_y = given_points
    return sorted(
        (i, float((x[j] - y[i]).square().sum()), j)
        for b in range(ptr_x.numel() - 1)
        for i in range(int(ptr_y[b]), int(ptr_y[b + 1]))
        for j in range(int(ptr_x[b]), int(ptr_x[b + 1]))
    )


@given(given_points=examples(), k=st.integers(0, 6))
def test_knn_is_the_sorted_list_of_all_distances(search, given_points: Points, k: int) -> None:
    expected = []
    for _, group in itertools.groupby(pairs(given_points), key=lambda pair: pair[0]):
        expected += [(i, j) for i, _, j in itertools.islice(group, k)]
    x, y, ptr_x, ptr_y = given_points
    assert [tuple(edge) for edge in search.knn(x, y, ptr_x, ptr_y, k).t().tolist()] == expected


@given(given_points=examples(), limit=st.none() | st.integers(0, 6), same=st.booleans())
def test_radius_keeps_the_nearest_within(
    search, given_points: Points, limit: int | None, same: bool
) -> None:
    expected = []
    inside = [p for p in pairs(given_points) if p[1] < 2.0 and not (same and p[0] == p[2])]
    for _, group in itertools.groupby(inside, key=lambda pair: pair[0]):
        expected += sorted((i, j) for i, _, j in itertools.islice(group, limit))
    x, y, ptr_x, ptr_y = given_points
    out = search.radius(x, y, ptr_x, ptr_y, 2.0**0.5, limit, 1, same)
    assert [tuple(edge) for edge in out.t().tolist()] == expected


def test_blocks_make_no_difference(search) -> None:
    """More distances than one block holds: several blocks of one example."""
    torch.manual_seed(0)
    x, y = torch.randn(3000, 3, dtype=torch.float64), torch.randn(2500, 3, dtype=torch.float64)
    tree = cKDTree(x.numpy())
    _, nearest = tree.query(y.numpy(), 5)
    out = search.knn(x, y, None, None, 5)
    assert torch.equal(out[1].view(-1, 5), torch.from_numpy(nearest))
    assert torch.equal(out[0], torch.arange(2500).repeat_interleave(5))
    count = torch.bincount(search.radius(x, y, None, None, 0.4)[0], minlength=2500)
    assert count.tolist() == [len(found) for found in tree.query_ball_point(y.numpy(), 0.4)]


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int32], ids=str)
@pytest.mark.parametrize("index_dtype", [torch.int64, torch.int32], ids=str)
def test_dtypes_and_layouts(search, dtype: torch.dtype, index_dtype: torch.dtype) -> None:
    x = torch.arange(12).view(2, 6).t().to(dtype)
    ptr = torch.tensor([0, 4, 6], dtype=index_dtype)
    assert not x.is_contiguous()
    out = search.knn(x, x, ptr, ptr, 2)
    assert out.dtype == torch.int64
    assert out.tolist() == [
        [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5],
        [0, 1, 1, 0, 2, 1, 3, 2, 4, 5, 5, 4],
    ]
    assert torch.equal(search.nearest(x, x, ptr, ptr), torch.arange(6))
    assert search.fps(x.to(torch.float32), ptr, 0.5, False).tolist() == [0, 3, 4]


def test_knn_by_cosine_looks_at_directions() -> None:
    x = torch.tensor([[10.0, 0.1], [0.1, 0.0], [0.0, 1.0]])
    y = torch.tensor([[1.0, 0.0]])
    assert ops.knn(x, y, None, None, 2, cosine=True)[1].tolist() == [1, 0]
    assert ops.knn(x, y, None, None, 2)[1].tolist() == [1, 2]


def test_points_without_a_finite_distance_are_no_neighbours(search) -> None:
    x = torch.tensor([[0.0], [float("nan")], [float("inf")]])
    assert search.knn(x, x, None, None, 3).tolist() == [[0], [0]]
    assert search.radius(x, x, None, None, float("inf")).tolist() == [[0], [0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda search, x: search.knn(x, x[:, :1], None, None, 1),
            "got x of shape [4, 2] and y of shape",
        ),
        (
            lambda search, x: search.knn(x, x, None, None, -1),
            "expected k to be no less than 0, got -1",
        ),
        (
            lambda search, x: search.knn(x, x, bounds([4]), None, 1),
            "expected both of ptr_x and ptr_y",
        ),
        (
            lambda search, x: search.radius(x, x, bounds([3]), bounds([4]), 1.0),
            "from 0 to the 4 points",
        ),
        (lambda search, x: search.nearest(x, x[:0], None, None), "got 4 points in x without one"),
        (lambda search, x: search.fps(x, bounds([4]), 1.5), "ratio to lie in (0, 1], got 1.5"),
        (
            lambda search, x: search.fps(x[0], bounds([2])),
            "expected points of shape [N, D], got shape [2]",
        ),
    ],
)
def test_errors_name_what_was_given(search, call, message) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call(search, torch.randn(4, 2))


def test_fps_takes_the_farthest_point(search) -> None:
    torch.manual_seed(0)
    x, ptr = torch.randn(40, 3), bounds([25, 0, 15])
    out = search.fps(x, ptr, 0.4, random_start=False).tolist()
    assert len(out) == 16
    for begin, end, chosen in ((0, 25, out[:10]), (25, 40, out[10:])):
        assert chosen[0] == begin
        for step in range(1, len(chosen)):
            distance = torch.cdist(x[begin:end], x[chosen[:step]]).amin(1)
            assert chosen[step] == begin + int(distance.argmax())


def test_fps_starts_anywhere_when_asked(search) -> None:
    x, ptr = torch.randn(8, 2), bounds([8])
    torch.manual_seed(0)
    assert len({int(search.fps(x, ptr, 0.1)[0]) for _ in range(40)}) > 3


@pytest.mark.parametrize("weighted", [False, True])
def test_graclus_matches_neighbours_and_leaves_no_pair_free(weighted: bool) -> None:
    torch.manual_seed(0)
    dense = torch.rand(12, 12).triu(1)
    dense = (dense * (dense > 0.7)) + (dense * (dense > 0.7)).t()
    row, col = dense.nonzero().t()
    ptr, _ = ops.csr(row, 12)
    cluster = ops.graclus_cluster(ptr, col, dense[row, col] if weighted else None)
    counts = torch.bincount(cluster, minlength=12)
    assert counts.max() == 2
    for node in range(12):
        members = (cluster == cluster[node]).nonzero().flatten().tolist()
        assert min(members) == int(cluster[node])
        assert len(members) == 1 or dense[members[0], members[1]] > 0
    alone = counts[cluster] == 1
    assert not (alone[row] & alone[col]).any()


def test_graclus_prefers_heavy_edges() -> None:
    row, col = torch.tensor([0, 0, 1, 2]), torch.tensor([1, 2, 0, 0])
    ptr, _ = ops.csr(row, 3)
    weight = torch.tensor([1.0, 5.0, 1.0, 5.0])
    torch.manual_seed(0)
    met = {tuple(ops.graclus_cluster(ptr, col, weight).tolist()) for _ in range(30)}
    assert met == {(0, 1, 0), (0, 0, 2)}  # (0, 0, 2): node 1 was first, and had no other


def test_grid_cluster_counts_voxels() -> None:
    pos = torch.tensor([[0.0, 0.0], [0.9, 0.0], [1.1, 0.0], [0.0, 2.5]])
    size = torch.tensor([1.0, 1.0])
    assert ops.grid_cluster(pos, size).tolist() == [0, 0, 1, 4]
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([2.0, 3.0])
    assert ops.grid_cluster(pos, size, low, high).tolist() == [1, 1, 2, 9]
    assert ops.grid_cluster(pos[:0], size).tolist() == []


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("is_open", [0, 1])
def test_spline_basis_is_that_of_scipy(degree: int, is_open: int) -> None:
    kernels = 6
    pseudo = torch.linspace(0, 0.999, 17, dtype=torch.float64).unsqueeze(1)
    basis, index = ops.spline_basis(
        pseudo, torch.tensor([kernels]), torch.tensor([is_open], dtype=torch.uint8), degree
    )
    position = (pseudo * (kernels - degree * is_open)).flatten().numpy()
    expected = np.zeros((17, kernels))
    for shift in range(kernels + degree):
        bump = BSpline.basis_element(np.arange(shift - degree, shift + 2), extrapolate=False)
        expected[:, shift % kernels] += np.nan_to_num(bump(position))
    dense = torch.zeros(17, kernels, dtype=torch.float64).scatter_add(1, index, basis)
    torch.testing.assert_close(dense, torch.from_numpy(expected))


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_spline_weighting_and_its_gradients(degree: int) -> None:
    torch.manual_seed(0)
    size, closed = torch.tensor([4, 3]), torch.tensor([1, 0], dtype=torch.uint8)
    pseudo = torch.rand(5, 2, dtype=torch.float64, requires_grad=True)
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(12, 3, 2, dtype=torch.float64, requires_grad=True)

    def run(pseudo: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return ops.spline_weighting(x, weight, *ops.spline_basis(pseudo, size, closed, degree))

    basis, index = ops.spline_basis(pseudo, size, closed, degree)
    assert basis.shape == index.shape == (5, (degree + 1) ** 2)
    torch.testing.assert_close(basis.sum(1), torch.ones(5, dtype=torch.float64))
    expected = torch.einsum("es,ei,esio->eo", basis, x, weight[index])
    torch.testing.assert_close(run(pseudo, x, weight), expected)
    assert torch.autograd.gradcheck(run, (pseudo, x, weight))
    if degree > 1:
        assert torch.autograd.gradgradcheck(run, (pseudo, x, weight))


def test_scripted_ops_equal_eager_ones(scripted, search) -> None:
    torch.manual_seed(0)
    x, ptr = torch.randn(30, 3), bounds([12, 0, 18])
    scripted |= {name: torch.jit.script(getattr(search, name)) for name in SEARCH}
    calls = {
        "knn": (x, x, ptr, ptr, 4),
        "radius": (x, x, ptr, ptr, 0.9, 3),
        "nearest": (x, x.flip(0), bounds([30]), bounds([30])),
        "fps": (x, ptr, 0.5, False),
        "grid_cluster": (x, torch.tensor([0.5, 0.5, 0.5])),
        "spline_basis": (x.sigmoid(), torch.tensor([3, 4, 5]), torch.tensor([1, 1, 0]), 2),
    }
    for name, call in calls.items():
        for out, expected in zip(scripted[name](*call), getattr(ops, name)(*call), strict=True):
            assert torch.equal(out, expected), name
    col, (rowptr, _) = torch.tensor([1, 0, 2, 1]), ops.csr(torch.tensor([0, 1, 1, 2]), 3)
    torch.manual_seed(1)
    expected = ops.graclus_cluster(rowptr, col)
    torch.manual_seed(1)
    assert torch.equal(scripted["graclus_cluster"](rowptr, col), expected)


@pytest.mark.skipif(not library.paths(), reason="no native library")
@pytest.mark.parametrize("dims", [1, 3, 40])
def test_native_search_is_that_of_the_portable_ops_and_of_any_thread_count(dims: int) -> None:
    """Trees of several levels and examples of many sizes; on a grid, where distances are exact."""
    from gnnscript.ops import native_neighbors

    torch.manual_seed(0)
    x = torch.randint(0, 4, (900, dims)).to(torch.float32)
    y, (ptr_x, ptr_y) = x.flip(0), (bounds([500, 0, 17, 383]), bounds([383, 17, 500, 0]))
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for name, rest in [("knn", (20,)), ("radius", (1.5,)), ("radius", (3.0, 100))]:
            expected = getattr(ops, name)(x, y, ptr_x, ptr_y, *rest)
            assert torch.equal(getattr(native_neighbors, name)(x, y, ptr_x, ptr_y, *rest), expected)


@pytest.mark.skipif(not library.paths(), reason="no native library")
def test_native_ops_pass_opcheck() -> None:
    x, ptr = torch.randn(20, 3), bounds([12, 8])
    native = torch.ops.gnnscript
    # Their result's size depends on the points, which schema and fake checks know how to treat.
    utilities = ("test_schema", "test_faketensor")
    torch.library.opcheck(native.knn.default, (x, x, ptr, ptr, 3), test_utils=utilities)
    torch.library.opcheck(
        native.radius.default, (x, x, ptr, ptr, 1.0, None, False), test_utils=utilities
    )
    torch.library.opcheck(
        native.fps.default, (x, ptr, torch.tensor([3, 2]), torch.tensor([0, 1])),
        test_utils=utilities,
    )  # fmt: skip
