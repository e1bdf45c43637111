"""Models that take a data object, scripted as models that take its tensors."""

from __future__ import annotations

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


def test_other_signatures_are_refused():
    with pytest.raises(gnnscript.UnsupportedError, match="takes 2 arguments"):
        gnnscript.tensor_inputs(GCNConv(IN, OUT), _data(GRAPHS[0]))


def test_a_field_that_is_no_tensor_is_refused():
    data = _data(GRAPHS[0])
    data.edge_attr = "none"
    data.x = {"a": [object()]}
    with pytest.raises(gnnscript.UnsupportedError, match=r"'data\.x' is no tensor") as caught:
        gnnscript.tensor_inputs(Classifier(), data)
    assert "test_tensor_inputs.py" in str(caught.value)
