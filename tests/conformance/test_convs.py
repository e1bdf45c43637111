"""Every conv of PyG, with its options and call forms, through both doors."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch_geometric.nn as pyg
from torch_geometric.nn import MessagePassing, conv
from torch_geometric.nn.attention import PerformerAttention

import gnnscript
from conformance.cases import CASES, Case
from conformance.check import check
from conformance.forms import Form
from conformance.graphs import GRAPHS
from gnnscript.testing import BareProcess

MATRIX = [
    pytest.param(case, form, id=f"{case.conv}-{case.option}-{form.name}")
    for case in CASES
    for form in case.forms
]

# Tested elsewhere, or not at all for the reason given.
ELSEWHERE = {
    "MessagePassing": "the base class",
    "HeteroConv": "takes dictionaries",
    "HGTConv": "takes dictionaries",
    "HANConv": "takes dictionaries",
    "CuGraphSAGEConv": "needs pylibcugraphops",
    "CuGraphGATConv": "needs pylibcugraphops",
    "CuGraphRGCNConv": "needs pylibcugraphops",
    "FusedGATConv": "needs dgNN",
    "PANConv": "compared with dense matrices in test_sparse_tensors.py",
    "WLConv": "compared in test_more_models.py",
}


def _check(
    case: Case, form: Form, cls: type[MessagePassing], bare: BareProcess, frozen: bool
) -> None:
    """Compares one call form of one configuration of a class."""
    torch.manual_seed(0)
    conv = case.make(cls)
    model = conv if form.model is None else form.model(conv)
    graphs = GRAPHS
    if case.same_graph:
        graphs = (GRAPHS[0], dataclasses.replace(GRAPHS[0], x=GRAPHS[0].x.flip(0)))
    check(model, [form.inputs(graph) for graph in graphs], bare, case.modes, frozen)


@pytest.mark.usefixtures("auto")
@pytest.mark.filterwarnings("ignore:We do not recommend using the non-optimized CPU version")
@pytest.mark.parametrize(("case", "form"), MATRIX)
def test_auto(case: Case, form: Form, bare: BareProcess) -> None:
    _check(case, form, getattr(pyg, case.conv), bare, frozen=True)


# After the tests of the other door, whose classes must not be decorated yet.
@pytest.mark.parametrize(("case", "form"), MATRIX)
def test_decorator(case: Case, form: Form, bare: BareProcess) -> None:
    cls = getattr(pyg, case.conv)
    try:
        case.make(cls)
    except ImportError as error:  # gnnscript.auto supplies what pyg_lib has, the decorator does not
        pytest.skip(str(error))
    if any(isinstance(m, PerformerAttention) for m in case.make(cls).modules()):
        pytest.skip("it holds a lambda, and is no conv that the decorator would take along")
    # The conv itself, or those in a wrapper.
    convs = [m for m in case.make(cls).modules() if isinstance(m, MessagePassing)]
    if not convs:
        pytest.skip("a wrapper without a conv has nothing to decorate")
    for module in convs:
        gnnscript.scriptable(type(module))
    _check(case, form, cls, bare, frozen=False)


def test_every_conv_is_in_the_table() -> None:
    assert {case.conv for case in CASES} | set(ELSEWHERE) == set(conv.__all__)
    assert not {case.conv for case in CASES} & set(ELSEWHERE)
    ids = [parameters.id for parameters in MATRIX]
    assert len(ids) == len(set(ids))
