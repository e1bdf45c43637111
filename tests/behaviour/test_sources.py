"""A class is scripted from the source it was compiled from, or not at all."""

import ast
import importlib
import sys

import pytest
import torch
from tests.behaviour.models import GRAPHS
from torch import Tensor
from torch_geometric.nn import GCNConv

import gnnscript
from gnnscript.analyze import sources

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


def members(kind: str) -> bool:
    return kind in {"edge", "node", "edge_insensitive", "graph", "hyperedge", "subgraph"}


def test_sets_agree_in_whatever_order_they_are_written() -> None:
    """A set of strings is ordered by their hashes, which differ between two compilations."""
    code = members.__code__
    turned = tuple(
        frozenset(sorted(c, reverse=True)) if isinstance(c, frozenset) else c
        for c in code.co_consts
    )
    assert sources._constants(code.replace(co_consts=turned)) == sources._constants(code)
    other = tuple(frozenset({"edge"}) if isinstance(c, frozenset) else c for c in code.co_consts)
    assert sources._constants(code.replace(co_consts=other)) != sources._constants(code)


COPY = """
import torch

SCALE = {scale}


def scaled(x):
    if x.size(0) > 3:
        x = x * SCALE
    return x + 1


class Open(torch.nn.Module):
    def forward(self, x, **kwargs):
        return scaled(x, **kwargs)
"""


def test_copies_of_a_function_have_globals_and_places_of_their_own(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = ["copy_for_hits", "copy_for_tracks"]
    for scale, name in enumerate(names, 2):
        (tmp_path / f"{name}.py").write_text(COPY.format(scale=scale), encoding="utf-8")
    hits, tracks = map(importlib.import_module, names)
    try:
        assert hits.scaled.__code__ == tracks.scaled.__code__

        class Both(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = GCNConv(8, 4)

            def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
                return hits.scaled(tracks.scaled(self.conv(x, edge_index)))

        compare(Both())
        for copy in (hits, tracks):
            source = sources.function_source(copy.Open.forward)
            assert sources.class_location(source).file == copy.__file__
    finally:
        for name in names:
            del sys.modules[name]


def test_lambdas_of_one_line_are_told_apart():
    def several(a, b):
        return [
            lambda x: x + a, lambda x: x + b, lambda x: x * 2, lambda x: x * 2.0,
            lambda x=(lambda: 1): x, lambda x: [y + 1 for y in x], lambda x: [y + 2 for y in x],
            lambda x: -x, lambda x: -x,
        ]  # fmt: skip

    found = [ast.unparse(sources.function_source(f).node.body) for f in several(1, 2)]
    assert found == [
        "x + a", "x + b", "x * 2", "x * 2.0",
        "x", "[y + 1 for y in x]", "[y + 2 for y in x]",
        "-x", "-x",
    ]  # fmt: skip
