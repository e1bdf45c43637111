"""Models whose helpers use PyG, and models in torch alone that torch refuses."""

from __future__ import annotations

import functools

import pytest
import torch
import torch_geometric.utils
from torch import nn
from torch_geometric.utils import scatter

from gnnscript.script import needs_lowering


@pytest.fixture(autouse=True)
def _auto(auto) -> None:
    """All of these are about ``gnnscript.auto``."""


def pooled(x, batch, size: int):
    return scatter(x, batch, dim=0, dim_size=size, reduce="max")


def counted(x, batch):
    return pooled(x, batch, int(batch.max()) + 1)


def logged(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


decorated = logged(counted)


class Helpers:
    """As a module of helpers is."""

    counted = staticmethod(counted)


class CallsHelper(nn.Module):
    def forward(self, x, batch):
        return counted(x, batch)


class InComprehension(nn.Module):
    def forward(self, x, batch):
        return torch.cat([torch_geometric.utils.degree(index) for index in (batch, batch + 1)])


class HelperAsAttribute(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = counted

    def forward(self, x, batch):
        return self.pool(x, batch)


class OfTheClass(nn.Module):
    @staticmethod
    def pool(x, batch):
        return counted(x, batch)

    def forward(self, x, batch):
        return self.pool(x, batch)


def test_what_helpers_call_is_replaced_too(check) -> None:
    for cls in (CallsHelper, InComprehension, HelperAsAttribute, OfTheClass):
        assert needs_lowering(cls(), auto=True), cls
        check(cls(), *pools())
    assert not needs_lowering(nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2)), auto=True)


@pytest.mark.parametrize("function", [decorated, functools.partial(counted), Helpers.counted])
def test_helpers_are_found_behind_what_wraps_them(function) -> None:
    model = nn.Module()
    model.pool = function
    assert needs_lowering(model, auto=True)


def pools():
    for seed, (nodes, graphs) in enumerate(((7, 3), (11, 2))):
        generator = torch.Generator().manual_seed(seed)
        yield torch.randn(nodes, 4, generator=generator), torch.arange(nodes) % graphs


def minkowski(p):
    squares = p**2
    return 2 * squares[..., :1] - squares.sum(dim=-1, keepdim=True)


class Block(nn.Module):
    def __init__(self, width: int, last: bool) -> None:
        super().__init__()
        self.edge = nn.Sequential(nn.Linear(2 * width + 1, width), nn.BatchNorm1d(width), nn.ReLU())
        self.move = nn.Linear(width, 1, bias=False)
        self.last = last
        if last:
            del self.move

    def forward(self, h, p, edges, scalars=None):
        i, j = edges
        between = p[i] - p[j]
        message = self.edge(torch.cat([h[i], h[j], minkowski(between)], dim=1))
        if not self.last:
            p = p + p.new_zeros(p.shape).index_add(0, i, between * self.move(message))
        h = h + h.new_zeros((h.size(0), h.size(1))).index_add_(0, i, message)
        return (h if scalars is None else h + scalars), p


class PlainLorentzNet(nn.Module):
    """A graph network in the style of LorentzNet, written in torch alone."""

    def __init__(self, width: int = 4, layers: int = 3) -> None:
        super().__init__()
        self.layers = layers
        self.blocks = nn.ModuleList(Block(width, i == layers - 1) for i in range(layers))

    def forward(self, h, p, edges):
        scalars = h
        for i in range(self.layers):
            h, p = self.blocks[i](h, p, edges, scalars=scalars)
        return h.mean(dim=0), p


def test_a_model_in_torch_alone_that_torch_refuses(check) -> None:
    def events():
        for seed, (nodes, edges) in enumerate(((7, 20), (11, 35))):
            generator = torch.Generator().manual_seed(seed)
            features = torch.randn(nodes, 4, generator=generator)
            yield features, features.exp(), torch.randint(nodes, (2, edges), generator=generator)

    assert not needs_lowering(PlainLorentzNet(), auto=True)
    check(PlainLorentzNet(), *events())


class Hopeless(nn.Module):
    def forward(self, x):
        return eval("x + 1")


def test_where_nothing_helps_the_error_is_torchs() -> None:
    with pytest.raises(RuntimeError, match="built-in function eval") as alone:
        torch.jit.script(Hopeless())
    assert "test_plain_models.py" in str(alone.value)
