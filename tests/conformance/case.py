"""What a row of the tables is: one configuration of one conv, and the forms to call it in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import degree

from conformance import forms as f
from conformance.graphs import GRAPHS


@dataclass(frozen=True)
class Case:
    """One configuration of one conv and the forms to call it in.

    Attributes:
        conv: The name of the conv in `torch_geometric.nn`.
        option: What is special in this configuration.
        make: Makes the conv from its class.
        forms: The call forms.
        same_graph: Whether the conv may only ever see one graph, as cached ones do.
        modes: The modes in which results can be compared.
    """

    conv: str
    option: str
    make: Callable[[type[MessagePassing]], MessagePassing]
    forms: tuple[f.Form, ...]
    same_graph: bool = False
    modes: tuple[str, ...] = ("eval", "train")


def mlp(inputs: int, outputs: int, norm: bool = False) -> nn.Sequential:
    """Two layers, with or without a batch norm in between."""
    hidden = [nn.BatchNorm1d(5)] if norm else []
    return nn.Sequential(nn.Linear(inputs, 5), *hidden, nn.ReLU(), nn.Linear(5, outputs))


def histogram() -> torch.Tensor:
    """The histogram of in-degrees that PNAConv is made from."""
    degrees = [degree(g.edge_index[1], g.x.size(0), dtype=torch.long) for g in GRAPHS]
    return torch.bincount(torch.cat(degrees))
