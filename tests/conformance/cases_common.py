"""The convs most used, with the constructor options that change their code."""

from __future__ import annotations

import torch
import torch_geometric.nn as pyg
from torch import nn

from conformance import forms as f
from conformance.case import Case, histogram, mlp
from conformance.graphs import EDGE, GRAPHS, IN, OTHER, OUT, RELATIONS

GCN = [
    Case("GCNConv", "default", lambda c: c(IN, OUT),
         (f.ROOT, f.ROOT_WEIGHT, f.PLAIN, f.WEIGHT, f.WEIGHT_KEYWORD, f.OPTIONAL_WEIGHT,
          f.OPTIONAL_NONE, f.PLAIN_BATCHED)),
    Case("GCNConv", "improved", lambda c: c(IN, OUT, improved=True), (f.PLAIN, f.WEIGHT)),
    Case("GCNConv", "cached", lambda c: c(IN, OUT, cached=True), (f.ROOT, f.PLAIN, f.WEIGHT),
         same_graph=True),
    Case("GCNConv", "no-normalize", lambda c: c(IN, OUT, normalize=False), (f.PLAIN, f.WEIGHT)),
    Case("GCNConv", "no-self-loops", lambda c: c(IN, OUT, add_self_loops=False),
         (f.PLAIN, f.WEIGHT)),
    Case("GCNConv", "no-bias", lambda c: c(IN, OUT, bias=False), (f.ROOT, f.PLAIN)),
    Case("GCNConv", "reverse-flow", lambda c: c(IN, OUT, flow="target_to_source"), (f.WEIGHT,)),
    Case("GCNConv", "max", lambda c: c(IN, OUT, aggr="max"), (f.PLAIN,)),
    Case("GCNConv", "decomposed", lambda c: c(IN, OUT, decomposed_layers=2), (f.PLAIN, f.WEIGHT)),
]  # fmt: skip

SAGE = [
    Case("SAGEConv", "default", lambda c: c(IN, OUT),
         (f.ROOT, f.PLAIN, f.PAIR, f.PAIR_VARIABLE, f.SOURCE)),
    Case("SAGEConv", "bipartite", lambda c: c((IN, OTHER), OUT), (f.PAIR_OTHER, f.PAIR_SIZED)),
    Case("SAGEConv", "max", lambda c: c(IN, OUT, aggr="max"), (f.PLAIN,)),
    Case("SAGEConv", "min", lambda c: c(IN, OUT, aggr="min"), (f.PLAIN,)),
    Case("SAGEConv", "mul", lambda c: c(IN, OUT, aggr="mul"), (f.PLAIN,)),
    Case("SAGEConv", "std", lambda c: c(IN, OUT, aggr="std"), (f.PLAIN,)),
    Case("SAGEConv", "median", lambda c: c(IN, OUT, aggr="median"), (f.PLAIN,)),
    Case("SAGEConv", "softmax-learned",
         lambda c: c(IN, OUT, aggr="softmax", aggr_kwargs={"learn": True}), (f.PLAIN,)),
    Case("SAGEConv", "lstm", lambda c: c(IN, OUT, aggr="lstm"), (f.PLAIN_SORTED,)),
    Case("SAGEConv", "aggr-list", lambda c: c(IN, OUT, aggr=["mean", "max", "std"]),
         (f.ROOT, f.PLAIN, f.PAIR)),
    Case("SAGEConv", "aggr-module",
         lambda c: c(IN, OUT, aggr=pyg.aggr.MultiAggregation(["sum", "min"])), (f.PLAIN,)),
    Case("SAGEConv", "project", lambda c: c(IN, OUT, project=True), (f.PLAIN, f.PAIR, f.SOURCE)),
    Case("SAGEConv", "normalize", lambda c: c(IN, OUT, normalize=True), (f.PLAIN,)),
    Case("SAGEConv", "no-root", lambda c: c(IN, OUT, root_weight=False), (f.PLAIN, f.SOURCE)),
    Case("SAGEConv", "no-bias", lambda c: c(IN, OUT, bias=False), (f.PLAIN,)),
    Case("SAGEConv", "reverse-flow", lambda c: c(IN, OUT, flow="target_to_source"), (f.PLAIN,)),
]  # fmt: skip

