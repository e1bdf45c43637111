"""A class is scripted from the source it was compiled from, or not at all."""

import importlib
import sys

import pytest
import torch
from tests.behaviour.models import GRAPHS

import gnnscript

pytestmark = pytest.mark.usefixtures("auto")

MODULE = """
from torch import Tensor
from torch_geometric.nn import MessagePassing


class Conv(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return x_j {sign} x_i
"""


def compare(conv):
    scripted = torch.jit.script(conv)
    for g in GRAPHS:
        torch.testing.assert_close(scripted(g.x, g.edge_index), conv(g.x, g.edge_index))


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A module in a file that can be rewritten."""
    path = tmp_path / "rewritten_conv.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(sign: str) -> None:
        path.write_text(MODULE.format(sign=sign), encoding="utf-8")

    yield write
    sys.modules.pop("rewritten_conv", None)


def test_file_edited_since_import(written):
    written("-")
    module = importlib.import_module("rewritten_conv")
    written("+")
    with pytest.raises(gnnscript.UnsupportedError, match="has changed"):
        torch.jit.script(module.Conv())


def test_reloaded(written):
    written("-")
    module = importlib.import_module("rewritten_conv")
    old = module.Conv
    compare(old())
    written("+")
    importlib.reload(module)
    compare(module.Conv())
    compare(old())
