"""Streams, graphs and devices; and that captured or repeated calls give the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor


def every_kernel(nodes: Tensor, weight: Tensor, index: Tensor, other: Tensor) -> list[Tensor]:
    """Call each op that can be captured, gradients included."""
    ops = torch.ops.gnnscript
    size = nodes.size(0)
    ptr, perm = ops.csr(index, size)
    message = ops.gather(nodes, other)
    low, high = ops.segment_reduces(message, ptr, perm, ["min", "std"])
    total = ops.segment_reduce(message, ptr, perm, "mean")
    softmax = ops.edge_softmax(weight, ptr, perm)
    fused = ops.edge_reduce("e0 * j1", [softmax, nodes], index, other, ptr, perm, "sum")
    scores = ops.edge_map("i0 * j1", [nodes, nodes], index, other, 1)
    return [
        ptr,
        perm,
        low,
        high,
        total,
        softmax,
        fused,
        scores,
        ops.segment_reduce_backward(total, message, low, ptr, perm, "min"),
        ops.edge_softmax_backward(weight, softmax, ptr, perm),
        ops.segment_expand(total, ptr, perm, index.size(0)),
    ]


def inputs(device: torch.device, seed: int) -> list[Tensor]:
    generator = torch.Generator(device).manual_seed(seed)
    index = torch.randint(900, (2, 40000), device=device, generator=generator)
    index[0, :9000] = 5  # a hub
    return [
        torch.randn(900, 32, device=device, generator=generator),
        torch.randn(40000, 1, device=device, generator=generator),
        index[0],
        index[1],
    ]


def assert_same(outputs: list[Tensor], expected: list[Tensor]) -> None:
    for number, (out, wanted) in enumerate(zip(outputs, expected, strict=True)):
        assert torch.equal(out, wanted), f"output {number}"


def test_the_same_bits_again(native: Any, device: torch.device) -> None:
    given = inputs(device, 0)
    assert_same(every_kernel(*given), every_kernel(*given))


def test_a_graph_replays_on_new_values(native: Any, gpu: torch.device) -> None:
    given = inputs(gpu, 1)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        every_kernel(*given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = every_kernel(*given)
    fresh = inputs(gpu, 2)
    for tensor, value in zip(given, fresh, strict=True):
        tensor.copy_(value)
    graph.replay()
    torch.cuda.synchronize()
    assert_same(outputs, every_kernel(*fresh))


def test_kernels_run_on_the_current_stream(native: Any, gpu: torch.device) -> None:
    expected = every_kernel(*inputs(gpu, 3))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # what follows on another stream would come too early
        outputs = every_kernel(*inputs(gpu, 3))
    torch.cuda.current_stream().wait_stream(stream)
    assert_same(outputs, expected)


# -- what layers share -----------------------------------------------------------------------------


def find(given: Tensor) -> list[Tensor]:
    unknown = torch.empty(0)
    return torch.ops.gnnscript.find_known(unknown, "key", [1], given, None, None, None)  # type: ignore[no-any-return]


def keep(given: Tensor, *made: Tensor) -> None:
    results = [*made, *[None] * (4 - len(made))]
    unknown = torch.empty(0)
    assert torch.ops.gnnscript.keep_known(unknown, "key", [1], given, None, None, None, *results)


@pytest.fixture
def forward(native: Any) -> Iterator[None]:
    """Stands for the forward of a model."""
    torch.ops.gnnscript.share_plans(torch.empty(0), True)
    yield
    torch.ops.gnnscript.share_plans(torch.empty(0), False)


def test_what_is_known_on_a_device(forward: None, device: torch.device) -> None:
    given, made = torch.arange(4, device=device), torch.ones(2, device=device)
    assert find(given) == []
    keep(given, made)
    assert [m.data_ptr() for m in find(given)] == [made.data_ptr()]
    assert find(given.clone()) == []
    given.add_(1)
    assert find(given) == []
    keep(given, made)
    torch.ops.gnnscript.share_plans(torch.empty(0), False)
    assert find(given) == []


def test_what_is_known_belongs_to_a_stream(forward: None, gpu: torch.device) -> None:
    given, made = torch.arange(4, device=gpu), torch.ones(2, device=gpu)
    keep(given, made)
    keep(given.cpu(), made)  # whose stream nothing tells
    with torch.cuda.stream(torch.cuda.Stream()):
        assert find(given) == find(given.cpu()) == []
    assert len(find(given)) == 1
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        assert find(given) == []
        recorded = given * 2
        keep(given, recorded)
        assert [m.data_ptr() for m in find(given)] == [recorded.data_ptr()]
    assert [m.data_ptr() for m in find(given)] == [made.data_ptr()]
    with torch.inference_mode():
        assert find(torch.arange(4, device=gpu)) == []


def test_tensors_of_another_device(native: Any, gpu: torch.device) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    given = inputs(gpu, 4)
    expected = every_kernel(*given)
    away = [tensor.to("cuda:1") for tensor in given]
    assert torch.cuda.current_device() == 0
    outputs = every_kernel(*away)
    assert torch.cuda.current_device() == 0
    assert {tensor.device.index for tensor in outputs} == {1}
    assert_same([tensor.to(gpu) for tensor in outputs], expected)
    with pytest.raises(ValueError, match="same device"):
        torch.ops.gnnscript.gather(given[0], away[2])


def test_autocast(native: Any, gpu: torch.device) -> None:
    nodes, weight, index, other = inputs(gpu, 5)
    ptr, perm = torch.ops.gnnscript.csr(index, nodes.size(0))
    with torch.autocast("cuda", torch.bfloat16):
        assert torch.ops.gnnscript.edge_softmax(weight.bfloat16(), ptr, perm).dtype == torch.float32
        mixed = [weight, nodes.bfloat16()]
        out = torch.ops.gnnscript.edge_reduce("e0 * j1", mixed, index, other, ptr, perm, "sum")
    assert out.dtype == torch.float32


def test_more_than_two_thousand_million_values(native: Any, gpu: torch.device) -> None:
    nodes, features = 2**22 + 1, 513  # the last rows lie beyond 2^31 values
    if torch.cuda.mem_get_info()[0] < 20 << 30:
        pytest.skip("less than 20 GiB are free")
    x = torch.zeros(nodes, features, device=gpu, dtype=torch.bfloat16)
    x[-1], x[-2] = 3, 5
    ends = torch.tensor([nodes - 1, nodes - 2, nodes - 2], device=gpu)
    assert native.gather(x, ends, 0)[:, -1].tolist() == [3, 5, 5]
    ptr, perm = torch.ops.gnnscript.csr(ends, nodes)
    out = native.edge_reduce("j0", [x], ends, ends, ptr, perm, "sum")
    assert out[-2:].float().eq(torch.tensor([[10.0], [3.0]], device=gpu)).all()
    assert out[:-2].count_nonzero() == 0
