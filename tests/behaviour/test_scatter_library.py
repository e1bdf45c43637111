"""Models written for torch_scatter and torch_cluster: they script to our ops, with a stub in place.

Where the libraries are not installed, stubs of the same names let such a model be imported; here
they compute what the libraries' documentation says, by PyG and torch, to compare with eager.
"""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch_geometric.nn import MessagePassing, pool
from torch_geometric.utils import scatter as pyg_scatter

import gnnscript
import gnnscript.ops.library
from gnnscript.testing import assert_scripts_like_eager

pytestmark = pytest.mark.usefixtures("auto")


def _stub(library: str, **functions) -> types.ModuleType:
    module = types.ModuleType(library)
    for name, function in functions.items():

        def named(*args, _function=function, **kwargs):
            return _function(*args, **kwargs)

        named.__name__, named.__module__ = name, library
        setattr(module, name, named)
    return module


def _scatter(src, index, dim=-1, out=None, dim_size=None, reduce="sum"):
    return pyg_scatter(src, index, dim, dim_size, reduce)


def _scatter_max(src, index, dim=-1, out=None, dim_size=None):
    found = pyg_scatter(src, index, dim, dim_size, "max")
    position = torch.full_like(found, src.size(dim), dtype=torch.int64)
    for edge in reversed(range(src.size(0))):
        hit = src[edge] == found[index[edge]]
        position[index[edge]] = torch.where(hit, edge, position[index[edge]])
    return found, position


def _segment_csr(src, indptr, out=None, reduce="sum"):
    index = torch.repeat_interleave(torch.arange(indptr.numel() - 1), indptr.diff())
    return pyg_scatter(src, index, 0, indptr.numel() - 1, reduce)


torch_scatter = _stub(
    "torch_scatter", scatter=_scatter, scatter_max=_scatter_max, segment_csr=_segment_csr
)


def _fps(src, **kwargs):
    return pool.fps(src, **kwargs)


torch_cluster = _stub("torch_cluster", knn_graph=pool.knn_graph, fps=_fps)
scatter, scatter_max, segment_csr = (
    torch_scatter.scatter,
    torch_scatter.scatter_max,
    torch_scatter.segment_csr,
)
knn_graph = torch_cluster.knn_graph


def graph(nodes: int):
    torch.manual_seed(nodes)
    return torch.randn(nodes, 4), torch.randint(0, nodes, (2, 4 * nodes))


class Conv(MessagePassing):
    """A conv whose aggregate is torch_scatter's, along its default dimension, the last."""

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)

    def message(self, x_j):
        return 2 * x_j

    def aggregate(self, inputs, index, dim_size=None):
        return scatter(inputs.t(), index, dim_size=dim_size, reduce="mean").t()


class Pool(torch.nn.Module):
    """No conv at all: functions of the libraries in a plain module."""

    def forward(self, x, batch):
        edge_index = knn_graph(x, 2, batch, loop=False)
        summed = scatter(x[edge_index[0]], edge_index[1], dim=0, dim_size=x.size(0))
        high, position = scatter_max(summed, batch, dim=0)
        ptr = torch.cat([batch.new_zeros(1), batch.bincount().cumsum(0)])
        kept = torch_cluster.fps(src=x, batch=batch, ratio=0.5, random_start=False)
        return high, position, segment_csr(summed, ptr, reduce="mean"), x[kept]


def test_convs_that_aggregate_by_torch_scatter(bare) -> None:
    assert_scripts_like_eager(Conv(), graph(7), graph(12), reload=bare)
    for kernels in ("portable", "native"):
        if kernels == "native" and not gnnscript.ops.library.paths():
            continue
        with gnnscript.kernels(kernels):
            scripted = torch.jit.script(Conv())
        torch.testing.assert_close(scripted(*graph(9)), Conv()(*graph(9)))


def test_plain_modules_that_call_the_libraries(bare) -> None:
    def points(examples: int):
        torch.manual_seed(examples)
        return torch.randn(6 * examples, 3), torch.arange(examples).repeat_interleave(6)

    assert_scripts_like_eager(Pool(), points(2), points(3), reload=bare)


def test_the_libraries_need_not_be_there() -> None:
    assert "torch_scatter" not in sys.modules
    assert "torch_cluster" not in sys.modules
    with gnnscript.kernels("portable"):
        text = gnnscript.source(Conv())
    assert "from gnnscript.ops.interop import scatter" in text
