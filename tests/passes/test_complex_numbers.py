"""Convs whose messages may be complex: fused where they are real, and right where they are not."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, MessagePassing

import gnnscript
from gnnscript.testing import BareProcess, assert_scripts_like_eager
from zoo.wild import ComplexWaves

pytestmark = pytest.mark.usefixtures("native", "auto")


def graph(nodes: int, edges: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(nodes)
    x = torch.randn(nodes, 8, generator=generator).to(dtype)
    edge_index = torch.randint(nodes, (2, edges), generator=generator)
    return x, edge_index, torch.rand(edges, generator=generator)


def test_complex_messages_like_eager(bare: BareProcess) -> None:
    calls = graph(7, 20), graph(11, 35)
    assert_scripts_like_eager(ComplexWaves(), *calls, reload=bare, gradients=False)


def test_real_messages_are_fused_all_the_same() -> None:
    source = gnnscript.source(ComplexWaves())
    assert "edge_aggregate('e0 * j1'" in source
    assert "x.is_complex() or norm.is_complex()" in source
    assert "is_complex" not in gnnscript.source(GCNConv(8, 4))


class ComplexWeights(MessagePassing):
    """What the messages hold is the module's own."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = nn.Parameter(torch.randn(8, dtype=torch.complex64))

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, edge_weight=edge_weight)

    def message(self, x_j: Tensor, edge_weight: Tensor) -> Tensor:
        return x_j * self.phase * edge_weight.view(-1, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_complex_parameters(dtype: torch.dtype, bare: BareProcess) -> None:
    calls = graph(7, 20, dtype), graph(11, 35, dtype)
    assert_scripts_like_eager(ComplexWeights(), *calls, reload=bare, gradients=False)


def test_gradients_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "gnnscript"):
        torch.jit.script(GCNConv(8, 4))
        assert "complex" not in caplog.text
        torch.jit.script(ComplexWaves())
    assert "ComplexWaves computes with complex numbers" in caplog.text
