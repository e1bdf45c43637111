"""A conv that is itself scripted is called in each form that its annotations name."""

from __future__ import annotations

from typing import Optional, Tuple, Union

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import EdgeConv, GATConv, MessagePassing, PointNetConv, SAGEConv
from torch_geometric.typing import Adj, OptPairTensor, PairOptTensor

import gnnscript
from gnnscript.testing import BareProcess, assert_scripts_like_eager

pytestmark = pytest.mark.usefixtures("auto")


def edges(count: int, sources: int, targets: int) -> Tensor:
    return torch.stack([torch.randint(sources, (count,)), torch.randint(targets, (count,))])


def nodes(count: int, width: int = 4) -> Tensor:
    return torch.randn(count, width)


@pytest.mark.parametrize("kernels", ["portable", "native"])
@pytest.mark.parametrize(
    "make", [lambda: SAGEConv(4, 3), lambda: EdgeConv(nn.Linear(8, 3))], ids=["sage", "edge"]
)
def test_a_tensor_and_a_pair(make, kernels, bare: BareProcess) -> None:
    with gnnscript.kernels(kernels):
        assert_scripts_like_eager(
            make(),
            (nodes(5), edges(9, 5, 5)),
            ((nodes(5), nodes(3)), edges(9, 5, 3)),
            (nodes(7), edges(4, 7, 7)),
            ((nodes(2), nodes(8)), edges(11, 2, 8)),
            reload=bare,
        )


def test_several_arguments_and_none(bare: BareProcess) -> None:
    positions = nodes(5, 3), nodes(3, 3)
    assert_scripts_like_eager(
        PointNetConv(nn.Linear(7, 3), add_self_loops=False),
        (nodes(5), positions[0], edges(9, 5, 5)),
        ((nodes(5), None), positions, edges(9, 5, 3)),
        ((nodes(5), nodes(3)), positions, edges(4, 5, 3)),
        reload=bare,
    )
    assert_scripts_like_eager(
        PointNetConv(nn.Linear(3, 3), add_self_loops=False),
        (None, positions[0], edges(9, 5, 5)),
        (None, positions, edges(9, 5, 3)),
        ((None, None), positions, edges(4, 5, 3)),
        reload=bare,
    )


class Scaled(MessagePassing):
    """Its forms differ in what a number or a tensor stands for; one of them does not exist."""

    def forward(self, x: Union[Tensor, OptPairTensor], edge_index: Adj, by: Union[float, Tensor]):
        if isinstance(x, Tensor):
            x = (x, x)
        if isinstance(by, float):
            by = torch.full((x[0].size(0), 1), by)
        return self.propagate(edge_index, x=(x[0] * by, x[1]))


def test_numbers_and_tensors(bare: BareProcess) -> None:
    assert_scripts_like_eager(
        Scaled(),
        (nodes(5), edges(9, 5, 5), 2.0),
        (nodes(5), edges(9, 5, 5), torch.rand(5, 1)),
        ((nodes(2), nodes(4)), edges(9, 2, 4), 0.5),
        reload=bare,
    )


class Bipartite(MessagePassing):
    def forward(self, x: Union[Tensor, PairOptTensor], edge_index: Adj):
        if not isinstance(x, tuple):
            raise TypeError("expected a pair")
        return self.propagate(edge_index, x=x, size=(6, 6))

    def message(self, x_j: Optional[Tensor]) -> Tensor:
        assert x_j is not None
        return x_j


class Both(MessagePassing):
    """What it returns depends on the form: TorchScript returns one type, that of the first."""

    def forward(self, x: Union[Tensor, Tuple[Tensor, Tensor]], edge_index: Adj):
        if isinstance(x, Tensor):
            return self.propagate(edge_index, x=x)
        return self.propagate(edge_index, x=x), x[1]


def test_a_form_that_always_raises_is_left_out() -> None:
    scripted = torch.jit.script(Bipartite())
    pair = (nodes(6), None)
    edge_index = edges(9, 6, 6)
    torch.testing.assert_close(scripted(pair, edge_index), Bipartite()(pair, edge_index))
    with pytest.raises(RuntimeError, match="Expected a value of type 'Tuple"):
        scripted(nodes(6), edge_index)


def test_forms_that_return_another_type_are_left_out(bare: BareProcess) -> None:
    scripted = assert_scripts_like_eager(
        Both(), (nodes(5), edges(9, 5, 5)), (nodes(3), edges(2, 3, 3)), reload=bare
    )
    with pytest.raises(RuntimeError, match="Expected a value of type 'Tensor'"):
        scripted((nodes(5), nodes(5)), edges(9, 5, 5))


def test_examples_choose_one_form() -> None:
    x, edge_index = nodes(5), edges(9, 5, 5)
    scripted = torch.jit.script(SAGEConv(4, 3), example_inputs=[(x, edge_index)])
    assert "Union" not in str(scripted.forward.schema)


def test_examples_choose_an_option_that_decides_what_is_returned(bare: BareProcess) -> None:
    conv = GATConv(4, 3).eval()
    x, edge_index = nodes(5), edges(9, 5, 5)
    scripted = torch.jit.script(conv, example_inputs=[(x, edge_index, None, None, True)])
    call = {"x": nodes(7), "edge_index": edges(4, 7, 7), "return_attention_weights": True}
    torch.testing.assert_close(scripted(**call), conv(**call))
    torch.testing.assert_close(bare.run(scripted, [call])[0], conv(**call))
    for other in ({}, {"return_attention_weights": False}):
        with pytest.raises(torch.jit.Error, match="scripted for return_attention_weights=True"):
            scripted(x, edge_index, **other)
