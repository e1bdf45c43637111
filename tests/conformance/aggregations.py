"""The table of aggregations and norms, and the models that call them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric.nn import aggr

from conformance.case import histogram, mlp
from conformance.graphs import IN, OUT, Graph


class Indexed(nn.Module):
    """Aggregates by an index; the number of sets is read off it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return self.inner(x, index)


class Sized(Indexed):
    def forward(self, x: Tensor, index: Tensor, dim_size: int) -> Tensor:
        return self.inner(x, index, dim_size=dim_size)


class Pointers(Indexed):
    def forward(self, x: Tensor, ptr: Tensor) -> Tensor:
        return self.inner(x, ptr=ptr)


class Dimension(Indexed):
    def forward(self, x: Tensor, index: Tensor, dim_size: int) -> Tensor:
        return self.inner(x, index, dim_size=dim_size, dim=1)


class Bounded(Indexed):
    """Says how many elements the largest set has."""

    def forward(self, x: Tensor, index: Tensor, dim_size: int, bound: int) -> Tensor:
        return self.inner(x, index, dim_size=dim_size, max_num_elements=bound)


class Whole(Indexed):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class InConv(nn.Module):
    """The aggregation of a conv."""

    def __init__(self, inner: aggr.Aggregation) -> None:
        super().__init__()
        self.conv = pyg.SimpleConv(aggr=inner)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x, edge_index)


@dataclass(frozen=True)
class Form:
    """One way to call an aggregation: the model, and what it takes from a graph."""

    name: str
    model: Callable[[nn.Module], nn.Module]
    inputs: Callable[[Graph], tuple[object, ...]]


def _ptr(g: Graph) -> Tensor:
    return torch.tensor([0, 2, 2, g.x.size(0) - 1, g.x.size(0)])


INDEX = Form("index", Indexed, lambda g: (g.x, g.edge_index[1, : g.x.size(0)].sort()[0]))
UNSORTED = Form("unsorted", Indexed, lambda g: (g.wide_attr, g.edge_index[1]))
SIZED = Form("sized", Sized, lambda g: (g.x, g.batch * 2, 4))
POINTERS = Form("pointers", Pointers, lambda g: (g.x, _ptr(g)))
DIMENSION = Form("dim-1", Dimension, lambda g: (torch.stack([g.x, 1 - g.x]), g.batch, 3))
BOUNDED = Form("bounded", Bounded, lambda g: (g.x, g.batch, 3, g.x.size(0)))
WHOLE = Form("whole", Whole, lambda g: (g.x,))
IN_CONV = Form("in-conv", InConv, lambda g: (g.x, g.sorted_edge_index))

BASIC = (INDEX, UNSORTED, SIZED, POINTERS, DIMENSION, WHOLE, IN_CONV)
BY_INDEX = (INDEX, UNSORTED, SIZED, DIMENSION, IN_CONV)
FLAT = (INDEX, UNSORTED, SIZED, IN_CONV)
DENSE = (INDEX, SIZED, BOUNDED, IN_CONV)


@dataclass(frozen=True)
class AggregationCase:
    """One configuration of an aggregation.

    Attributes:
        name: The class and the option.
        make: Makes it.
        forms: The call forms.
        modes: The modes in which results can be compared.
    """

    name: str
    make: Callable[[], aggr.Aggregation]
    forms: tuple[Form, ...]
    modes: tuple[str, ...] = ("eval", "train")


C = AggregationCase


def _multi(mode: str, **kwargs: object) -> Callable[[], aggr.Aggregation]:
    return lambda: aggr.MultiAggregation(["sum", "max", "std"], mode=mode, mode_kwargs=kwargs)


