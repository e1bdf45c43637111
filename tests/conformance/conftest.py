"""One fresh process for each module of conformance tests, and what older PyG has not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch_geometric

from gnnscript.testing import BareProcess

PYG = tuple(int(part) for part in torch_geometric.__version__.split(".")[:2])
# By the case, or what its name begins with.
BEFORE_2_8 = {
    **dict.fromkeys(
        (
            "DynamicEdgeConv",
            "GravNetConv",
            "SchNet",
            "ViSNet",
            "XConv",
            "clusters",
            "knn_interpolate",
            "neighbours",
        ),
        "neighbours and grids are those of torch_cluster",
    ),
    "test_every_aggregation": "an aggregation has other options",
    "powermean-unclamped": "it always clamps",
    "powermean-learned": "it clamps to 0, where TorchScript's gradient of the exponent is NaN",
    "powermean-channels": "it clamps to 0, where TorchScript's gradient of the exponent is NaN",
    "GENConv-powermean": "it clamps to 0, where TorchScript's gradient of the exponent is NaN",
}


@pytest.fixture(scope="module")
def bare() -> Iterator[BareProcess]:
    """A process that imports only torch, in which saved models are run."""
    with BareProcess() as process:
        yield process


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what an older PyG cannot do in eager mode."""
    if PYG >= (2, 8):
        return
    for item in items:
        case = item.name.partition("[")[2] or item.name
        if item.path.is_relative_to(Path(__file__).parent):
            for name, reason in BEFORE_2_8.items():
                if case.startswith(name):
                    item.add_marker(pytest.mark.skip(reason=f"before PyG 2.8, {reason}"))
