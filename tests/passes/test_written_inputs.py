"""What a conv was given, or has returned, is written to before gradients are computed.

PyG gathers copies and adds edge features without keeping them, so its models may do so.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import softmax

import gnnscript

pytestmark = pytest.mark.usefixtures("native", "auto")

WIDTH = 4


class Conv(MessagePassing):
    """Hands everything on to the message."""

    def __init__(self, aggr: str = "sum") -> None:
        super().__init__(aggr=aggr)
        self.lin = nn.Linear(2 * WIDTH, WIDTH)
        self.att = nn.Parameter(torch.randn(WIDTH))

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor, s: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, e=e, s=s)


class Added(Conv):
    def message(self, x_j: Tensor, e: Tensor, s: Tensor) -> Tensor:
        return (x_j + e + s).relu()


class Gated(Conv):
    def message(self, x_i: Tensor, x_j: Tensor, e: Tensor) -> Tensor:
        return (x_i - x_j + e).sigmoid() * (x_j + e)


class Difference(Conv):
    def message(self, x_i: Tensor, x_j: Tensor, e: Tensor) -> Tensor:
        return x_i - x_j + e


class Layered(Conv):
    def message(self, x_i: Tensor, x_j: Tensor, e: Tensor) -> Tensor:
        return self.lin(torch.cat([x_i - x_j, e], dim=-1)).tanh()


class Attended(Conv):
    """Values of nodes and edges weighted by a softmax of scores of them."""

    def message(self, x_i: Tensor, x_j: Tensor, e: Tensor, index: Tensor, size_i: int) -> Tensor:
        score = ((x_i + x_j + e).tanh() * self.att).sum(dim=-1)
        return softmax(score, index, num_nodes=size_i).view(-1, 1) * (x_j + e)


class Doubled(Conv):
    """The weights of a softmax are used twice."""

    def message(self, x_i: Tensor, x_j: Tensor, e: Tensor, index: Tensor, size_i: int) -> Tensor:
        weight = softmax(x_i + x_j + e, index, num_nodes=size_i)
        scaled = weight + (x_j + e)
        weight *= 2
        return scaled + weight


class Ended(Conv):
    """A layer of edges outside of messages."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(3 * WIDTH, WIDTH)

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor, s: Tensor) -> Tensor:
        return self.lin(torch.cat([x[edge_index[0]], x[edge_index[1]], e], dim=-1)).tanh()


class Writing(nn.Module):
    """Writes to all that a conv was given, before it and after it.

    Args:
        conv: The conv.
        learned: Whether edge features have a gradient.
        result: Whether the result is written to as well.
    """

    def __init__(self, conv: nn.Module, learned: bool, result: bool) -> None:
        super().__init__()
        self.conv, self.learned, self.result = conv, learned, result
        self.node, self.edge = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.shared = nn.Parameter(torch.randn(1, WIDTH))

    def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
        x = self.node(x)
        e = self.edge(e) if self.learned else e * 2
        s = self.shared * 3
        x += 1
        e -= 1
        out = self.conv(x, edge_index, e, s)
        x *= 2
        e[0] = 0
        e += 3
        s.zero_()
        if self.result:
            out -= 1
        return out.square().sum() + x.square().sum() + e.sum() + s.sum()


def gradients(model: nn.Module, call: tuple[Tensor, ...], twice: bool) -> list[Tensor]:
    """The gradients of parameters; of the size of the gradients where they are taken twice."""
    parameters = list(model.parameters())
    out = model(*call)
    if twice:
        first = torch.autograd.grad(out, parameters, create_graph=True, allow_unused=True)
        out = sum(((one + 1).square().sum() for one in first if one is not None), out)
    found = torch.autograd.grad(out, parameters, allow_unused=True)
    return [
        torch.zeros_like(own) if grad is None else grad
        for own, grad in zip(parameters, found, strict=True)
    ]


def graph() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(7, WIDTH, generator=generator, dtype=torch.float64)
    e = torch.randn(30, WIDTH, generator=generator, dtype=torch.float64)
    return x, torch.randint(7, (2, 30), generator=generator), e


CONVS: dict[str, Callable[[], nn.Module]] = {
    "added": Added,
    "gated": Gated,
    "gated mean": lambda: Gated("mean"),
    "gated maximum": lambda: Gated("max"),
    "difference": Difference,
    "difference maximum": lambda: Difference("max"),
    "difference product": lambda: Difference("mul"),
    "layered": Layered,
    "layered maximum": lambda: Layered("max"),
    "attended": Attended,
    "doubled": Doubled,
    "ended": Ended,
}
# PyG itself keeps the result of a maximum or product, and of tanh.
KEPT = ("maximum", "product", "ended")


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("scripted", [True, False])
@pytest.mark.parametrize("name", CONVS)
def test_gradients_are_those_of_what_was_given(name: str, scripted: bool, learned: bool) -> None:
    torch.manual_seed(0)
    model = Writing(CONVS[name](), learned, not name.endswith(KEPT)).double()
    call = graph()
    run = torch.jit.script(model) if scripted else model
    for twice in (False, True):
        with gnnscript.kernels("portable"):
            expected = gradients(model, call, twice)
        found = gradients(run, call, twice)
        torch.testing.assert_close(found, expected)


def address(x: Tensor) -> int:
    """Where a tensor lies; to ask for its ``data_ptr`` would count as a write."""
    return torch._C._data_address(x)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("conv", [Gated, Attended, lambda: Gated("max"), Layered])
def test_nothing_is_copied_where_nobody_writes(conv: Callable[[], nn.Module]) -> None:
    x, edge_index, e = graph()
    x, e = x.requires_grad_() * 1, e.requires_grad_() * 1
    places = address(x), address(e)
    out = conv().double()(x, edge_index, e, e[:1])
    assert torch._C._is_cow_tensor(x)  # type: ignore[attr-defined]
    out.sum().backward()
    assert (address(x), address(e)) == places


def test_what_needs_no_copy_is_not_shared() -> None:
    x, edge_index, e = graph()
    x, e = x.requires_grad_() * 1, e.requires_grad_() * 1
    Difference().double()(x, edge_index, e, e[:1])
    with torch.no_grad():
        Gated().double()(x, edge_index, e, e[:1])
    assert not torch._C._is_cow_tensor(x)  # type: ignore[attr-defined]
    assert not torch._C._is_cow_tensor(e)  # type: ignore[attr-defined]


@pytest.mark.parametrize("known", ["array", "parameter", "part", "foreign"])
def test_memory_that_others_know_stays_where_it_is(known: str) -> None:
    """An array of NumPy, an optimizer's parameter, a part of something large, NumPy's memory."""
    x, edge_index, e = graph()
    model = Gated().double()
    whole = torch.cat([x, torch.zeros(100, WIDTH, dtype=x.dtype)])
    e = e.requires_grad_() * 1
    if known == "array":
        array = x.numpy()
    elif known == "parameter":
        x = nn.Parameter(x)
    elif known == "part":
        x = whole[:7]
    else:
        x = torch.from_numpy(x.numpy().copy())
    place, before = address(x), x.detach().clone()
    (expected,) = torch.autograd.grad(model(before, edge_index, e, e).sum(), e)
    out = model(x, edge_index, e, e).sum()
    with torch.no_grad():
        x += 1
    assert address(x) == place
    if known == "array":
        torch.testing.assert_close(torch.from_numpy(array), before + 1)
    (found,) = torch.autograd.grad(out, e)
    torch.testing.assert_close(found, expected)
