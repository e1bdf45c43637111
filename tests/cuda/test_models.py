"""Models on the device: scripted on the native ops, saved and loaded, they equal eager PyG."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch_geometric import nn as pyg

import gnnscript

pytestmark = pytest.mark.usefixtures("auto")

DEGREES = torch.tensor([1, 4, 9, 6, 2])


class Net(nn.Module):
    """Two layers, the second one's edge features shared with the first."""

    def __init__(self, make: Callable[[int, int], nn.Module], edge_features: bool) -> None:
        super().__init__()
        self.first, self.second = make(8, 16), make(16, 8)
        self.edge_features = edge_features

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        if self.edge_features:
            return self.second(self.first(x, edge_index, edge_attr).relu(), edge_index, edge_attr)
        return self.second(self.first(x, edge_index).relu(), edge_index)


def mlp(size: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(size, 16), nn.ELU(), nn.Linear(16, out))


PLAIN: dict[str, Callable[[int, int], nn.Module]] = {
    "GCN": pyg.GCNConv,
    "SAGE mean": pyg.SAGEConv,
    "SAGE max": lambda i, o: pyg.SAGEConv(i, o, aggr="max"),
    "SAGE std": lambda i, o: pyg.SAGEConv(i, o, aggr="std"),
    "SAGE softmax": lambda i, o: pyg.SAGEConv(i, o, aggr="softmax"),
    "GIN": lambda i, o: pyg.GINConv(mlp(i, o)),
    "EdgeConv": lambda i, o: pyg.EdgeConv(mlp(2 * i, o)),
    "PNA": lambda i, o: pyg.PNAConv(i, o, ["mean", "min", "max", "std"], ["identity"], DEGREES),
    "ResGated": pyg.ResGatedGraphConv,
}
WITH_EDGES: dict[str, Callable[[int, int], nn.Module]] = {
    "GAT": lambda i, o: pyg.GATConv(i, o, heads=2, concat=False, edge_dim=4),
    "GATv2": lambda i, o: pyg.GATv2Conv(i, o, heads=2, concat=False, edge_dim=4),
    "Transformer": lambda i, o: pyg.TransformerConv(i, o, heads=2, concat=False, edge_dim=4),
    "GINE": lambda i, o: pyg.GINEConv(mlp(i, o), edge_dim=4),
    "NNConv": lambda i, o: pyg.NNConv(i, o, nn.Linear(4, i * o)),
}


def graph(nodes: int, edges: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    index = torch.randint(nodes, (2, edges), device=device)
    index[1, : edges // 4] = 1  # a hub
    return torch.randn(nodes, 8, device=device), index, torch.randn(edges, 4, device=device)


@pytest.mark.parametrize("name", [*PLAIN, *WITH_EDGES])
def test_models(name: str, device: torch.device) -> None:
    net = Net(PLAIN.get(name) or WITH_EDGES[name], name in WITH_EDGES).to(device).eval()
    file = io.BytesIO()
    scripted = torch.jit.script(net)
    torch.jit.save(scripted, file)
    loaded = torch.jit.load(io.BytesIO(file.getvalue()), map_location=device)
    parameters = list(net.parameters())
    for _ in range(2):  # before and after TorchScript has optimised
        for nodes, edges in ((200, 3000), (17, 90)):
            x, index, attributes = graph(nodes, edges, device)
            with gnnscript.kernels("portable"):  # eager code as PyG has it
                expected = net(x, index, attributes)
            tolerance = {"rtol": 1e-4, "atol": 1e-4 * expected.abs().max().item()}
            out = scripted(x, index, attributes)
            torch.testing.assert_close(out, expected, **tolerance)
            torch.testing.assert_close(loaded(x, index, attributes), expected, **tolerance)
            upstream = torch.randn_like(expected)
            wanted = torch.autograd.grad(expected, parameters, upstream, allow_unused=True)
            grads = torch.autograd.grad(out, parameters, upstream, allow_unused=True)
            for grad, want in zip(grads, wanted, strict=True):
                if want is None:
                    assert grad is None or not grad.any()
                else:
                    scale = 1e-3 * max(want.abs().max().item(), 1e-3)
                    torch.testing.assert_close(grad, want, rtol=1e-3, atol=scale)


class Three(nn.Module):
    """Layers that do the same work on the same edges first."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(pyg.GCNConv(8, 8) for _ in range(3))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, edge_index)
        return x


@pytest.mark.filterwarnings("ignore:.*profil:UserWarning")
def test_layers_share_their_work(gpu: torch.device) -> None:
    scripted = torch.jit.script(Three().to(gpu).eval())
    given, fresh = graph(200, 3000, gpu)[:2], graph(200, 3000, gpu)[:2]
    stream = torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(3):
            with torch.profiler.profile() as profile:
                scripted(*given)
            assert sum(event.name == "gnnscript::csr" for event in profile.events()) == 1
        expected = scripted(*fresh)
    torch.cuda.synchronize()
    recorded = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(recorded):
        out = scripted(*given)
    for tensor, value in zip(given, fresh, strict=True):
        tensor.copy_(value)
    recorded.replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(out, expected)