GIN = [
    Case("GINConv", "mlp", lambda c: c(mlp(IN, OUT)),
         (f.ROOT, f.PLAIN, f.PAIR, f.PAIR_VARIABLE, f.SOURCE)),
    Case("GINConv", "linear", lambda c: c(nn.Linear(IN, OUT)), (f.PLAIN,)),
    Case("GINConv", "batch-norm", lambda c: c(mlp(IN, OUT, norm=True)), (f.PLAIN,)),
    Case("GINConv", "train-eps", lambda c: c(mlp(IN, OUT), eps=0.5, train_eps=True),
         (f.ROOT, f.PLAIN)),
    Case("GINConv", "pyg-mlp", lambda c: c(pyg.MLP([IN, 5, OUT])), (f.PLAIN,)),
    Case("GINEConv", "default", lambda c: c(mlp(IN, OUT)),
         (f.ROOT_WIDE_ATTR, f.WIDE_ATTR, f.PAIR_WIDE_ATTR, f.SOURCE_WIDE_ATTR)),
    Case("GINEConv", "edge-dim", lambda c: c(mlp(IN, OUT), edge_dim=EDGE),
         (f.ROOT_ATTR, f.ATTR, f.ATTR_KEYWORD, f.SOURCE_ATTR)),
    Case("GINEConv", "train-eps", lambda c: c(mlp(IN, OUT), train_eps=True), (f.WIDE_ATTR,)),
]  # fmt: skip

GAT = [
    Case("GATConv", "default", lambda c: c(IN, OUT),
         (f.ROOT, f.PLAIN, f.PAIR, f.PAIR_VARIABLE, f.ATTENTION)),
    Case("GATConv", "heads", lambda c: c(IN, OUT, heads=3), (f.PLAIN, f.ATTENTION)),
    Case("GATConv", "mean-of-heads", lambda c: c(IN, OUT, heads=3, concat=False), (f.PLAIN,)),
    Case("GATConv", "residual", lambda c: c(IN, OUT, heads=2, residual=True),
         (f.ROOT, f.PLAIN, f.PAIR)),
    Case("GATConv", "edge-dim", lambda c: c(IN, OUT, heads=2, edge_dim=EDGE),
         (f.ROOT_ATTR, f.PLAIN, f.ATTR, f.ATTR_KEYWORD, f.ATTENTION_ATTR)),
    Case("GATConv", "edge-dim-1", lambda c: c(IN, OUT, edge_dim=1, fill_value="max"),
         (f.ATTR_1D,)),
    Case("GATConv", "fill-value", lambda c: c(IN, OUT, edge_dim=EDGE, fill_value=0.5), (f.ATTR,)),
    Case("GATConv", "fill-tensor",
         lambda c: c(IN, OUT, edge_dim=EDGE, fill_value=torch.tensor([0.5, 1.0, 2.0])), (f.ATTR,)),
    Case("GATConv", "no-self-loops", lambda c: c(IN, OUT, add_self_loops=False),
         (f.PLAIN, f.ATTENTION)),
    Case("GATConv", "no-bias", lambda c: c(IN, OUT, bias=False), (f.PLAIN,)),
    Case("GATConv", "dropout", lambda c: c(IN, OUT, heads=2, dropout=0.5), (f.ROOT, f.PLAIN)),
    Case("GATConv", "bipartite", lambda c: c((IN, OTHER), OUT, add_self_loops=False),
         (f.PAIR_OTHER, f.PAIR_SIZED, f.SOURCE, f.ATTENTION_PAIR)),
    Case("GATConv", "bipartite-residual",
         lambda c: c((IN, OTHER), OUT, heads=2, add_self_loops=False, residual=True,
                     edge_dim=EDGE),
         (f.PAIR_OTHER, f.PAIR_ATTR, f.SOURCE_ATTR)),
    Case("GATv2Conv", "default", lambda c: c(IN, OUT),
         (f.ROOT, f.PLAIN, f.PAIR, f.ATTENTION)),
    Case("GATv2Conv", "share-weights", lambda c: c(IN, OUT, heads=2, share_weights=True),
         (f.PLAIN,)),
    Case("GATv2Conv", "mean-of-heads", lambda c: c(IN, OUT, heads=2, concat=False), (f.PLAIN,)),
    Case("GATv2Conv", "residual", lambda c: c(IN, OUT, residual=True), (f.PLAIN, f.PAIR)),
    Case("GATv2Conv", "edge-dim", lambda c: c(IN, OUT, heads=2, edge_dim=EDGE),
         (f.ROOT_ATTR, f.PLAIN, f.ATTR, f.ATTENTION_ATTR)),
    Case("GATv2Conv", "no-self-loops", lambda c: c(IN, OUT, add_self_loops=False, bias=False),
         (f.PLAIN,)),
    Case("GATv2Conv", "dropout", lambda c: c(IN, OUT, heads=2, dropout=0.5), (f.PLAIN,)),
    Case("GATv2Conv", "bipartite", lambda c: c((IN, OTHER), OUT, add_self_loops=False),
         (f.PAIR_OTHER, f.ATTENTION_PAIR)),
]  # fmt: skip

