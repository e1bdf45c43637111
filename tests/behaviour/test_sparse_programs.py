"""Sparse matrices that models make, in programs of ``torch.compile`` and ``torch.export``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import ASAPooling, ClusterPooling, GraphUNet
from torch_geometric.utils import to_torch_coo_tensor, to_torch_csr_tensor

from conformance.graphs import GRAPHS, IN, OUT

pytestmark = [
    pytest.mark.usefixtures("auto"),
    pytest.mark.filterwarnings("ignore:Sparse (CSR|CSC) tensor support is in beta"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled"),
]
CALLS = [(g.x, g.edge_index, g.batch) for g in GRAPHS]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Pooling(nn.Module):
    """Coarsens the graph by products of sparse matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = ASAPooling(IN, 0.5)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> tuple[Tensor, ...]:
        x, edge_index, _, batch, kept = self.pool(x, edge_index, batch=batch)
        return x, edge_index, batch, kept


class Clusters(nn.Module):
    """Joins the nodes of each component of the edges that it chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = ClusterPooling(IN)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> tuple[Tensor, ...]:
        return self.pool(x, edge_index, batch)[:3]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = GraphUNet(IN, 6, OUT, depth=2)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        return self.net(x, edge_index, batch)


LATER = pytest.mark.skipif(
    torch.__version__ < (2, 11),
    reason="torch 2.10 takes a size that values decide for 1, and none such into loops",
)


@pytest.mark.parametrize(
    "make", [pytest.param(Pooling, marks=LATER), Net, pytest.param(Clusters, marks=LATER)]
)
def test_programs_hold_sparse_matrices(make: type[nn.Module]) -> None:
    model = make().eval()
    fast: Any = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    # Named, nodes would need a bound: joining edges makes sure that their square is no overflow.
    nodes = edges = torch.export.Dim.DYNAMIC
    shapes = {"x": {0: nodes}, "edge_index": {1: edges}, "batch": {0: nodes}}
    program = torch.export.export(model, CALLS[0], dynamic_shapes=shapes).module()
    for position, call in enumerate(CALLS):
        with torch.no_grad(), torch._dynamo.config.patch(error_on_recompile=position > 0):
            torch.testing.assert_close(fast(*call), model(*call))
        torch.testing.assert_close(program(*call), model(*call))


@pytest.mark.parametrize("make", [Net, pytest.param(Clusters, marks=LATER)])
def test_they_are_trained_through(make: type[nn.Module]) -> None:
    model = make().train()
    fast: Any = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for call in CALLS:
        found, expected = (
            torch.autograd.grad(_first(run(*call)).square().sum(), list(model.parameters()))
            for run in (fast, model)
        )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def _first(out: Any) -> Tensor:
    return out if isinstance(out, Tensor) else out[0]


class Matrices(nn.Module):
    """Gives matrices away."""

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, list[Tensor]]:
        size = x.size(0), x.size(0)
        csr = to_torch_csr_tensor(edge_index, size=size)
        return to_torch_coo_tensor(edge_index, size=size), [csr @ csr]


def test_compiled_models_give_tensors() -> None:
    model = Matrices()
    fast: Any = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    coo, (csr,) = fast(*CALLS[0][:2])
    expected, (product,) = model(*CALLS[0][:2])
    torch.testing.assert_close(coo, expected)
    assert csr.layout is torch.sparse_csr
    torch.testing.assert_close(csr.to_dense(), product.to_dense())
