"""Scripted ops equal eager ops, and a file that holds them needs nothing but torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gnnscript import ops
from ops_cases import (
    INDEX,
    INDEX_DTYPES,
    NUM_NODES,
    PTR,
    REDUCTIONS,
    SEGMENT_REDUCTIONS,
    assert_identical,
    values_and_gradient,
)

pytestmark = pytest.mark.usefixtures("portable_kernels")

Ops = dict[str, Callable[..., Any]]

# TorchScript profiles the first two runs and optimises, its own gradients included, from then on.
RUNS = 3


def assert_same_in_every_run(
    scripted: Callable[..., Tensor], eager: Callable[..., Tensor], src: Tensor, *args: Any
) -> None:
    expected = values_and_gradient(eager(src, *args), src)
    for _ in range(RUNS):
        actual = values_and_gradient(scripted(src, *args), src)
        assert_identical(actual[0], expected[0])
        assert_identical(actual[1], expected[1])


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES)
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_scatter(reduce: str, index_dtype: torch.dtype, scripted: Ops, eager: Ops) -> None:
    index = torch.tensor(INDEX, dtype=index_dtype)
    src = torch.randn(len(INDEX), 3, requires_grad=True)
    for dim_size in (None, NUM_NODES):
        args = (index, 0, dim_size, reduce)
        assert_same_in_every_run(scripted["scatter"], eager["scatter"], src, *args)
    flipped = torch.randn(3, len(INDEX), requires_grad=True)
    args = (index, -1, NUM_NODES, reduce)
    assert_same_in_every_run(scripted["scatter"], eager["scatter"], flipped, *args)


@pytest.mark.parametrize("reduce", SEGMENT_REDUCTIONS)
def test_segment(reduce: str, scripted: Ops, eager: Ops) -> None:
    ptr = torch.tensor(PTR)
    src = torch.randn(len(INDEX), 3, requires_grad=True)
    assert_same_in_every_run(scripted["segment"], eager["segment"], src, ptr, reduce)
    flipped = torch.randn(3, len(INDEX), requires_grad=True)
    args = (ptr.view(1, -1), reduce)
    assert_same_in_every_run(scripted["segment"], eager["segment"], flipped, *args)


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES)
def test_softmax_and_gather(index_dtype: torch.dtype, scripted: Ops, eager: Ops) -> None:
    index = torch.tensor(INDEX, dtype=index_dtype)
    src = torch.randn(len(INDEX), 3, requires_grad=True)
    softmax = (scripted["softmax"], eager["softmax"])
    assert_same_in_every_run(*softmax, src, index)
    assert_same_in_every_run(*softmax, src, index, None, NUM_NODES, 0)
    assert_same_in_every_run(*softmax, src, None, torch.tensor(PTR, dtype=index_dtype))
    nodes = torch.randn(NUM_NODES, 3, requires_grad=True)
    assert_same_in_every_run(scripted["gather"], eager["gather"], nodes, index, 0)


def test_csr_and_check(scripted: Ops, eager: Ops) -> None:
    index = torch.tensor(INDEX)
    for _ in range(RUNS):
        for actual, expected in zip(
            scripted["csr"](index, NUM_NODES), eager["csr"](index, NUM_NODES), strict=True
        ):
            assert_identical(actual, expected)
        assert scripted["check_edge_index"](torch.stack([index, index])) is None


def test_one_compilation_serves_every_size(scripted: Ops, eager: Ops) -> None:
    for edges in (0, 1, 13, 100):
        index = torch.randint(0, 9, (edges,))
        src = torch.randn(edges, 2, requires_grad=True)
        for reduce in REDUCTIONS:
            args = (index, 0, 9, reduce)
            assert_same_in_every_run(scripted["scatter"], eager["scatter"], src, *args)
        assert_same_in_every_run(scripted["softmax"], eager["softmax"], src, index, None, 9)


class EveryOp(nn.Module):
    """Calls every op with every reduction, and collects what they return by name."""

    def forward(self, x: Tensor, edge_index: Tensor) -> dict[str, Tensor]:
        ops.check_edge_index(edge_index)
        size = x.size(0)
        edges = ops.gather(x, edge_index[0], 0)
        ptr, perm = ops.csr(edge_index[1], size)
        out = {"gather": edges, "ptr": ptr, "perm": perm}
        for reduce in ["sum", "add", "mean", "mul", "min", "max", "amin", "amax", "any"]:
            out["scatter_" + reduce] = ops.scatter(edges, edge_index[1], 0, size, reduce)
        in_order = ops.gather(edges, perm, 0)
        for reduce in ["sum", "mean", "min", "max", "amin", "amax", "prod"]:
            out["segment_" + reduce] = ops.segment(in_order, ptr, reduce)
        out["softmax_index"] = ops.softmax(edges, edge_index[1], None, size, 0)
        out["softmax_ptr"] = ops.softmax(in_order, None, ptr)
        return out


BARE_PROCESS = """
import sys
import torch

