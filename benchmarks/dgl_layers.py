"""The layers of ``layers.py`` in DGL: its own, or written with its functions where it has none.

A graph is built in each call, as whoever holds an edge index has to. DGL asks for an older torch;
version 1.1.3, whose kernels do not depend on it, runs with torch 2.13:
``pip install --no-deps dgl==1.1.3``, with networkx, psutil, requests, scipy and tqdm.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import Linear

os.environ.setdefault("DGLBACKEND", "pytorch")  # otherwise DGL writes a file of settings
import dgl
from dgl import function as fn
from dgl.nn import functional
from dgl.nn import pytorch as layers

from hgcal.edgenet import EdgeNet


class OnGraph(nn.Module):
    """A layer that builds its graph first.

    Args:
        layer: Called with the graph, the node features and what else is given.
        self_loops: Whether each node is its own neighbour, too.
    """

    def __init__(self, layer: nn.Module, *, self_loops: bool = False) -> None:
        super().__init__()
        self.layer = layer
        self.self_loops = self_loops

    def forward(self, x: Tensor, edge_index: Tensor, *third: Tensor) -> Tensor:
        """Takes what PyG's layers take."""
        graph = dgl.graph((edge_index[0], edge_index[1]), num_nodes=x.size(0))
        if self.self_loops:
            graph = dgl.add_self_loop(graph)
        return self.layer(graph, x, *third).flatten(1)


class Stack(nn.Module):
    """Several layers on one graph."""

    def __init__(self, convs: list[nn.Module]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)

    def forward(self, graph: dgl.DGLGraph, x: Tensor) -> Tensor:
        """Runs them one after another."""
        for conv in self.convs:
            x = conv(graph, x).flatten(1).relu()
        return x


class MaxSage(nn.Module):
    """SAGE with the maximum of the neighbours, without the layer that DGL puts before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.neighbours, self.root = Linear(width, width), Linear(width, width, bias=False)

    def forward(self, graph: dgl.DGLGraph, x: Tensor) -> Tensor:
        """Applies the layer."""
        graph.ndata["x"] = x
        graph.update_all(fn.copy_u("x", "m"), fn.max("m", "out"))
        return self.neighbours(graph.ndata["out"]) + self.root(x)


class EdgeGin(nn.Module):
    """GIN with edge features, which a layer brings to the width of the nodes."""

    def __init__(self, layer: nn.Module, edge_width: int, width: int) -> None:
        super().__init__()
        self.widen, self.conv = Linear(edge_width, width), layers.GINEConv(layer)

    def forward(self, graph: dgl.DGLGraph, x: Tensor, attr: Tensor) -> Tensor:
        """Applies the layer."""
        return self.conv(graph, x, self.widen(attr))


class Transformer(nn.Module):
    """Attention by scalar products of queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.root = (Linear(width, width) for _ in range(4))

    def forward(self, graph: dgl.DGLGraph, x: Tensor) -> Tensor:
        """Applies the layer."""
        shape = (x.size(0), self.heads, -1)
        for name in ("query", "key", "value"):
            graph.ndata[name] = getattr(self, name)(x).view(shape)
        graph.apply_edges(fn.v_dot_u("query", "key", "score"))
        score = graph.edata["score"] / math.sqrt(graph.ndata["key"].size(-1))
        graph.edata["alpha"] = functional.edge_softmax(graph, score)
        graph.update_all(fn.u_mul_e("value", "alpha", "m"), fn.sum("m", "out"))
        return graph.ndata["out"].flatten(1) + self.root(x)


class Edge(nn.Module):
    """EdgeConv with any network."""

    def __init__(self, network: nn.Module, reduce: Callable[[str, str], object]) -> None:
        super().__init__()
        self.network, self.reduce = network, reduce

    def forward(self, graph: dgl.DGLGraph, x: Tensor) -> Tensor:
        """Applies the layer."""
        graph.ndata["x"] = x
        graph.apply_edges(fn.u_sub_v("x", "x", "d"))
        graph.apply_edges(
            lambda edges: {"m": self.network(torch.cat([edges.dst["x"], edges.data["d"]], dim=-1))}
        )
        graph.update_all(fn.copy_e("m", "m"), self.reduce("m", "out"))
        return graph.ndata["out"]


