"""The table of norms, and the models that call them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.nn import norm

from conformance.graphs import IN, Graph


class Plain(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Two(Plain):
    def forward(self, x: Tensor, second: Tensor) -> Tensor:
        return self.inner(x, second)


class BatchSize(Plain):
    def forward(self, x: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        return self.inner(x, batch, batch_size)


class Pointers(Plain):
    def forward(self, x: Tensor, ptr: Tensor) -> Tensor:
        return self.inner(x, type_ptr=ptr)


@dataclass(frozen=True)
class Form:
    """One way to call a norm: the model, and what it takes from a graph."""

    name: str
    model: Callable[[nn.Module], nn.Module]
    inputs: Callable[[Graph], tuple[object, ...]]


ROOT = Form("root", lambda inner: inner, lambda g: (g.x,))
PLAIN = Form("plain", Plain, lambda g: (g.x,))
BATCH = Form("batch", Two, lambda g: (g.x, g.batch))
SIZED = Form("sized", BatchSize, lambda g: (g.x, g.batch, 2))
MESSAGES = Form("messages", Two, lambda g: (g.x, g.wide_start))
TYPES = Form("types", Two, lambda g: (g.x, g.batch))
POINTERS = Form("pointers", Pointers, lambda g: (g.x, torch.tensor([0, 3, g.x.size(0)])))

ALL = (ROOT, PLAIN, BATCH, SIZED)


@dataclass(frozen=True)
class NormCase:
    """One configuration of a norm."""

    name: str
    make: Callable[[], nn.Module]
    forms: tuple[Form, ...]


C = NormCase

NORMS = [
    C("BatchNorm", lambda: norm.BatchNorm(IN), (ROOT, PLAIN)),
    C("BatchNorm-single", lambda: norm.BatchNorm(IN, allow_single_element=True), (PLAIN,)),
    C("BatchNorm-plain", lambda: norm.BatchNorm(IN, momentum=None, affine=False), (PLAIN,)),
    C("BatchNorm-untracked", lambda: norm.BatchNorm(IN, track_running_stats=False), (PLAIN,)),
    C("HeteroBatchNorm", lambda: norm.HeteroBatchNorm(IN, 2), (TYPES,)),
    C("HeteroBatchNorm-plain",
      lambda: norm.HeteroBatchNorm(IN, 2, affine=False, track_running_stats=False), (TYPES,)),
    C("InstanceNorm", lambda: norm.InstanceNorm(IN), ALL),
    C("InstanceNorm-tracked",
      lambda: norm.InstanceNorm(IN, affine=True, track_running_stats=True), (PLAIN, BATCH, SIZED)),
    C("LayerNorm", lambda: norm.LayerNorm(IN), ALL),
    C("LayerNorm-node", lambda: norm.LayerNorm(IN, mode="node"), (PLAIN, BATCH)),
    C("LayerNorm-plain", lambda: norm.LayerNorm(IN, affine=False), (PLAIN, BATCH)),
    C("HeteroLayerNorm", lambda: norm.HeteroLayerNorm(IN, 2), (TYPES, POINTERS)),
    C("HeteroLayerNorm-plain", lambda: norm.HeteroLayerNorm(IN, 2, affine=False), (TYPES,)),
    C("GraphNorm", lambda: norm.GraphNorm(IN), ALL),
    C("GraphSizeNorm", norm.GraphSizeNorm, ALL),
    C("PairNorm", norm.PairNorm, ALL),
    C("PairNorm-individual", lambda: norm.PairNorm(2.0, scale_individually=True), (PLAIN, BATCH)),
    C("MeanSubtractionNorm", norm.MeanSubtractionNorm, ALL),
    C("MessageNorm", norm.MessageNorm, (MESSAGES,)),
    C("MessageNorm-learned", lambda: norm.MessageNorm(learn_scale=True), (MESSAGES,)),
    C("DiffGroupNorm", lambda: norm.DiffGroupNorm(IN, 3), (ROOT, PLAIN)),
    C("DiffGroupNorm-plain",
      lambda: norm.DiffGroupNorm(IN, 2, affine=False, track_running_stats=False), (PLAIN,)),
]  # fmt: skip
