"""``gnnscript.kernels("torch_scatter")``: the reductions of that library in place of ours."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import gnnscript
from gnnscript import ops

RunPython = Callable[..., Any]

# What torch_scatter documents of the functions that are called, for indices of one dimension.
STAND_IN = """
from typing import Optional
import torch
from torch import Tensor

def _reduced(src: Tensor, index: Tensor, dim: int, size: int, reduce: str) -> Tensor:
    shape = list(src.size())
    shape[dim] = size
    view = [1] * src.dim()
    view[dim] = -1
    wide = index.view(view).expand_as(src)
    name = {"sum": "sum", "add": "sum", "mul": "prod", "mean": "mean"}
    name.update({"min": "amin", "max": "amax"})
    start = torch.full(shape, 1.0 if reduce == "mul" else 0.0, dtype=src.dtype)
    return start.scatter_reduce(dim, wide, src, name[reduce], include_self=reduce == "mul")

def scatter(src: Tensor, index: Tensor, dim: int = -1, out: Optional[Tensor] = None,
            dim_size: Optional[int] = None, reduce: str = "sum") -> Tensor:
    assert index.dtype == torch.int64
    size = int(index.max()) + 1 if dim_size is None else dim_size
    return _reduced(src, index, dim, size, reduce)

def scatter_softmax(src: Tensor, index: Tensor, dim: int = -1,
                    dim_size: Optional[int] = None) -> Tensor:
    size = int(index.max()) + 1 if dim_size is None else dim_size
    top = _reduced(src, index, dim, size, "max").index_select(dim, index)
    raised = (src - top).exp()
    return raised / _reduced(raised, index, dim, size, "sum").index_select(dim, index)

def segment_csr(src: Tensor, indptr: Tensor, out: Optional[Tensor] = None,
                reduce: str = "sum") -> Tensor:
    dim = indptr.dim() - 1
    ptr = indptr.reshape(-1)
    index = torch.repeat_interleave(torch.arange(ptr.numel() - 1), ptr.diff())
    return _reduced(src, index, dim, ptr.numel() - 1, reduce)
"""
USE = """
import torch
import gnnscript.auto, gnnscript
from gnnscript import ops
from torch_geometric.nn import GATConv, PNAConv, SAGEConv

torch.manual_seed(0)
src, index = torch.randn(30, 4), torch.randint(7, (30,))
ptr = torch.tensor([0, 4, 4, 20, 30])
calls = [
    *((ops.scatter, (src, index, 0, 8, name)) for name in ("sum", "mean", "mul", "amax", "any")),
    (ops.scatter, (src.t(), index.int(), -1, 8, "sum")),
    *((ops.segment, (src, ptr, name)) for name in ("sum", "mean", "min", "prod")),
    *((ops.softmax, (src, index, None, 8, 0)), (ops.softmax, (src, None, ptr, None, 0))),
]
for function, given in calls:
    with gnnscript.kernels("portable"):
        expected = function(*given)
    with gnnscript.kernels("torch_scatter"):
        torch.testing.assert_close(function(*given), expected)

x, edge_index = torch.randn(9, 4), torch.randint(7, (2, 40))
degree = torch.bincount(torch.bincount(edge_index[1]))
pna = PNAConv(4, 4, ["mean", "std"], ["identity"], degree)
for layer in (SAGEConv(4, 4, "max"), GATConv(4, 4), pna):
    with gnnscript.kernels("torch_scatter"):
        assert "gnnscript.ops.scatter_library" in gnnscript.source(layer)
        scripted = torch.jit.script(layer)
        for _ in range(2):
            torch.testing.assert_close(scripted(x, edge_index), layer(x, edge_index))
    with gnnscript.kernels("portable"):
        torch.testing.assert_close(torch.jit.script(layer)(x, edge_index), layer(x, edge_index))
print("the same")
"""


def test_the_reductions_are_those_of_torch_scatter(run_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "torch_scatter.py").write_text(STAND_IN, encoding="utf-8")
    (tmp_path / "use.py").write_text(USE, encoding="utf-8")  # classes are read from their files
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import use"
    assert "the same" in run_python(code, env={"GNNSCRIPT_KERNELS": ""}).stdout


def test_without_torch_scatter_an_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch_scatter", None)
    missing = pytest.raises(gnnscript.GnnscriptError, match="pip install torch-scatter")
    with gnnscript.kernels("torch_scatter"), missing:
        ops.scatter(torch.ones(2), torch.tensor([0, 1]))
