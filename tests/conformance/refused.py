"""What of PyG's no script can hold: each is refused where it stands, with the reason."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch_geometric.nn.models as models
import torch_geometric.utils as utils
from torch import Tensor, nn
from torch_geometric.nn.models import tgn

from conformance.graphs import EDGE
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


REFUSED = [
    RefusedCase(
        "TGNMemory", lambda: models.TGNMemory(
            10, EDGE, 8, 6, tgn.IdentityMessage(EDGE, 8, 6), tgn.LastAggregator()),
        lambda g: (torch.arange(4),), cause="known only at run time", place="tgn.py"),
    RefusedCase(
        "homophily-edge_insensitive", Homophily, lambda g: (g.edge_index, g.kind[: g.x.size(0)]),
        cause="values of different types", place="_homophily.py"),
]  # fmt: skip
