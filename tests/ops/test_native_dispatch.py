"""Native ops under everything that calls ops: autograd, TorchScript, export, compile, autocast."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.library import opcheck

from gnnscript.ops import library
from ops_cases import FLOATS, INDEX, NUM_NODES, assert_identical

RunPython = Callable[..., Any]
REDUCES = ("sum", "mean", "min", "max", "mul", "any", "var", "std", "logsumexp")
EDGES = len(INDEX)


@pytest.fixture
def rows(native: Any) -> tuple[Tensor, Tensor]:
    return native.csr(torch.tensor(INDEX), NUM_NODES)


def distinct(*shape: int) -> Tensor:
    count = torch.Size(shape).numel()
    return (torch.randperm(count).double().view(shape) / count + 0.5).requires_grad_()


# -- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduce", [reduce for reduce in REDUCES if reduce != "any"])
def test_gradients_of_reductions(reduce: str, rows: tuple[Tensor, Tensor], native: Any) -> None:
    ptr, perm = rows

    def op(src: Tensor) -> Tensor:
        return native.segment_reduce(src, ptr, perm, reduce).nan_to_num(neginf=0)

    assert gradcheck(op, distinct(EDGES, 2))
    assert gradgradcheck(op, distinct(EDGES, 2))


def test_gradients_of_the_others(rows: tuple[Tensor, Tensor], native: Any) -> None:
    ptr, perm = rows
    expand = torch.ops.gnnscript.segment_expand
    several = ["sum", "mean", "min", "max", "var", "std", "mul"]
    for op, src in (
        (lambda x: native.edge_softmax(x, ptr, perm), distinct(EDGES, 2)),
        (lambda x: expand(x, ptr, perm, EDGES), distinct(NUM_NODES, 2)),
        (lambda x: tuple(native.segment_reduces(x, ptr, perm, several)), distinct(EDGES, 2)),
    ):
        assert gradcheck(op, src)
        assert gradgradcheck(op, src)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("reduce", REDUCES)
def test_the_kernel_of_a_gradient_equals_its_composition(
    reduce: str, dtype: torch.dtype, native: Any
) -> None:
    # Few distinct values: ties, zeros and flat rows. Enough edges for several chunks.
    index = (torch.rand(4000) ** 4 * 300).long()
    ptr, perm = native.csr(index, 310)
    limit = 1 if reduce == "mul" else 2  # else the products of a hub leave the range of a dtype
    src = torch.randint(-limit, limit + 1, (4000, 37)).to(dtype).requires_grad_()
    out = native.segment_reduce(src, ptr, perm, reduce)
    grad = torch.randn(310, 37).to(dtype)
    (fused,) = torch.autograd.grad(out, src, grad, retain_graph=True)
    (composed,) = torch.autograd.grad(out, src, grad, create_graph=True)
    tolerance = {8: 1e-9, 4: 1e-5, 2: 3e-2}[dtype.itemsize]
    torch.testing.assert_close(fused, composed.detach(), rtol=tolerance, atol=tolerance)


# -- the dispatcher -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype: torch.dtype, rows: tuple[Tensor, Tensor]) -> None:
    ptr, perm = rows
    ops = torch.ops.gnnscript
    index = torch.tensor(INDEX)
    src = torch.randn(EDGES, 3, dtype=dtype, requires_grad=True)
    nodes = torch.randn(NUM_NODES, 3, dtype=dtype, requires_grad=True)
    opcheck(ops.csr.default, (index, NUM_NODES))
    opcheck(ops.gather.default, (nodes, index))
    opcheck(ops.segment_expand.default, (nodes, ptr, perm, EDGES))
    opcheck(ops.edge_softmax.default, (src, ptr, perm))
    for reduce in REDUCES:
        opcheck(ops.segment_reduce.default, (src, ptr, perm, reduce))
    opcheck(ops.segment_reduces.default, (src, ptr, perm, ["mean", "max", "std"]))
    values, out = src.detach(), nodes.detach()
    opcheck(ops.segment_reduce_backward.default, (out, values, out, ptr, perm, "max"))
    opcheck(ops.edge_softmax_backward.default, (values, values, ptr, perm))


class Layers(nn.Module):
    """Two layers over the same edges."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        from gnnscript.ops import native

        size = x.size(0)
        for _ in range(2):
            alpha = native.softmax(native.gather(x, edge_index[0], 0), edge_index[1], None, size)
            x = x + native.scatter(alpha, edge_index[1], 0, size, "max")
        return x


