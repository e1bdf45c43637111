"""What cannot be expressed raises its reason, with a place and a remedy."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as pyg

import gnnscript
from conformance.graphs import IN, OUT
from conformance.modules import cases
from conformance.refused import REFUSED, RefusedCase


@pytest.mark.usefixtures("auto")
@cases(REFUSED)
def test_refused(case: RefusedCase) -> None:
    with pytest.raises(gnnscript.UnsupportedError) as caught:
        torch.jit.script(case.make())
    assert case.cause in caught.value.cause
    assert caught.value.remedy
    assert caught.value.location is not None
    assert caught.value.location.file.endswith(case.place)


@pytest.mark.parametrize(
    ("name", "options", "package"),
    [
        ("CuGraphSAGEConv", {}, "pylibcugraphops"),
        ("CuGraphGATConv", {}, "pylibcugraphops"),
        ("CuGraphRGCNConv", {"num_relations": 2}, "pylibcugraphops"),
        ("FusedGATConv", {"add_self_loops": False}, "dgNN"),
    ],
)
def test_what_needs_a_package_names_it(name, options, package) -> None:
    """There is nothing to script: PyG itself does not make them without their package."""
    with pytest.raises(ImportError, match=package):
        getattr(pyg, name)(IN, OUT, **options)
