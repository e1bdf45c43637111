"""Attention: in one pass where nothing else reads the weights, and like eager everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    AGNNConv,
    GATConv,
    GATv2Conv,
    RGATConv,
    SuperGATConv,
    TransformerConv,
)

import gnnscript
from gnnscript.testing import BareProcess, assert_scripts_like_eager
from passes.attention import (
    HEADS,
    ONE_PASS,
    OTHERS,
    WIDTH,
    AlwaysDropped,
    DroppedMean,
    Inspected,
    Remembering,
)

pytestmark = pytest.mark.usefixtures("native", "auto")


def graph(nodes: int, edges: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """The last two nodes have no edges; the first one has a third of them."""
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(max(nodes - 2, 1), (2, edges), generator=generator)
    edge_index[1, : edges // 3] = 0
    x = torch.randn(nodes, WIDTH, generator=generator)
    return x, edge_index, torch.randn(edges, WIDTH, generator=generator)


def types(*given: Tensor) -> tuple[Tensor, ...]:
    x, edge_index, e = given
    return x, edge_index, (e[:, 0] > 0).long()


def source(model: nn.Module) -> str:
    """What a model becomes, without what none of its calls reaches in ``forward``."""
    return gnnscript.source(model)


GRAPHS = ((9, 40), (12, 31, 1), (5, 0))
# How a conv is made, and what it takes of a graph.
Make = Callable[[], nn.Module]
CONVS: dict[str, tuple[Make, Callable[..., tuple[Any, ...]]]] = {
    "gat": (lambda: GATConv(WIDTH, 4, heads=HEADS), lambda x, i, e: (x, i)),
    "gat edges": (
        lambda: GATConv(WIDTH, 4, heads=HEADS, edge_dim=WIDTH, concat=False, dropout=0.6),
        lambda x, i, e: (x, i, e),
    ),
    "gat residual": (
        lambda: GATConv(WIDTH, 4, heads=1, add_self_loops=False, residual=True, bias=False),
        lambda x, i, e: (x, i),
    ),
    "gatv2": (
        lambda: GATv2Conv(WIDTH, 4, heads=HEADS, share_weights=True),
        lambda x, i, e: (x, i),
    ),
    "gatv2 edges": (
        lambda: GATv2Conv(WIDTH, 4, heads=HEADS, edge_dim=WIDTH, dropout=0.6, concat=False),
        lambda x, i, e: (x, i, e),
    ),
    "transformer": (
        lambda: TransformerConv(WIDTH, 4, heads=HEADS, beta=True),
        lambda x, i, e: (x, i),
    ),
    "transformer edges": (
        lambda: TransformerConv(WIDTH, 4, heads=HEADS, edge_dim=WIDTH, dropout=0.6, concat=False),
        lambda x, i, e: (x, i, e),
    ),
    "supergat": (lambda: SuperGATConv(WIDTH, 4, heads=HEADS), lambda x, i, e: (x, i)),
    "supergat dot": (
        lambda: SuperGATConv(WIDTH, 4, heads=HEADS, attention_type="SD", dropout=0.6),
        lambda x, i, e: (x, i),
    ),
    "rgat": (lambda: rgat(dropout=0.6), types),
    "rgat multiplicative": (
        lambda: rgat(attention_mode="multiplicative-self-attention", concat=False),
        types,
    ),
    "agnn": (AGNNConv, lambda x, i, e: (x, i)),
    "agnn fixed": (lambda: AGNNConv(False, add_self_loops=False), lambda x, i, e: (x, i)),
}


def rgat(**options: Any) -> nn.Module:
    conv = RGATConv(WIDTH, 4, 2, heads=HEADS, **options)
    with torch.no_grad():
        for parameter in conv.parameters():
            nn.init.normal_(parameter, std=0.3)  # PyG leaves one of them as memory has it
    return conv


def modes(model: nn.Module) -> tuple[str, ...]:
    """Training has random numbers where weights are dropped, or negatives sampled."""
    dropped = getattr(model, "dropout", 0.0) > 0 or any(
        isinstance(module, nn.Dropout) for module in model.modules()
    )
    return ("eval",) if dropped or isinstance(model, SuperGATConv) else ("eval", "train")


@pytest.mark.parametrize("name", CONVS)
def test_convs_are_in_one_pass_and_like_eager(name: str, bare: BareProcess) -> None:
    make, take = CONVS[name]
    model = make()
    calls = [take(*graph(*size)) for size in GRAPHS]
    text = source(model)
    assert "edge_attend(" in text
    assert_scripts_like_eager(model, *calls, modes=modes(model), reload=bare)


@pytest.mark.parametrize("name", [*ONE_PASS, *OTHERS])
def test_other_classes_like_eager(name: str, bare: BareProcess) -> None:
    model = ({**ONE_PASS, **OTHERS})[name]()
    text = source(model)
    assert ("edge_attend(" in text) == (name in ONE_PASS)
    calls = [graph(*size) for size in GRAPHS]
    random = isinstance(model, (ONE_PASS["joined"], ONE_PASS["remembering"]))
    which = ("eval",) if random or name == "updated" else ("eval", "train")
    assert_scripts_like_eager(model, *calls, modes=which, reload=bare)


DROPPING: dict[str, tuple[Make, Callable[..., tuple[Any, ...]]]] = {
    **{name: CONVS[name] for name in ("gat edges", "gatv2 edges", "transformer edges", "rgat")},
    "module": (DroppedMean, lambda x, i, e: (x, i)),
    "always": (AlwaysDropped, lambda x, i, e: (x, i)),
    "mean": (lambda: GATConv(WIDTH, 4, heads=HEADS, aggr="mean"), lambda x, i, e: (x, i)),
}


@pytest.mark.parametrize("name", DROPPING)
def test_dropped_weights_are_those_of_eager(name: str) -> None:
    """In training as well there is one pass, and what is dropped is the same."""
    make, take = DROPPING[name]
    model = make().train()
    text = source(model)
    assert "edge_attend(" in text
    assert ("dropout_mask(" in text) == (name != "mean")
    scripted = torch.jit.script(model)
    for size in GRAPHS[:2]:
        given = take(*graph(*size))
        given = (given[0].requires_grad_(), *given[1:])
        leaves = [given[0], *model.parameters()]
        found = []
        for run in (model, scripted):
            torch.manual_seed(1)
            with gnnscript.kernels("portable"):  # eager by PyG's own code
                out = run(*given)
            grads = torch.autograd.grad(out.square().sum(), leaves, allow_unused=True)
            found.append([out, *grads, torch.rand(1)])  # as many numbers were drawn
        torch.testing.assert_close(*found)


def test_dropped_weights_that_are_returned_are_those_that_were_used() -> None:
    make, take = CONVS["gat edges"]
    model = make().train()

    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = model

        def forward(self, x: Tensor, edge_index: Tensor, attr: Tensor) -> tuple[Tensor, Tensor]:
            out, (_, alpha) = self.conv(x, edge_index, attr, return_attention_weights=True)
            return out, alpha

    asking = Asking()
    scripted = torch.jit.script(asking)
    given = take(*graph(*GRAPHS[0]))
    found = []
    for run in (asking, scripted):
        torch.manual_seed(1)
        found.append(run(*given))
    torch.testing.assert_close(*found)
    assert (found[1][1] == 0).any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: GATConv(WIDTH, 4, heads=HEADS),
        lambda: GATv2Conv(WIDTH, 4, heads=HEADS),
        lambda: TransformerConv(WIDTH, 4, heads=HEADS),
    ],
    ids=["gat", "gatv2", "transformer"],
)
def test_weights_that_are_asked_for_are_returned(make: Make, bare: BareProcess) -> None:
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quiet, self.conv = make(), make()

        def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            out, (_, alpha) = self.conv(x, edge_index, return_attention_weights=True)
            return out, alpha, self.quiet(x, edge_index)

    model = Asking()
    text = source(model)
    assert "softmax(" in text
    assert "edge_attend(" in text
    calls = [graph(*size)[:2] for size in GRAPHS]
    assert_scripts_like_eager(model, *calls, reload=bare)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GATConv((WIDTH, 3), 4, heads=HEADS, add_self_loops=False),
        lambda: GATConv((WIDTH, 3), 4, heads=HEADS, edge_dim=WIDTH, add_self_loops=False),
        lambda: GATv2Conv((WIDTH, 3), 4, heads=HEADS, edge_dim=WIDTH, add_self_loops=False),
        lambda: TransformerConv((WIDTH, 3), 4, heads=HEADS, edge_dim=WIDTH),
    ],
    ids=["gat", "gat edges", "gatv2", "transformer"],
)
def test_two_sets_of_nodes(make: Make, bare: BareProcess) -> None:
    model = make()
    assert "edge_attend(" in source(model)
    calls = []
    for number, (sources, targets, edges) in enumerate(((7, 9, 40), (11, 4, 25))):
        generator = torch.Generator().manual_seed(number)
        ends = [
            torch.randint(size - 1, (edges,), generator=generator) for size in (sources, targets)
        ]
        x = [
            torch.randn(size, width, generator=generator)
            for size, width in ((sources, WIDTH), (targets, 3))
        ]
        given: tuple[Any, ...] = (tuple(x), torch.stack(ends))
        if getattr(model, "edge_dim", None):
            given += (torch.randn(edges, WIDTH, generator=generator),)
        calls.append(given)
    assert_scripts_like_eager(model, *calls, reload=bare)


@pytest.mark.parametrize("make", [GATConv, GATv2Conv, TransformerConv])
def test_the_other_flow(make: Callable[..., nn.Module], bare: BareProcess) -> None:
    model = make(WIDTH, 4, heads=HEADS, flow="target_to_source")
    assert "edge_attend(" in source(model)
    calls = [graph(*size)[:2] for size in GRAPHS]
    assert_scripts_like_eager(model, *calls, reload=bare)


def test_no_tensor_with_a_row_per_edge_is_made() -> None:
    """Neither scores nor weights, in a layer or for its gradient: an index has other widths."""
    nodes, edges = 50, 3001
    conv = GATConv(WIDTH, 4, heads=HEADS, add_self_loops=False)
    scripted = torch.jit.script(conv)
    x, index = torch.randn(nodes, WIDTH, requires_grad=True), torch.randint(nodes, (2, edges))
    for _ in range(2):
        scripted(x, index).sum().backward()
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = scripted(x, index)
    assert not [t for t in kept if t.is_floating_point() and t.size(0) == edges]
    torch.testing.assert_close(out, conv(x, index))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    model = GATv2Conv(WIDTH, 4, heads=HEADS, edge_dim=WIDTH).to(dtype)
    scripted = torch.jit.script(model)
    x, index, e = graph(*GRAPHS[0])
    given = (x.to(dtype), index, e.to(dtype))
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(scripted(*given), model(*given), **tolerance)


def test_mixed_dtypes_are_promoted_as_in_eager() -> None:
    """Scores of double precision beside messages of single precision."""
    model = ONE_PASS["per feature"]()
    scripted = torch.jit.script(model)
    for size in GRAPHS[:2]:
        x, index, e = graph(*size)
        expected = model(x, index, e.double())
        out = scripted(x, index, e.double())
        assert out.dtype == expected.dtype == torch.float64
        torch.testing.assert_close(out, expected)


def test_autocast() -> None:
    model = GATConv(WIDTH, 4, heads=HEADS)
    scripted = torch.jit.script(model)
    x, index, _ = graph(*GRAPHS[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, expected = scripted(x, index), model(x, index)
    torch.testing.assert_close(out.float(), expected.float(), rtol=5e-2, atol=5e-2)


def test_eager_calls_take_it_too() -> None:
    """Classes with scores and messages in one method, while ``auto`` is on."""
    model = ONE_PASS["distances"]()
    given = graph(40, 900)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        out = model(*given)
    assert "gnnscript::edge_attention" in {event.name for event in profile.events()}
    with gnnscript.kernels("portable"):
        torch.testing.assert_close(out, model(*given))


def test_weights_that_are_left_in_an_attribute_are_computed() -> None:
    """Nothing in the code reads them: whoever has the scripted module may."""
    model = Inspected().eval()
    scripted = torch.jit.script(model)
    with torch.no_grad():
        out = scripted(*graph(*GRAPHS[0]))
        torch.testing.assert_close(out, model(*graph(*GRAPHS[0])))
    assert scripted._alpha is not None
    torch.testing.assert_close(scripted._alpha, model._alpha)


def test_weights_that_another_module_takes_are_computed() -> None:
    """Another module runs ``propagate`` of a conv, whose own ``forward`` would clear them."""

    class Taking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = Remembering()

        def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
            q, k = self.conv.query(x).view(-1, HEADS, 3), self.conv.key(x).view(-1, HEADS, 3)
            v = x.view(-1, HEADS, WIDTH // HEADS)
            out = self.conv.propagate(edge_index, q=q, k=k, v=v, e=e).flatten(1)
            alpha = self.conv._alpha
            assert alpha is not None
            return out + alpha.sum() + self.conv(x, edge_index, e)

    calls = [graph(*size) for size in GRAPHS[:2]]
    assert_scripts_like_eager(Taking(), *calls, modes=("eval",), reload=False)