class Crystal(nn.Module):
    """CGConv."""

    def __init__(self, width: int, edge_width: int) -> None:
        super().__init__()
        self.gate, self.core = (Linear(2 * width + edge_width, width) for _ in range(2))

    def forward(self, graph: dgl.DGLGraph, x: Tensor, attr: Tensor) -> Tensor:
        """Applies the layer."""
        graph.ndata["x"], graph.edata["e"] = x, attr

        def message(edges: dgl.udf.EdgeBatch) -> dict[str, Tensor]:
            z = torch.cat([edges.dst["x"], edges.src["x"], edges.data["e"]], dim=-1)
            return {"m": self.gate(z).sigmoid() * nn.functional.softplus(self.core(z))}

        graph.apply_edges(message)
        graph.update_all(fn.copy_e("m", "m"), fn.sum("m", "out"))
        return graph.ndata["out"] + x


class Gated(nn.Module):
    """ResGatedGraphConv."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key, self.query, self.value, self.root = (Linear(width, width) for _ in range(4))

    def forward(self, graph: dgl.DGLGraph, x: Tensor) -> Tensor:
        """Applies the layer."""
        for name in ("key", "query", "value"):
            graph.ndata[name] = getattr(self, name)(x)
        graph.apply_edges(fn.v_add_u("key", "query", "gate"))
        graph.edata["gate"] = graph.edata["gate"].sigmoid()
        graph.update_all(fn.u_mul_e("value", "gate", "m"), fn.sum("m", "out"))
        return graph.ndata["out"] + self.root(x)


class Net(nn.Module):
    """EdgeNet, its convs in DGL."""

    def __init__(self) -> None:
        super().__init__()
        net = EdgeNet()
        self.encoder, self.classifier = net.encoder, net.classifier
        self.convs = nn.ModuleList(Edge(conv.nn, fn.max) for conv in net.convs)

    def forward(self, graph: dgl.DGLGraph, x: Tensor) -> Tensor:
        """Classifies the edges."""
        h = torch.cat([self.encoder(x), x], dim=1)
        for conv in self.convs:
            h = torch.cat([conv(graph, h), x], dim=1)
        graph.ndata["h"] = h
        graph.apply_edges(
            lambda edges: {
                "out": self.classifier(torch.cat([edges.src["h"], edges.dst["h"]], dim=-1))
            }
        )
        return graph.edata["out"]


def cases(
    width: int, edge_width: int, mlp: Callable[..., nn.Module]
) -> dict[str, Callable[[], OnGraph]]:
    """The layers, by the names that they have in ``layers.py``."""
    f, e = width, edge_width
    aggregators, scalers = (
        ["mean", "min", "max", "std"],
        ["identity", "amplification", "attenuation"],
    )

    def gcn() -> nn.Module:
        return layers.GraphConv(f, f)

    def gat() -> nn.Module:
        return layers.GATConv(f, f // 4, 4)

    return {
        "GCN": lambda: OnGraph(gcn(), self_loops=True),
        "SAGE mean": lambda: OnGraph(layers.SAGEConv(f, f, "mean")),
        "SAGE max": lambda: OnGraph(MaxSage(f)),
        "GIN": lambda: OnGraph(layers.GINConv(mlp(f, f, f))),
        "GINE": lambda: OnGraph(EdgeGin(mlp(f, f, f), e, f)),
        "GAT": lambda: OnGraph(gat(), self_loops=True),
        "GATv2": lambda: OnGraph(layers.GATv2Conv(f, f // 4, 4), self_loops=True),
        "Transformer": lambda: OnGraph(Transformer(f, 4)),
        "EdgeConv sum": lambda: OnGraph(Edge(mlp(2 * f, f, f), fn.sum)),
        "EdgeConv max": lambda: OnGraph(Edge(mlp(2 * f, f, f), fn.max)),
        "PNA": lambda: OnGraph(
            layers.PNAConv(f, f, aggregators, scalers, delta=3.0, residual=False)
        ),
        "RGCN": lambda: OnGraph(layers.RelGraphConv(f, f, 8)),
        "NNConv": lambda: OnGraph(layers.NNConv(16, 16, mlp(e, 16, 256), "sum")),
        "CG": lambda: OnGraph(Crystal(f, e)),
        "ResGated": lambda: OnGraph(Gated(f)),
        "GCN x3": lambda: OnGraph(Stack([gcn() for _ in range(3)]), self_loops=True),
        "GAT x2": lambda: OnGraph(Stack([gat() for _ in range(2)]), self_loops=True),
        "EdgeNet": lambda: OnGraph(Net()),
    }
