"""Models that take a data object, scripted as models that take its tensors."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, global_mean_pool

import gnnscript
from conformance.graphs import GRAPHS, IN, OUT

pytestmark = pytest.mark.usefixtures("auto")


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = GCNConv(IN, OUT)

    def forward(self, data):
        x, edge_index = data.x, data.edge_index
        x = self.conv(x, edge_index, data.edge_attr).relu() / data.num_nodes
        return global_mean_pool(x, data.batch)


class PassesOn(Classifier):
    def embed(self, graph):
        return self.conv(graph.x, graph.edge_index)

    def forward(self, data):
        return self.embed(data)


@dataclass
class Plain:
    x: Tensor
    edge_index: Tensor


def _data(graph):
    return Data(x=graph.x, edge_index=graph.edge_index, edge_attr=graph.weight, batch=graph.batch)


def test_fields_are_arguments(check):
    model = Classifier()
    derived = gnnscript.tensor_inputs(model, _data(GRAPHS[0]))
    calls = [(g.x, g.edge_index, g.weight, g.x.size(0), g.batch) for g in GRAPHS]
    check(derived, *calls)
    for graph, call in zip(GRAPHS, calls, strict=True):
        torch.testing.assert_close(torch.jit.script(derived)(*call), model(_data(graph)))


def test_object_that_is_passed_on(check):
    model = PassesOn()
    check(gnnscript.tensor_inputs(model, Plain(GRAPHS[0].x, GRAPHS[0].edge_index)))


class Further(Classifier):
    """Arguments beside the object: required ones, optional tensors and options."""

    def forward(self, data, scale, hops: int, state=None, verbose: bool = False, **kwargs):
        x = data.x * scale
        for _ in range(hops):
            x = self.conv(x, data.edge_index)[:, :1] + x
        if state is not None:
            x = x + state
        return {"x": x} if verbose else x


def test_further_arguments(check):
    derived = gnnscript.tensor_inputs(Further(), _data(GRAPHS[0]))
    names = list(inspect.signature(derived.forward).parameters)
    assert names == ["x", "edge_index", "scale", "hops", "state"]
    calls = [(g.x, g.edge_index, torch.tensor(0.5), 2) for g in GRAPHS]
    check(derived, calls[0], (*calls[1], torch.ones(1)))


def test_other_signatures_are_refused():
    with pytest.raises(gnnscript.UnsupportedError, match="takes no object with fields"):
        gnnscript.tensor_inputs(GCNConv(IN, OUT), _data(GRAPHS[0]))


def test_a_field_that_is_no_tensor_is_refused():
    data = _data(GRAPHS[0])
    data.edge_attr = "none"
    data.x = {"a": [object()]}
    with pytest.raises(gnnscript.UnsupportedError, match=r"'data\.x' is no tensor") as caught:
        gnnscript.tensor_inputs(Classifier(), data)
    assert "test_tensor_inputs.py" in str(caught.value)


class Encoder(nn.Module):
    """Changes the object that it is given, and returns it."""

    def __init__(self, width):
        super().__init__()
        self.lin = nn.Linear(IN, width)

    def forward(self, batch):
        batch.x = self.lin(batch.x)
        return batch


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv, self.norm = GCNConv(width, width), nn.BatchNorm1d(width)

    def forward(self, batch):
        before = batch.x
        batch.x = self.conv(batch.x, batch.edge_index)
        batch.x += before
        batch["x"] = self.norm(batch.x)
        batch.depth = getattr(batch, "depth", 0) + 1
        return batch


class Head(nn.Module):
    def forward(self, batch):
        if batch.y is not None or "edge_attr" not in batch:
            raise ValueError("unexpected fields")
        return global_mean_pool(batch.x, batch.batch) / batch.num_nodes, batch.depth


class Stages(nn.Module):
    """Each stage takes the data object and returns it, as in GraphGym."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder(OUT)
        self.first, self.second = Layer(OUT), Layer(OUT)
        self.head = Head()

    def forward(self, batch):
        for module in self.children():
            batch = module(batch)
        return batch


class Shares(Stages):
    """Two names of one object."""

    def forward(self, data):
        returned = self.encoder(data)
        returned.x = returned.x + 1.0
        data.edge_attr = None
        self.first(data)
        fresh = Data(x=returned.x, edge_index=data.edge_index, weight=data.edge_attr)
        self.second(fresh)
        assert not hasattr(fresh, "weight")
        assert fresh.pos is None
        return fresh.x - returned.x, data.x


@pytest.mark.parametrize("cls", [Stages, Shares])
def test_objects_whose_fields_are_assigned(check, cls):
    derived = gnnscript.tensor_inputs(cls(), _data(GRAPHS[0]))
    fields = {"num_nodes": lambda g: g.x.size(0), "edge_attr": lambda g: g.weight}
    names = list(inspect.signature(derived.forward).parameters)
    calls = [tuple(fields.get(n, lambda g, n=n: getattr(g, n))(g) for n in names) for g in GRAPHS]
    check(derived, *calls)
    data = _data(GRAPHS[1])
    torch.testing.assert_close(torch.jit.script(derived)(*calls[1]), derived.model(data))


class Optionally(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = GCNConv(IN, OUT)

    def forward(self, data):
        x = torch.ones_like(data.pos) if data.x is None else data.x
        return self.conv(x, data.edge_index)


def test_a_field_that_is_none(check):
    data = Data(x=None, edge_index=GRAPHS[0].edge_index, pos=GRAPHS[0].x)
    check(gnnscript.tensor_inputs(Optionally(), data), *((g.x, g.edge_index) for g in GRAPHS))


def test_a_field_that_is_not_there_is_named():
    class Asks(Optionally):
        def forward(self, data):
            data.x = self.conv(data.x, data.edge_index)
            return data.missing

    data = Plain(GRAPHS[0].x, GRAPHS[0].edge_index)
    with pytest.raises(gnnscript.UnsupportedError, match="no field 'missing'"):
        torch.jit.script(gnnscript.tensor_inputs(Asks(), data))
