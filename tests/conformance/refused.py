"""What of PyG's no script can hold: each is refused where it stands, with the reason."""

from __future__ import annotations

from dataclasses import dataclass

import torch_geometric.utils as utils
from torch import Tensor, nn

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


class PreferentiallyAttached(nn.Module):
    """Each edge is drawn by NumPy, from those that there are by then."""

    def forward(self, x: Tensor) -> Tensor:
        return utils.barabasi_albert_graph(x.size(0), 2)


REFUSED = [
    RefusedCase(
        "barabasi_albert_graph", PreferentiallyAttached, lambda g: (g.x,),
        cause="draws random numbers in Python", place="random.py"),
]  # fmt: skip
