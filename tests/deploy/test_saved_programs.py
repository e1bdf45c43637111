"""What ``torch.export.save`` writes loads where there is torch alone, and the op library."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import add_remaining_self_loops, softmax, to_dense_batch

import gnnscript
from conftest import RunPython
from gnnscript.ops import library

WIDTH = 4
BARE = """
import sys, torch
folder, *libraries = sys.argv[1:]
for path in libraries:
    torch.ops.load_library(path)
program = torch.export.load(folder + "/model.pt2").module()
for call, expected in torch.load(folder + "/calls.pt"):
    torch.testing.assert_close(program(*call), expected, rtol=1e-4, atol=1e-5)
assert not {"torch_geometric", "gnnscript"} & set(sys.modules)
print("equal")
"""


class Differences(MessagePassing):
    def __init__(self) -> None:
        super().__init__(aggr=["mean", "max"])
        self.lin = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        return self.propagate(edge_index, x=self.lin(x))

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return (x_j - x_i).relu()


class Scores(MessagePassing):
    """Heads in a dimension of their own, against the flow."""

    def __init__(self) -> None:
        super().__init__(aggr="add", node_dim=0, flow="target_to_source")
        self.lin = nn.Linear(WIDTH, 2 * WIDTH)
        self.score = nn.Parameter(torch.randn(1, 2, WIDTH))

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        edge_index, _ = add_remaining_self_loops(edge_index, num_nodes=x.size(0))
        return self.propagate(edge_index, x=self.lin(x).view(-1, 2, WIDTH)).mean(dim=1)

    def message(self, x_i: Tensor, x_j: Tensor, index: Tensor, size_i: int) -> Tensor:
        alpha = softmax((torch.tanh(x_i + x_j) * self.score).sum(dim=-1), index, num_nodes=size_i)
        return alpha.unsqueeze(-1) * x_j


class Padded(Differences):
    """Attention among the nodes of each graph, whose number values decide."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(2 * WIDTH, 2, batch_first=True)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        h = super().forward(x, edge_index, batch)
        dense, mask = to_dense_batch(h, batch)
        out, _ = self.attention(dense, dense, dense, key_padding_mask=~mask, need_weights=False)
        return out[mask]


def call_of(nodes: int, edges: int) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(nodes)
    edge_index = torch.randint(nodes, (2, edges), generator=random)
    return torch.randn(nodes, WIDTH, generator=random), edge_index, torch.arange(nodes) // 4


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize("kernels", ["portable", "native"])
@pytest.mark.parametrize("make", [Differences, Scores, Padded])
def test_programs_load_where_torch_is_alone(
    make: type[nn.Module], kernels: str, tmp_path: Path, run_python: RunPython
) -> None:
    if kernels == "native" and not library.paths():
        pytest.skip("no native library: run 'make native'")
    model = make().eval()
    nodes, edges = Dim("nodes", max=1000), Dim("edges", max=10_000)
    shapes = ({0: nodes}, {1: edges}, {0: nodes})
    with gnnscript.kernels(kernels):
        program = torch.export.export(model, call_of(7, 20), dynamic_shapes=shapes)
    native = [node for node in program.graph.nodes if str(node.target).startswith("gnnscript.")]
    assert bool(native) == (kernels == "native")
    torch.export.save(program, tmp_path / "model.pt2")
    calls = [call_of(*sizes) for sizes in ((7, 20), (30, 90), (5, 3), (9, 0))]
    torch.save([(call, model(*call).detach()) for call in calls], tmp_path / "calls.pt")
    libraries = [str(path) for path in library.paths()] if kernels == "native" else []
    assert run_python(BARE, str(tmp_path), *libraries).stdout.split() == ["equal"]