AGGREGATIONS = [
    C("sum", aggr.SumAggregation, BASIC),
    C("mean", aggr.MeanAggregation, BASIC),
    C("max", aggr.MaxAggregation, BASIC),
    C("min", aggr.MinAggregation, BASIC),
    C("mul", aggr.MulAggregation, BY_INDEX),
    C("var", aggr.VarAggregation, BASIC),
    C("var-semi-grad", lambda: aggr.VarAggregation(semi_grad=True), BY_INDEX),
    C("std", aggr.StdAggregation, BASIC),
    C("std-semi-grad", lambda: aggr.StdAggregation(semi_grad=True), (INDEX,)),
    C("softmax", aggr.SoftmaxAggregation, BASIC),
    C("softmax-learned", lambda: aggr.SoftmaxAggregation(0.1, learn=True), (INDEX, POINTERS)),
    C("softmax-channels", lambda: aggr.SoftmaxAggregation(learn=True, channels=IN),
      (INDEX, IN_CONV)),
    C("softmax-semi-grad", lambda: aggr.SoftmaxAggregation(0.1, semi_grad=True), (INDEX, SIZED)),
    C("powermean", aggr.PowerMeanAggregation, BASIC),
    C("powermean-learned", lambda: aggr.PowerMeanAggregation(2.0, learn=True), (INDEX, POINTERS)),
    C("powermean-channels", lambda: aggr.PowerMeanAggregation(learn=True, channels=IN), (INDEX,)),
    C("powermean-unclamped", lambda: aggr.PowerMeanAggregation(2.0, clamp_max=None), (INDEX,)),
    C("median", aggr.MedianAggregation, BY_INDEX),
    C("median-fill", lambda: aggr.MedianAggregation(fill_value=7.0), (SIZED,)),
    *[
        C(f"quantile-{how}",
          lambda how=how: aggr.QuantileAggregation(0.3, interpolation=how), (INDEX, SIZED))
        for how in ("linear", "lower", "higher", "nearest", "midpoint")
    ],
    C("quantile-list", lambda: aggr.QuantileAggregation([0.1, 0.5, 0.9]),
      (INDEX, SIZED, DIMENSION, IN_CONV)),
    C("lstm", lambda: aggr.LSTMAggregation(IN, OUT), DENSE),
    C("gru", lambda: aggr.GRUAggregation(IN, OUT), DENSE),
    C("lstm-layers", lambda: aggr.LSTMAggregation(IN, OUT, num_layers=2, bidirectional=True),
      (INDEX,)),
    C("set2set", lambda: aggr.Set2Set(IN, processing_steps=2), (INDEX, UNSORTED, SIZED)),
    C("set2set-layers", lambda: aggr.Set2Set(IN, processing_steps=3, num_layers=2), (SIZED,)),
    C("degree-scaler",
      lambda: aggr.DegreeScalerAggregation(
          ["mean", "std"], ["identity", "amplification", "attenuation"], histogram()),
      (INDEX, UNSORTED, SIZED, IN_CONV)),
    C("degree-scaler-learned",
      lambda: aggr.DegreeScalerAggregation(
          ["sum"], ["linear", "inverse_linear"], histogram(), train_norm=True), (INDEX,)),
    C("sort", lambda: aggr.SortAggregation(3), DENSE),
    C("graph-multiset", lambda: aggr.GraphMultisetTransformer(IN, 3, heads=2), DENSE),
    C("graph-multiset-norm",
      lambda: aggr.GraphMultisetTransformer(IN, 2, num_encoder_blocks=2, layer_norm=True),
      (INDEX,)),
    C("attentional", lambda: aggr.AttentionalAggregation(nn.Linear(IN, 1)),
      (INDEX, UNSORTED, SIZED, POINTERS, IN_CONV)),
    C("attentional-network",
      lambda: aggr.AttentionalAggregation(mlp(IN, OUT), mlp(IN, OUT, norm=True)), (INDEX,)),
    C("attentional-mlp",
      lambda: aggr.AttentionalAggregation(pyg.MLP([IN, 5, 1]), pyg.MLP([IN, 5, OUT])), (INDEX,)),
    C("mlp", lambda: aggr.MLPAggregation(IN, OUT, 31, num_layers=1), (INDEX, SIZED, IN_CONV)),
    C("mlp-deep",
      lambda: aggr.MLPAggregation(IN, OUT, 31, num_layers=2, hidden_channels=5, norm=None),
      (INDEX,)),
    C("deep-sets", aggr.DeepSetsAggregation, (INDEX, POINTERS)),
    C("deep-sets-networks",
      lambda: aggr.DeepSetsAggregation(mlp(IN, 5), nn.Linear(5, OUT)),
      (INDEX, SIZED, POINTERS, IN_CONV)),
    C("deep-sets-mlp",
      lambda: aggr.DeepSetsAggregation(pyg.MLP([IN, 5, 5]), pyg.MLP([5, OUT])), (INDEX,)),
    C("set-transformer", lambda: aggr.SetTransformerAggregation(IN, heads=2), DENSE),
    C("set-transformer-deep",
      lambda: aggr.SetTransformerAggregation(
          IN, num_seed_points=2, num_encoder_blocks=2, num_decoder_blocks=2, concat=False,
          layer_norm=True), (INDEX, SIZED)),
    C("lcm", lambda: aggr.LCMAggregation(IN, OUT), DENSE),
    C("lcm-plain", lambda: aggr.LCMAggregation(IN, IN, project=False), (INDEX,)),
    C("equilibrium", lambda: aggr.EquilibriumAggregation(IN, OUT, [5], grad_iter=2), (SIZED,)),
    C("variance-preserving", aggr.VariancePreservingAggregation, BASIC),
    C("patch-transformer",
      lambda: aggr.PatchTransformerAggregation(IN, OUT, 2, 6, heads=2, aggr=["mean", "max", "std"]),
      (INDEX, SIZED, BOUNDED)),
    C("patch-transformer-deep",
      lambda: aggr.PatchTransformerAggregation(IN, OUT, 3, 4, num_transformer_blocks=2, aggr="sum"),
      (SIZED,)),
    C("multi-cat", _multi("cat"), BASIC),
    *[
        C(f"multi-{mode}", _multi(mode), (INDEX, SIZED, IN_CONV))
        for mode in ("sum", "mean", "max", "min", "logsumexp", "std", "var")
    ],
    C("multi-proj", _multi("proj", in_channels=IN, out_channels=OUT), (INDEX, IN_CONV)),
    C("multi-attn", _multi("attn", in_channels=IN, out_channels=IN, num_heads=2),
      (INDEX, IN_CONV)),
    C("multi-modules",
      lambda: aggr.MultiAggregation(
          [aggr.SoftmaxAggregation(learn=True), "median", aggr.StdAggregation(), "powermean"]),
      (INDEX, SIZED, IN_CONV)),
    C("multi-of-multi",
      lambda: aggr.MultiAggregation(
          ["mean", aggr.MultiAggregation(["min", "max"], mode="sum")]), (INDEX, IN_CONV)),
]  # fmt: skip