def edge_index(nodes: int = NUM_NODES, edges: int = EDGES) -> Tensor:
    return torch.randint(0, nodes, (2, edges))


def test_compiled_and_exported_graphs_hold_the_ops_and_take_other_sizes(native: Any) -> None:
    model = Layers()
    sizes = ({0: torch.export.Dim("N", min=2)}, {1: torch.export.Dim("E", min=2)})
    example = (torch.randn(NUM_NODES, 3), edge_index())
    program = torch.export.export(model, example, dynamic_shapes=sizes)
    assert "torch.ops.gnnscript.segment_reduce" in str(program.graph_module.code)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    for nodes, edges in ((NUM_NODES, EDGES), (11, 40)):
        x, edges_ = torch.randn(nodes, 3, requires_grad=True), edge_index(nodes, edges)
        expected = model(x, edges_)
        assert_identical(program.module()(x, edges_).detach(), expected.detach())
        actual = compiled(x, edges_)
        assert_identical(actual.detach(), expected.detach())
        grads = [torch.autograd.grad(out.square().sum(), x)[0] for out in (actual, expected)]
        torch.testing.assert_close(*grads)


def test_torchscript_and_inductor_sort_the_edges_of_all_layers_once(native: Any) -> None:
    def layers(x: Tensor, index: Tensor, size: int) -> Tensor:
        for _ in range(3):
            ptr, perm = torch.ops.gnnscript.csr(index, size)
            x = x + torch.ops.gnnscript.segment_expand(
                torch.ops.gnnscript.segment_reduce(x, ptr, perm, "sum"), ptr, perm, x.size(0)
            )
        return x

    src, index = torch.randn(EDGES, 2), torch.tensor(INDEX)
    scripted = torch.jit.script(layers)
    for _ in range(3):
        scripted(src, index, NUM_NODES)
    assert str(torch.jit.last_executed_optimized_graph()).count("gnnscript::csr") == 1

    graphs = []

    def backend(graph: torch.fx.GraphModule, example: list[Tensor]) -> Any:
        from torch._functorch.compile_utils import fx_graph_cse  # what AOTAutograd applies

        graphs.append(fx_graph_cse(graph.graph))
        return graph

    torch.compile(layers, backend=backend, fullgraph=True)(src, index, NUM_NODES)
    assert str(graphs[0]).count("gnnscript.csr") == 1


