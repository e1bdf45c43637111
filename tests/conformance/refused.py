"""What of PyG's no script can hold: each is refused where it stands, with the reason."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch_geometric.nn as pyg
import torch_geometric.nn.models as models
import torch_geometric.utils as utils
from torch import Tensor, nn
from torch_geometric.nn.models import tgn

from conformance.graphs import EDGE, IN
from conformance.modules import ModuleCase


@dataclass(frozen=True)
class RefusedCase(ModuleCase):
    """A case that is refused.

    Attributes:
        cause: What the error says.
        place: The file that it names.
    """

    cause: str = ""
    place: str = ""


class Homophily(nn.Module):
    """A number for one graph, a tensor for several: the data decides on the type."""

    def forward(self, edge_index: Tensor, y: Tensor):
        return utils.homophily(edge_index, y, method="edge_insensitive")


PATHS = {("a", "to", "b"): torch.tensor([[0, 1, 2], [1, 0, 2]]),
         ("b", "rev", "a"): torch.tensor([[1, 0, 2], [0, 1, 2]])}  # fmt: skip

REFUSED = [
    RefusedCase(
        "MetaPath2Vec", lambda: models.MetaPath2Vec(
            PATHS, 6, [("a", "to", "b"), ("b", "rev", "a")], 3, 2), lambda g: ("a", g.batch[:2]),
        cause="picks from Python objects", place="metapath2vec.py"),
    RefusedCase(
        "WLConv", pyg.WLConv, lambda g: (g.kind.new_zeros(g.x.size(0)), g.edge_index),
        cause="'hash'", place="wl_conv.py"),
    RefusedCase(
        "TGNMemory", lambda: models.TGNMemory(
            10, EDGE, 8, 6, tgn.IdentityMessage(EDGE, 8, 6), tgn.LastAggregator()),
        lambda g: (torch.arange(4),), cause="known only at run time", place="tgn.py"),
    RefusedCase(
        "GroupAddRev", lambda: models.GroupAddRev(pyg.SAGEConv(IN // 2, IN // 2), num_groups=2),
        lambda g: (g.x, g.edge_index), cause="a backward pass of its own", place="rev_gnn.py"),
    RefusedCase(
        "homophily-edge_insensitive", Homophily, lambda g: (g.edge_index, g.kind[: g.x.size(0)]),
        cause="has no single type", place="_homophily.py"),
]  # fmt: skip
