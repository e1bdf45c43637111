"""Classes from notebook cells, reloaded modules and exec: each gets its own right code."""

import importlib
import linecache
import sys
from typing import Any

import pytest
import torch
from torch_geometric.nn import MessagePassing

import gnnscript
from behaviour.models import same
from conformance.forms import Plain
from conformance.graphs import GRAPHS

pytestmark = pytest.mark.usefixtures("auto")

G = GRAPHS[0]

CELL = """
import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

class Cell(MessagePassing):
    def __init__(self):
        super().__init__(aggr="add")

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return {message}
"""


def run_cell(number: int, message: str, namespace: dict[str, Any]) -> MessagePassing:
    """Runs code as a notebook does: compiled under a made-up name, its lines in linecache."""
    text = CELL.format(message=message)
    name = f"<ipython-input-{number}-0123456789ab>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), namespace)
    return namespace["Cell"]()


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The namespace of a notebook: that of a main module without a file."""
    main = type(sys)("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(linecache, "cache", dict(linecache.cache))
    return vars(main)


def test_a_cell_that_is_run_again(notebook):
    first = run_cell(1, "x_i + x_j", notebook)
    script = torch.jit.script(Plain(first))
    second = run_cell(2, "x_i * x_j", notebook)
    same(torch.jit.script(Plain(second)), second, rtol=1e-6)
    same(script, first, rtol=1e-6)
    same(torch.jit.script(Plain(first)), first, rtol=1e-6)
    assert "x_i * x_j" in gnnscript.source(second)
    assert "x_i + x_j" in gnnscript.source(first)


def test_two_cells_before_any_is_scripted(notebook):
    first = run_cell(1, "x_i + x_j", notebook)
    second = run_cell(2, "(x_i - x_j).relu()", notebook)
    for conv in (first, second):
        same(torch.jit.script(conv), conv, rtol=1e-6)


def test_linecache_is_cleared_after_scripting(notebook):
    conv = run_cell(1, "x_j - x_i", notebook)
    torch.jit.script(conv)
    linecache.checkcache()
    same(torch.jit.script(Plain(conv)), conv, rtol=1e-6)


def test_reload(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "reloaded_convs.py"
    path.write_text(CELL.format(message="x_i + x_j"))
    module = importlib.import_module("reloaded_convs")
    try:
        first = module.Cell()
        script = torch.jit.script(Plain(first))
        expected = first(G.x, G.edge_index)
        path.write_text("# One more line.\n\n" + CELL.format(message="x_i * x_j * 2"))
        importlib.invalidate_caches()
        second = importlib.reload(module).Cell()
        assert type(second) is not type(first)
        same(torch.jit.script(Plain(second)), second, rtol=1e-6)
        torch.testing.assert_close(script(G.x, G.edge_index), expected)
        assert not torch.allclose(second(G.x, G.edge_index), expected)
    finally:
        del sys.modules["reloaded_convs"]


def test_exec_with_source_in_linecache(notebook, monkeypatch):
    text = CELL.format(message="torch.maximum(x_i, x_j)")
    name = "<generated convs 1>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    module = type(sys)("generated")
    monkeypatch.setitem(sys.modules, "generated", module)
    exec(compile(text, name, "exec"), vars(module))
    conv = module.Cell()
    same(torch.jit.script(Plain(conv)), conv, rtol=1e-6)