EDGE_CONV = [
    Case("EdgeConv", "default", lambda c: c(mlp(2 * IN, OUT)), (f.ROOT, f.PLAIN, f.PAIR)),
    Case("EdgeConv", "mean", lambda c: c(mlp(2 * IN, OUT), aggr="mean"), (f.PLAIN,)),
    Case("EdgeConv", "sum", lambda c: c(mlp(2 * IN, OUT), aggr="add"), (f.PLAIN,)),
    Case("EdgeConv", "batch-norm", lambda c: c(mlp(2 * IN, OUT, norm=True)), (f.PLAIN,)),
    Case("EdgeConv", "reverse-flow",
         lambda c: c(mlp(2 * IN, OUT), aggr="add", flow="target_to_source"), (f.PLAIN,)),
]  # fmt: skip

TRANSFORMER = [
    Case("TransformerConv", "default", lambda c: c(IN, OUT),
         (f.ROOT, f.PLAIN, f.PAIR, f.ATTENTION)),
    Case("TransformerConv", "beta", lambda c: c(IN, OUT, heads=2, beta=True), (f.PLAIN,)),
    Case("TransformerConv", "mean-of-heads-beta",
         lambda c: c(IN, OUT, heads=2, concat=False, beta=True), (f.PLAIN,)),
    Case("TransformerConv", "edge-dim", lambda c: c(IN, OUT, heads=2, edge_dim=EDGE),
         (f.ROOT_ATTR, f.ATTR, f.ATTR_KEYWORD, f.ATTENTION_ATTR)),
    Case("TransformerConv", "no-root", lambda c: c(IN, OUT, root_weight=False), (f.PLAIN,)),
    Case("TransformerConv", "dropout", lambda c: c(IN, OUT, heads=2, dropout=0.5), (f.PLAIN,)),
    Case("TransformerConv", "no-bias", lambda c: c(IN, OUT, bias=False), (f.PLAIN,)),
    Case("TransformerConv", "bipartite", lambda c: c((IN, OTHER), OUT),
         (f.PAIR_OTHER, f.ATTENTION_PAIR)),
]  # fmt: skip

GENERAL = [
    Case("GeneralConv", "default", lambda c: c(IN, OUT), (f.ROOT, f.PLAIN, f.PAIR)),
    Case("GeneralConv", "same-width", lambda c: c(IN, IN), (f.PLAIN,)),
    Case("GeneralConv", "skip-linear", lambda c: c(IN, IN, skip_linear=True), (f.PLAIN,)),
    Case("GeneralConv", "undirected", lambda c: c(IN, OUT, directed_msg=False), (f.PLAIN,)),
    Case("GeneralConv", "additive-attention", lambda c: c(IN, OUT, heads=2, attention=True),
         (f.ROOT, f.PLAIN)),
    Case("GeneralConv", "dot-product-attention",
         lambda c: c(IN, OUT, heads=2, attention=True, attention_type="dot_product"), (f.PLAIN,)),
    Case("GeneralConv", "edge-channels", lambda c: c(IN, OUT, in_edge_channels=EDGE),
         (f.ROOT_ATTR, f.ATTR, f.ATTR_KEYWORD)),
    Case("GeneralConv", "edge-channels-attention",
         lambda c: c(IN, OUT, in_edge_channels=EDGE, attention=True, directed_msg=False,
                     attention_type="dot_product"), (f.ATTR,)),
    Case("GeneralConv", "l2-normalize", lambda c: c(IN, OUT, l2_normalize=True), (f.PLAIN,)),
    Case("GeneralConv", "max", lambda c: c(IN, OUT, aggr="max"), (f.PLAIN,)),
    Case("GeneralConv", "bipartite", lambda c: c((IN, OTHER), OUT), (f.PAIR_OTHER, f.PAIR_SIZED)),
]  # fmt: skip

