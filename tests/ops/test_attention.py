"""Attention over rows equals a softmax of scores, products and a sum, whatever the shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import edge_cases
from edge_cases import NUM_EDGES, NUM_NODES, NUM_OTHER, error, graph
from gnnscript.ops import evaluate

edge_cases.require_library()
from gnnscript.ops import native  # noqa: E402

OPS = torch.ops.gnnscript
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 5e-6,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}
# The score's program, how many dimensions of it are summed, and its operands' feature shapes with H
# heads of C features.
SCORES: dict[str, tuple[int, list[str]]] = {
    "leaky_relu(j0 + i1, 0.2)": (0, ["H", "H"]),  # GAT
    "leaky_relu(j0 + i1 + e2, 0.2)": (0, ["H", "H", "H"]),
    "leaky_relu(i0 + j1, 0.2) * s2": (1, ["HC", "HC", "HC"]),  # GATv2
    "i0 * (j1 + e2) / 2.0": (1, ["HC", "HC", "HC"]),  # Transformer
    "s0": (0, ["H"]),
    "t0 = tanh(e0); t0 * t0": (0, ["H"]),
}
MESSAGES: dict[str, list[str]] = {
    "j0": ["HC"],
    "e0 * (j1 + e2)": ["H1", "HC", "HC"],
    "t0 = relu(i0 - j1); t0 * t0": ["HC", "HC"],
}
HEADS = ((4, 8), (1, 64), (3, 5), (4, 16), (8, 1), (2, 700), (16, 4), (40, 2))
ROWS = {"i": [NUM_NODES], "j": [NUM_OTHER], "e": [NUM_EDGES], "s": []}


def operands(program: str, shapes: list[str], heads: int, width: int) -> list[Tensor]:
    features = {"H": [heads], "HC": [heads, width], "H1": [heads, 1]}
    return [
        torch.randn([*ROWS[side], *features[shape]], dtype=torch.float64)
        for side, shape in zip(edge_cases.sides(program), shapes, strict=True)
    ]


def attention(
    score: str, scored: list[Tensor], sum_dims: int, message: str, sent: list[Tensor], *edges: Any
) -> Tensor:
    index, other, nodes = edges
    ptr, perm = native.csr(index, nodes)
    return OPS.edge_attention(score, scored, sum_dims, message, sent, index, other, ptr, perm)[0]


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_equals_softmax_and_sum(score: str, message: str, dtype: torch.dtype) -> None:
    sum_dims, shapes = SCORES[score]
    for number, (heads, width) in enumerate(HEADS):
        index, other = graph(torch.int32 if number % 2 else torch.int64)
        scored = [x.to(dtype) for x in operands(score, shapes, heads, width)]
        if width == 700:
            scored = [x / 20 for x in scored]
        sent = [x.to(dtype) for x in operands(message, MESSAGES[message], heads, width)]
        out = attention(score, scored, sum_dims, message, sent, index, other, NUM_NODES)
        exact = [[x.double() for x in given] for given in (scored, sent)]
        expected, _ = evaluate.edge_attention(
            score, exact[0], sum_dims, message, exact[1], index, other, NUM_NODES
        )
        assert out.dtype == dtype
        assert error(out, expected) < TOLERANCE[dtype], (heads, width)
        assert not out[-1].any()  # without edges


@pytest.mark.parametrize(
    ("scored", "sent"),
    [
        ([], []),
        ([], [6]),
        ([1], [6]),
        ([1, 1], [2, 3]),
        ([2], [2]),
        ([2, 1], [2, 3]),
        ([2, 3], [2, 3]),
        ([2, 1, 1], [2]),
        ([2, 3], [2, 3, 4]),
    ],
    ids=str,
)
def test_feature_shapes(scored: list[int], sent: list[int]) -> None:
    """The weights' dimensions are the first of the message's; those of one do not count."""
    index, other = graph()
    given = [
        torch.randn([rows, *shape], dtype=torch.float64, requires_grad=True)
        for rows, shape in ((NUM_EDGES, scored), (NUM_OTHER, sent))
    ]

    def run(e: Tensor, j: Tensor) -> Tensor:
        return attention("e0 * 2.0", [e], 0, "j0", [j], index, other, NUM_NODES)

    expected, _ = evaluate.edge_attention(
        "e0 * 2.0", [given[0]], 0, "j0", [given[1]], index, other, NUM_NODES
    )
    torch.testing.assert_close(run(*given), expected)
    assert torch.autograd.gradcheck(run, given)
    assert torch.autograd.gradgradcheck(run, given)


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("score", SCORES)
def test_gradients(score: str, message: str) -> None:
    """The first and the second, also to operands that all edges share and that are broadcast."""
    sum_dims, shapes = SCORES[score]
    index, other = graph()
    for heads, width in ((2, 3), (1, 20)):
        leaves = [
            x.requires_grad_()
            for x in (
                *operands(score, shapes, heads, width),
                *operands(message, MESSAGES[message], heads, width),
            )
        ]
        count = len(shapes)

        def native_out(*given: Tensor, count: int = count) -> Tensor:
            edges = (index, other, NUM_NODES)
            scored, sent = list(given[:count]), list(given[count:])
            return attention(score, scored, sum_dims, message, sent, *edges)

        def aten_out(*given: Tensor, count: int = count) -> Tensor:
            scored, sent = given[:count], given[count:]
            return evaluate.edge_attention(
                score, scored, sum_dims, message, sent, index, other, NUM_NODES
            )[0]

        assert_same_derivatives(native_out, aten_out, leaves)


def assert_same_derivatives(
    one: Callable[..., Tensor], other: Callable[..., Tensor], leaves: list[Tensor]
) -> None:
    found = []
    for run in (one, other):
        out = run(*leaves)
        weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)
        plain = torch.autograd.grad(out, leaves, weight, retain_graph=True)
        first = torch.autograd.grad(out, leaves, weight, create_graph=True)
        for a, b in zip(plain, first, strict=True):  # by the kernel, and by ops with gradients
            torch.testing.assert_close(a, b)
        energy = sum((grad.square().sum() for grad in first), out.new_zeros([]))
        second = torch.autograd.grad(energy, leaves, allow_unused=True, materialize_grads=True)
        found.append([out, *first, *second])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gradients_of_other_dtypes(dtype: torch.dtype) -> None:
    index, other = graph()
    shapes = ([NUM_NODES, 2, 20], [NUM_OTHER, 2, 20], [NUM_OTHER, 2, 20])
    given = [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]
    exact = [x.detach().double().requires_grad_() for x in given]
    out = attention("i0 * j1", given[:2], 1, "j0", given[2:], index, other, NUM_NODES)
    expected, _ = evaluate.edge_attention(
        "i0 * j1", exact[:2], 1, "j0", exact[2:], index, other, NUM_NODES
    )
    out.square().sum().backward()
    expected.square().sum().backward()
    for x, y in zip(given, exact, strict=True):
        assert x.grad.dtype == dtype
        assert error(x.grad, y.grad) < 10 * TOLERANCE[dtype]


def test_asked_for_the_weights_are_returned() -> None:
    index, other = graph()
    ptr, perm = native.csr(index, NUM_NODES)
    shapes = ([NUM_NODES, 2, 4], [NUM_OTHER, 2, 4], [2, 4])
    given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    score, message = "leaky_relu(i0 + j1, 0.2) * s2", "j1"
    call = (score, message, given, index, other, ptr, perm, 1)
    out, weight = native.edge_attention(*call, weights=True)
    expected, weights = evaluate.edge_attention(
        score, given, 1, "j0", given[1:2], index, other, NUM_NODES
    )
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(weight, weights)
    for a, b in zip(
        torch.autograd.grad(out.square().sum() + weight.sin().sum(), given),
        torch.autograd.grad(expected.square().sum() + weights.sin().sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    alone, nothing = native.edge_attention(*call)
    assert torch.equal(alone, out)
    assert nothing is None


def hub(heads: int) -> tuple[Tensor, Tensor, int]:
    """One node with most of the edges, beside many with few and with none."""
    generator = torch.Generator().manual_seed(heads)
    ends = [torch.full((30_000,), 7), torch.randint(20_000, (5_000,), generator=generator)]
    index = torch.cat(ends)[torch.randperm(35_000, generator=generator)]
    return index, torch.randint(50, index.shape, generator=generator), 20_000


@pytest.mark.parametrize(("heads", "width"), [(1, 1), (4, 8), (3, 33)])
def test_hubs_and_many_rows(heads: int, width: int) -> None:
    index, other, nodes = hub(heads)
    torch.manual_seed(0)
    leaves = [
        torch.randn(shape, dtype=torch.float64).requires_grad_()
        for shape in ([50, heads], [nodes, heads], [50, heads, width])
    ]

    def native_out(j: Tensor, i: Tensor, x: Tensor) -> Tensor:
        score = "leaky_relu(j0 + i1, 0.2) * 3.0"
        return attention(score, [j, i], 0, "j0", [x], index, other, nodes)

    def aten_out(j: Tensor, i: Tensor, x: Tensor) -> Tensor:
        score = "leaky_relu(j0 + i1, 0.2) * 3.0"
        return evaluate.edge_attention(score, [j, i], 0, "j0", [x], index, other, nodes)[0]

    assert_same_derivatives(native_out, aten_out, leaves)


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    index, other, nodes = hub(4)
    torch.manual_seed(0)
    results = []
    given = [torch.randn(shape).requires_grad_() for shape in ([nodes, 4, 8], [50, 4, 8], [4, 8])]
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        result = []
        for message, sent in (("j0", given[1:2]), ("tanh(j0) + i1", [given[1], given[0]])):
            out = attention("silu(i0 + j1) * s2", given, 1, message, sent, index, other, nodes)
            result += [out, *torch.autograd.grad(out.square().sum(), given)]
        results.append(result)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_infinite_scores() -> None:
    """An edge at negative infinity weighs nothing, also where it is alone in its chunk of a hub."""
    scores = torch.randn(40_000, dtype=torch.float64)
    scores[:20_000] = -float("inf")
    scores[-5:] = torch.tensor([1e3, -1e3, 1e30, 0.0, 5.0])
    index, other = torch.zeros(40_000, dtype=torch.int64), torch.randint(9, (40_000,))
    x = torch.randn(9, 16, dtype=torch.float64)
    given = ("e0", [scores], 0, "j0", [x], index, other, 1)
    torch.testing.assert_close(attention(*given), evaluate.edge_attention(*given)[0])
    for value in ("inf", "-inf", "nan"):
        bad = torch.full([3], float(value), dtype=torch.float64)
        given = ("e0", [bad], 0, "j0", [x], index[:3], other[:3], 1)
        assert attention(*given).isnan().all()
        assert evaluate.edge_attention(*given)[0].isnan().all()


def test_layouts() -> None:
    index, other = graph()
    wide = torch.randn(NUM_OTHER, 3 * 24)
    for x in (
        wide.chunk(3, dim=1)[1],
        torch.randn(24, NUM_OTHER).t(),
        torch.randn(NUM_OTHER, 1).expand(NUM_OTHER, 24),
        torch.randn(1, 24).expand(NUM_OTHER, 24),
        wide[:, ::3],
    ):
        scores = torch.randn(NUM_EDGES, 2)[:, 0].requires_grad_()
        value = x.detach().requires_grad_()
        ends = torch.stack([index, other], dim=1)
        out = attention("e0", [scores], 0, "j0", [value], ends[:, 0], ends[:, 1], NUM_NODES)
        expected, _ = evaluate.edge_attention(
            "e0", [scores], 0, "j0", [value], index, other, NUM_NODES
        )
        torch.testing.assert_close(out, expected)
        grad = torch.randn(24, NUM_NODES).t()
        for a, b in zip(
            torch.autograd.grad(out, [scores, value], grad),
            torch.autograd.grad(expected, [scores, value], grad),
            strict=True,
        ):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("nodes", "edges", "heads", "width"), [(0, 0, 2, 3), (4, 0, 2, 3), (4, 6, 2, 0), (4, 6, 0, 3)]
)
def test_empty(nodes: int, edges: int, heads: int, width: int) -> None:
    index = torch.arange(edges) % max(nodes, 1)
    score = torch.randn(nodes, heads, requires_grad=True)
    x = torch.randn(nodes, heads, width, requires_grad=True)
    out = attention("i0 + j1", [score, score], 0, "j0", [x], index, index, nodes)
    assert torch.equal(out, torch.zeros(nodes, heads, width))
    for grad, leaf in zip(torch.autograd.grad(out.sum(), [score, x]), [score, x], strict=True):
        assert torch.equal(grad, torch.zeros_like(leaf))


def test_edges_of_no_row() -> None:
    """They have no weight and no gradient, where ``ptr`` leaves them out."""
    index, other = graph()
    order = index.argsort(stable=True)
    index, other = index[order], other[order]
    counts = torch.bincount(index, minlength=NUM_NODES)
    ptr = torch.cat([torch.tensor([0]), counts.cumsum(0)]).clamp(min=3, max=30)
    perm = torch.arange(NUM_EDGES)
    score = torch.randn(NUM_EDGES, 2, dtype=torch.float64, requires_grad=True)
    x = torch.randn(NUM_OTHER, 2, 9, dtype=torch.float64, requires_grad=True)
    out = OPS.edge_attention("e0", [score], 0, "j0", [x], index, other, ptr, perm)[0]
    kept = slice(3, 30)
    expected, _ = evaluate.edge_attention(
        "e0", [score[kept]], 0, "j0", [x], index[kept], other[kept], NUM_NODES
    )
    torch.testing.assert_close(out, expected)
    for again in (False, True):
        for a, b in zip(
            torch.autograd.grad(out.sin().sum(), [score, x], create_graph=again, retain_graph=True),
            torch.autograd.grad(expected.sin().sum(), [score, x], retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(a, b)


def test_errors() -> None:
    index, other = graph()
    ptr, perm = native.csr(index, NUM_NODES)
    s, x = torch.randn(NUM_EDGES, 2), torch.randn(NUM_OTHER, 2, 3)

    def call(**changed: Any) -> None:
        given = {
            "score": "e0", "scored": [s], "sum_dims": 0, "message": "j0", "sent": [x],
            "index": index, "other": other, "ptr": ptr, "perm": perm,
        } | changed  # fmt: skip
        OPS.edge_attention(*given.values())

    call()
    for changed, words in (
        ({"score": "e0 +"}, "edge program 'e0 \\+'"),
        ({"sum_dims": 2}, "expected sum_dims within \\[0, 1\\].*got 2"),
        ({"sent": [x.double()]}, "expected operands of one dtype.*Float.*Double"),
        ({"sent": [x[:, :1].expand(-1, 4, -1)]}, "got \\[4, 3\\] for a score of \\[2\\]"),
        ({"sent": [x[0, 0]], "message": "s0"}, "got \\[3\\] for a score of \\[2\\]"),
        ({"scored": [x, s], "score": "j0 + 0 * e1", "sent": [x[:3]]}, "as many nodes.*5 and 3"),
        ({"index": index.float()}, "index of dtype int64 or int32"),
        ({"ptr": ptr[:0]}, "expected ptr of shape"),
    ):
        if "scored" in changed:
            changed["scored"] = [x[..., 0], s]
        with pytest.raises(ValueError, match=words):
            call(**changed)
    for changed, words in (
        ({"other": other + NUM_OTHER}, "other out of range: other\\[\\d+\\] is \\d+.*\\[0, 5\\)"),
        ({"perm": perm + 1}, "perm out of range"),
    ):
        with pytest.raises(IndexError, match=words):
            call(**changed)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_opcheck(dtype: torch.dtype) -> None:
    index, other = graph()
    ptr, perm = native.csr(index, NUM_NODES)
    i, j, e = (
        torch.randn([rows, 2, 3]).to(dtype).requires_grad_()
        for rows in (NUM_NODES, NUM_OTHER, NUM_EDGES)
    )
    call = ("tanh(i0 + j1)", [i, j], 1, "j0 * e1", [j, e], index, other, ptr, perm)
    torch.library.opcheck(OPS.edge_attention, call)
    out, high, total = OPS.edge_attention(*call)
    assert not any(x.requires_grad for x in (high, total))
    assert high.dtype == torch.promote_types(dtype, torch.float32)
    given = [t.detach() if isinstance(t, Tensor) else t for t in call]
    given[1], given[4] = [i.detach(), j.detach()], [j.detach(), e.detach()]
    torch.library.opcheck(
        OPS.edge_attention_backward, (*given, out.detach(), high, total, torch.zeros_like(high))
    )


def test_autocast_computes_in_single_precision() -> None:
    index, other = graph()
    s, x = torch.randn(NUM_EDGES, 2), torch.randn(NUM_OTHER, 2, 3).bfloat16()
    s.requires_grad_()
    x.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attention("e0", [s.bfloat16()], 0, "j0", [x], index, other, NUM_NODES)
    expected, _ = evaluate.edge_attention(
        "e0", [s.bfloat16().float()], 0, "j0", [x.float()], index, other, NUM_NODES
    )
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected)
    out.sum().backward()
    assert (s.grad.dtype, x.grad.dtype) == (torch.float32, torch.bfloat16)


def test_nothing_per_edge_is_kept_for_the_gradient() -> None:
    index, other = graph()
    leaf = torch.randn(NUM_NODES, 2, requires_grad=True)
    x = torch.randn(NUM_OTHER, 2, 3, requires_grad=True)
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        attention("i0 + j1", [leaf, x[..., 0]], 0, "j0", [x], index, other, NUM_NODES)
    floating = [tensor for tensor in kept if tensor.is_floating_point()]
    assert floating
    assert all(tensor.size(0) != NUM_EDGES for tensor in floating)


def test_compiles_whole_for_any_size() -> None:
    def layer(x: Tensor, index: Tensor, other: Tensor, nodes: int) -> Tensor:
        ptr, perm = native.csr(index, nodes)
        call = ("i0 * j1", "tanh(j1)", [x, x * 2], index, other, ptr, perm, 1)
        return native.edge_attention(*call)[0]

    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    for nodes, edges in ((6, 20), (9, 31)):
        torch.manual_seed(edges)
        x = torch.randn(nodes, 3, 4, requires_grad=True)
        given = (x, torch.randint(nodes, (edges,)), torch.randint(nodes, (edges,)), nodes)
        expected, out = layer(*given), compiled(*given)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(
            torch.autograd.grad(out.square().sum(), x),
            torch.autograd.grad(expected.square().sum(), x),
        )
