"""Every aggregation of PyG: alone, in a conv, and combined; and every norm."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as pyg
from torch_geometric.nn import aggr, norm

import gnnscript
from conformance.aggregations import AGGREGATIONS, IN_CONV, AggregationCase, Form
from conformance.check import check
from conformance.graphs import GRAPHS
from conformance.norms import NORMS, NormCase
from conformance.norms import Form as NormForm
from gnnscript.testing import BareProcess


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize(
    ("case", "form"),
    [pytest.param(c, f, id=f"{c.name}-{f.name}") for c in AGGREGATIONS for f in c.forms],
)
def test_aggregation(case: AggregationCase, form: Form, bare: BareProcess) -> None:
    torch.manual_seed(0)
    check(form.model(case.make()), [form.inputs(g) for g in GRAPHS], bare, case.modes)


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize(
    ("case", "form"), [pytest.param(c, f, id=f"{c.name}-{f.name}") for c in NORMS for f in c.forms]
)
def test_norm(case: NormCase, form: NormForm, bare: BareProcess) -> None:
    torch.manual_seed(0)
    check(form.model(case.make()), [form.inputs(g) for g in GRAPHS], bare)


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.name) for c in AGGREGATIONS if IN_CONV in c.forms]
)
def test_decorated_conv(case: AggregationCase, bare: BareProcess) -> None:
    torch.manual_seed(0)
    model = IN_CONV.model(case.make())
    gnnscript.scriptable(pyg.SimpleConv)
    inputs = [IN_CONV.inputs(g) for g in GRAPHS]
    check(model, inputs, bare, case.modes, frozen=False)


def test_every_aggregation_and_norm_is_in_the_tables() -> None:
    made = {type(case.make()).__name__ for case in AGGREGATIONS}
    assert made == set(aggr.__all__) - {"Aggregation"}
    assert {type(case.make()).__name__ for case in NORMS} == set(norm.__all__)
