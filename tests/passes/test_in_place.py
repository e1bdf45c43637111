"""Sums that take the memory of their first operand, where nobody can tell."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    CGConv,
    GCNConv,
    GINEConv,
    MessagePassing,
    SAGEConv,
)

import gnnscript
from gnnscript.testing import BareProcess, assert_scripts_like_eager

pytestmark = pytest.mark.usefixtures("native", "auto")

WIDTH = 4


def graph(nodes: int, edges: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(nodes)
    x = torch.randn(nodes, WIDTH, generator=generator)
    return x, torch.randint(max(nodes - 2, 1), (2, edges), generator=generator)


class Conv(MessagePassing):
    """What the classes below have in common."""

    def __init__(self) -> None:
        super().__init__(aggr="add")
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.bias = nn.Parameter(torch.randn(WIDTH))

    def message(self, x_j: Tensor) -> Tensor:
        return x_j


class Rooted(Conv):
    """A root and a bias, one after the other."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out = self.propagate(edge_index, x=x)
        out = out + self.second(x)
        if x.size(0) > 6:
            out = out + self.bias
        return out.relu()


class Transformed(Conv):
    """A new tensor by an operator."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out = 2 * self.propagate(edge_index, x=x)
        out = out + self.bias
        return out.relu()


class Named(Conv):
    """Two names for one tensor."""

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        out = self.propagate(edge_index, x=x)
        kept = out
        out = out + self.bias
        return out, kept


class Listed(Conv):
    """Earlier sums are in a list."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        steps = []
        out = self.propagate(edge_index, x=x)
        for _ in range(3):
            steps.append(out)
            out = out + self.bias
        return torch.cat(steps, dim=-1)


class Viewed(Conv):
    """A view of the first operand is alive, or is the second."""

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        out = self.propagate(edge_index, x=x)
        half = out[:, :2]
        out = out + self.bias
        turned = self.propagate(edge_index, x=out)
        turned = turned + turned.flip(0)
        return torch.cat([out, turned], dim=-1), half


class Given(Conv):
    """The first operand is the caller's, or the module's."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = x + self.bias
        out = self.bias
        out = out + x
        h = x.view(-1, WIDTH)
        h = h + 1.0
        return out + h + x + self.propagate(edge_index, x=x)


class Wider(Conv):
    """The sum is larger than its first operand, or of another type."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out = self.propagate(edge_index, x=x).sum(dim=0)
        out = out + x
        small = x.half()
        small = small * 2
        return small + out


class Halting(Conv):
    """What was made with gradients is needed by them, though the sum has none."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        factor = torch.ones_like(x) * 3
        h = x * factor * self.bias
        with torch.no_grad():
            factor = factor + 1
        return h.exp() + factor + self.propagate(edge_index, x=h)


class Activated(Conv):
    """An activation has written over the first operand, and returned it."""

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, ...]:
        out = self.propagate(edge_index, x=x)
        by_keyword = nn.functional.relu(out, inplace=True)
        out = out + self.bias
        other = self.propagate(edge_index, x=out)
        by_position = nn.functional.elu(other, 1.0, True)
        other = other + self.bias
        return by_keyword, by_position, out, other


class Numbered(Conv):
    """Numbers are added: known ones, sizes and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = 0.5

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out = self.propagate(edge_index, x=x)
        out = out + 1
        out = out + self.shift
        out = out + x.size(0)
        return out + (2 * self.shift + x.size(0))


TAKEN = {"rooted": Rooted, "transformed": Transformed}
LEFT = {"named": Named, "listed": Listed, "viewed": Viewed, "given": Given}
OTHERS = {"wider": Wider, "halting": Halting, "activated": Activated, "numbered": Numbered}


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("name", [*TAKEN, *LEFT, *OTHERS])
def test_scripted_like_eager(name: str, gradients: bool, bare: BareProcess) -> None:
    model = ({**TAKEN, **LEFT, **OTHERS})[name]()
    assert_scripts_like_eager(
        model, graph(9, 40), graph(5, 0), graph(12, 31), gradients=gradients, reload=bare
    )


@pytest.mark.parametrize(("name", "times"), [("rooted", 2), ("transformed", 1)])
def test_sums_of_what_is_new_need_no_memory(name: str, times: int) -> None:
    model = TAKEN[name]()
    assert gnnscript.source(model).count("out = add_to(out, ") == times
    scripted = torch.jit.script(model)
    x, edge_index = graph(9, 40)
    before = x.clone(), edge_index.clone(), model.bias.detach().clone()
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            for _ in range(3):
                scripted(x, edge_index)
    torch.testing.assert_close((x, edge_index, model.bias.detach()), before)


@pytest.mark.parametrize("name", ["named", "listed"])
def test_what_has_other_names_is_left_alone(name: str) -> None:
    assert "add_to(" not in gnnscript.source(LEFT[name]())


def test_layers_of_pyg_add_to_what_they_have_made() -> None:
    for layer in (SAGEConv(WIDTH, WIDTH), GCNConv(WIDTH, WIDTH)):
        assert "out = add_to(out, " in gnnscript.source(layer)


def test_a_hook_may_keep_what_a_layer_returns() -> None:
    model = SAGEConv(WIDTH, WIDTH)

    def keep(module: nn.Module, given: tuple[Tensor], out: Tensor) -> None:
        pass

    model.lin_l.register_forward_hook(keep)
    assert "add_to(" not in gnnscript.source(model)


class Residual(nn.Module):
    """A conv whose result is added in place to what it was given."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.lin, self.conv = nn.Linear(8, 8), conv

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        x = self.lin(x)
        edge_attr = edge_attr * 2
        x += self.conv(x, edge_index, edge_attr)
        if not isinstance(self.conv, GINEConv):  # it keeps it for a layer of its own
            edge_attr += 1
        return x + edge_attr.sum()


class Concatenated(MessagePassing):
    def __init__(self) -> None:
        super().__init__(aggr="add")
        self.lin = nn.Linear(20, 8)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, edge_attr=edge_attr)

    def message(self, x_i: Tensor, x_j: Tensor, edge_attr: Tensor) -> Tensor:
        return self.lin(torch.cat([x_i, x_j - x_i, edge_attr], dim=-1)).tanh()


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda: GINEConv(nn.Linear(8, 8), edge_dim=4),
        lambda: CGConv(8, 4),
        Concatenated,
    ],
)
def test_what_a_conv_was_given_may_be_changed_after_it(make, eager: bool) -> None:
    """As with PyG, which gathers copies of it: training goes on as without gnnscript."""
    model = Residual(make())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 8, generator=generator)
    edge_index = torch.randint(6, (2, 20), generator=generator)
    call = x, edge_index, torch.randn(20, 4, generator=generator)
    with gnnscript.kernels("portable"):
        expected = torch.autograd.grad(model(*call).square().sum(), list(model.parameters()))
    run = model if eager else torch.jit.script(model)
    found = torch.autograd.grad(run(*call).square().sum(), list(model.parameters()))
    for grad, other in zip(found, expected, strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-4, atol=1e-4)
