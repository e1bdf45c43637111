"""A number where there is no tensor: what is only calculated with may be either."""

from __future__ import annotations

from typing import Optional

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, RGATConv

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


def test_what_tells_the_difference_is_refused() -> None:
    with pytest.raises(gnnscript.UnsupportedError, match="has no single type here"):
        torch.jit.script(Asked(0.1))