HYPERGRAPH = [
    Case("HypergraphConv", "default", lambda c: c(IN, OUT),
         (f.ROOT_HYPER, f.HYPER, f.HYPER_WEIGHT, f.HYPER_NUM_EDGES)),
    Case("HypergraphConv", "no-bias", lambda c: c(IN, OUT, bias=False), (f.HYPER,)),
    Case("HypergraphConv", "attention", lambda c: c(IN, OUT, use_attention=True, heads=2),
         (f.HYPER_ATTR, f.HYPER_WEIGHT_ATTR)),
    Case("HypergraphConv", "edge-attention",
         lambda c: c(IN, OUT, use_attention=True, attention_mode="edge", heads=2), (f.HYPER_ATTR,)),
    Case("HypergraphConv", "mean-of-heads",
         lambda c: c(IN, OUT, use_attention=True, heads=2, concat=False), (f.HYPER_ATTR,)),
    Case("HypergraphConv", "attention-dropout",
         lambda c: c(IN, OUT, use_attention=True, heads=2, dropout=0.5), (f.HYPER_ATTR,)),
]  # fmt: skip

NODES = GRAPHS[1].x.size(0)
RGCN = [
    Case("RGCNConv", "default", lambda c: c(IN, OUT, RELATIONS),
         (f.ROOT_KIND, f.KIND, f.KIND_KEYWORD)),
    Case("RGCNConv", "bases", lambda c: c(IN, OUT, RELATIONS, num_bases=2),
         (f.ROOT_KIND, f.KIND)),
    Case("RGCNConv", "blocks", lambda c: c(IN, OUT, RELATIONS, num_blocks=2), (f.KIND,)),
    Case("RGCNConv", "sum", lambda c: c(IN, OUT, RELATIONS, aggr="add"), (f.KIND,)),
    Case("RGCNConv", "no-root-no-bias",
         lambda c: c(IN, OUT, RELATIONS, root_weight=False, bias=False), (f.KIND,)),
    Case("RGCNConv", "bipartite", lambda c: c((IN, OTHER), OUT, RELATIONS), (f.KIND_PAIR,)),
    Case("RGCNConv", "nodes-as-features", lambda c: c(NODES, OUT, RELATIONS),
         (f.KIND_FEATURELESS, f.KIND_INDEX)),
    Case("RGCNConv", "nodes-as-features-bases", lambda c: c(NODES, OUT, RELATIONS, num_bases=2),
         (f.KIND_FEATURELESS,)),
]  # fmt: skip

AGGREGATORS = ["mean", "min", "max", "std"]
SCALERS = ["identity", "amplification", "attenuation", "linear", "inverse_linear"]
PNA = [
    Case("PNAConv", "default", lambda c: c(IN, OUT, AGGREGATORS, SCALERS, histogram()),
         (f.ROOT, f.PLAIN)),
    Case("PNAConv", "one-of-each", lambda c: c(IN, OUT, ["sum"], ["identity"], histogram()),
         (f.PLAIN,)),
    Case("PNAConv", "towers",
         lambda c: c(IN, OUT, ["mean", "var"], ["identity", "linear"], histogram(), towers=2),
         (f.PLAIN,)),
    Case("PNAConv", "divide-input",
         lambda c: c(IN, OUT, AGGREGATORS, ["amplification"], histogram(), towers=2,
                     divide_input=True), (f.PLAIN,)),
    Case("PNAConv", "edge-dim",
         lambda c: c(IN, OUT, AGGREGATORS, SCALERS, histogram(), edge_dim=EDGE, towers=2),
         (f.ROOT_ATTR, f.ATTR, f.ATTR_KEYWORD)),
    Case("PNAConv", "deep",
         lambda c: c(IN, OUT, ["mean"], SCALERS, histogram(), pre_layers=2, post_layers=3,
                     act="leaky_relu"), (f.PLAIN,)),
    Case("PNAConv", "train-norm",
         lambda c: c(IN, OUT, AGGREGATORS, SCALERS, histogram(), train_norm=True), (f.PLAIN,)),
]  # fmt: skip

