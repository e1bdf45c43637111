"""The forms in which models call convs: for each, a typed model and the inputs it takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional, Tuple

from torch import Tensor, nn

from conformance.graphs import Graph


class Model(nn.Module):
    """A model of one conv; each subclass calls it in another form."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv


class Plain(Model):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x, edge_index)


class ThirdArgument(Model):
    def forward(self, x: Tensor, edge_index: Tensor, third: Tensor) -> Tensor:
        return self.conv(x, edge_index, third)


class FourthArgument(Model):
    def forward(self, x: Tensor, edge_index: Tensor, third: Tensor, fourth: Tensor) -> Tensor:
        return self.conv(x, edge_index, third, fourth)


class Optionally(Model):
    """Hands on an argument that it was perhaps not given itself."""

    def forward(self, x: Tensor, edge_index: Tensor, third: Optional[Tensor] = None) -> Tensor:
        return self.conv(x, edge_index, third)


class KeywordWeight(Model):
    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        return self.conv(edge_weight=weight, x=x, edge_index=edge_index)


class KeywordAttr(Model):
    def forward(self, x: Tensor, edge_index: Tensor, attr: Tensor) -> Tensor:
        return self.conv(x, edge_index, edge_attr=attr)


class Pair(Model):
    def forward(self, x_src: Tensor, x_dst: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv((x_src, x_dst), edge_index)


class PairAttr(Model):
    def forward(self, x_src: Tensor, x_dst: Tensor, edge_index: Tensor, attr: Tensor) -> Tensor:
        return self.conv((x_src, x_dst), edge_index, attr)


class PairSized(Model):
    def forward(self, x_src: Tensor, x_dst: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv((x_src, x_dst), edge_index, size=(x_src.size(0), x_dst.size(0)))


class PairVariable(Model):
    """Holds the pair in a variable whose second part may be missing."""

    def forward(self, x: Tuple[Tensor, Optional[Tensor]], edge_index: Tensor) -> Tensor:
        return self.conv(x, edge_index)


class SourceSized(Model):
    def forward(self, x_src: Tensor, edge_index: Tensor, num_dst: int) -> Tensor:
        return self.conv((x_src, None), edge_index, size=(x_src.size(0), num_dst))


class SourceSizedAttr(Model):
    def forward(self, x_src: Tensor, edge_index: Tensor, attr: Tensor, num_dst: int) -> Tensor:
        return self.conv((x_src, None), edge_index, edge_attr=attr, size=(x_src.size(0), num_dst))


class Attention(Model):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tuple[Tensor, Tuple[Tensor, Tensor]]:
        return self.conv(x, edge_index, return_attention_weights=True)


class AttentionAttr(Model):
    def forward(self, x: Tensor, edge_index: Tensor, attr: Tensor) -> Tuple[Tensor, Tensor]:
        out, (_, alpha) = self.conv(x, edge_index, attr, return_attention_weights=True)
        return out, alpha


class AttentionPair(Model):
    def forward(
        self, x_src: Tensor, x_dst: Tensor, edge_index: Tensor
    ) -> Tuple[Tensor, Tuple[Tensor, Tensor]]:
        return self.conv((x_src, x_dst), edge_index, return_attention_weights=True)


class Relational(Model):
    def forward(self, x: Tensor, edge_index: Tensor, kind: Tensor) -> Tensor:
        return self.conv(x, edge_index, edge_type=kind)


class RelationalPair(Model):
    def forward(self, x_src: Tensor, x_dst: Tensor, edge_index: Tensor, kind: Tensor) -> Tensor:
        return self.conv((x_src, x_dst), edge_index, kind)


class Featureless(Model):
    def forward(self, edge_index: Tensor, kind: Tensor) -> Tensor:
        return self.conv(None, edge_index, kind)


class NumEdges(Model):
    def forward(self, x: Tensor, edge_index: Tensor, num_edges: int) -> Tensor:
        return self.conv(x, edge_index, num_edges=num_edges)


class Hyperedges(Model):
    def forward(self, x: Tensor, edge_index: Tensor, hyperedge_attr: Tensor) -> Tensor:
        return self.conv(x, edge_index, hyperedge_attr=hyperedge_attr)


class FifthArgument(Model):
    def forward(
        self, x: Tensor, edge_index: Tensor, third: Tensor, fourth: Tensor, fifth: Tensor
    ) -> Tensor:
        return self.conv(x, edge_index, third, fourth, fifth)


class StartAttention(Model):
    def forward(
        self, x: Tensor, start: Tensor, edge_index: Tensor
    ) -> Tuple[Tensor, Tuple[Tensor, Tensor]]:
        return self.conv(x, start, edge_index, return_attention_weights=True)


class RelationalAttention(Model):
    def forward(
        self, x: Tensor, edge_index: Tensor, kind: Tensor, attr: Tensor
    ) -> Tuple[Tensor, Tuple[Tensor, Tensor]]:
        return self.conv(x, edge_index, kind, attr, return_attention_weights=True)


class Batched(Model):
    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        return self.conv(x, edge_index, batch=batch)


class Cloud(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Clouds(Model):
    def forward(self, x: Tensor, batch: Tensor) -> Tensor:
        return self.conv(x, batch)


class BatchedAttr(Model):
    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor, attr: Tensor) -> Tensor:
        return self.conv(x, edge_index, batch, edge_attr=attr)


class PositionsOnly(Model):
    def forward(self, pos: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(None, pos, edge_index)


class PositionsPair(Model):
    def forward(self, pos: Tensor, pos_dst: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv((None, None), (pos, pos_dst), edge_index)


class PointsPair(Model):
    def forward(
        self, x: Tensor, x_dst: Tensor, pos: Tensor, pos_dst: Tensor, edge_index: Tensor
    ) -> Tensor:
        return self.conv((x, x_dst), (pos, pos_dst), edge_index)


class NormalsOnly(Model):
    def forward(self, pos: Tensor, normal: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(None, pos, normal, edge_index)


class NormalsPair(Model):
    def forward(self, pos: Tensor, pos_dst: Tensor, edge_index: Tensor) -> Tensor:
        normal = (pos + 1.0, pos_dst - 1.0)
        return self.conv(None, (pos, pos_dst), normal, edge_index)


class SignedPair(Model):
    def forward(self, x: Tensor, x_dst: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return self.conv((x, x_dst), first, second)


class LambdaMax(Model):
    def forward(
        self, x: Tensor, edge_index: Tensor, weight: Tensor, batch: Tensor, lambda_max: Tensor
    ) -> Tensor:
        return self.conv(x, edge_index, weight, batch=batch, lambda_max=lambda_max)


@dataclass(frozen=True)
class Form:
    """One way to call a conv.

    Attributes:
        name: The readable part of a test's id.
        model: The model around the conv; None where the conv itself is the root.
        inputs: The arguments for a graph, made from the graph's values.
    """

    name: str
    model: type[Model] | None
    inputs: Callable[[Graph], tuple[Any, ...]]


def _x(g: Graph) -> tuple[Any, ...]:
    return g.x, g.edge_index


ROOT = Form("root", None, _x)
ROOT_WEIGHT = Form("root-weight", None, lambda g: (*_x(g), g.weight))
ROOT_ATTR = Form("root-attr", None, lambda g: (*_x(g), g.attr))
ROOT_WIDE_ATTR = Form("root-attr", None, lambda g: (*_x(g), g.wide_attr))
ROOT_KIND = Form("root-type", None, lambda g: (*_x(g), g.kind))
ROOT_HYPER = Form("root", None, lambda g: (g.x, g.bipartite))

PLAIN = Form("plain", Plain, _x)
PLAIN_SORTED = Form("plain", Plain, lambda g: (g.x, g.sorted_edge_index))
PLAIN_BATCHED = Form("batched", Plain, lambda g: (g.x.expand(2, -1, -1) + 1, g.edge_index))
WEIGHT = Form("weight", ThirdArgument, lambda g: (*_x(g), g.weight))
WEIGHT_KEYWORD = Form("weight-keyword", KeywordWeight, lambda g: (*_x(g), g.weight))
ATTR = Form("attr", ThirdArgument, lambda g: (*_x(g), g.attr))
ATTR_1D = Form("attr-1d", ThirdArgument, lambda g: (*_x(g), g.weight))
WIDE_ATTR = Form("attr", ThirdArgument, lambda g: (*_x(g), g.wide_attr))
ATTR_KEYWORD = Form("attr-keyword", KeywordAttr, lambda g: (*_x(g), g.attr))
OPTIONAL_WEIGHT = Form("optional-given", Optionally, lambda g: (*_x(g), g.weight))
OPTIONAL_NONE = Form("optional-none", Optionally, _x)
PAIR = Form("pair", Pair, lambda g: (g.x, g.x_dst, g.bipartite))
PAIR_OTHER = Form("pair", Pair, lambda g: (g.x, g.x_other, g.bipartite))
PAIR_ATTR = Form("pair-attr", PairAttr, lambda g: (g.x, g.x_other, g.bipartite, g.attr))
PAIR_WIDE_ATTR = Form("pair-attr", PairAttr, lambda g: (g.x, g.x_dst, g.bipartite, g.wide_attr))
PAIR_SIZED = Form("pair-sized", PairSized, lambda g: (g.x, g.x_other, g.bipartite))
PAIR_VARIABLE = Form("pair-variable", PairVariable, lambda g: ((g.x, g.x_dst), g.bipartite))
SOURCE = Form("source-only", SourceSized, lambda g: (g.x, g.bipartite, g.x_dst.size(0)))
SOURCE_ATTR = Form(
    "source-only-attr", SourceSizedAttr, lambda g: (g.x, g.bipartite, g.attr, g.x_dst.size(0))
)
SOURCE_WIDE_ATTR = Form(
    "source-only-attr", SourceSizedAttr, lambda g: (g.x, g.bipartite, g.wide_attr, g.x_dst.size(0))
)
ATTENTION = Form("attention", Attention, _x)
ATTENTION_ATTR = Form("attention-attr", AttentionAttr, lambda g: (*_x(g), g.attr))
ATTENTION_PAIR = Form("attention-pair", AttentionPair, lambda g: (g.x, g.x_other, g.bipartite))
KIND = Form("type", ThirdArgument, lambda g: (*_x(g), g.kind))
KIND_KEYWORD = Form("type-keyword", Relational, lambda g: (*_x(g), g.kind))
KIND_PAIR = Form("type-pair", RelationalPair, lambda g: (g.x, g.x_other, g.bipartite, g.kind))
KIND_INDEX = Form("type-index", ThirdArgument, lambda g: (g.batch.cumsum(0), g.edge_index, g.kind))
KIND_FEATURELESS = Form("type-featureless", Featureless, lambda g: (g.edge_index, g.kind))
HYPER = Form("hyper", Plain, lambda g: (g.x, g.bipartite))
HYPER_WEIGHT = Form(
    "hyper-weight", ThirdArgument, lambda g: (g.x, g.bipartite, g.x_dst[: g.hyperedges, 0].exp())
)
HYPER_NUM_EDGES = Form("hyper-num-edges", NumEdges, lambda g: (g.x, g.bipartite, g.x_dst.size(0)))
HYPER_ATTR = Form("hyper-attr", Hyperedges, lambda g: (g.x, g.bipartite, g.x_dst[: g.hyperedges]))
HYPER_WEIGHT_ATTR = Form(
    "hyper-weight-attr",
    FourthArgument,
    lambda g: (g.x, g.bipartite, g.x_dst[: g.hyperedges, 0].exp(), g.x_dst[: g.hyperedges]),
)
LAMBDA_MAX = Form(
    "lambda-max",
    LambdaMax,
    lambda g: (*_x(g), g.weight, g.batch, g.batch.new_tensor([2, 3]).to(g.x)),
)

# Convs with a third or fourth argument of their own, called by position.
START = Form("start", ThirdArgument, lambda g: (g.x, g.wide_start, g.edge_index))
ROOT_START = Form("root", None, lambda g: (g.x, g.wide_start, g.edge_index))
START_WEIGHT = Form(
    "start-weight", FourthArgument, lambda g: (g.x, g.wide_start, g.edge_index, g.weight)
)
START_ATTENTION = Form("attention", StartAttention, lambda g: (g.x, g.wide_start, g.edge_index))
ROOT_LAYERS = Form("root", None, lambda g: (g.layers, g.edge_index))
LAYERS = Form("layers", Plain, lambda g: (g.layers, g.edge_index))
LAYERS_WEIGHT = Form("layers-weight", ThirdArgument, lambda g: (g.layers, g.edge_index, g.weight))
BATCH = Form("batch", Batched, lambda g: (*_x(g), g.batch))
BATCH_ATTR = Form("batch-attr", BatchedAttr, lambda g: (*_x(g), g.batch, g.attr))
NEGATIVE = Form("negative", ThirdArgument, lambda g: (*_x(g), g.edge_index.flip(1)[:, ::2]))
MESH = Form("mesh", Plain, lambda g: (g.x, g.mesh))
ROOT_MESH = Form("root", None, lambda g: (g.x, g.mesh))

ROOT_POINTS = Form("root", None, lambda g: (g.x, g.pos, g.edge_index))
POINTS = Form("points", ThirdArgument, lambda g: (g.x, g.pos, g.edge_index))
POINTS_PAIR = Form(
    "points-pair", PointsPair, lambda g: (g.x, g.x_dst, g.pos, g.pos_dst, g.bipartite)
)
POSITIONS = Form("positions", PositionsOnly, lambda g: (g.pos, g.edge_index))
POSITIONS_PAIR = Form("positions-pair", PositionsPair, lambda g: (g.pos, g.pos_dst, g.bipartite))
ROOT_NORMALS = Form("root", None, lambda g: (g.x, g.pos, g.pos.flip(0), g.edge_index))
NORMALS = Form("normals", FourthArgument, lambda g: (g.x, g.pos, g.pos.flip(0), g.edge_index))
NORMALS_ONLY = Form("normals-only", NormalsOnly, lambda g: (g.pos, g.pos.flip(0), g.edge_index))
NORMALS_PAIR = Form("normals-pair", NormalsPair, lambda g: (g.pos, g.pos_dst, g.bipartite))

KIND_ATTR = Form("type-attr", FourthArgument, lambda g: (*_x(g), g.kind, g.attr))
KIND_ATTENTION = Form("type-attention", RelationalAttention, lambda g: (*_x(g), g.kind, g.attr))
ROOT_SIGNED = Form("root", None, lambda g: (g.x, g.edge_index, g.edge_index.flip(0)))
SIGNED = Form("signed", ThirdArgument, lambda g: (g.x, g.edge_index, g.edge_index.flip(0)))
SIGNED_PAIR = Form(
    "signed-pair", SignedPair, lambda g: (g.x, g.x_dst, g.bipartite, g.bipartite.roll(1, 1))
)
ROOT_TYPES = Form("root", None, lambda g: (*_x(g), g.batch, g.kind, g.attr))
TYPES = Form("types", FifthArgument, lambda g: (*_x(g), g.batch, g.kind, g.attr))
UNIT_ATTR = Form("unit-attr", ThirdArgument, lambda g: (*_x(g), g.attr.sigmoid()))
CLOUD = Form("cloud", Cloud, lambda g: (g.x,))
CLOUDS = Form("clouds", Clouds, lambda g: (g.x, g.batch))
POSITIONED = Form("points", ThirdArgument, lambda g: (g.x, g.pos, g.batch))
