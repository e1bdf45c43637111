"""Decorated functions run decorated: a wrapper is specialised with what it wraps."""

import functools

import pytest
import torch
from tests.behaviour.models import GRAPHS, IN
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing, SAGEConv, Set2Set

pytestmark = pytest.mark.usefixtures("auto")


def twice(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return 2 * function(*args, **kwargs)

    return wrapper


@twice
def shifted(x: Tensor, by: float = 1.0) -> Tensor:
    return x + by


class Base(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)

    def message(self, x_j: Tensor) -> Tensor:
        return x_j


class Forward(Base):
    @twice
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)


class Message(Base):
    @twice
    def message(self, x_j: Tensor) -> Tensor:
        return x_j.tanh()


class Helper(Base):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=shifted(self.scaled(x, by=3.0)))

    @twice
    def scaled(self, x: Tensor, by: float) -> Tensor:
        return x * by


class NoGrad(Base):
    """The scale has no gradient, in TorchScript as in eager."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x) * self.scale(x)

    @torch.no_grad()
    def scale(self, x: Tensor) -> Tensor:
        return x.exp().sum()


class Holder(nn.Module):
    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x, edge_index)


@pytest.mark.parametrize("nested", [False, True], ids=["root", "nested"])
@pytest.mark.parametrize("cls", [Forward, Message, Helper, NoGrad])
def test_runs_as_in_eager(cls, nested, check):
    model = Holder(cls()) if nested else cls()
    check(model, *[(g.x, g.edge_index) for g in GRAPHS])


class Readout(nn.Module):
    """An aggregation that keeps a recurrent module of torch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(IN, IN)
        self.mlp = nn.Sequential(nn.Linear(IN, IN), nn.ReLU(), nn.Linear(IN, 2))
        self.pool = Set2Set(IN, 2)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.mlp[:-1](self.conv(x, edge_index))
        return self.pool(x, torch.zeros(x.size(0), dtype=torch.long))


def test_modules_that_are_used_in_part(check):
    check(Readout(), *[(g.x, g.edge_index) for g in GRAPHS])
