"""What layers share in inference mode, where tensors do not count what is written to them."""

from __future__ import annotations

import functools
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, GraphConv, SAGEConv

import gnnscript
from gnnscript.ops import plans
from passes.threads import right_in_threads

pytestmark = [
    pytest.mark.usefixtures("native", "auto"),
    pytest.mark.filterwarnings("ignore:.*profil:UserWarning"),
]

WIDTH = 4
SIZES = [(9, 40), (5, 0), (12, 31), (3, 90_000)]


def graph(nodes: int, edges: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, edges and weights; no self-loops, of equal ones of which PyG keeps any."""
    generator = torch.Generator().manual_seed(edges)
    float64 = {"generator": generator, "dtype": torch.float64}
    source = torch.randint(nodes, (edges,), generator=generator)
    step = torch.randint(1, nodes, (edges,), generator=generator)
    return (
        torch.randn(nodes, WIDTH, **float64),  # type: ignore[call-overload]
        torch.stack([source, (source + step) % nodes]),
        torch.rand(edges, **float64) + 0.1,  # type: ignore[call-overload]
    )


class Weighted(nn.Module):
    """Three layers that normalise the weights of the same edges."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(GCNConv(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, edge_index, weight)
        return x


class Mixed(nn.Module):
    """Layers that have nothing but the sorted edges in common."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [SAGEConv(WIDTH, WIDTH), GraphConv(WIDTH, WIDTH), SAGEConv(WIDTH, WIDTH, "max")]
        )

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, edge_index).relu()
        return x


class Transposed(Mixed):
    """Edges are pairs that lie one behind the other in memory."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        edge_index = edge_index.t().contiguous().t()
        for layer in self.layers:
            x = layer(x, edge_index).relu()
        return x


class WritesToIndex(Weighted):
    """The edges that were given are others before each layer."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, edge_index, weight)
            edge_index.copy_(edge_index.flip(0))
        return x


class WritesToLastEdge(Mixed):
    """One edge of many changes, at the end, through a view of a view."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        last = edge_index[1][-1:]
        for layer in self.layers:
            x = layer(x, edge_index).relu()
            last.copy_((last + 1) % x.size(0))
        return x


class WritesToWeight(Weighted):
    """The weights that were given change, by a method and by an element."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, edge_index, weight)
            weight.mul_(1.5)
            weight[:1] = 0.25
        return x


class WritesToItsOwn(Weighted):
    """Edges and weights that the model makes, and changes afterwards."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        edges = edge_index.flip(0).contiguous()
        scaled = weight * 2
        for layer in self.layers:
            x = layer(x, edges, scaled)
            edges.copy_(edges.roll(1, 1))
            scaled += 0.5
        return x


class WritesAndRestores(Weighted):
    """Weights change for one layer alone."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        x = self.layers[0](x, edge_index, weight)
        weight.mul_(2)
        x = self.layers[1](x, edge_index, weight)
        weight.div_(2)
        return self.layers[2](x, edge_index, weight)  # type: ignore[no-any-return]


class Rebound(Mixed):
    """Edges of a later layer may come to lie where those of an earlier one were."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        for step, layer in enumerate(self.layers):
            x = layer(x, (edge_index + step) % x.size(0)).relu()
        return x


MODELS = [
    Weighted, Mixed, Transposed, WritesToIndex, WritesToLastEdge, WritesToWeight, WritesToItsOwn,
    WritesAndRestores, Rebound,
]  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("made_within", [True, False])
def test_results_are_those_of_eager_code(kind: type[nn.Module], made_within: bool) -> None:
    """Whether what is given has no versions, or what the model makes of it alone."""
    model = kind().double().eval()
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(model), buffer)
    buffer.seek(0)
    scripted = torch.jit.load(buffer)
    for sizes in SIZES:
        kept = graph(*sizes)
        with torch.no_grad():
            expected = model(*(g.clone() for g in kept))
        with torch.inference_mode():
            for _ in range(3):
                with torch.inference_mode(made_within):
                    given = [g.clone() for g in kept]
                assert given[0].is_inference() == made_within
                torch.testing.assert_close(scripted(*given), expected)