model = torch.jit.load(sys.argv[1])
x, edge_index, expected = torch.load(sys.argv[2])
for _ in range(3):
    actual = model(x, edge_index)
    assert actual.keys() == expected.keys()
    for name in expected:
        assert torch.equal(actual[name], expected[name]), name
sum(out.sum() for out in actual.values() if out.is_floating_point()).backward()
assert x.grad.isfinite().all() and x.grad.abs().sum() > 0
ours = [name for name in sys.modules if name.startswith(("gnnscript", "torch_geometric"))]
assert not ours, ours
print("equal:", len(expected))
"""


def test_a_saved_file_runs_where_only_torch_is_imported(
    tmp_path: Path, run_python: Callable[..., Any]
) -> None:
    model = EveryOp()
    x = torch.randn(NUM_NODES, 3, requires_grad=True)
    edge_index = torch.tensor([INDEX[::-1], INDEX])
    expected = {name: out.detach() for name, out in model(x, edge_index).items()}
    torch.jit.script(model).save(str(tmp_path / "model.pt"))
    torch.save((x, edge_index, expected), tmp_path / "data.pt")
    code = f"import warnings; warnings.simplefilter('ignore')\n{BARE_PROCESS}"
    done = run_python(code, tmp_path / "model.pt", tmp_path / "data.pt", cwd=tmp_path)
    assert done.stdout.strip() == f"equal: {3 + len(REDUCTIONS) + len(SEGMENT_REDUCTIONS) + 2}"


class Exported(nn.Module):
    """Every op that an exported graph may hold."""

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ops.check_edge_index(edge_index)
        edges = ops.gather(x, edge_index[0], 0)
        ptr, perm = ops.csr(edge_index[1], x.size(0))
        return (
            ops.scatter(edges, edge_index[1], 0, x.size(0), "mean"),
            ops.segment(edges.index_select(0, perm), ptr, "max"),
            ops.softmax(edges, edge_index[1], None, x.size(0)),
        )


def test_an_exported_graph_takes_other_sizes_and_still_refuses_a_bad_ptr() -> None:
    model = Exported()
    edge_index = torch.tensor([INDEX[::-1], INDEX])
    sizes = ({0: torch.export.Dim("N", min=2)}, {1: torch.export.Dim("E", min=2)})
    example = (torch.randn(NUM_NODES, 3), edge_index)
    program = torch.export.export(model, example, dynamic_shapes=sizes).module()
    other = (torch.randn(9, 3), torch.randint(0, 9, (2, 31)))
    for actual, expected in zip(program(*other), model(*other), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)

    class Segment(nn.Module):
        def forward(self, src: Tensor, ptr: Tensor) -> Tensor:
            return ops.segment(src, ptr)

    src = torch.ones(4, 2)
    segment = torch.export.export(Segment(), (src, torch.tensor([0, 1, 4]))).module()
    assert segment(src, torch.tensor([0, 3, 4])).tolist() == [[3.0, 3.0], [1.0, 1.0]]
    with pytest.raises(RuntimeError, match="expected ptr never to decrease"):
        segment(src, torch.tensor([0, 3, 9]))


def test_torchscript_sorts_the_edges_of_two_layers_once() -> None:
    def two_layers(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
        first_ptr, first_perm = ops.csr(index, size)
        second_ptr, second_perm = ops.csr(index, size)
        return first_ptr + second_ptr, first_perm + second_perm

    scripted = torch.jit.script(two_layers)
    for _ in range(RUNS):
        scripted(torch.tensor(INDEX), NUM_NODES)
    assert str(torch.jit.last_executed_optimized_graph()).count("aten::argsort") == 1
