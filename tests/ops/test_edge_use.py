"""Edge programs where models use them: named ops, scripted, saved, compiled; and their errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edge_cases import NUM_EDGES, NUM_NODES, NUM_OTHER, graph, require_library
from gnnscript.ops import library, portable

require_library()
from gnnscript.ops import native  # noqa: E402

INDEX, OTHER = graph()
PTR, PERM = native.csr(INDEX, NUM_NODES)


def test_gspmm() -> None:
    x, y = torch.randn(NUM_OTHER, 5), torch.randn(NUM_OTHER, 2, 3)
    w, h = torch.rand(NUM_EDGES), torch.rand(NUM_EDGES, 2)
    for reduce in ("sum", "mean", "max", "min"):
        out = native.gspmm(INDEX, OTHER, x, NUM_NODES, reduce=reduce)
        torch.testing.assert_close(out, portable.scatter(x[OTHER], INDEX, 0, NUM_NODES, reduce))
    for op, function in (("mul", torch.mul), ("add", torch.add), ("sub", torch.sub)):
        out = native.gspmm(INDEX, OTHER, x, NUM_NODES, w, op)
        expected = function(x[OTHER], w[:, None])
        torch.testing.assert_close(out, portable.scatter(expected, INDEX, 0, NUM_NODES))
    out = native.gspmm(INDEX, OTHER, y, NUM_NODES, h, "div", "mean")
    expected = portable.scatter(y[OTHER] / h[:, :, None], INDEX, 0, NUM_NODES, "mean")
    torch.testing.assert_close(out, expected)
    with pytest.raises(ValueError, match="expected op to be one of mul, add, sub and div"):
        native.gspmm(INDEX, OTHER, x, NUM_NODES, w, "max")


def test_sddmm() -> None:
    a, b = torch.randn(NUM_NODES, 2, 40), torch.randn(NUM_OTHER, 2, 40)
    torch.testing.assert_close(native.sddmm(INDEX, OTHER, a, b), (a[INDEX] * b[OTHER]).sum(-1))
    torch.testing.assert_close(native.sddmm(INDEX, OTHER, a, b, "sub"), a[INDEX] - b[OTHER])


def test_mixed_dtypes_promote_as_in_torch() -> None:
    """Under autocast, values in bfloat16 meet weights in float32."""
    x, w = torch.randn(NUM_OTHER, 4).bfloat16().requires_grad_(), torch.rand(NUM_EDGES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = native.gspmm(INDEX, OTHER, x, NUM_NODES, w)
    expected = portable.scatter(x[OTHER] * w[:, None], INDEX, 0, NUM_NODES)
    assert out.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(out, expected)
    out.sum().backward()
    assert x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "mul"])
def test_opcheck(reduce: str) -> None:
    i, j, e = (
        torch.randn(rows, 2, requires_grad=True) for rows in (NUM_NODES, NUM_OTHER, NUM_EDGES)
    )
    program = "tanh(i0 + j1) * e2"
    ops = torch.ops.gnnscript
    torch.library.opcheck(ops.edge_reduce, (program, [i, j, e], INDEX, OTHER, PTR, PERM, reduce))
    torch.library.opcheck(ops.edge_map, (program, [i, j, e], INDEX, OTHER, 1))


def layer(x: Tensor, w: Tensor, index: Tensor, other: Tensor, num_nodes: int) -> Tensor:
    h = native.gspmm(index, other, x, num_nodes, w)
    ptr, perm = native.csr(index, num_nodes)
    out, _ = native.edge_attention(
        "leaky_relu(i0 * j1, 0.2)", "silu(j1)", [x, h], index, other, ptr, perm, 1
    )
    return out + native.edge_reduce("j0 + e1", [h, w[:, None]], index, other, ptr, perm, "mean")


def inputs(nodes: int, edges: int) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    torch.manual_seed(edges)
    index, other = torch.randint(nodes, (edges,)), torch.randint(nodes, (edges,))
    return torch.randn(nodes, 3, requires_grad=True), torch.rand(edges), index, other, nodes


def test_compiles_whole_for_any_size() -> None:
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    for nodes, edges in ((6, 20), (9, 31)):
        given = inputs(nodes, edges)
        expected = layer(*given)
        out = compiled(*given)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(
            torch.autograd.grad(out.sum(), given[0]),
            torch.autograd.grad(expected.sum(), given[0]),
        )


BARE = """
import sys, torch
torch.ops.load_library(sys.argv[1])
model = torch.jit.load(sys.argv[2])
*given, expected = torch.load(sys.argv[3], weights_only=True)
torch.testing.assert_close(model(*given), expected)
assert "gnnscript" not in sys.modules
"""


def test_scripted_and_saved_runs_with_the_library_alone(tmp_path: Path) -> None:
    scripted = torch.jit.script(layer)
    given = inputs(7, 25)
    expected = layer(*given)
    torch.testing.assert_close(scripted(*given), expected)
    torch.testing.assert_close(
        torch.autograd.grad(scripted(*given).sum(), given[0]),
        torch.autograd.grad(expected.sum(), given[0]),
    )
    scripted.save(str(tmp_path / "model.pt"))
    torch.save([given[0].detach(), *given[1:], expected.detach()], tmp_path / "given.pt")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(
        [
            sys.executable, "-I", "-c", BARE, str(library.paths()[0]), str(tmp_path / "model.pt"),
            str(tmp_path / "given.pt"),
        ],
        check=True, env=environment, timeout=120,
    )  # fmt: skip


def test_the_examples_of_the_page_run() -> None:
    page = Path(__file__).parents[2] / "docs" / "edge-programs.md"
    blocks = re.findall(
        r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, str(page), "exec"), {})


X, Y = torch.randn(NUM_NODES, 2), torch.randn(NUM_OTHER, 2)


@pytest.mark.parametrize(
    ("program", "operands", "error", "message"),
    [
        ("j0 +", [Y], ValueError, "expected a number, an operand, a function or"),
        ("j0 j0", [Y], ValueError, "expected an operator or the end at position 3"),
        ("cosh(j0)", [Y], ValueError, "got 'cosh'"),
        ("pow(j0, j0)", [Y], ValueError, "expected a number"),
        ("i0 - j0", [Y], ValueError, "expected one letter for operand 0, got i and j; give the"),
        ("1 + 2", [Y], ValueError, "expected at least one operand"),
        ("(" * 300 + "j0" + ")" * 300, [Y], ValueError, "fewer than 200 nested"),
        ("j0 + j1", [Y], ValueError, "expected 2 operands, got 1"),
        ("j0", [Y, Y], ValueError, "does not read operand 1; leave it out"),
        ("j0", [], ValueError, "expected operands, got none"),
        ("j0", [Y.int()], ValueError, "float64, float32, float16 or bfloat16"),
        ("i0", [Y], ValueError, r"operand 0 \(i0\) with 7 rows, got shape \[5, 2\]"),
        ("i0 + j1", [X, Y[:, :1].expand(5, 3)], ValueError, "expected feature shapes that"),
        (
            "j0",
            [Y[:3]],
            IndexError,
            r"other out of range: other\[\d+\] is [34], expected",
        ),
    ],
)
def test_errors_say_what_is_wrong(
    program: str, operands: list[Tensor], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        native.edge_reduce(program, operands, INDEX, OTHER, PTR, PERM, "sum")


def test_other_errors() -> None:
    with pytest.raises(ValueError, match="expected reduce to be one of sum, mean, min, max"):
        native.edge_reduce("j0", [Y], INDEX, OTHER, PTR, PERM, "median")
    with pytest.raises(ValueError, match="expected sum_dims within"):
        native.edge_map("j0", [Y], INDEX, OTHER, 2)
    with pytest.raises(ValueError, match="one size, got 40 and 39 edges"):
        native.edge_map("j0", [Y], INDEX, OTHER[1:], 0)
    with pytest.raises(IndexError, match=r"index out of range: index\[0\] is -1"):
        native.edge_map("i0", [X], torch.tensor([-1]), torch.tensor([0]), 0)
    with pytest.raises(IndexError, match=r"perm out of range: perm\[0\] is 4\d"):
        native.edge_reduce("j0", [Y], INDEX, OTHER, PTR, PERM + 40, "sum")
    assert native.edge_reduce("j0", [Y], INDEX, OTHER, PTR, PERM, "sum").shape == (NUM_NODES, 2)


@pytest.mark.parametrize("program", ["j99999999999", "j64", "j0 + " * 2000 + "j0"])
def test_programs_beyond_all_bounds(program: str) -> None:
    with pytest.raises(ValueError, match=r"^edge program .(j99999999999|j64|j0 [+])"):
        native.edge_map(program, [Y.to("meta")], INDEX, OTHER, 0)
