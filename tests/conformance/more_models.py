"""Models that are more than a stack of layers, and the classes that no case is made of."""

from __future__ import annotations

from typing import Any

import torch
import torch_geometric.nn as pyg
import torch_geometric.nn.models as models
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn.models.lightgcn import BPRLoss

from conformance.graphs import IN
from conformance.modules import ModuleCase


class VariationalAdversarial(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = models.ARGVA(Spread(), nn.Linear(6, 1))

    def forward(self, x: Tensor, edge_index: Tensor) -> Any:
        z = self.model.encode(x, edge_index)
        return self.model.reg_loss(z), self.model.discriminator_loss(z), self.model.kl_loss()


class Spread(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mu, self.logstd = pyg.GCNConv(IN, 6), pyg.GCNConv(IN, 6)

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        return self.mu(x, edge_index), self.logstd(x, edge_index)


PATHS = {("a", "to", "b"): torch.tensor([[0, 1, 2], [1, 0, 2]]),
         ("b", "rev", "a"): torch.tensor([[1, 0, 2], [0, 1, 2]])}  # fmt: skip


class Reversible(nn.Module):
    """Layers whose own backward pass saves memory, or is switched off."""

    def __init__(self, *, disable: bool) -> None:
        super().__init__()
        half = IN // 2
        self.layers = nn.ModuleList(
            models.GroupAddRev(pyg.SAGEConv(half, half), num_groups=2, disable=disable)
            for _ in range(2)
        )

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        # In eager mode an invertible layer frees the memory of its input, and in its backward pass
        # that of its output: others hold neither.
        x = x * 1.5
        for layer in self.layers:
            x = layer(x, edge_index)
        return x * 2.0


MORE = [
    *(ModuleCase(f"GroupAddRev-{name}", lambda disable=disable: Reversible(disable=disable),
                 lambda g: (g.x, g.edge_index))
      for name, disable in (("invertible", False), ("disabled", True))),
    ModuleCase("InnerProductDecoder", models.InnerProductDecoder, lambda g: (g.x, g.edge_index)),
    ModuleCase("ARGVA", VariationalAdversarial, lambda g: (g.x, g.edge_index)),
    ModuleCase("BPRLoss", lambda: BPRLoss(0.1), lambda g: (g.x[:, 0], g.x[:, 1], g.x)),
    # Checkpoints as DeepGCNLayer makes them have no gradients with respect to inputs.
    *(ModuleCase(f"DeepGCNLayer-{block}-checkpoint", lambda block=block: models.DeepGCNLayer(
        pyg.GCNConv(IN, IN), nn.LayerNorm(IN), nn.ReLU(), block=block, ckpt_grad=True),
        lambda g: (g.x, g.edge_index), gradients=False) for block in ("res+", "dense", "plain")),
    ModuleCase("ARLinkPredictor", lambda: models.ARLinkPredictor(IN, 8), lambda g: (
        g.x, g.edge_index)),
    *(ModuleCase(f"MetaPath2Vec-{name}", lambda: models.MetaPath2Vec(
        PATHS, 6, [("a", "to", "b"), ("b", "rev", "a")], 3, 2), call) for name, call in (
        ("batch", lambda g: ("b", g.batch[:2])), ("all", lambda g: ("a",)))),
    ModuleCase("WLConv", pyg.WLConv, lambda g: (
        g.kind[: g.x.size(0)], g.edge_index), gradients=False),
    ModuleCase("WLConv-one-hot", pyg.WLConv, lambda g: (
        F.one_hot(g.kind[: g.x.size(0)], 8), g.edge_index), gradients=False),
]  # fmt: skip

# Classes without a case, each with the reason; docs/coverage.md quotes it.
NOT_TRIED = {
    "Aggregation": "the base class",
    "CuGraphGATConv": "needs pylibcugraphops",
    "CuGraphRGCNConv": "needs pylibcugraphops",
    "CuGraphSAGEConv": "needs pylibcugraphops",
    "FusedGATConv": "needs dgNN",
    "GPSE": "takes a `Data` object, which it changes",
    "GPSENodeEncoder": "takes a `Data` object, which it changes",
    "KNNIndex, L2KNNIndex, MIPSKNNIndex, ApproxL2KNNIndex, ApproxMIPSKNNIndex": "no modules, but "
    "indices of the library faiss",
    "LPFormer": "takes a sparse matrix of PageRank scores, and scripted models take dense tensors",
    "MessagePassing": "the base class",
    "PANConv, PANPooling": "make a `SparseTensor`, for which eager mode needs torch_sparse; what "
    "they compute when scripted is compared with dense matrices (`test_sparse_tensors.py`)",
    "RENet": "takes a `Data` object with the histories of entities",
}
