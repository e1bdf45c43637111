"""Vectorised derivatives through the native ops: ``torch.vmap``, and batches of gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, PNAConv, SAGEConv

import gnnscript
from gnnscript import ops
from gnnscript.ops import interop, library

pytestmark = pytest.mark.skipif(not library.paths(), reason="no native library: run 'make native'")
NODES, IN, OUT = 6, 3, 2


def graph() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(NODES, IN, generator=random, dtype=torch.float64)
    return x, torch.randint(NODES, (2, 14), generator=random)


CONVS: list[Callable[[], nn.Module]] = [
    lambda: GCNConv(IN, OUT),
    lambda: GATConv(IN, OUT, heads=2),
    lambda: SAGEConv(IN, OUT, aggr=["mean", "max", "std"]),
    lambda: PNAConv(IN, OUT, ["min", "max", "std"], ["identity"], torch.tensor([1, 2, 3])),
]


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize("make", CONVS, ids=["GCN", "GAT", "SAGE", "PNA"])
def test_vectorised_derivatives_are_those_taken_one_by_one(make: Callable[[], nn.Module]) -> None:
    x, edge_index = graph()
    conv = make().double()

    def run(given: Tensor) -> Tensor:
        return conv(given, edge_index)

    def energy(given: Tensor) -> Tensor:
        return run(given).square().sum()

    of = torch.autograd.functional
    with gnnscript.kernels("portable"):
        expected = of.jacobian(run, x), of.hessian(energy, x)
    with gnnscript.kernels("native"):
        found = of.jacobian(run, x, vectorize=True), of.hessian(energy, x, vectorize=True)
        torch.testing.assert_close(found, expected)


def test_ops_are_mapped() -> None:
    with gnnscript.kernels("native"):
        assert library.implementation() == "native"
    kernels = torch.ops.gnnscript
    x, edge_index = graph()
    ends = edge_index.flip(0)
    ptr, perm = kernels.csr(edge_index[1], NODES)
    many = torch.stack([x, 2 * x, x - 1], dim=1)  # [nodes, 3, features]
    edges = many[edge_index[0]]

    def reduced(one: Tensor) -> list[Tensor]:
        return kernels.segment_reduces(one, ptr, perm, ["sum", "max"])

    for name, function, given in [
        ("gather", lambda one: kernels.gather(one, edge_index[0]), many),
        ("softmax", lambda one: kernels.edge_softmax(one, ptr, perm), edges),
        ("several", reduced, edges),
        (
            "program",
            lambda one: kernels.edge_reduce("j0 - i1", [one, one], *ends, ptr, perm, "sum"),
            many,
        ),
        (
            "attention",
            lambda one: kernels.edge_attention(
                "i0 * j1", [one, one], 1, "j0", [one], *ends, ptr, perm
            ),
            many,
        ),
    ]:
        found = torch.vmap(function, in_dims=1)(given)
        expected = [function(one) for one in given.unbind(1)]
        if isinstance(found, Tensor):
            torch.testing.assert_close(found, torch.stack(expected), msg=name)
        else:
            for position, part in enumerate(found):
                torch.testing.assert_close(part, torch.stack([one[position] for one in expected]))


def test_derivatives_of_functions() -> None:
    x, edge_index = graph()
    source, target = edge_index
    for function in (
        lambda one: ops.scatter(ops.gather(one, source, 0), target, 0, NODES, "mean"),
        lambda one: ops.softmax(one[source], target, None, NODES),
        lambda one: ops.gspmm(target, source, one, NODES, one[source, 0], reduce="max"),
        lambda one: ops.segment_reduce(one[source], *ops.csr(target, NODES), "std"),
        lambda one: interop.scatter_sum(one[source], edge_index.t()[:, 1:], 0, None, NODES),
    ):

        def energy(one: Tensor, function: Callable[[Tensor], Tensor] = function) -> Tensor:
            return function(one).square().sum()

        of = torch.autograd.functional
        for kernels in ("native", "portable"):
            with gnnscript.kernels(kernels):
                torch.testing.assert_close(torch.func.grad(energy)(x), of.jacobian(energy, x))
                torch.testing.assert_close(torch.func.hessian(energy)(x), of.hessian(energy, x))
                many = torch.stack([x, 2 * x])
                expected = torch.stack([torch.func.grad(energy)(one) for one in many])
                found = torch.vmap(torch.func.grad(energy))(many)
                torch.testing.assert_close(found, expected)


def test_vectorised_derivatives_of_attention() -> None:
    with gnnscript.kernels("native"):
        assert library.implementation() == "native"
    kernels = torch.ops.gnnscript
    x, edge_index = graph()
    ptr, perm = kernels.csr(edge_index[1], NODES)

    def run(one: Tensor) -> Tensor:
        edges = (edge_index[1], edge_index[0], ptr, perm)
        return kernels.edge_attention("i0 * j1", [one, one.sin()], 1, "tanh(j0)", [one], *edges)[0]  # type: ignore[no-any-return]

    of = torch.autograd.functional
    torch.testing.assert_close(of.jacobian(run, x, vectorize=True), of.jacobian(run, x))

    def energy(one: Tensor) -> Tensor:
        return run(one).square().sum()

    torch.testing.assert_close(of.hessian(energy, x, vectorize=True), of.hessian(energy, x))
