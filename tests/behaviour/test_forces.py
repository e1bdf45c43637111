"""Models that differentiate in their forward: forces of an energy, at every door."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch_geometric.nn import MessagePassing, global_add_pool

import gnnscript
import gnnscript.fx
from conformance.graphs import GRAPHS, Graph
from gnnscript.ops.derivatives import gradients

pytestmark = [
    pytest.mark.usefixtures("auto"),
    pytest.mark.filterwarnings(
        "ignore:The TorchScript type system doesn't support instance-level annotations:UserWarning"
    ),
]
NODES, EDGES = Dim("nodes"), Dim("edges")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Potential(MessagePassing):
    """The energy of each graph, from distances."""

    def __init__(self) -> None:
        super().__init__(aggr="add")
        self.filter = nn.Sequential(nn.Linear(1, 5), nn.SiLU(), nn.Linear(5, 4))
        self.out = nn.Linear(4, 1)

    def energy(self, pos: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        atoms = self.propagate(edge_index, pos=pos)
        return global_add_pool(self.out(atoms.tanh()), batch)

    def message(self, pos_i: Tensor, pos_j: Tensor) -> Tensor:
        return self.filter((pos_i - pos_j).pow(2).sum(-1, keepdim=True))


class MarksInput(Potential):
    def forward(self, pos: Tensor, edge_index: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        pos.requires_grad_(True)
        energy = self.energy(pos, edge_index, batch)
        return energy, -torch.autograd.grad(energy.sum(), pos, create_graph=True)[0]


class MarksCopy(Potential):
    """Gives its forces in every mode for gradients."""

    def forward(self, pos: Tensor, edge_index: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            pos = pos.clone().requires_grad_()
            energy = self.energy(pos, edge_index, batch)
            (grad,) = torch.autograd.grad(
                [energy],
                [pos],
                grad_outputs=[torch.ones_like(energy)],
                create_graph=self.training,
                retain_graph=True,
            )
        assert grad is not None
        return energy, -grad


class MarksByAttribute(Potential):
    def forward(self, pos: Tensor, edge_index: Tensor, batch: Tensor) -> dict[str, Tensor]:
        pos = pos.detach()
        pos.requires_grad = True
        with torch.set_grad_enabled(True):
            energy = self.energy(pos, edge_index, batch)
            grad = torch.autograd.grad(energy, pos, torch.ones_like(energy), create_graph=True)[0]
            if grad is None:
                raise RuntimeError("no forces")
        return {"energy": energy, "forces": -grad}


MODELS = [MarksInput, MarksCopy, MarksByAttribute]


def call(g: Graph) -> tuple[Tensor, ...]:
    return g.pos.clone(), g.edge_index, g.batch


def parts(out: Any) -> list[Tensor]:
    return list(out.values() if isinstance(out, dict) else out)


def same(run: Any, model: nn.Module) -> None:
    for graph in GRAPHS:
        torch.testing.assert_close(
            parts(run(*call(graph))), parts(model(*call(graph))), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("make", MODELS)
def test_exported(make: type[nn.Module]) -> None:
    model = make().eval()
    shapes = {"pos": {0: NODES}, "edge_index": {1: EDGES}, "batch": {0: NODES}}
    program = torch.export.export(model, call(GRAPHS[0]), dynamic_shapes=shapes)
    assert set(program.state_dict) == set(model.state_dict())
    same(program.module(), model)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    same(torch.export.load(file).module(), model)


@pytest.mark.parametrize("make", MODELS)
def test_traced(make: type[nn.Module]) -> None:
    model = make().eval()
    graph = gnnscript.fx.symbolic_trace(model, call(GRAPHS[0]))
    assert graph.graph.find_nodes(op="call_function", target=gradients)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    same(graph, model)
    same(torch.jit.script(graph), model)
    if make is MarksCopy:
        with torch.no_grad():
            same(graph, model)
            assert not torch.is_grad_enabled()


ONE_GRAPH = pytest.mark.skipif(
    torch.__version__ < (2, 11),
    reason="torch 2.10 takes no gradients in one graph that it compiles",
)


@ONE_GRAPH
@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("training", [False, True])
def test_compiled(make: type[nn.Module], training: bool) -> None:
    """Also when trained on forces, which takes second derivatives."""
    model = make().train(training)
    eager = copy.deepcopy(model)
    fast = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    losses = []
    for run in (fast, eager):
        energy, forces = parts(run(*call(GRAPHS[0])))
        loss = forces.square().sum() if forces.requires_grad else energy.sum()
        loss.backward()
        losses.append(loss)
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
    for found, expected in zip(model.parameters(), eager.parameters(), strict=True):
        if expected.grad is None:
            assert found.grad is None or not found.grad.any()
        else:
            torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-5)
    with torch._dynamo.config.patch(error_on_recompile=True):
        same(fast, model)


@ONE_GRAPH
def test_compiled_without_gradients() -> None:
    model = MarksCopy().eval()
    fast = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.no_grad():
        same(fast, model)


class Unused(Potential):
    """Differentiates by what the energy does not depend on."""

    def forward(self, pos: Tensor, edge_index: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        pos = pos.detach().requires_grad_()
        cell = torch.eye(3).requires_grad_()
        energy = self.energy(pos, edge_index, batch).sum()
        forces, stress = torch.autograd.grad(energy, [pos, cell], allow_unused=True)
        if stress is None:
            stress = torch.zeros_like(cell)
        assert forces is not None
        return forces, stress


@ONE_GRAPH
def test_a_gradient_that_is_not_there_is_zero_in_graphs() -> None:
    model = Unused().eval()
    graph = gnnscript.fx.symbolic_trace(model, call(GRAPHS[0]))
    same(graph, model)
    same(torch.jit.script(graph), model)
    same(torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager"), model)


class Narrow(nn.Module):
    """Its norm asks whether the size is one that values decide."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, pos: Tensor, batch: Tensor) -> Tensor:
        return self.norm(global_add_pool(pos, batch))


def test_attempts_are_not_heard_of(capfd: pytest.CaptureFixture[str]) -> None:
    """Torch prints the graph of an export that fails, and its reasons; the next one succeeds."""
    graph = GRAPHS[0]
    shapes = {"pos": {0: NODES}, "batch": {0: NODES}}
    with warnings.catch_warnings():
        torch.export.export(Narrow().eval(), (graph.pos, graph.batch), dynamic_shapes=shapes)
    assert capfd.readouterr() == ("", "")