def test_autocast(rows: tuple[Tensor, Tensor], native: Any) -> None:
    ptr, perm = rows
    src = torch.randn(EDGES, 2, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        weights = native.edge_softmax(src.bfloat16(), ptr, perm)
        total = native.segment_reduce(src.bfloat16(), ptr, perm, "sum")
    assert weights.dtype == torch.float32
    assert total.dtype == torch.bfloat16
    assert_identical(
        weights.detach(), native.edge_softmax(src.detach().bfloat16().float(), ptr, perm)
    )
    (grad,) = torch.autograd.grad(weights.square().sum(), src)
    assert grad.isfinite().all()
    assert grad.abs().sum() > 0


# -- where it runs --------------------------------------------------------------------------------

BARE = """
import sys, warnings
import torch
warnings.simplefilter("ignore")
torch.ops.load_library(sys.argv[1])
model = torch.jit.load(sys.argv[2])
x, edge_index, expected = torch.load(sys.argv[3])
for _ in range(3):
    assert torch.equal(model(x, edge_index), expected)
assert not [name for name in sys.modules if name.startswith(("gnnscript", "torch_geometric"))]
try:
    model(x, edge_index + 100)
except RuntimeError as error:
    assert "index out of range: index[0] is 10" in str(error), error
print("equal")
"""


def test_a_saved_file_runs_where_only_the_library_is_loaded(
    tmp_path: Path, run_python: RunPython, native: Any
) -> None:
    class Layer(nn.Module):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            alpha = native.softmax(native.gather(x, edge_index[0], 0), edge_index[1], None, 7)
            return native.scatter(alpha, edge_index[1], 0, 7, "mean")

    x, edges = torch.randn(NUM_NODES, 3), torch.tensor([INDEX[::-1], INDEX])
    expected = Layer()(x, edges)
    scripted = torch.jit.script(Layer())
    scripted.save(str(tmp_path / "model.pt"))
    torch.save((x, edges, expected), tmp_path / "data.pt")
    files = (library.paths()[0], tmp_path / "model.pt", tmp_path / "data.pt")
    assert run_python(BARE, *files, cwd=tmp_path).stdout.strip() == "equal"


TWICE = """
import sys
import torch

for path in sys.argv[1:]:
    torch.ops.load_library(path)
ptr, perm = torch.ops.gnnscript.csr(torch.tensor([2, 0, 2]), 3)
print(ptr.tolist(), perm.tolist())
"""


def test_another_copy_of_the_library_does_no_harm(
    tmp_path: Path, run_python: RunPython, native: Any
) -> None:
    """As in a process that has the package, and loads the one beside a saved model."""
    copy = shutil.copy(library.paths()[0], tmp_path)
    out = run_python(TWICE, library.paths()[0], copy, cwd=tmp_path).stdout
    assert out.strip() == "[0, 1, 1, 3] [1, 0, 2]"


DIGEST = """
import hashlib, sys
import torch
from gnnscript.ops import native

torch.manual_seed(0)
digest = hashlib.sha256()
for dtype in (torch.float32, torch.float64, torch.bfloat16):
    index = (torch.rand(20_000) ** 6 * 500).long()
    src = torch.randn(20_000, 21).to(dtype).requires_grad_()
    ptr, perm = torch.ops.gnnscript.csr(index, 500)
    outs = [native.segment_reduce(src, ptr, perm, reduce) for reduce in
            ("sum", "mean", "min", "max", "any", "var", "logsumexp")]
    few = torch.cat([src[:, :2]] * 9)
    outs += [torch.ops.gnnscript.scatter_reduce(few, index.repeat(9), 500, reduce) for reduce in
             ("sum", "mean", "min", "max", "mul", "any")]
    outs += [native.edge_softmax(src, ptr, perm), native.gather(outs[0], index, 0), ptr, perm]
    outs += torch.autograd.grad(sum(out.double().sum() for out in outs[:-2]), src)
    for out in outs:
        digest.update(out.detach().contiguous().view(torch.uint8).numpy().tobytes())
print(digest.hexdigest())
"""


def test_results_are_the_same_bits_for_any_number_of_threads(
    run_python: RunPython, native: Any
) -> None:
    digests = {
        threads: run_python(
            DIGEST, env={"OMP_NUM_THREADS": threads, "GNNSCRIPT_KERNELS": "native"}
        ).stdout.strip()
        for threads in ("1", "2", "3", "8")
    }
    assert len(set(digests.values())) == 1, digests


CLOSE = """
import sys
import torch
torch.ops.load_library(sys.argv[1])
torch.manual_seed(0)
ops = torch.ops.gnnscript
out = {}
for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
    index = (torch.rand(9000) ** 4 * 300).long()
    ptr, perm = ops.csr(index, 300)
    for features in (1, 7, 64):
        src = torch.randn(9000, features).to(dtype)
        for reduce in ("sum", "mean", "max", "std", "logsumexp"):
            out[str((dtype, features, reduce))] = ops.segment_reduce(src, ptr, perm, reduce)
        for reduce in ("sum", "mean", "max"):
            few = ops.scatter_reduce(src, index, 300, reduce)
            out[str((dtype, features, reduce, "unsorted"))] = few
        out[str((dtype, features, "softmax"))] = ops.edge_softmax(src, ptr, perm)
torch.save(out, sys.argv[2])
"""


def test_all_instruction_sets_round_alike(
    tmp_path: Path, run_python: RunPython, native: Any
) -> None:
    results = []
    for isa in ("baseline", "avx2", "avx512"):  # the widest that there is, where one is missing
        path = tmp_path / f"{isa}.pt"
        run_python(CLOSE, library.paths()[0], path, env={"GNNSCRIPT_ISA": isa})
        results.append(torch.load(path))
    for other in results[1:]:
        for case, expected in results[0].items():
            assert_identical(other[case], expected), case
