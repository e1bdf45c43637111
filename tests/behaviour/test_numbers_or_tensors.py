"""A number where there is no tensor: what is only calculated with may be either."""

from __future__ import annotations

from typing import Optional

import pytest
import torch
import torch_geometric
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, MessagePassing, RGATConv

import gnnscript
from conformance.graphs import EDGE, GRAPHS, IN, OUT

pytestmark = pytest.mark.usefixtures("auto")


class Biased(nn.Module):
    """A term that is nothing, a number, or a tensor."""

    def __init__(self, otherwise: float) -> None:
        super().__init__()
        self.conv, self.otherwise = GCNConv(IN, OUT), otherwise

    def forward(self, x: Tensor, edge_index: Tensor, bias: Optional[Tensor] = None) -> Tensor:
        if bias is not None:
            term = bias.view(1, -1).tanh()
            factor = bias.abs().mean()
        else:
            term = 0
            factor = self.otherwise
        out = self.conv(x, edge_index) + term
        out *= factor
        return out / (1 + factor)


class Normalised(nn.Module):
    """The same, chosen within expressions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(IN, OUT)

    def forward(
        self, x: Tensor, edge_index: Tensor, weight: Optional[Tensor] = None, scale: float = 1.0
    ) -> Tensor:
        factor = 2.0 if weight is None else weight.mean()
        degree = torch.ones(x.size(0)).index_add(0, edge_index[1], torch.ones(edge_index.size(1)))
        norm = (1 if weight is None else weight) / degree[edge_index[1]]
        norm = norm * (scale if weight is None else weight.sum())
        return self.conv(x * factor, edge_index, norm)


def test_numbers_or_tensors_in_expressions(check) -> None:
    calls = [(g.x, g.edge_index) for g in GRAPHS]
    check(Normalised(), *calls, *[(*c, g.weight) for c, g in zip(calls, GRAPHS, strict=True)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_number_counts_like_itself(dtype: torch.dtype) -> None:
    model = Biased(0.1).to(dtype)
    scripted = torch.jit.script(model)
    for graph in GRAPHS:
        for bias in (None, torch.randn(OUT, dtype=dtype)):
            expected = model(graph.x.to(dtype), graph.edge_index, bias)
            actual = scripted(graph.x.to(dtype), graph.edge_index, bias)
            assert actual.dtype == dtype
            torch.testing.assert_close(actual, expected)


def test_both_forms_of_a_conv() -> None:
    """RGATConv adds nothing where there are no edge features."""
    conv = RGATConv(
        IN, OUT, 3, num_bases=2, edge_dim=EDGE, attention_mode="additive-self-attention"
    )
    for parameter in conv.parameters():
        nn.init.normal_(parameter)  # PyG leaves one as it finds the memory
    scripted = torch.jit.script(conv)
    for graph in GRAPHS:
        call = graph.x, graph.edge_index, torch.randint(3, (graph.edge_index.size(1),))
        torch.testing.assert_close(scripted(*call), conv(*call))
        torch.testing.assert_close(scripted(*call, graph.attr), conv(*call, graph.attr))


class Asked(Biased):
    def forward(self, x: Tensor, edge_index: Tensor, bias: Optional[Tensor] = None) -> Tensor:
        if bias is not None:
            term = bias.relu()
            x = x + 1
        else:
            term = self.otherwise
        if isinstance(term, float):
            term = torch.full((OUT,), term)
        return self.conv(x, edge_index) + term


class Weighted(MessagePassing):
    """An argument of propagate, and of a helper, that is a number or a tensor."""

    def __init__(self) -> None:
        super().__init__(aggr="mean")
        self.lin = nn.Linear(IN, OUT)

    def forward(self, x: Tensor, edge_index: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        h = self.lin(self.propagate(edge_index, x=x, s=1.5 if weight is None else weight))
        return self.scaled(h, s=2 if weight is None else weight.mean()) + h

    @staticmethod
    def scaled(h: Tensor, s) -> Tensor:
        return h * s if isinstance(s, Tensor) else h + s

    def message(self, x_j: Tensor, s) -> Tensor:
        return x_j * (s.view(-1, 1) if torch.is_tensor(s) else s)


class Several(nn.Module):
    """Types that differ behind tests within tests, and in a choice among arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(IN, OUT)

    def forward(self, x: Tensor, edge_index: Tensor, weight: Optional[Tensor] = None):
        count = 0
        if weight is None:
            if x.size(0) > GRAPHS[0].x.size(0):
                held = x, x.size(0)
                count += 1
            else:
                held = x
        else:
            held = [x, weight.mean() * x]
        if isinstance(held, tuple):
            held = held[0] / held[1]
        elif isinstance(held, list):
            held = torch.stack(held).sum(0)
        for step in range(x.size(0)):
            part = x.sum() if x[step, 0] > 0 else 1
            held = held + part
        return self.conv(held, edge_index), count


class AndOr(nn.Module):
    """``and`` and ``or`` give one of their sides, not whether it is true."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(IN, OUT)

    def forward(self, x: Tensor, edge_index: Tensor, weight: Optional[Tensor] = None):
        rows = x.size(0)
        signed = (rows % 2 == 0 and rows) or -rows
        level = (rows > 100 or 3) and 5.0
        mean = (rows > 8 and x.mean()) or x.sum()
        many = rows > 8 and x.sum()
        if many:
            x = x * 2
        x = x + x * (rows > 8 and 3)
        return self.conv(x, edge_index), signed, level, mean, rows > 3 and (rows < 9 or not rows)


class Helped(nn.Module):
    """A helper whose result has another type where its argument is None."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lin = GCNConv(IN, OUT), nn.Linear(IN, IN)

    def forward(self, x: Tensor, edge_index: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        out, scale = self.scaled(x, weight)
        out = self.lin(out) * (1.5 if weight is None else weight.max())
        out = self.lin(out) + (0 if x.size(0) > 8 else out) * (1 if weight is None else scale)
        return self.conv(out, edge_index) / scale

    @staticmethod
    def scaled(x: Tensor, weight):
        return (x, 3) if weight is None else (x * 2, weight.sum())


class Promoted(nn.Module):
    """Integers times a number are of the default type, and so is a sum of no dimensions."""

    def forward(self, x: Tensor, edge_index: Tensor, weight: Optional[Tensor] = None):
        factor = 2.0 if weight is None else weight.mean()
        degree = torch_geometric.utils.degree(edge_index[1], x.size(0), dtype=torch.long)
        return degree * factor, x.sum() * factor


@pytest.mark.parametrize("model", [Weighted, Several, AndOr, Helped, Promoted])
def test_branches_stay_apart(model: type[nn.Module], check) -> None:
    calls = [(g.x, g.edge_index) for g in GRAPHS]
    check(model(), *calls, *[(*c, g.weight) for c, g in zip(calls, GRAPHS, strict=True)])


def test_what_tells_the_difference(check) -> None:
    calls = [(g.x, g.edge_index) for g in GRAPHS]
    check(Asked(0.1), *calls, *[(*c, torch.randn(OUT)) for c in calls])


class Asking(nn.Module):
    """The test may only be asked where it stands: what is called before it changes the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.seen = GCNConv(IN, OUT), 0

    def step(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(torch.mul(self.step(x), x if self.seen > 1 else 2.0), edge_index)


def test_a_test_that_cannot_be_asked_first_is_refused() -> None:
    with pytest.raises(gnnscript.UnsupportedError, match="has no single type"):
        torch.jit.script(Asking())