NN = [
    Case("NNConv", "default", lambda c: c(IN, OUT, mlp(EDGE, IN * OUT)),
         (f.ROOT_ATTR, f.ATTR, f.ATTR_KEYWORD, f.SOURCE_ATTR)),
    Case("NNConv", "no-root-no-bias",
         lambda c: c(IN, OUT, mlp(EDGE, IN * OUT), root_weight=False, bias=False), (f.ATTR,)),
    Case("NNConv", "mean", lambda c: c(IN, OUT, nn.Linear(EDGE, IN * OUT), aggr="mean"),
         (f.ATTR,)),
    Case("NNConv", "bipartite", lambda c: c((IN, OTHER), OUT, mlp(EDGE, IN * OUT)),
         (f.PAIR_ATTR,)),
    Case("CGConv", "default", lambda c: c(IN), (f.ROOT, f.PLAIN, f.PAIR)),
    Case("CGConv", "dim", lambda c: c(IN, dim=EDGE), (f.ROOT_ATTR, f.ATTR, f.ATTR_KEYWORD)),
    Case("CGConv", "batch-norm", lambda c: c(IN, batch_norm=True), (f.PLAIN,)),
    Case("CGConv", "mean-no-bias", lambda c: c(IN, aggr="mean", bias=False), (f.PLAIN,)),
    Case("CGConv", "bipartite", lambda c: c((IN, OTHER), dim=EDGE), (f.PAIR_ATTR,)),
    Case("ResGatedGraphConv", "default", lambda c: c(IN, OUT), (f.ROOT, f.PLAIN, f.PAIR)),
    Case("ResGatedGraphConv", "edge-dim", lambda c: c(IN, OUT, edge_dim=EDGE),
         (f.ROOT_ATTR, f.ATTR, f.ATTR_KEYWORD)),
    Case("ResGatedGraphConv", "tanh", lambda c: c(IN, OUT, act=nn.Tanh()), (f.PLAIN,)),
    Case("ResGatedGraphConv", "function", lambda c: c(IN, OUT, act=torch.tanh), (f.PLAIN,)),
    Case("ResGatedGraphConv", "no-root-no-bias",
         lambda c: c(IN, OUT, root_weight=False, bias=False), (f.PLAIN,)),
    Case("ResGatedGraphConv", "bipartite", lambda c: c((IN, OTHER), OUT), (f.PAIR_OTHER,)),
]  # fmt: skip

SPECTRAL = [
    Case("ChebConv", "K-1", lambda c: c(IN, OUT, 1), (f.PLAIN,)),
    Case("ChebConv", "K-2", lambda c: c(IN, OUT, 2), (f.ROOT, f.PLAIN, f.WEIGHT)),
    Case("ChebConv", "K-4", lambda c: c(IN, OUT, 4),
         (f.ROOT, f.PLAIN, f.WEIGHT_KEYWORD, f.LAMBDA_MAX)),
    Case("ChebConv", "random-walk", lambda c: c(IN, OUT, 3, normalization="rw"),
         (f.PLAIN, f.LAMBDA_MAX)),
    Case("ChebConv", "unnormalized", lambda c: c(IN, OUT, 3, normalization=None), (f.WEIGHT,)),
    Case("ChebConv", "no-bias", lambda c: c(IN, OUT, 3, bias=False), (f.PLAIN,)),
    Case("APPNP", "default", lambda c: c(3, 0.1),
         (f.ROOT, f.ROOT_WEIGHT, f.PLAIN, f.WEIGHT, f.WEIGHT_KEYWORD)),
    Case("APPNP", "dropout", lambda c: c(3, 0.1, dropout=0.5), (f.ROOT, f.PLAIN, f.WEIGHT)),
    Case("APPNP", "cached", lambda c: c(3, 0.1, cached=True), (f.PLAIN,), same_graph=True),
    Case("APPNP", "no-self-loops", lambda c: c(3, 0.1, add_self_loops=False), (f.PLAIN,)),
    Case("APPNP", "no-normalize", lambda c: c(2, 0.2, normalize=False), (f.PLAIN, f.WEIGHT)),
]  # fmt: skip

COMMON = [
    *GCN, *SAGE, *GIN, *GAT, *EDGE_CONV, *TRANSFORMER, *GENERAL, *HYPERGRAPH, *RGCN, *PNA, *NN,
    *SPECTRAL,
]  # fmt: skip
