"""Models that search for neighbours or use splines, with and without ``pyg_lib``."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch_geometric.typing
from torch_geometric import nn as pyg_nn

import gnnscript
from gnnscript.testing import assert_scripts_like_eager

pytestmark = [
    pytest.mark.usefixtures("auto"),
    pytest.mark.skipif(
        torch_geometric.typing.WITH_PYG_LIB, reason="pyg_lib is installed: eager models use that"
    ),
]


def points(examples: int):
    torch.manual_seed(examples)
    return torch.randn(10 * examples, 8), torch.arange(examples).repeat_interleave(10)


def edges(nodes: int):
    torch.manual_seed(nodes)
    return torch.randn(nodes, 8), torch.randint(0, nodes, (2, 3 * nodes)), torch.rand(3 * nodes, 2)


def cloud(examples: int):
    x, batch = points(examples)
    return x, torch.randn(10 * examples, 3), batch


@pytest.mark.parametrize(
    ("make", "calls"),
    [
        (lambda: pyg_nn.GravNetConv(8, 6, 3, 4, k=4), (points(3), points(5))),
        (lambda: pyg_nn.GravNetConv(8, 6, 3, 4, k=4), (points(2)[:1], points(3)[:1])),
        (lambda: pyg_nn.DynamicEdgeConv(torch.nn.Linear(16, 5), k=3), (points(3), points(5))),
        (lambda: pyg_nn.XConv(8, 6, dim=3, kernel_size=4, hidden_channels=5), (cloud(3), cloud(5))),
        (lambda: pyg_nn.XConv(8, 6, 3, 3, 5, dilation=2), (cloud(3), cloud(4))),
        (lambda: pyg_nn.SplineConv(8, 6, 2, 3), (edges(9), edges(14))),
        (
            lambda: pyg_nn.SplineConv(8, 6, 2, [3, 4], is_open_spline=[True, False], degree=2),
            (edges(9), edges(14)),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:We do not recommend using the non-optimized CPU version")
def test_convs(make, calls, bare) -> None:
    torch.manual_seed(0)
    assert_scripts_like_eager(make(), *calls, rtol=1e-4, atol=1e-5, reload=bare)


class DynamicGraph(torch.nn.Module):
    """Sampling, clustering and search called in a model's own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = pyg_nn.EdgeConv(torch.nn.Linear(16, 8), aggr="max")

    def forward(self, x, batch):
        x = self.conv(x, pyg_nn.knn_graph(x, 3, batch, loop=False))
        x = self.conv(x, pyg_nn.radius_graph(x, 4.0, batch, max_num_neighbors=4))
        kept = pyg_nn.fps(x, batch, ratio=0.3, random_start=False)
        nearest = pyg_nn.nearest(x, x[kept], batch, batch[kept])
        voxel = pyg_nn.voxel_grid(x[:, :2], 0.5, batch)
        up = pyg_nn.knn_interpolate(x[kept], x[kept, :3], x[:, :3], batch[kept], batch)
        assigned = pyg_nn.radius(x, x[kept], 5.0, batch, batch[kept])
        return x + up, nearest, voxel, assigned


def test_functions_in_a_forward(bare) -> None:
    torch.manual_seed(0)
    assert_scripts_like_eager(DynamicGraph(), points(3), points(5), reload=bare)


def test_uninstall_takes_the_ops_back() -> None:
    assert hasattr(torch.ops.pyg, "knn")
    assert torch_geometric.typing.WITH_KNN
    gnnscript.uninstall()
    assert not hasattr(torch.ops.pyg, "knn")
    assert not torch_geometric.typing.WITH_KNN
    with pytest.raises(ImportError, match="pyg-lib"):
        pyg_nn.knn(torch.randn(3, 2), torch.randn(3, 2), 1)
    with pytest.raises(ImportError, match="pyg-lib"):
        pyg_nn.SplineConv(8, 6, 2, 3)


@pytest.mark.parametrize(
    "order", [("gnnscript.auto", "torch_geometric.nn"), ("torch_geometric.nn", "gnnscript.auto")]
)
def test_the_order_of_imports_does_not_matter(order) -> None:
    lines = [f"import {name}" for name in order]
    lines += [
        "import torch, torch_geometric",
        "x = torch.randn(9, 3)",
        "assert torch_geometric.nn.knn_graph(x, 2).shape == (2, 18)",
        "torch_geometric.nn.SplineConv(3, 4, 2, 3)",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