def count(model: nn.Module, name: str, *given: Tensor) -> int:
    """How many times a call runs an op that takes memory: what is known takes none."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        model(*given)
    calls = [e for e in profile.events() if e.name == f"gnnscript::{name}"]
    return sum(any("empty" in c.name for c in call.cpu_children) for call in calls)


def test_work_is_done_once() -> None:
    with torch.inference_mode():
        given = graph(9, 40)
        weighted = torch.jit.script(Weighted().double().eval())
        for _ in range(3):
            assert count(weighted, "shared_csr", *given) == 1
        for model in (Mixed(), Transposed()):
            scripted = torch.jit.script(model.double().eval())
            assert [count(scripted, "shared_csr", *given) for _ in range(3)] == [1] * 3


@pytest.mark.parametrize("elements", [5, 200_000])
def test_the_contents_are_compared(elements: int) -> None:
    ops = torch.ops.gnnscript
    with torch.inference_mode():
        unknown, given = torch.empty(0), torch.zeros(elements)
        other = torch.arange(2 * elements)[::2]  # does not lie side by side
        none = [None] * 2

        def find() -> Any:
            return ops.find_known(unknown, "key", [4], given, other, *none)

        ops.share_plans(unknown, True)
        made = torch.ones(2)
        assert ops.keep_known(unknown, "key", [4], given, other, *none, made, *none, None)
        assert [m.data_ptr() for m in find()] == [made.data_ptr()]
        for tensor, value in ((given, -0.0), (given, float("nan")), (other, -1)):
            before = tensor[-1].clone()
            tensor[-1] = value
            assert find() == []
            tensor[-1] = before
            assert [m.data_ptr() for m in find()] == [made.data_ptr()]
        ops.share_plans(unknown, False)
        assert find() == []


def test_threads_share_nothing() -> None:
    model = WritesToItsOwn().double().eval()
    scripted = torch.jit.script(model)
    graphs = [graph(9, 40 + n) for n in range(4)]
    with torch.no_grad():
        expected = [model(*(g.clone() for g in given)) for given in graphs]

    def run(given: tuple[Tensor, ...]) -> list[Tensor]:
        with torch.inference_mode():
            return [scripted(*(g.clone() for g in given)) for _ in range(30)]

    assert right_in_threads([functools.partial(run, given) for given in graphs], expected)


@pytest.mark.parametrize("layer", [GCNConv, GATConv, SAGEConv])
def test_eager_layers_see_what_is_written_between_them(layer: type[nn.Module]) -> None:
    layers = [layer(WIDTH, WIDTH).double().eval() for _ in range(2)]  # type: ignore[call-arg]
    x, edge_index, _ = graph(9, 40)

    def run(edges: Tensor) -> list[Tensor]:
        outs = [layers[0](x, edges), layers[1](x, edges)]
        edges[1] = edges[1].roll(1)
        outs.append(layers[0](x, edges))
        edges = edges.roll(3, 1)
        return [*outs, layers[1](x, edges)]

    with torch.no_grad(), gnnscript.kernels("portable"):
        expected = run(edge_index.clone())
    with torch.inference_mode(), gnnscript.kernels("native"):
        for _ in range(2):
            torch.testing.assert_close(run(edge_index.clone()), expected)


def test_eager_layers_sort_once_and_keep_nothing() -> None:
    layers = [SAGEConv(WIDTH, WIDTH).double().eval() for _ in range(3)]
    before = set(plans._plans._kept)
    with torch.inference_mode(), gnnscript.kernels("native"):
        x, edge_index, _ = graph(9, 40)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            for layer in layers:
                x = layer(x, edge_index)
        assert sum(event.name == "gnnscript::csr" for event in profile.events()) == 1
        assert len(set(plans._plans._kept) - before) == 1
        del edge_index
        assert not set(plans._plans._kept) - before
