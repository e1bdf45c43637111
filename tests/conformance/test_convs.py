"""The first conformance set: every conv, option and call form, through both doors."""

from __future__ import annotations

import dataclasses

import pytest
import torch_geometric.nn as pyg
from torch_geometric.nn import MessagePassing

import gnnscript
from conformance.cases import CASES, Case
from conformance.forms import Form
from conformance.graphs import GRAPHS
from gnnscript.testing import BareProcess, assert_scripts_like_eager

FIRST_SET = {
    "APPNP", "CGConv", "ChebConv", "EdgeConv", "GATConv", "GATv2Conv", "GCNConv", "GINConv",
    "GINEConv", "GeneralConv", "HypergraphConv", "NNConv", "PNAConv", "RGCNConv",
    "ResGatedGraphConv", "SAGEConv", "TransformerConv",
}  # fmt: skip

MATRIX = [
    pytest.param(case, form, id=f"{case.conv}-{case.option}-{form.name}")
    for case in CASES
    for form in case.forms
]


def check(case: Case, form: Form, cls: type[MessagePassing], bare: BareProcess) -> None:
    """Compares one call form of one configuration of a class."""
    conv = case.make(cls)
    model = conv if form.model is None else form.model(conv)
    graphs = GRAPHS
    if case.same_graph:
        graphs = (GRAPHS[0], dataclasses.replace(GRAPHS[0], x=GRAPHS[0].x.flip(0)))
    inputs = [form.inputs(graph) for graph in graphs]
    assert_scripts_like_eager(model, *inputs, modes=case.modes, reload=bare)


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize(("case", "form"), MATRIX)
def test_auto(case: Case, form: Form, bare: BareProcess) -> None:
    check(case, form, getattr(pyg, case.conv), bare)


# After the tests of the other door, whose classes must not be decorated yet.
@pytest.mark.parametrize(("case", "form"), MATRIX)
def test_decorator(case: Case, form: Form, bare: BareProcess) -> None:
    check(case, form, gnnscript.scriptable(getattr(pyg, case.conv)), bare)


def test_every_conv_of_the_set_is_in_the_table() -> None:
    assert {case.conv for case in CASES} == FIRST_SET
    ids = [parameters.id for parameters in MATRIX]
    assert len(ids) == len(set(ids))
