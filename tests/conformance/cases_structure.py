"""Convs over point clouds, meshes, relations and node types."""

from __future__ import annotations

import torch_geometric.nn as pyg
from torch import nn

from conformance import forms as f
from conformance.case import Case, mlp
from conformance.graphs import EDGE, IN, OTHER, OUT, RELATIONS


def modified(conv: pyg.RGATConv) -> pyg.RGATConv:
    """Sets the one parameter that the class leaves uninitialised: NaN may be in it."""
    nn.init.constant_(conv.l2, 1 / conv.out_channels)
    return conv


POINTS = [
    Case("PointNetConv", "default", lambda c: c(), (f.ROOT_POINTS, f.POINTS)),
    Case("PointNetConv", "networks", lambda c: c(mlp(IN + 3, 5), nn.Linear(5, OUT)),
         (f.POINTS, f.POINTS_PAIR)),
    Case("PointNetConv", "positions-only", lambda c: c(mlp(3, OUT), add_self_loops=False),
         (f.POSITIONS, f.POSITIONS_PAIR)),
    Case("PPFConv", "default", lambda c: c(mlp(IN + 4, OUT)), (f.ROOT_NORMALS, f.NORMALS)),
    Case("PPFConv", "networks",
         lambda c: c(mlp(4, 5), nn.Linear(5, OUT), add_self_loops=False),
         (f.NORMALS_ONLY, f.NORMALS_PAIR)),
    Case("PointTransformerConv", "default", lambda c: c(IN, OUT), (f.ROOT_POINTS, f.POINTS)),
    Case("PointTransformerConv", "networks",
         lambda c: c(IN, OUT, pos_nn=mlp(3, OUT), attn_nn=mlp(OUT, OUT), add_self_loops=False),
         (f.POINTS,)),
    Case("PointTransformerConv", "bipartite", lambda c: c((IN, IN), OUT), (f.POINTS_PAIR,)),
    Case("PointGNNConv", "default",
         lambda c: c(pyg.MLP([IN, 5, 3]), pyg.MLP([3 + IN, 5]), pyg.MLP([5, IN])),
         (f.ROOT_POINTS, f.POINTS)),
    Case("PointGNNConv", "sequential",
         lambda c: c(nn.Linear(IN, 3), mlp(3 + IN, 5), nn.Linear(5, IN)), (f.POINTS,)),
    Case("GMMConv", "default", lambda c: c(IN, OUT, EDGE, 2), (f.ROOT_ATTR, f.ATTR)),
    Case("GMMConv", "separate", lambda c: c(IN, OUT, EDGE, 3, separate_gaussians=True),
         (f.ATTR, f.SOURCE_ATTR)),
    Case("GMMConv", "bipartite", lambda c: c((IN, OTHER), OUT, EDGE, 2, aggr="max"),
         (f.PAIR_ATTR,)),
]  # fmt: skip

SEARCHING = [
    Case("SplineConv", "default", lambda c: c(IN, OUT, EDGE, 3), (f.UNIT_ATTR,)),
    Case("SplineConv", "closed", lambda c: c(IN, OUT, EDGE, [2, 3, 4], is_open_spline=False,
                                             degree=2, root_weight=False), (f.UNIT_ATTR,)),
    Case("GravNetConv", "default", lambda c: c(IN, OUT, 2, 3, k=3), (f.CLOUD, f.CLOUDS)),
    Case("DynamicEdgeConv", "default", lambda c: c(mlp(2 * IN, OUT), k=3), (f.CLOUD, f.CLOUDS)),
    Case("XConv", "default", lambda c: c(IN, OUT, dim=3, kernel_size=2), (f.POSITIONED,)),
]  # fmt: skip

RELATIONAL = [
    Case("FastRGCNConv", "default", lambda c: c(IN, OUT, RELATIONS), (f.ROOT_KIND, f.KIND)),
    Case("FastRGCNConv", "bases", lambda c: c(IN, OUT, RELATIONS, num_bases=2), (f.KIND,)),
    Case("FastRGCNConv", "blocks",
         lambda c: c(IN, OUT, RELATIONS, num_blocks=2, root_weight=False, bias=False), (f.KIND,)),
    Case("FastRGCNConv", "sum", lambda c: c(IN, OUT, RELATIONS, aggr="add"), (f.KIND,)),
    Case("FastRGCNConv", "bipartite", lambda c: c((IN, OTHER), OUT, RELATIONS), (f.KIND_PAIR,)),
    Case("RGATConv", "default", lambda c: c(IN, OUT, RELATIONS), (f.ROOT_KIND, f.KIND)),
    Case("RGATConv", "bases-attr",
         lambda c: c(IN, OUT, RELATIONS, num_bases=2, heads=2, edge_dim=EDGE),
         (f.KIND_ATTR, f.KIND_ATTENTION)),
    Case("RGATConv", "blocks-within",
         lambda c: c(IN, OUT, RELATIONS, num_blocks=2, attention_mechanism="within-relation",
                     concat=False, heads=2), (f.KIND,)),
    *[
        Case("RGATConv", f"{mod}-{mode[:3]}",
             lambda c, mod=mod, mode=mode, dim=dim: modified(
                 c(IN, OUT, RELATIONS, mod=mod, attention_mode=mode, heads=2, dim=dim, bias=False)),
             (f.KIND,))
        for mod in (None, "additive", "scaled", "f-additive", "f-scaled")
        for mode, dim in (("additive-self-attention", 1), ("multiplicative-self-attention", 2))
        if (mod, dim) != (None, 1)
    ],
    Case("RGATConv", "dropout", lambda c: c(IN, OUT, RELATIONS, dropout=0.5), (f.KIND,)),
    Case("FiLMConv", "default", lambda c: c(IN, OUT), (f.ROOT, f.PLAIN, f.PAIR)),
    Case("FiLMConv", "relations", lambda c: c(IN, OUT, num_relations=RELATIONS),
         (f.ROOT_KIND, f.KIND)),
    Case("FiLMConv", "network",
         lambda c: c(IN, OUT, RELATIONS, nn=pyg.Linear(IN, 2 * OUT), act=None, aggr="max"),
         (f.KIND,)),
    Case("FiLMConv", "bipartite", lambda c: c((IN, OTHER), OUT, act=nn.Tanh()), (f.PAIR_OTHER,)),
    Case("SignedConv", "first", lambda c: c(IN, OUT, first_aggr=True),
         (f.ROOT_SIGNED, f.SIGNED, f.SIGNED_PAIR)),
    Case("SignedConv", "deep", lambda c: c(IN // 2, OUT, first_aggr=False, bias=False),
         (f.SIGNED, f.SIGNED_PAIR)),
    Case("HEATConv", "default", lambda c: c(IN, OUT, 2, RELATIONS, 5, EDGE, 4),
         (f.ROOT_TYPES, f.TYPES)),
    Case("HEATConv", "mean-of-heads",
         lambda c: c(IN, OUT, 2, RELATIONS, 5, EDGE, 4, heads=2, concat=False, bias=False,
                     root_weight=False), (f.TYPES,)),
    Case("HEATConv", "dropout", lambda c: c(IN, OUT, 2, RELATIONS, 5, EDGE, 4, dropout=0.5),
         (f.TYPES,), modes=("eval",)),
]  # fmt: skip

STRUCTURE = [*POINTS, *SEARCHING, *RELATIONAL]
