"""SuperGATConv in training draws edges that are not there: which ones differs from run to run."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import SuperGATConv

import gnnscript
from gnnscript.testing import BareProcess

pytestmark = pytest.mark.usefixtures("auto")

NODES = 6


def graph() -> tuple[Tensor, Tensor]:
    pairs = torch.tensor([[0, 1, 1, 2, 3, 4, 5, 2], [1, 0, 2, 1, 4, 3, 2, 5]])
    return torch.randn(NODES, 4), pairs


def logits_of(conv: SuperGATConv, x: Tensor, pairs: Tensor) -> Tensor:
    h = conv.lin(x).view(NODES, conv.heads, -1)
    return (h[pairs[1]] * h[pairs[0]]).sum(-1)


def non_edges(edge_index: Tensor) -> Tensor:
    taken = torch.eye(NODES, dtype=torch.bool)
    taken[edge_index[0], edge_index[1]] = True
    return (~taken).nonzero().t()


@pytest.mark.parametrize("kernels", ["portable", "native"])
@pytest.mark.parametrize("undirected", [False, True])
def test_negatives_are_pairs_without_an_edge(undirected: bool, kernels: str) -> None:
    x, edge_index = graph()
    conv = SuperGATConv(4, 3, heads=2, is_undirected=undirected, neg_sample_ratio=0.5).train()
    with gnnscript.kernels(kernels):
        scripted = torch.jit.script(conv)
    possible = logits_of(conv, x, non_edges(edge_index)).detach()
    drawn = torch.zeros(possible.size(0), dtype=torch.long)
    positive = edge_index.size(1) + NODES  # with self-loops
    for seed in range(40):
        torch.manual_seed(seed)
        torch.testing.assert_close(scripted(x, edge_index), conv(x, edge_index))
        assert scripted.att_x.size() == conv.att_x.size()
        assert torch.equal(scripted.att_y, conv.att_y)
        torch.testing.assert_close(scripted.att_x[:positive], conv.att_x[:positive])
        negatives = scripted.att_x[positive:].detach()
        assert negatives.size(0) == positive // 2
        found = torch.isclose(negatives[:, None], possible[None], atol=1e-6).all(-1)
        assert found.any(1).all(), "an edge of the graph was drawn"
        drawn += found.sum(0)
    assert (drawn > 0).all(), "some pairs are never drawn"


def test_the_loss_has_the_gradients_of_what_was_drawn(bare: BareProcess) -> None:
    x, edge_index = graph()
    conv = SuperGATConv(4, 3, heads=2).train()
    scripted = torch.jit.script(conv)
    scripted(x, edge_index)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        scripted.att_x.mean(-1), scripted.att_y
    )
    loss.backward()
    assert conv.lin.weight.grad is not None
    assert conv.lin.weight.grad.abs().sum() > 0
    (out,) = bare.run(scripted, [(x, edge_index)])
    torch.testing.assert_close(out, conv(x, edge_index))
